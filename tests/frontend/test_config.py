"""Configs as others write them: each that cannot be a model's is one line that names the field, before any work."""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import bossa.frontend.importer  # noqa: F401  registers the attention that models are built with
from bossa.errors import BossaError, ModelError
from bossa.frontend import config as configs
from bossa.frontend import hub, sizes, sources
from bossa.frontend.build import build_model, fix_frequencies, sequence_limit
from bossa.host import network
from support import zoo

ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "someone/model"}


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """A directory with the config of a small model, changed, or with other content in its place."""

    def make(kind: str = "llama", content: bytes | None = None, **changed: Any) -> Path:
        text = json.dumps(zoo.MODELS[kind].config().to_dict() | changed).encode()
        (tmp_path / "config.json").write_bytes(text if content is None else content)
        return tmp_path

    return make


def front(place: Path | str) -> sources.ModelSource:
    """What compiling does before it traces."""
    source = sources.find(str(place), None, None, False)
    limit = sequence_limit(source.config, None)
    fix_frequencies(build_model(source.config, "bossa"), min(limit, 64))
    return source


def refusal(place: Path | str) -> str:
    with pytest.raises(BossaError) as caught:
        front(place)
    line = str(caught.value)
    assert line.isprintable()
    return line.replace(str(place), "DIR")


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        *(("gpt2", field, -1) for field in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size", "n_inner")),
        *(("gpt2", field, 0) for field in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size", "n_inner")),
        *(("qwen2", "num_hidden_layers", value) for value in (0, 10**12, 1.5, True, "2", [2], None, math.nan)),
        *(("llama", "max_position_embeddings", value) for value in (0, -5, 10**12, "x", None, True)),
        *(("llama", "head_dim", value) for value in (0, -4, 10**12, 7)),
        *(("llama", "intermediate_size", value) for value in (0, -1, 2**31, math.inf)),
        *(("llama", "num_key_value_heads", value) for value in (0, -1, 3)),
        *(("llama", "rms_norm_eps", value) for value in (1, -1.0, math.nan, math.inf, "x")),
        *(("llama", "rope_scaling", value) for value in ("linear", 3, {"rope_type": "linear", "factor": "2"})),
        ("llama", "rope_parameters", {"rope_type": "nosuch", "factor": 2.0}),
        *(("llama", "rope_parameters", {"rope_type": kind}) for kind in ("linear", "yarn", "llama3", ["x"])),
        *(("llama", "rope_parameters", {"rope_type": "default", "rope_theta": theta}) for theta in (0, -1.0, "x")),
        *(("qwen2", "layer_types", value) for value in (["full_attention"], ["full_attention", "nosuch"], "x")),
        *(("llama", field, "float99") for field in ("dtype", "torch_dtype")),
        *(("llama", "torch_dtype", value) for value in (7, [1], True)),
        *(("llama", "architectures", value) for value in ("LlamaForCausalLM", 1, [1], {})),
        *(("llama", "model_type", value) for value in (1, ["llama"], {})),
        *(("llama", "auto_map", value) for value in ([1], {"AutoConfig": 1})),
        *(("llama", "tie_word_embeddings", value) for value in ("yes", 1, [])),
        *(("llama", field, {"a": 1}) for field in ("eos_token_id", "bos_token_id", "pad_token_id")),
        *(("llama", "eos_token_id", value) for value in (["a"], 1.5, "x", [[1]])),
        ("gpt_neo", "attention_types", [[["global"], 10**9]]),
    ],
)
def test_a_value_that_no_model_has_is_refused_by_the_name_of_its_field(
    model: Callable[..., Path], kind: str, field: str, value: Any
) -> None:
    named = {"rope_scaling": "rope_parameters", "torch_dtype": "dtype"}.get(field, field)
    line = refusal(model(kind, **{field: value}))
    assert field in line or named in line


def test_heads_that_do_not_divide_are_refused_by_the_class_that_needs_it(model: Callable[..., Path]) -> None:
    assert "must be divisible by num_heads" in refusal(model("gpt2", n_head=5))


def test_no_config_that_transformers_makes_itself_is_refused() -> None:
    """Classes keep fields that they do not use, round down, or have layers that differ."""
    checked = 0
    for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        with contextlib.suppress(Exception):  # some need arguments, or packages
            config = CONFIG_MAPPING[kind]()
            checked += 1
        if config.model_type == kind:
            configs.check_raw(config.to_dict(), kind)
            sizes.check(config, kind)
    assert checked > 150
    for small in zoo.MODELS.values():
        sizes.check(small.config(), small.name)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "falcon", "phi3", "minicpm3", "gpt2", "mpt"])
def test_heads_that_there_are_none_of_are_told_by_their_field(model: Callable[..., Path], kind: str) -> None:
    """Some classes divide by them before anybody can look at the config, from a file as from a dictionary."""
    raw = zoo.MODELS[kind].config().to_dict()
    field = next(name for name in ("num_attention_heads", "n_head", "n_heads") if name in raw)
    assert f"{field} must not be 0" in refusal(model(kind, **{field: 0}))
    with pytest.raises(ModelError, match=f"{field} must not be 0"):
        build_model(sources.find(raw | {field: 0}, None, None, False).config, "bossa")


def test_the_reason_of_a_validation_error_is_kept(model: Callable[..., Path]) -> None:
    assert refusal(model(rms_norm_eps=1)) == (
        "DIR: its config cannot be read (Validation error for field 'rms_norm_eps':"
        " TypeError: Field 'rms_norm_eps' expected float, got int (value: 1))"
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not JSON"),
        (b'{"model_type": "lla', "is not JSON"),
        (b"[1]", "is not a JSON object but a list"),
        (b"null", "is not a JSON object but null"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        (b'\xef\xbb\xbf{"model_type": "llama"}', "begins with a byte order mark: save it as UTF-8 without one"),
        (b'{"a": "\xe9"}', "is not UTF-8"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"model_type": "llama", "a":' + b"[" * 60 + b"]" * 60 + b"}", "nested too deeply"),
        (b'{"a": "' + b"x" * (17 << 20) + b'"}', "is larger than 16 MiB"),
        (b'{"model_type": "llama", "hidden_size": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 6\n", "is a Git LFS pointer"),
        (json.dumps(ADAPTER).encode(), "is an adapter (LORA) of someone/model"),
        (b'{"model_type": "\\u001b[31mred"}', "does not recognize"),
        (b'{"model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.Own"}}', "--trust-remote-code"),
    ],
)
def test_a_file_that_is_no_config_is_named_for_what_it_is(
    model: Callable[..., Path], content: bytes, says: str
) -> None:
    assert says in refusal(model(content=content))


@pytest.mark.parametrize("method", ["fp8", "gptq", "awq", "bitsandbytes", "mxfp4", "compressed-tensors", "unheard-of"])
@pytest.mark.parametrize("inside", [False, True])
def test_quantized_checkpoints_are_named_with_the_remedy(model: Callable[..., Path], method: str, inside: bool) -> None:
    quantized = {"quantization_config": {"quant_method": method, "bits": 4}}
    line = refusal(model(**({"text_config": quantized} if inside else quantized)))
    assert f"quantized by {method}, 4 bits" in line
    assert "compile and run the unquantized model" in line


@pytest.mark.parametrize("given", [{}, "x", [1], {"load_in_8bit": True}, {"quant_method": 3}])
def test_quantization_of_an_odd_form_is_refused_too(model: Callable[..., Path], given: Any) -> None:
    assert "says that the weights are quantized by" in refusal(model(quantization_config=given))


def test_what_only_mentions_quantization_is_compiled(model: Callable[..., Path]) -> None:
    off = {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": False}
    for value in (None, off):
        front(model(quantization_config=value))


def test_a_directory_that_is_no_models_is_named_for_what_it_is(tmp_path: Path) -> None:
    assert "has no config.json" in refusal(tmp_path)
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    assert f"name one, as {Path('DIR') / 'small.gguf'}" in refusal(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(ADAPTER))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    for _ in range(2):  # without a config, and with one that a trainer has put beside it
        assert "DIR: is an adapter (LORA) of someone/model, and not a model: merge it" in refusal(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(zoo.MODELS["llama"].config().to_dict()))
    (tmp_path / "model.safetensors").write_bytes(b"")
    front(tmp_path)


@pytest.mark.parametrize(
    "given", [None, 7, 1.5, [], object(), b"gpt2", "", "a\nb", "a\0b", "x" * 5000, "/nowhere/at all"]
)
def test_what_is_no_model_at_all_is_said_in_a_line(given: Any) -> None:
    with pytest.raises(ModelError) as caught:
        sources.find(given, None, None, False)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_model_a_config_and_a_dictionary_are_the_same_source() -> None:
    config = zoo.MODELS["llama"].config()
    found = [sources.find(given, None, None, False) for given in (zoo.build(config), config, config.to_dict())]
    assert [source.config.to_dict() for source in found] == [config.to_dict()] * 3
    assert {source.name for source in found} == {"llama"}
    with pytest.raises(ModelError, match="n_layer is -1"):
        sources.find(zoo.MODELS["gpt2"].config().to_dict() | {"n_layer": -1}, None, None, False)
    with pytest.raises(ModelError, match="model_type is missing"):
        sources.find({"n_layer": 2}, None, None, False)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"eos_token_id": {"a": 1}}', "eos_token_id is {'a': 1}; it must be a token id or a list"),
        ('{"eos_token_id": [1, "2"]}', "eos_token_id is [1, '2']"),
        ('{"bos_token_id": true}', "bos_token_id is True"),
        ('{"pad_token_id": 1.5}', "pad_token_id is 1.5"),
        ('{"temperature": NaN}', "temperature is nan"),
        ("[1]", "is not a JSON object"),
        ("version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
def test_a_generation_config_that_is_none_is_refused(model: Callable[..., Path], content: str, says: str) -> None:
    place = model()
    (place / "generation_config.json").write_text(content)
    line = refusal(place)
    assert line.startswith("DIR: generation_config.json: ")
    assert says in line


def test_generation_defaults_come_from_their_file_or_from_an_old_config(model: Callable[..., Path]) -> None:
    assert front(model()).generation_config is None
    old = front(model(repetition_penalty=1.2)).generation_config
    assert old is not None
    assert old["repetition_penalty"] == 1.2
    place = model(repetition_penalty=1.2)
    (place / "generation_config.json").write_text('{"eos_token_id": [1, 2], "early_stopping": 7}')
    own = front(place).generation_config
    assert own is not None
    assert own["eos_token_id"] == [1, 2]
    assert "repetition_penalty" not in own


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A hub that does not answer; how long was waited for it, each time that it was asked."""
    asked: list[float] = []

    def nothing(_url: str, *, timeout: float) -> None:
        asked.append(timeout)
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(hub, "get_hf_file_metadata", nothing)
    return asked


def test_a_hub_that_does_not_answer_is_asked_once_and_said(unreachable: list[float], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be reached \(no route to host\): check the network") as caught:
        sources.find("someone/model", None, tmp_path, False)
    assert str(caught.value).isprintable()
    assert unreachable == [network.PATIENCE]
    assert network.PATIENCE <= 5


def test_without_the_hub_a_model_that_was_fetched_before_is_found(unreachable: list[float], tmp_path: Path) -> None:
    place = tmp_path / "models--someone--model"
    commit = "0123456789012345678901234567890123456789"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "snapshots" / commit).mkdir(parents=True)
    config = zoo.MODELS["llama"].config()
    (place / "snapshots" / commit / "config.json").write_text(json.dumps(config.to_dict()))
    (place / "snapshots" / commit / "generation_config.json").write_text('{"suppress_tokens": [3]}')
    source = sources.find("someone/model", None, tmp_path, False)
    assert source.config.hidden_size == config.hidden_size
    assert source.generation_config is not None
    assert source.generation_config["suppress_tokens"] == [3]
    assert len(unreachable) == 1


def test_a_tokenizer_that_cannot_be_converted_is_said_and_none_at_all_is_not(
    model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert front(place).tokenizer_files(tmp_path_factory.mktemp("none")) == {}
    (place / "tokenizer.model").write_bytes(b"not a model of sentencepiece")
    with pytest.warns(UserWarning, match=r"has tokenizer\.model, from which transformers cannot make a tok") as said:
        assert front(place).tokenizer_files(tmp_path_factory.mktemp("some")) == {}
    assert all(str(warning.message).isprintable() for warning in said)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.sampled_from([10**6, 2**31, 2**63, -(10**12), 10**30])
    | st.floats()
    | st.sampled_from(["", "x", "4", "gelu", "float32", "full_attention", "linear", "\x1b[31m\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "rope_type", "factor"]), inner),
    max_leaves=4,
)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
@settings(
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_whatever_stands_in_a_config_it_is_built_or_refused_in_one_line(
    tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    config = zoo.MODELS[kind].config().to_dict()
    for field in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=2)):
        config[field] = data.draw(json_values, label=field)
    (tmp_path / "config.json").write_text(json.dumps(config))
    try:
        front(tmp_path)
    except BossaError as error:
        line = str(error)
    else:
        line = ""
    assert line.isprintable(), line
    assert len(line) < 700 + len(str(tmp_path)), line
