"""Every pass keeps what a program computes, on random programs and on traced models."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bossa.ir.interpret import interpret
from bossa.ir.parse import parse_program
from bossa.ir.program import Loop, Program
from bossa.ir.runnable import check_runnable
from bossa.ir.text import print_program
from bossa.ir.verify import verify
from bossa.ops import Linear, Map, Reduce, Select
from bossa.passes import PASSES, name_activations, optimize
from bossa.passes.canonical import canonical
from bossa.passes.fuse import fuse_epilogues, inline_maps, merge_linears
from bossa.passes.rewrite import keep_used
from bossa.passes.roll import roll_layers
from bossa.passes.select import select_rows
from support.programs import joined, random_program, random_weights

EXACT = {inline_maps, keep_used, select_rows, roll_layers}
"""They change neither what is computed nor the shape of a product: the interpreter's bits stay."""
TOLERANCE = 1e-9
"""Of 1 or the largest logit, computed in float64, where NumPy may sum in another order or a constant is rounded
(0.79788456 for the square root of two over pi is off by 1e-9)."""


def _same(program: Program, before: NDArray[np.float64], after: NDArray[np.float64], exact: bool) -> None:
    if exact:
        np.testing.assert_array_equal(before, after, err_msg=print_program(program))
    else:
        scale = max(1.0, float(np.abs(before).max()))
        np.testing.assert_allclose(
            before / scale, after / scale, rtol=0, atol=TOLERANCE, err_msg=print_program(program)
        )


def _sequences(program: Program, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, program.vocab_size, length).tolist() for length in (1, 9, 5)]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32))
def test_every_pass_keeps_the_result_of_random_programs(seed: int) -> None:
    first = program = random_program(random.Random(seed))
    weights, sequences = random_weights(program, seed), _sequences(program, seed)
    before = interpret(program, weights, sequences, dtype=np.float64)
    for run in PASSES:
        program = run(program)
        verify(program)
        after = interpret(program, joined(first, program, weights), sequences, dtype=np.float64)
        _same(program, before, after, run in EXACT)
        before = after


@pytest.mark.parametrize("name", ["gpt2", "bloom", "gemma2", "falcon_grouped", "stablelm_parallel", "opt_post_norm"])
def test_every_pass_keeps_the_result_of_traced_models(name: str) -> None:
    pytest.importorskip("torch")
    from support import zoo

    program = zoo.imported(name)
    model = zoo.build(zoo.MODELS[name].config())
    sequences = _sequences(program, 0)
    before = interpret(program, zoo.weights_of(program, model), sequences, dtype=np.float64)
    for run in PASSES:
        program = run(program)
        after = interpret(program, zoo.weights_of(program, model), sequences, dtype=np.float64)
        scale = float(np.abs(before).max())
        # fp32 constants of the model against those of `gelu_tanh`: 1e-6 at most
        assert float(np.abs(after - before).max()) / scale <= (0 if run in EXACT else 1e-6), run.__name__
        before = after


def _embed(vocabulary: int, width: int) -> str:
    return _slot("e", "rows", vocabulary, width)


def _slot(name: str, layout: str, *shape: int) -> str:
    source = f'{{"names": ["{name}"], "shape": {list(shape)}, "transpose": false}}'
    return (
        f'slot {{"name": "{name}", "layout": "{layout}", "shape": {list(shape)}, "dtype": "fp32",'
        f' "sources": [{source}], "interleave": false}}'
    )


def _program(vocabulary: int, *lines: str) -> Program:
    program = parse_program("\n".join([f'program "p" vocabulary {vocabulary} positions 9 output %y', *lines]))
    verify(program)
    return program


def test_the_canonical_form_has_no_axes_of_one_no_copies_and_no_dead_ops() -> None:
    program = canonical(
        _program(
            4, _embed(4, 4), _slot("unused", "flat", 4), "%x[1,4] = embed $e tokens", "%dead[4] = map neg(%x[4])",
            "%copy[2,1,2] = map %x[2,1,2]", "%y[1,4] = map exp(%copy[1,4])",
        )
    )  # fmt: skip
    assert print_program(program).splitlines()[2:] == ["%x[4] = embed $e tokens", "%y[4] = map exp(%x[4])"]
    assert list(program.slots) == ["e"]


def test_keys_and_values_repeated_for_their_queries_are_kept_once_a_group() -> None:
    program = canonical(
        _program(
            8, _embed(8, 16), "%x[16] = embed $e tokens", "%k[2,2,2] = map %x[2,2,2|2,0,1]+8",
            "%v[2,2,2] = map %x[2,2,2|2,0,1]+12",
            "%y[4,2] = attention %x[4,2] %k[4,2] %v[4,2] layer 0 scale 1.0 window 0 softcap 0.0",
        )
    )  # fmt: skip
    assert "attention %x[4,2] %x[2,2]+8 %x[2,2]+12 layer 0" in print_program(program)


def test_a_chain_of_maps_becomes_one_and_norms_keep_their_reductions() -> None:
    program = inline_maps(
        _program(
            4, _embed(4, 4), "%x[4] = embed $e tokens", "%a[4] = map neg(%x[4])", "%b[4] = map exp(%a[4])",
            "%m[] = reduce mean 1 [4] %b[4]", "%y[4] = map sub(%x[4], %m[4|0])",
        )
    )  # fmt: skip
    assert [type(op) for op in program.body[1:]] == [Reduce, Map]


def test_a_map_that_is_read_transposed_is_not_inlined() -> None:
    lines = (_embed(4, 4), "%x[4] = embed $e tokens", "%a[2,2] = map neg(%x[2,2])", "%y[2,2] = map exp(%a[2,2|1,2])")
    program = _program(4, *lines)
    assert inline_maps(program) == program


def test_bias_activation_and_residual_go_into_the_linear_before_them() -> None:
    program = fuse_epilogues(
        _program(
            5, _embed(5, 5), _slot("w", "panels", 5, 5), "%x[5] = embed $e tokens", "%l[5] = linear %x[5] $w",
            "%y[5] = map add(%x[5], tanh(%l[5]))",
        )
    )  # fmt: skip
    assert "%y[5] = linear %x[5] $w then add(%x[5], tanh(#0[5]))" in print_program(program)


def test_a_gate_and_what_it_gates_become_one_linear_of_two_parts_where_panels_are_whole() -> None:
    def gated(width: int) -> Program:
        return fuse_epilogues(
            _program(
                width, _embed(width, 6), _slot("g", "panels", width, 6), _slot("u", "panels", width, 6),
                "%x[6] = embed $e tokens", f"%g[{width}] = linear %x[6] $g", f"%u[{width}] = linear %x[6] $u",
                f"%y[{width}] = map mul(silu(%g[{width}]), %u[{width}])",
            )
        )  # fmt: skip

    joint = gated(32).body[-1]
    assert isinstance(joint, Linear)
    assert joint.parts == 2
    apart = gated(20).body[-1]
    assert isinstance(apart, Linear)
    assert apart.parts == 1


def test_linears_of_one_input_are_merged_and_their_readers_look_at_their_part() -> None:
    program = merge_linears(
        _program(
            5, _embed(5, 4), _slot("q", "panels", 3, 4), _slot("k", "panels", 5, 4), "%x[4] = embed $e tokens",
            "%q[3] = linear %x[4] $q", "%k[5] = linear %x[4] $k", "%y[5] = map add(%k[5], %q[5|0]+2)",
        )
    )  # fmt: skip
    assert "map add(%qm[5]+3, %qm[5|0]+2)" in print_program(program)
    assert program.slots["q|k"].shape == (8, 4)


def test_where_no_value_alone_makes_the_logits_they_are_selected_from_themselves() -> None:
    """Else the logits of rows that nobody asked for would be written where the caller has no memory for them."""
    program = _program(
        4, _embed(4, 4), "%x[4] = embed $e tokens",
        "%a[1,4] = attention %x[1,4] %x[1,4] %x[1,4] layer 0 scale 1.0 window 0 softcap 0.0",
        "%y[4] = map add(%a[4], %x[4])",
    )  # fmt: skip
    after = select_rows(program)
    check_runnable(after)
    weights = {"e": np.arange(16, dtype=np.float32).reshape(4, 4)}
    expected = interpret(program, weights, [[0, 3, 1]], rows=[0, 1, 2])[[2, 0]]
    np.testing.assert_array_equal(interpret(after, weights, [[0, 3, 1]], rows=[2, 0]), expected)


def test_the_selection_comes_before_the_final_norm_and_outside_the_layers() -> None:
    program = optimize(
        _program(
            3, _embed(3, 4), _slot("h", "panels", 3, 4), "%x[4] = embed $e tokens",
            "%a[1,4] = attention %x[1,4] %x[1,4] %x[1,4] layer 0 scale 1.0 window 0 softcap 0.0",
            "%s[4] = map add(%x[4], %a[4])", "%m[] = reduce mean 1 [4] %s[4]", "%n[4] = map sub(%s[4], %m[4|0])",
            "%y[3] = linear %n[4] $h",
        )
    )  # fmt: skip
    at = next(i for i, op in enumerate(program.body) if isinstance(op, Select))
    assert [type(op) for op in program.body[at + 1 :]] == [Reduce, Map, Linear]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_a_selection_gives_the_logits_of_the_rows_that_are_asked_for(seed: int) -> None:
    program = random_program(random.Random(seed))
    weights, sequences = random_weights(program, seed), _sequences(program, seed)
    chosen = [0, 7, 14]
    expected = interpret(program, weights, sequences, dtype=np.float64)[chosen]
    after = select_rows(program)
    got = interpret(after, weights, sequences, rows=chosen, dtype=np.float64)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)  # products of fewer rows may sum in another order


def test_dead_attention_leaves_no_gap_in_the_layers() -> None:
    attention = "attention %x[1,4] %x[1,4] %x[1,4]"
    program = canonical(
        _program(
            4, _embed(4, 4), "%x[4] = embed $e tokens",
            f"%dead[1,4] = {attention} layer 0 scale 1.0 window 0 softcap 0.0",
            f"%y[1,4] = {attention} layer 1 scale 1.0 window 0 softcap 0.0",
        )
    )  # fmt: skip
    verify(program)
    assert "layer 0" in print_program(program)
    assert not any(isinstance(op, Loop) for op in program.body)


def test_the_activations_pass_leaves_other_programs_alone() -> None:
    program = _program(4, _embed(4, 4), "%x[4] = embed $e tokens", "%y[4] = map mul(%x[4], sigmoid(mul(%x[4], 1.702)))")
    assert name_activations(program) == program
