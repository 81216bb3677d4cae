"""Native programs with adapters against the interpreter, on random programs and pairs of awkward shapes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from bossa.adapters import dense
from bossa.adapters.match import Matched
from bossa.ir.interpret import interpret
from bossa.ir.program import Program, row_ops
from bossa.ops import Linear
from bossa.passes import Precision, optimize
from bossa.passes.adapters import take_adapters
from bossa.passes.rewrite import drop_dead
from bossa.targets.cpu.layout import FEWEST_FUSED_ROWS
from bossa.targets.cpu.toolchain import host_target
from support.native import Native, build, stored
from support.programs import joined, random_pairs, random_program, random_weights

pytestmark = pytest.mark.end_to_end

SEEDS = (*range(12), 25, 89, 157, 243)
TOLERANCE = 4e-6
"""Of 1 or the largest logit: sums of at most a hundred fp32 products, and those of the pairs, in another order than
NumPy's."""
LENGTHS = (1, 7, 35)


def _originals() -> list[Program]:
    return [random_program(random.Random(seed), layers=(1, 3, 2, 4)[seed % 4]) for seed in SEEDS]


def _program(seed: int, original: Program) -> Program:
    """Half of them as they come, as in `test_native`."""
    return optimize(original, adapters=True) if seed % 2 else take_adapters(drop_dead(original))


@pytest.fixture(scope="module")
def natives(tmp_path_factory: pytest.TempPathFactory) -> list[Native]:
    programs = [_program(seed, p) for seed, p in zip(SEEDS, _originals(), strict=True)]
    return build(programs, tmp_path_factory.mktemp("low_rank"), host_target())


def _inputs(seed: int, program: Program) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, program.vocab_size, length).tolist() for length in LENGTHS]


def _expected(
    program: Program, weights: dict[str, np.ndarray], sequences: list[list[int]], pairs: Matched
) -> np.ndarray:
    whole = {name: dense(program.slots[name], parts) for name, parts in pairs.items()}
    return interpret(program, weights, sequences, dtype=np.float64, pairs=whole)


def _error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))


def test_native_programs_add_the_pairs_of_each_sequence_s_adapter(natives: list[Native]) -> None:
    matters = 0
    for seed, original, native in zip(SEEDS, _originals(), natives, strict=True):
        program = native.plan.program
        weights = joined(original, program, random_weights(original, seed))
        sequences = _inputs(seed, program)
        adapters = [random_pairs(program, seed), random_pairs(program, seed + 1000)]
        having = [1, -1, 0]
        got = native.run(weights, sequences, adapters=adapters, adapter_of=having)
        ends = np.cumsum([0, *LENGTHS])
        for sequence, which, rows in zip(sequences, having, map(slice, ends[:-1], ends[1:]), strict=True):
            pairs = adapters[which] if which >= 0 else {}
            expected = _expected(program, weights, [sequence], pairs)
            assert _error(got[rows], expected) < TOLERANCE, f"program {seed}, adapter {which}"
            plain = interpret(program, weights, [sequence], dtype=np.float64)
            matters += bool(pairs) and _error(plain, expected) > 100 * TOLERANCE
    assert matters > len(SEEDS), "the adapters do not matter"


def test_chunks_threads_and_other_adapters_do_not_change_a_bit(natives: list[Native]) -> None:
    for seed, original, native in zip(SEEDS, _originals(), natives, strict=True):
        program = native.plan.program
        weights = joined(original, program, random_weights(original, seed))
        sequences = _inputs(seed, program)
        adapters = [random_pairs(program, seed), random_pairs(program, seed + 1000)]
        options = {"adapters": adapters, "adapter_of": [0, 1, 0]}
        together = native.run(weights, sequences, threads=2, **options)
        alone = np.concatenate(
            [
                native.run(weights, [sequence], threads=1, adapters=adapters[which : which + 1])
                for sequence, which in zip(sequences, [0, 1, 0], strict=True)
            ]
        )
        chunks = [(0, 3, 10), (1, 0, 22), (0, 4, 1), (0, 0, 2)]
        chunked = native.run(weights, sequences, threads=3, chunks=chunks, **options)
        np.testing.assert_array_equal(together, alone, err_msg=f"program {seed}")
        np.testing.assert_array_equal(together, chunked, err_msg=f"program {seed}")


def test_blocks_of_rows_that_go_through_fused_sections_have_the_same_bits(natives: list[Native]) -> None:
    for seed, original, native in zip(SEEDS, _originals(), natives, strict=True):
        program = native.plan.program
        weights = joined(original, program, random_weights(original, seed))
        rng = np.random.default_rng(seed)
        lengths = (40, 3, 39, 40, 37, 1, 40, 38, 40)
        sequences = [rng.integers(0, program.vocab_size, length).tolist() for length in lengths]
        assert sum(lengths) >= 4 * FEWEST_FUSED_ROWS
        adapters = [random_pairs(program, seed), random_pairs(program, seed + 1000)]
        having = [0, 1, -1, 0, 1, 1, -1, 0, 0]
        together = native.run(weights, sequences, threads=2, adapters=adapters, adapter_of=having)
        alone = [
            native.run(weights, [sequence], threads=1, adapters=adapters, adapter_of=[which])
            for sequence, which in zip(sequences, having, strict=True)
        ]
        np.testing.assert_array_equal(together, np.concatenate(alone), err_msg=f"program {seed}")


def test_without_an_adapter_a_program_has_the_bits_of_one_that_takes_none(
    natives: list[Native], tmp_path: Path
) -> None:
    plain = [
        optimize(original) if seed % 2 else drop_dead(original)
        for seed, original in zip(SEEDS[:4], _originals(), strict=False)
    ]
    for seed, original, native, other in zip(
        SEEDS, _originals(), natives, build(plain, tmp_path, host_target()), strict=False
    ):
        weights = joined(original, native.plan.program, random_weights(original, seed))
        sequences = _inputs(seed, native.plan.program)
        adapters = [random_pairs(native.plan.program, seed)]
        expected = other.run(weights, sequences).view(np.int32)
        np.testing.assert_array_equal(native.run(weights, sequences).view(np.int32), expected)
        got = native.run(weights, sequences, adapters=adapters, adapter_of=[-1, -1, -1])
        np.testing.assert_array_equal(got.view(np.int32), expected)


def test_all_builds_have_the_same_bits(natives: list[Native], tmp_path: Path) -> None:
    programs = [native.plan.program for native in natives[:6]]
    for seed, original, native, portable in zip(
        SEEDS, _originals(), natives, build(programs, tmp_path, "portable"), strict=False
    ):
        weights = joined(original, native.plan.program, random_weights(original, seed))
        adapters = [random_pairs(native.plan.program, seed)]
        sequences = _inputs(seed, native.plan.program)
        expected = native.run(weights, sequences, adapters=adapters)
        np.testing.assert_array_equal(portable.run(weights, sequences, adapters=adapters), expected)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_weights_take_adapters(precision: Precision, tmp_path: Path) -> None:
    originals = [random_program(random.Random(seed), layers=2) for seed in (1, 5)]
    programs = [optimize(original, precision, adapters=True) for original in originals]
    for original, native in zip(originals, build(programs, tmp_path, host_target()), strict=True):
        program = native.plan.program
        weights = joined(original, program, random_weights(original))
        sequences = _inputs(3, program)
        pairs = random_pairs(program, 3)
        held = stored(program, weights)
        got = native.run(weights, sequences, adapters=[pairs])
        assert _error(got, _expected(program, held, sequences, pairs)) < 0.05  # activations are quantized too
        alone = [native.run(weights, [sequence], threads=1, adapters=[pairs]) for sequence in sequences]
        np.testing.assert_array_equal(got, np.concatenate(alone))


def test_every_linear_of_a_program_takes_adapters_and_its_text_says_so() -> None:
    from bossa.ir.parse import parse_program
    from bossa.ir.text import print_program

    program = optimize(random_program(random.Random(3), layers=3), adapters=True)
    text = print_program(program)
    linears = [op for op in row_ops(program) if isinstance(op, Linear)]
    assert linears
    assert all(op.adapted for op in linears)
    assert text.count(" adapted") >= len(linears)
    assert print_program(parse_program(text)) == text
