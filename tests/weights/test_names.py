"""Names that checkpoints give to one model, and what is refused."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.errors import WeightsError
from bossa.weights import Slot, Source, names
from bossa.weights.names import Match, match

NAMES = [
    "transformer.wte.weight",
    *(f"transformer.h.{i}.{part}" for i in range(3) for part in ("ln.weight", "fc.weight")),
]
HEAD = ("transformer.wte.weight", "lm_head.weight")


def slots(*names: str | tuple[str, ...], shape: tuple[int, ...] = (2, 3)) -> list[Slot]:
    groups = [(name,) if isinstance(name, str) else name for name in names]
    return [Slot(group[0], "rows", shape, "fp32", (Source(group, shape),)) for group in groups]


def matched(wanted: list[Slot], held: list[str], ignored: tuple[str, ...] = ()) -> Match:
    return match(wanted, held, lambda _: (2, 3), "here", ignored)


@pytest.mark.parametrize(
    ("strip", "add"),
    [
        ("", ""),
        ("module.", ""),
        ("_orig_mod.", ""),
        ("module._orig_mod.", ""),
        ("_orig_mod.module.model.", ""),
        ("base_model.model.", ""),
        ("", "transformer."),
        ("module.", "transformer."),
        ("model.", "transformer."),
        ("backbone.", "transformer."),
    ],
)
def test_prefixes_are_understood(strip: str, add: str):
    wanted = slots(*NAMES[1:], HEAD)
    held = [strip + name.removeprefix(add) for name in NAMES]
    assert matched(wanted, held).names == {name: strip + name.removeprefix(add) for name in NAMES}


def test_a_base_model_s_names_fit_beside_a_head_of_its_own():
    wanted = slots(*NAMES, "lm_head.weight")
    held = [name.removeprefix("transformer.") for name in NAMES] + ["lm_head.weight"]
    found = matched(wanted, held).names
    assert found["lm_head.weight"] == "lm_head.weight"
    assert found["transformer.h.1.fc.weight"] == "h.1.fc.weight"


def test_a_tied_weight_is_found_by_either_name_and_both_may_be_there():
    wanted = slots(*NAMES[1:], HEAD)
    assert matched(wanted, [*NAMES[1:], "lm_head.weight"]).names[HEAD[0]] == "lm_head.weight"
    both = matched(wanted, [*NAMES, "module.lm_head.weight".removeprefix("module.")])
    assert both.names[HEAD[0]] == HEAD[0]
    assert both.tied[HEAD[0]] == ("lm_head.weight",)


def test_missing_misshapen_and_unexpected_tensors_are_all_listed_at_once():
    held = [*NAMES[2:], "extra.bias"]
    shapes = {NAMES[3]: (3, 2)}
    with pytest.raises(WeightsError) as caught:
        match(slots(*NAMES), held, lambda name: shapes.get(name, (2, 3)), "here")
    assert str(caught.value) == (
        "here: tensors missing: transformer.wte.weight, transformer.h.0.ln.weight; of another shape:"
        " transformer.h.1.ln.weight [3, 2] instead of [2, 3]; not part of the program: extra.bias:"
        " pass weights of the model that was compiled"
    )


def test_a_long_list_is_cut_with_a_count():
    with pytest.raises(WeightsError, match=r"extra\.7 and 12 more"):
        matched(slots(*NAMES), [*NAMES, *(f"extra.{i}" for i in range(20))])


@pytest.mark.parametrize("prefix", ["", "module.", "transformer."])
def test_ignored_tensors_may_be_there_under_a_prefix_too(prefix: str):
    pattern = r"^transformer\.h\.\d+\.attn\.bias$" if prefix != "" else r"\.attn\.bias"
    held = [*NAMES, "transformer.h.0.attn.bias"]
    held = ["module." + name for name in held] if prefix == "module." else held
    held = [name.removeprefix("transformer.") for name in held] if prefix == "transformer." else held
    with pytest.raises(WeightsError, match=r"not part of the program: .*attn\.bias"):
        matched(slots(*NAMES), held)
    assert len(matched(slots(*NAMES), held, (pattern,)).names) == len(NAMES)


def test_weights_of_another_architecture_are_called_that():
    with pytest.raises(WeightsError, match="look like the weights of another architecture: 7 of 7 tensors are missing"):
        matched(slots(*NAMES), [f"model.layers.{i}.q_proj.weight" for i in range(8)])


GPT2 = [
    *("transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight", "transformer.ln_f.bias"),
    *(
        f"transformer.h.{i}.{part}.{kind}"
        for i in range(2)
        for part in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        for kind in ("weight", "bias")
    ),
]
LLAMA = [
    *("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"),
    *(
        f"model.layers.{i}.{part}.weight"
        for i in range(2)
        for part in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm")
    ),
]


@pytest.mark.parametrize("prefix", ["", "module.", "transformer."])
@pytest.mark.parametrize(("wanted", "held"), [(LLAMA, GPT2), (GPT2, LLAMA)])
def test_tensors_that_share_a_last_component_alone_are_another_architecture(
    wanted: list[str], held: list[str], prefix: str
):
    names = [name.removeprefix(prefix) if prefix == "transformer." else prefix + name for name in held]
    with pytest.raises(WeightsError, match=rf"another architecture: {len(wanted)} of {len(wanted)} .*more\)") as caught:
        matched(slots(*wanted), names)
    assert "more than one model" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "module._orig_mod.model."])
def test_a_head_beside_a_model_is_found_under_nested_prefixes(prefix: str):
    found = matched(slots(*LLAMA), [prefix + name for name in LLAMA]).names
    assert found == {name: prefix + name for name in LLAMA}


def test_two_models_in_one_file_are_refused():
    held = [prefix + name for prefix in ("student.", "teacher.") for name in NAMES]
    with pytest.raises(WeightsError, match="holds more than one model: both 'student"):
        matched(slots(*NAMES), held)


def test_two_tensors_for_one_place_are_refused():
    held = ["module." + name for name in NAMES] + [NAMES[0]]
    with pytest.raises(WeightsError, match=r"'module\.transformer\.wte\.weight' and 'transformer\.wte\.weight'"):
        matched(slots(*NAMES), held)


def test_exact_names_are_never_renamed():
    held = [*NAMES, *("ema." + name for name in NAMES)]
    with pytest.raises(WeightsError, match=r"not part of the program: ema\."):
        matched(slots(*NAMES), held)
    assert matched(slots(*NAMES), held, (r"^ema\.",)).names == {name: name for name in NAMES}


def test_an_empty_checkpoint_misses_everything():
    with pytest.raises(WeightsError, match="7 of 7 tensors are missing"):
        matched(slots(*NAMES), [])


PARTS = st.sampled_from(["model", "h", "0", "1", "weight", "module", "x"])


@given(st.lists(st.lists(PARTS, min_size=1, max_size=5).map(".".join), max_size=12, unique=True))
@settings(max_examples=200, deadline=None)
def test_a_match_is_one_to_one_or_an_error(held: list[str]):
    wanted = ["model.h.0.weight", "model.h.1.weight", "x.weight"]
    try:
        found = matched(slots(*wanted), held, (".*",))
    except WeightsError:
        return
    assert sorted(found.names) == sorted(wanted)
    assert len(set(found.names.values())) == len(wanted)
    assert all(name.endswith(".weight") or name == "weight" for name in found.names.values())


WRAPPED = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_module")


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_wrappers_are_understood_in_any_place_and_order(data: st.DataObject):
    held = {}
    for name in LLAMA:
        parts = []
        for part in name.split("."):
            parts += [*data.draw(st.lists(st.sampled_from(WRAPPED), max_size=2)), part]
        held[name] = ".".join(parts)
    assert matched(slots(*LLAMA), list(held.values())).names == held


def test_a_component_that_the_model_has_itself_is_no_wrapper():
    wanted = [f"model.layers.{i}.module.{part}.weight" for i in range(2) for part in ("a", "b")]
    held = ["_orig_mod." + name for name in wanted]
    assert matched(slots(*wanted), held).names == dict(zip(wanted, held, strict=True))
    with pytest.raises(WeightsError, match="missing: model"):
        matched(slots(*wanted), [*held[1:], wanted[0].replace(".module", "")])


def test_two_wrappings_of_one_tensor_are_refused():
    held = ["_orig_mod." + name for name in NAMES] + ["module." + NAMES[0]]
    with pytest.raises(WeightsError, match=r"both '_orig_mod\.transformer\.wte\.weight' and 'module\.transformer"):
        matched(slots(*NAMES), held)


@pytest.mark.parametrize("front", ["\x1b[2J", "\x1b[2J.", "x.", "model.model.", "\u202e", " ", "x"])
def test_a_tensor_that_only_ends_like_one_that_is_wanted_is_not_taken_for_it(front: str):
    odd = front + "model.norm.weight"
    held = [odd if name == "model.norm.weight" else name for name in LLAMA]
    with pytest.raises(WeightsError, match=r"missing: model\.norm\.weight; not part of the program: ") as caught:
        matched(slots(*LLAMA), held)
    assert str(caught.value).isprintable()
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("short", ["norm.weight", "embed_tokens.weight"])
def test_a_tensor_that_lacks_the_prefix_that_all_others_have_is_not_taken_for_one_with_it(short: str):
    held = [short if name == f"model.{short}" else name for name in LLAMA]
    with pytest.raises(WeightsError, match=rf"missing: model\.{short}; not part of the program: {short}"):
        matched(slots(*LLAMA), held)


def test_names_of_control_characters_that_all_tensors_share_are_no_prefix():
    with pytest.raises(WeightsError, match="another architecture") as caught:
        matched(slots(*LLAMA), ["\x1b[2J." + name for name in LLAMA])
    assert str(caught.value).isprintable()


def test_a_long_name_is_cut_in_the_message():
    with pytest.raises(WeightsError, match="not part of the program: xxx") as caught:
        matched(slots(*NAMES), [*NAMES, "x" * 100_000])
    assert len(str(caught.value)) < 400


def test_an_expression_that_explodes_is_matched_at_once():
    held = [*NAMES, *(f"{'a' * 60}{number}" for number in range(50))]
    with pytest.raises(WeightsError, match="not part of the program: aaaa"):
        matched(slots(*NAMES), held, ("^(a+)+$",))
    assert len(matched(slots(*NAMES), held, (r"^(a+)+\d+$",)).names) == len(NAMES)


@pytest.mark.parametrize("pattern", ["(?=a)b", "(", "(a)\\1"])
def test_an_expression_that_is_not_matched_is_one_line(pattern: str):
    with pytest.raises(WeightsError, match=r"tensors to ignore are not matched .*: compile the model again"):
        matched(slots(*NAMES), [*NAMES, "x"], (pattern,))


def test_more_tensors_than_any_model_has_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(names, "MAX_TENSORS", 10)
    with pytest.raises(WeightsError, match="has 11 tensors, and no more than 10 are read"):
        matched(slots(*NAMES), [str(number) for number in range(11)])


def test_many_names_take_seconds_at_most():
    held = [f"a{number % 7}.b{number % 11}.{number}.weight" for number in range(10_000)]
    start = time.perf_counter()
    with pytest.raises(WeightsError, match="another architecture"):
        matched(slots(*LLAMA), held, (r"rotary_emb\.inv_freq$", r"(a+)+x"))
    assert time.perf_counter() - start < 20
