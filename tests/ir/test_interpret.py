"""The interpreter against plain NumPy, written out op by op."""

from __future__ import annotations

import numpy as np
import pytest

from bossa.ir.interpret import interpret
from bossa.ir.parse import parse_program
from bossa.ir.program import Program

RNG = np.random.default_rng(0)
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}
"""Both sides compute in float64."""


def _slot(name: str, layout: str, *shape: int, interleave: bool = False) -> str:
    sources = f'[{{"names": ["{name}"], "shape": {list(shape)}, "transpose": false}}]'
    if interleave:
        half = [shape[0] // 2, shape[1]]
        one = f'{{"names": ["{name}"], "shape": {half}, "transpose": false}}'
        sources = f"[{one}, {one}]"
    flag = str(interleave).lower()
    return (
        f'slot {{"name": "{name}", "layout": "{layout}", "shape": {list(shape)}, "dtype": "fp32",'
        f' "sources": {sources}, "interleave": {flag}}}'
    )


def _program(vocabulary: int, *lines: str, **tables: np.ndarray) -> Program:
    heads = [f"table !{name} {t.dtype.name} [{','.join(map(str, t.shape))}]" for name, t in tables.items()]
    text = "\n".join([f'program "p" vocabulary {vocabulary} positions 9 output %y', *heads, *lines])
    return parse_program(text, tables)


def _run(program: Program, weights: dict[str, np.ndarray], *sequences: list[int]) -> np.ndarray:
    return interpret(program, weights, sequences, dtype=np.float64)


def test_embeddings_go_by_token_and_by_position() -> None:
    places = np.array([3, 1, 0, 2, 0, 0, 0, 0, 0], np.int32)
    program = _program(
        4, _slot("e", "rows", 4, 4), _slot("p", "rows", 4, 4),
        "%a[4] = embed $e tokens", "%b[4] = embed $p !places", "%y[4] = map add(%a[4], %b[4])", places=places,
    )  # fmt: skip
    e, p = RNG.standard_normal((4, 4)), RNG.standard_normal((4, 4))
    out = _run(program, {"e": e, "p": p}, [2, 0, 1], [3])
    np.testing.assert_allclose(out, np.stack([e[2] + p[3], e[0] + p[1], e[1] + p[0], e[3] + p[3]]), **TOLERANCE)


def test_views_stride_joins_join_and_tables_follow_positions() -> None:
    t = RNG.standard_normal((9, 2)).astype(np.float32)
    program = _program(
        6, _slot("e", "rows", 6, 6), "%x[2,3] = embed $e tokens",
        "%y[6] = map cat<0>(3: neg(%x[3|2]), 2: mul(%x[2|1]+4, !t[2]), 1: 0.25)", t=t,
    )  # fmt: skip
    e = RNG.standard_normal((6, 6))
    out = _run(program, {"e": e}, [1, 5])
    expected = [np.concatenate([-e[k][[0, 2, 4]], e[k][4:] * t[i], [0.25]]) for i, k in enumerate((1, 5))]
    np.testing.assert_allclose(out, expected, **TOLERANCE)


@pytest.mark.parametrize(("kind", "numpy"), [("sum", np.sum), ("mean", np.mean), ("max", np.max), ("min", np.min)])
def test_reductions_go_over_the_last_axes_constants_included(kind: str, numpy) -> None:  # type: ignore[no-untyped-def]
    program = _program(
        2, _slot("e", "rows", 3, 12), "%x[2,2,3] = embed $e tokens",
        f"%r[2] = reduce {kind} 2 [2,2,3] mul(%x[2,2,3], 3.0)", f"%c[] = reduce {kind} 1 [5] 2.0",
        "%y[2] = map add(%r[2], %c[2|0])",
    )  # fmt: skip
    e = RNG.standard_normal((3, 12))
    expected = numpy((3 * e[[2, 0]]).reshape(2, 2, 6), axis=2) + numpy(np.full(5, 2.0))
    np.testing.assert_allclose(_run(program, {"e": e}, [2, 0]), expected, **TOLERANCE)


def test_linears_take_leading_axes_biases_and_epilogues() -> None:
    program = _program(
        3, _slot("e", "rows", 3, 6), _slot("w", "panels", 2, 3), _slot("b", "flat", 2), _slot("v", "panels", 3, 4),
        "%x[6] = embed $e tokens", "%g[2,2] = linear %x[2,3] $w bias $b",
        "%y[3] = linear %g[4] $v then mul(tanh(#0[3]), %x[3])",
    )  # fmt: skip
    e, w, b, v = (RNG.standard_normal(shape) for shape in ((3, 6), (2, 3), (2,), (3, 4)))
    x = e[[1, 2]]
    g = x.reshape(2, 2, 3) @ w.T + b
    expected = np.tanh(g.reshape(2, 4) @ v.T) * x[:, :3]
    np.testing.assert_allclose(_run(program, {"e": e, "w": w, "b": b, "v": v}, [1, 2]), expected, **TOLERANCE)


def test_two_parts_are_interleaved_by_panels_of_16() -> None:
    program = _program(
        32, _slot("e", "rows", 32, 5), _slot("w", "panels", 64, 5, interleave=True),
        "%x[5] = embed $e tokens", "%y[32] = linear %x[5] $w parts 2 then mul(relu(#0[32]), #1[32])",
    )  # fmt: skip
    e, gate, up = RNG.standard_normal((32, 5)), RNG.standard_normal((32, 5)), RNG.standard_normal((32, 5))
    w = np.concatenate([gate[:16], up[:16], gate[16:], up[16:]])
    expected = np.maximum(e[[7]] @ gate.T, 0) * (e[[7]] @ up.T)
    np.testing.assert_allclose(_run(program, {"e": e, "w": w}, [7]), expected, **TOLERANCE)


def test_attention_sees_its_own_sequence_with_groups_window_cap_bias_and_sinks() -> None:
    bias = RNG.standard_normal((9, 4)).astype(np.float32)
    program = _program(
        12, _slot("e", "rows", 12, 28), _slot("s", "flat", 4), "%x[28] = embed $e tokens",
        "%y[4,3] = attention %x[4,3] %x[2,3]+12 %x[2,3]+18 layer 0 scale 0.7 window 2 softcap 1.5 bias !b sinks $s",
        b=bias,
    )  # fmt: skip
    e, sinks = RNG.standard_normal((12, 28)), RNG.standard_normal(4)
    sequences = [[1, 4, 9, 2], [7, 7]]
    expected = []
    for sequence in sequences:
        x = e[sequence]
        for i in range(len(sequence)):
            row = []
            for head in range(4):
                q, group = x[i, 3 * head : 3 * head + 3], 3 * (head // 2)
                seen = range(max(0, i - 1), i + 1)
                scores = [1.5 * np.tanh(0.7 * q @ x[j, 12 + group : 15 + group] / 1.5) + bias[j, head] for j in seen]
                weights = np.exp(scores) / (np.exp(scores).sum() + np.exp(sinks[head]))
                row.append(sum(p * x[j, 18 + group : 21 + group] for p, j in zip(weights, seen, strict=True)))
            expected.append(np.concatenate(row))
    np.testing.assert_allclose(_run(program, {"e": e, "s": sinks}, *sequences), expected, **TOLERANCE)


def test_a_selection_keeps_rows_and_their_positions() -> None:
    t = RNG.standard_normal((9, 2)).astype(np.float32)
    program = _program(
        2, _slot("e", "rows", 5, 2), "%x[2] = embed $e tokens", "%z[2] = select %x[2]",
        "%y[2] = map add(%z[2], !t[2])", t=t,
    )  # fmt: skip
    e = RNG.standard_normal((5, 2))
    out = interpret(program, {"e": e}, [[1, 2, 3], [4, 0]], rows=[4, 1], dtype=np.float64)
    np.testing.assert_allclose(out, [e[0] + t[1], e[2] + t[1]], **TOLERANCE)


def test_a_loop_carries_its_values_and_changes_its_weights() -> None:
    program = _program(
        2, _slot("e", "rows", 2, 2), _slot("w0", "flat", 2), _slot("w1", "flat", 2), _slot("w2", "flat", 2),
        "%x[2] = embed $e tokens",
        "loop 3 layers 0 {",
        "carry %x as %in[2] next %out result %y[2]",
        'weight "w*" is ["w0", "w1", "w2"]',
        '%out[2] = map add(mul(%in[2], 2.0), $"w*"[2])',
        "}",
    )  # fmt: skip
    weights = {name: RNG.standard_normal(shape) for name, shape in (("e", (2, 2)), ("w0", 2), ("w1", 2), ("w2", 2))}
    expected = ((weights["e"][[1]] * 2 + weights["w0"]) * 2 + weights["w1"]) * 2 + weights["w2"]
    np.testing.assert_allclose(_run(program, weights, [1]), expected, **TOLERANCE)
