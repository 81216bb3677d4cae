"""The cost of a step, against sums done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bossa.bench.model import Cost, Span, StepModel
from bossa.ir.program import Carried, Loop, Program
from bossa.ir.slot import Slot, Source
from bossa.ir.values import Value, View, whole
from bossa.ops import Attention, CausalConv, Embed, Linear, Map, Select
from bossa.targets.cpu.layout import FEWEST_FUSED_ROWS
from bossa.targets.cpu.toolchain import KERNELS

V, D, H, LAYERS = 100, 32, 2, 3
PAGE, POSITION = 32, LAYERS * 2 * D * 4  # positions of a page; bytes of a position's keys and values, all layers
QKV, HEAD, NORM = 3 * D * D * 4, 112 * D * 4, D * 4  # 100 outputs are packed as 112


def slot(name: str, layout: str, *shape: int, dtype: str = "fp32") -> Slot:
    return Slot(name, layout, shape, dtype, (Source((name,), shape),))  # type: ignore[arg-type]


def program(window: int = 0, dtype: str = "fp32") -> Program:
    """Three layers of one linear and one attention, a norm's weight in each, and a head over the selected rows."""
    x, inner, next_, result = (Value(name, (D,)) for name in ("x", "inner", "next", "result"))
    qkv, chosen, logits = Value("qkv", (3 * D,)), Value("chosen", (D,)), Value("logits", (V,))
    q, k, v = (View("value", "qkv", (H, D // H), (D // H, 1), i * D) for i in range(3))
    mixed = Value("mixed", (H, D // H))
    body = (
        Linear(qkv, whole(inner), "qkv.*"),
        Attention(mixed, q, k, v, 0, 1.0, window),
        Map(next_, View("weight", "norm.*", (D,), (1,))),
    )
    names = ("qkv.*", "norm.*")
    weights = tuple((name, tuple(name.replace("*", str(i)) for i in range(LAYERS))) for name in names)
    loop = Loop(LAYERS, 1, (Carried("x", inner, "next", result),), weights, body)
    ops = (Embed(x, "wte", "tokens"), loop, Select(chosen, whole(result)), Linear(logits, whole(chosen), "head"))
    slots = [slot("wte", "rows", V, D), slot("head", "panels", V, D)]
    slots += [slot(f"qkv.{i}", "panels", 3 * D, D, dtype=dtype) for i in range(LAYERS)]
    slots += [slot(f"norm.{i}", "flat", D) for i in range(LAYERS)]
    return Program("tiny", V, 64, ops, "logits", {item.name: item for item in slots})


def model(**changes: object) -> StepModel:
    return StepModel.of_program(program(**changes), POSITION * PAGE, PAGE)  # type: ignore[arg-type]


def test_one_row_reads_every_weight_once_and_a_row_of_the_embedding():
    cost = model().decode(1, 9)
    assert cost.weight_bytes == LAYERS * (QKV + NORM) + HEAD + D * 4
    assert cost.kv_bytes == 10 * POSITION  # its own keys and values are read too
    linears = LAYERS * 2 * 3 * D * D + 2 * V * D
    assert cost.operations == {"fp32": linears + LAYERS * 2 * 2 * D * 10}


def test_a_batch_reads_the_weights_once_and_the_keys_of_each():
    one, eight = model().decode(1, 9), model().decode(8, 9)
    assert eight.weight_bytes == one.weight_bytes + 7 * D * 4
    assert eight.kv_bytes == 8 * one.kv_bytes
    assert eight.operations == {"fp32": 8 * one.operations["fp32"]}


def test_a_prompt_in_two_steps_reads_the_weights_twice_and_the_head_once():
    cost = model().prefill(20, 16)
    assert cost.weight_bytes == 2 * LAYERS * (QKV + NORM) + HEAD + 20 * D * 4
    assert cost.kv_bytes == (16 + 20) * POSITION
    attended = sum(range(1, 21))
    assert cost.operations == {"fp32": LAYERS * (20 * 2 * 3 * D * D + 2 * 2 * D * attended) + 2 * V * D}


def test_a_window_limits_what_is_read_and_computed():
    cost = model(window=4).cost([Span(10, 2)])
    assert cost.kv_bytes == 5 * POSITION  # positions 7 to 11
    full = model(window=4).cost([Span(0, 2, 0)])
    assert full.kv_bytes == 2 * POSITION
    assert full.operations["fp32"] == LAYERS * (2 * 2 * 3 * D * D + 2 * 2 * D * (1 + 2))


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("fp32", "fp32"),
        ("int8", "int16"),
        ("int6", "int8"),
        ("int4", "int8"),
        ("int4-a16", "int16"),
        ("int4-a8", "int8"),
    ],
)
def test_arithmetic_follows_from_how_a_weight_is_stored(dtype, kind, monkeypatch):
    made = program()
    slots = {name: replace(item, dtype=dtype) if "qkv" in name else item for name, item in made.slots.items()}
    cost = StepModel(replace(made, slots=slots), 0, PAGE).cost([Span(0, 1, 0)])
    assert cost.operations[kind] >= LAYERS * 2 * 3 * D * D
    attention = LAYERS * 2 * 2 * D
    assert sum(cost.operations.values()) == LAYERS * 2 * 3 * D * D + attention


def test_barriers_are_one_a_section_and_fewer_where_nobody_wants_logits():
    made = model()
    # Embedding; in each layer linear, store, attention and norm; selection, head.
    assert made.cost([Span(0, 1)]).barriers - made.cost([Span(0, 1, 0)]).barriers == 2
    with_copies = made.cost([Span(0, 1, 0)]).barriers
    assert 1 + LAYERS * 4 <= with_copies <= 2 + LAYERS * 5


def test_fused_rows_meet_fewer_barriers_and_the_kernels_agree_which_those_are():
    header = (KERNELS / "row_blocks.h").read_text()
    assert f"constexpr int kFewestFusedRows = {FEWEST_FUSED_ROWS};" in header
    few, many = (model().cost([Span(0, rows)]).barriers for rows in (FEWEST_FUSED_ROWS - 1, FEWEST_FUSED_ROWS))
    # Of a layer's norm, linear and store the last one alone.
    assert few - many >= LAYERS
    on_two = StepModel.of_program(program(), POSITION * PAGE, PAGE, 2)
    assert on_two.cost([Span(0, FEWEST_FUSED_ROWS)]).barriers == few
    assert on_two.cost([Span(0, 2 * FEWEST_FUSED_ROWS)]).barriers == many


def test_times_are_of_all_bytes_and_of_each_arithmetic_at_its_own_rate():
    cost = Cost(600, 400, {"fp32": 30, "int8": 80}) + Cost(0, 0, {"fp32": 10}, 5)
    assert cost.bytes == 1000
    assert cost.barriers == 5
    assert cost.read_seconds(500) == 2
    assert cost.arithmetic_seconds({"fp32": 10, "int8": 40, "int16": 1}) == 4 + 2


def test_recurrent_state_is_read_and_written_once_a_sequence():
    x = View("value", "v0", (20,), (1,))
    taps = View("weight", "w", (20, 4), (4, 1))
    slots = {
        "e": Slot("e", "rows", (7, 20), "fp32", (Source(("e",), (7, 20)),)),
        "w": Slot("w", "flat", (20, 4), "fp32", (Source(("w",), (20, 4)),)),
    }
    body = (Embed(Value("v0", (20,)), "e", "tokens"), CausalConv(Value("v1", (20,)), x, taps, 0, dilation=2))
    model = StepModel(Program("p", 7, 64, body, "v1", slots), page_bytes=0, page_size=32)
    one = model.cost([Span(5, 1)])
    assert one.kv_bytes == 2 * 6 * 32 * 4, "six rows of twenty channels, padded to lanes, each way"
    assert model.cost([Span(5, 1)] * 3).kv_bytes == 3 * one.kv_bytes
    assert one.operations == {"fp32": 2 * 20 * 4}
