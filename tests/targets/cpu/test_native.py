"""The generated native programs against the interpreter, on random programs with awkward shapes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bossa.ir.interpret import interpret
from bossa.ir.program import Loop, Op, Program, expressions, row_ops
from bossa.ir.values import Cat, views
from bossa.ops import Attention, CausalConv, Linear, Reduce
from bossa.passes import Precision, optimize
from bossa.passes.rewrite import drop_dead
from bossa.targets.cpu.layout import FEWEST_FUSED_ROWS
from bossa.targets.cpu.toolchain import host_target
from support.native import Native, build, stored
from support.programs import joined, random_program, random_weights

pytestmark = pytest.mark.end_to_end

SEEDS = (*range(24), 25, 31, 89, 135, 157, 161, 173, 243, 246, 280)
"""The later ones have what is rare: loops of two values, gates, joins outside the axes of a reduction."""
TOLERANCE = 2e-6
"""Of 1 or the largest logit: values inside are of the order of 1, and sums of at most a hundred fp32 products are taken
in another order than NumPy's."""
LENGTHS = (1, 7, 35)


def _originals() -> list[Program]:
    return [random_program(random.Random(seed), layers=(1, 3, 2, 4)[seed % 4]) for seed in SEEDS]


def _programs() -> list[Program]:
    """Half of them as they come, so that what passes would simplify reaches the code generator too."""
    return [optimize(p) if seed % 2 else drop_dead(p) for seed, p in zip(SEEDS, _originals(), strict=True)]


@pytest.fixture(scope="module")
def natives(tmp_path_factory: pytest.TempPathFactory) -> list[Native]:
    return build(_programs(), tmp_path_factory.mktemp("native"), host_target())


def _inputs(seed: int, program: Program) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, program.vocab_size, length).tolist() for length in LENGTHS]


def test_native_programs_match_the_interpreter(natives: list[Native]) -> None:
    for seed, original, native in zip(SEEDS, _originals(), natives, strict=True):
        program = native.plan.program
        weights = joined(original, program, random_weights(original, seed))
        sequences = _inputs(seed, program)
        expected = interpret(program, weights, sequences, dtype=np.float64)
        got = native.run(weights, sequences)
        error = np.abs(got - expected).max() / max(1.0, np.abs(expected).max())
        assert error < TOLERANCE, f"program {seed}: {error:.1e}"


def test_chunks_threads_and_company_do_not_change_a_bit(natives: list[Native]) -> None:
    for seed, original, native in zip(SEEDS, _originals(), natives, strict=True):
        weights = joined(original, native.plan.program, random_weights(original, seed))
        sequences = _inputs(seed, native.plan.program)
        together = native.run(weights, sequences, threads=2)
        alone = np.concatenate([native.run(weights, [sequence], threads=1) for sequence in sequences])
        chunked = native.run(weights, sequences, threads=3, chunks=[(0, 3, 10), (1, 0, 22), (0, 4, 1), (0, 0, 2)])
        np.testing.assert_array_equal(together, alone, err_msg=f"program {seed}")
        np.testing.assert_array_equal(together, chunked, err_msg=f"program {seed}")


def _many_rows(program: Program) -> list[list[int]]:
    """So many that blocks of them go through fused sections, with up to three threads."""
    rng = np.random.default_rng(len(program.body))
    sequences = [rng.integers(0, program.vocab_size, length).tolist() for length in (40, 3, 39, 40, 37, 1, 40, 38, 40)]
    assert sum(map(len, sequences)) >= 4 * FEWEST_FUSED_ROWS
    return sequences


def _check_fusion(native: Native, weights: dict[str, NDArray[np.float32]], name: str) -> None:
    """Rows of fused sections have the bits that each sequence gets in a step of its own, which is too short for it."""
    sequences = _many_rows(native.plan.program)
    alone = native.run(weights, sequences, threads=1, chunks=np.diag([len(s) for s in sequences]).tolist())
    for threads in (1, 2, 3):
        fused = native.run(weights, sequences, threads=threads)
        np.testing.assert_array_equal(fused, alone, err_msg=f"{name}, {threads} threads")


def test_blocks_of_rows_in_fused_sections_have_the_bits_of_each_sequence_alone(natives: list[Native]) -> None:
    for seed, original, native in zip(SEEDS, _originals(), natives, strict=True):
        _check_fusion(native, joined(original, native.plan.program, random_weights(original, seed)), f"program {seed}")


QUANTIZED = {"int8": (2e-3, range(0, 24, 3)), "int4": (5e-2, range(1, 24, 3)), "int4-a8": (5e-2, range(3, 24, 4))}
"""Of 1 or the largest logit: what rounding the activations to 16 and to 8 bits does to programs whose linears have few
inputs, and the seeds of the programs."""


def _quantized_programs(precision: Precision) -> list[Program]:
    seeds = QUANTIZED[precision][1]
    return [optimize(random_program(random.Random(seed), layers=1 + seed % 3), precision) for seed in seeds]


@pytest.mark.parametrize("precision", QUANTIZED)
def test_quantized_programs_match_the_interpreter_and_are_the_same_to_the_bit_however_they_run(
    precision: Precision, tmp_path: Path
) -> None:
    tolerance, seeds = QUANTIZED[precision]
    programs = _quantized_programs(precision)
    natives = build(programs, tmp_path, host_target())
    portable = build(programs[:2], tmp_path, "portable")
    for at, (seed, native) in enumerate(zip(seeds, natives, strict=True)):
        program = native.plan.program
        original = random_program(random.Random(seed), layers=1 + seed % 3)
        weights = joined(original, program, random_weights(original, seed))
        sequences = _inputs(seed, program)
        together = native.run(weights, sequences)
        expected = interpret(program, stored(program, weights), sequences, dtype=np.float64)
        error = np.abs(together - expected).max() / max(1.0, np.abs(expected).max())
        assert error < tolerance, f"program {seed}: {error:.1e}"
        chunked = native.run(weights, sequences, threads=3, chunks=[(0, 3, 10), (1, 0, 22), (0, 4, 1), (0, 0, 2)])
        np.testing.assert_array_equal(together, chunked, err_msg=f"program {seed}")
        _check_fusion(native, weights, f"program {seed}")
        if at < len(portable):
            np.testing.assert_array_equal(together, portable[at].run(weights, sequences), err_msg=f"program {seed}")


def test_the_likeliest_tokens_are_those_of_the_logits(natives: list[Native]) -> None:
    found = 0
    for seed, original, native in zip(SEEDS, _originals(), natives, strict=True):
        if not native.plan.finds_best:
            continue
        found += 1
        weights = joined(original, native.plan.program, random_weights(original, seed))
        sequences = _inputs(seed, native.plan.program)
        expected = native.run(weights, sequences).argmax(axis=1)
        for threads in (1, 2, 5):
            got = native.run(weights, sequences, threads=threads, best=True)
            np.testing.assert_array_equal(got, expected, err_msg=f"program {seed}")
    assert found > 10


def test_of_equal_logits_the_lowest_token_is_the_likeliest_and_nan_is_told(natives: list[Native]) -> None:
    seed, original, native = next(
        found for found in zip(SEEDS, _originals(), natives, strict=True) if found[2].plan.finds_best
    )
    program = native.plan.program
    head = program.body[-1]
    assert isinstance(head, Linear)
    weights = joined(original, program, random_weights(original, seed))
    for name in weights:
        weights[name] = np.zeros_like(weights[name])
    assert set(native.run(weights, [[0, 0, 0]], threads=3, best=True)) == {0}
    weights[head.weight] = np.full_like(weights[head.weight], np.nan)
    assert set(native.run(weights, [[0, 0, 0]], threads=3, best=True)) == {-1}


def test_the_random_programs_have_what_is_awkward() -> None:
    """What the two tests above rest on."""
    found: set[str] = set()

    def look(op: Op) -> None:
        if isinstance(op, Loop):
            found.add(f"loop of {len(op.carried)}")
            found.update({"convolution in a loop"} if any(isinstance(inner, CausalConv) for inner in op.body) else ())
            for inner in op.body:
                look(inner)
            return
        for expr in expressions(op):
            for view in views(expr):
                if not view.contiguous and 0 not in view.strides:
                    found.add("strided")
            if "Cat(" in repr(expr):
                found.add("join")
        if isinstance(op, Linear):
            found.add("groups" if len(op.x.shape) > 1 and op.x.shape[0] > 1 else "linear")
            found.update({"parts"} if op.parts > 1 else ())
            found.update({"odd width"} if op.out.size % 16 else ())
        if isinstance(op, CausalConv):
            found.update({"delay"} if op.delay else ())
            found.update({"dilation"} if op.dilation > 1 else ())
        if isinstance(op, Reduce):
            found.update({"several axes"} if op.axes > 1 else ())
            found.update({"join outside the reduced axes"} if _joins(op.expr, len(op.domain) - op.axes) else ())

    for program in _programs():
        for op in program.body:
            look(op)
    assert found >= {
        "loop of 1", "loop of 2", "strided", "join", "groups", "parts", "odd width", "several axes",
        "join outside the reduced axes", "convolution in a loop", "delay", "dilation",
    }  # fmt: skip


def _joins(expr: object, before: int) -> bool:
    if isinstance(expr, Cat):
        return expr.axis < before or any(_joins(part, before) for part in expr.parts)
    return any(_joins(arg, before) for arg in getattr(expr, "args", ()))


def test_the_portable_program_has_the_bits_of_the_hosts(natives: list[Native], tmp_path: Path) -> None:
    chosen = (1, 4, 7)
    portable = build([natives[i].plan.program for i in chosen], tmp_path, "portable")
    for i, other in zip(chosen, portable, strict=True):
        original = _originals()[i]
        weights = joined(original, other.plan.program, random_weights(original, i))
        sequences = _inputs(i, original)
        np.testing.assert_array_equal(natives[i].run(weights, sequences), other.run(weights, sequences))


@pytest.mark.parametrize(("kv_precision", "tolerance"), [("bf16", 0.01), ("int8", 0.02)])
def test_narrow_keys_and_values_stay_near_and_keep_their_bits(
    natives: list[Native], tmp_path: Path, kv_precision: str, tolerance: float
) -> None:
    """Near: within a few roundings (1/512 of a number, 1/254 of a head's largest) of 1 or the largest logit."""
    attending = [any(isinstance(op, Attention) for op in row_ops(native.plan.program)) for native in natives]
    chosen = [i for i, attends in enumerate(attending) if attends][:3]
    programs = [natives[i].plan.program for i in chosen]
    host = build(programs, tmp_path, host_target(), kv_precision=kv_precision)
    portable = build(programs, tmp_path, "portable", kv_precision=kv_precision)
    moved = 0.0
    for i, narrow, other in zip(chosen, host, portable, strict=True):
        original = _originals()[i]
        weights = joined(original, narrow.plan.program, random_weights(original, i))
        sequences = _inputs(i, original)
        exact, got = natives[i].run(weights, sequences), narrow.run(weights, sequences)
        error = np.abs(got - exact).max() / max(1.0, np.abs(exact).max())
        assert error < tolerance, f"program {i}: {error:.1e}"
        moved = max(moved, error)
        np.testing.assert_array_equal(got, other.run(weights, sequences))
        chunked = narrow.run(weights, sequences, threads=3, chunks=[(0, 3, 10), (1, 0, 22), (0, 4, 1), (0, 0, 2)])
        np.testing.assert_array_equal(got, chunked)
    assert moved > TOLERANCE, "keys and values were not rounded"
