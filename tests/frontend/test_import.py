"""From a model to a row program: what is refused and how, and what compiling costs."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

import bossa
from bossa.errors import BossaError, CompileError, ModelError
from bossa.frontend.build import build_model, sequence_limit, tell_shortened
from bossa.frontend.importer import import_model
from bossa.ir.program import Program
from support import zoo

SMALL = {
    **{"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    **{"vocab_size": 99, "num_local_experts": 4, "max_position_embeddings": 131_072},
}


class _Config(PretrainedConfig):
    model_type = "bossa-test"

    def __init__(self, kind: str = "plain", **rest: object) -> None:
        self.kind = kind
        self.hidden_size = 8
        self.vocab_size = 11
        self.max_position_embeddings = 16
        super().__init__(**rest)


class _Mixer(nn.Module):
    """One thing that a model may do to its rows, by name."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.convolution = nn.Conv1d(8, 8, 3, padding=2, groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        match self.kind:
            case "cumsum":
                return x.cumsum(1)
            case "roll":
                return x.roll(1, 1)
            case "shift":
                return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
            case "loop":
                return torch.stack([x[:, i] for i in range(x.shape[1])], 1)
            case "blocks":
                padded = nn.functional.pad(x, (0, 0, 0, -x.shape[1] % 4))
                return padded.reshape(1, -1, 4, 8).flip(1).reshape(1, -1, 8)[:, : x.shape[1]]
            case "values":
                return x if x.sum() > 0 else -x
            case "convolution":
                return self.convolution(x.transpose(1, 2))[:, :, : x.shape[1]].transpose(1, 2)
            case "mean":
                return x + x.mean(1, keepdim=True)
            case "softmax":
                return x.softmax(1)
            case "length":
                return x * (x.shape[1] ** -0.5)
            case "transpose":
                return (x.transpose(1, 2) @ x) @ x.transpose(1, 2)[:, :, :8] if False else x @ (x.transpose(1, 2) @ x)
            case "both ways":
                return nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]
            case "top":
                return x.sort(-1).values
            case _:
                return torch.tanh(x)


class _Model(PreTrainedModel, GenerationMixin):
    config_class = _Config
    _supports_sdpa = True

    def __init__(self, config: _Config) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, 8)
        self.mixer = _Mixer(config.kind)
        self.head = nn.Linear(8, config.vocab_size)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, **_: object) -> CausalLMOutput:
        return CausalLMOutput(logits=self.head(self.mixer(self.embed(input_ids))))


AutoConfig.register("bossa-test", _Config, exist_ok=True)
AutoModelForCausalLM.register(_Config, _Model, exist_ok=True)


def _import(kind: str) -> object:
    return import_model(_Config(kind), name=kind, max_seq_length=16)


def test_a_model_that_keeps_to_its_rows_is_imported() -> None:
    assert [type(op).__name__ for op in _import("plain").program.body] == ["Embed", "Map", "Linear"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cumsum", "aten.cumsum.* in mixer .*: it reads along the sequence"),
        ("roll", "in mixer "),
        ("shift", "^__getitem__ in mixer ._Mixer.: _Model cannot be traced: its graph depends on the sequence's"),
        ("loop", "^before __getitem__ in mixer ._Mixer.: _Model cannot be traced: its graph depends on the sequence's"),
        ("blocks", "^reshape in mixer ._Mixer.: _Model cannot be traced: "),
        ("values", "^__bool__ in mixer ._Mixer.: _Model cannot be traced: "),
        ("convolution", "aten.conv.* in mixer.convolution .Conv1d.: a convolution that mixes channels"),
        ("mean", "aten.mean.* in mixer .*: it reads along the sequence"),
        ("softmax", "softmax.* in mixer .*: it reads along the sequence"),
        ("length", "depends on the length of the whole sequence|in mixer"),
        ("transpose", "matmul.* in mixer|bmm.* in mixer"),
        ("both ways", "scaled_dot_product_attention.* in mixer .*not causal"),
        ("top", "aten.sort.* in mixer .*: no rule for this operator"),
    ],
)
def test_what_is_not_local_to_its_row_or_not_known_is_refused_by_operator_and_module(kind: str, message: str) -> None:
    with pytest.raises(CompileError, match=message) as caught:
        _import(kind)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["mamba", "rwkv"])
def test_architectures_of_another_kind_are_refused_in_one_line(kind: str) -> None:
    config = zoo.Model(kind, kind, {"num_key_value_heads": 2, "state_size": 4}).config()
    with pytest.raises(BossaError, match=r"\w+") as caught:
        import_model(config, name=kind, max_seq_length=16)
    assert "\n" not in str(caught.value)


def test_a_config_that_transformers_cannot_build_is_a_model_error() -> None:
    config = zoo.MODELS["llama"].config(num_key_value_heads=3)
    with pytest.raises((ModelError, CompileError), match=r"llama|Llama"):
        import_model(config, name="x", max_seq_length=16)


def test_the_length_is_the_one_asked_for_or_the_models_own() -> None:
    config = zoo.MODELS["gpt2"].config()
    assert sequence_limit(config, None) == sequence_limit(config, -1) == zoo.LENGTH
    assert sequence_limit(config, 10) == 10
    with pytest.warns(UserWarning, match="the model allows 1,048,576 tokens, and is compiled for 32,768"):
        tell_shortened(zoo.MODELS["llama"].config(max_position_embeddings=1 << 20), None)
    assert sequence_limit(zoo.MODELS["llama"].config(max_position_embeddings=1 << 20), None) == 32768
    assert sequence_limit(zoo.MODELS["llama"].config(max_position_embeddings=1 << 20), 40000) == 40000
    with pytest.raises(CompileError, match="max_seq_length is 1"):
        sequence_limit(config, 1)


@pytest.mark.parametrize("asked", [10**12, 10**5000, -(10**5000)], ids=["long", "huge", "least"])
def test_a_length_that_no_table_has_is_one_line(asked: int) -> None:
    with pytest.raises(CompileError, match="max_seq_length is ") as caught:
        sequence_limit(zoo.MODELS["gpt2"].config(), asked)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_a_shorter_length_is_told_only_of_a_model_that_can_be_compiled(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "num_hidden_layers": 1} | SMALL))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(CompileError):
            bossa.compile(tmp_path)
    assert not [warning for warning in caught if "is compiled for" in str(warning.message)]


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("llama", "head_dim", 3),
        ("qwen3", "head_dim", 3),
        ("qwen2", "hidden_size", 36),
        ("gptj", "rotary_dim", 3),
        ("codegen", "rotary_dim", 5),
    ],
)
def test_an_odd_number_that_rotary_positions_cannot_pair_is_named(kind: str, field: str, value: int) -> None:
    with pytest.raises(CompileError, match=rf"{field}.* is \d, and rotary positions want an even number"):
        import_model(zoo.MODELS[kind].config(**{field: value}), name="x", max_seq_length=16)


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        *(("llama", "hidden_act"), ("gpt2", "activation_function"), ("phi", "hidden_act")),
        *(("gptj", "activation_function"), ("falcon", "activation"), ("gpt_neo", "activation_function")),
    ],
)
def test_an_activation_that_there_is_not_is_told_by_its_field(kind: str, field: str) -> None:
    config = zoo.MODELS[kind].config(**{field: "no\x1bsuch"})
    with pytest.raises(ModelError, match=rf"{field} is 'no.*such'; it must be one that transformers knows: correct"):
        import_model(config, name="x", max_seq_length=16)


def test_learned_positions_are_not_read_beyond_their_end() -> None:
    config = zoo.MODELS["gpt2"].config()
    with pytest.raises(CompileError, match="needs position 79, the model has 64: compile with a shorter"):
        import_model(config, name="x", max_seq_length=80)


def test_parameters_stay_on_meta_and_computed_buffers_have_their_values() -> None:
    model = build_model(zoo.MODELS["llama"].config(), "bossa")
    assert all(parameter.is_meta for parameter in model.parameters())
    buffers = dict(model.named_buffers())
    assert buffers
    assert all(not buffer.is_meta and bool(torch.isfinite(buffer).all()) for buffer in buffers.values())


_SEVEN_BILLION = """
import resource
from transformers import LlamaConfig
from bossa.frontend.importer import import_model
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_attention_heads=32, num_hidden_layers=4)
config.num_hidden_layers = 4
imported = import_model(config, name="x", max_seq_length=128)
print(imported.parameters, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.long
def test_a_large_model_is_compiled_without_allocating_its_weights() -> None:
    """Four layers of a 7B model are 4.3 GB in fp32; importing them may take a tenth."""
    result = subprocess.run([sys.executable, "-c", _SEVEN_BILLION], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    parameters, megabytes = map(int, result.stdout.split())
    assert parameters > 1_000_000_000
    assert megabytes < 430


def test_what_no_length_mends_is_said_before_a_shorter_one_is_advised() -> None:
    """At a length at which attention that is written out is not looked at."""
    config = zoo.Model("mixtral", "mixtral", {"num_key_value_heads": 2, "max_position_embeddings": 1 << 17}).config()
    with pytest.raises(CompileError, match=r"aten\.topk\.default in model\.layers\.0\.mlp\.gate .*: no rule"):
        import_model(config, name="mixtral", max_seq_length=8200)


def test_threads_that_import_models_get_what_they_would_alone() -> None:
    """`torch.export` cannot trace in two threads at once."""
    expected = zoo.imported("gpt2")

    def imported(_: int) -> Program:
        return import_model(zoo.MODELS["gpt2"].config(), name="gpt2", max_seq_length=zoo.LENGTH).program

    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(imported, range(3)))
    assert [(program.body, program.slots) for program in together] == [(expected.body, expected.slots)] * 3


def test_tied_weights_make_one_slot_read_by_either_name() -> None:
    program = zoo.imported("gpt2")
    names = {names for slot in program.slots.values() for source in slot.sources if len(names := source.names) > 1}
    assert {"lm_head.weight", "transformer.wte.weight"} in [set(n) for n in names]
