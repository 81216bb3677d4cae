"""Finding weights: directories, shards, torch files, GGUF files and the hub's cache."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from bossa.errors import ModelError, WeightsError
from bossa.host import network
from bossa.weights import open_weights
from bossa.weights.hub import cached_snapshot

A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(4, np.float32)


def write_shards(folder: Path, weight_map: Any = None) -> Path:
    save_file({"a": A}, folder / "one.safetensors")
    save_file({"b": B}, folder / "two.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map or {"a": "one.safetensors", "b": "two.safetensors"}}))
    return index


@pytest.mark.parametrize("whole", [True, False])
def test_shards_are_one_source(tmp_path: Path, whole: bool):
    index = write_shards(tmp_path)
    source = open_weights(tmp_path if whole else index)
    assert sorted(source.names()) == ["a", "b"]
    np.testing.assert_array_equal(source.read("a"), A)
    before = source.identity()
    save_file({"b": B + 1}, tmp_path / "two.safetensors")
    assert source.identity() != before


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        ({"a": "../one.safetensors"}, "names a shard '../one.safetensors', which is not a file beside it"),
        ({"a": "/etc/passwd"}, "names a shard '/etc/passwd'"),
        ({"a": "x\\y"}, "names a shard"),
        ({"a": "gone.safetensors"}, r"shards are missing: gone\.safetensors"),
        ({"a": 3}, "names a shard|shard name that is not text"),
        ({"a": "two.safetensors", "b": "two.safetensors"}, r"tensor 'a' is not in two\.safetensors"),
        ({"a": "one.safetensors", "x": "one.safetensors"}, r"tensor 'x' is not in one\.safetensors"),
        ([], "shards"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, weight_map: Any, reason: str):
    index = write_shards(tmp_path, weight_map)
    if weight_map == []:
        index.write_text("[]")
    with pytest.raises(WeightsError, match=reason):
        open_weights(tmp_path).names()


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path):
    write_shards(tmp_path)
    save_file({"a": A, "b": B}, tmp_path / "two.safetensors")
    with pytest.raises(
        WeightsError, match="tensor 'a' is in both one.safetensors and two.safetensors".replace(".", r"\.")
    ):
        open_weights(tmp_path).names()


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"weight_map": {}}', "\udcff"])
def test_a_garbled_index_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(WeightsError, match=r"index of shards|not valid JSON"):
        open_weights(tmp_path)


def test_a_directory_without_weights_names_what_it_has(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"has no model\.safetensors .* pass a directory that has one"):
        open_weights(tmp_path)
    (tmp_path / "consolidated.safetensors").touch()
    with pytest.raises(WeightsError, match=r"pass one of its files by name \(consolidated\.safetensors\)"):
        open_weights(tmp_path)


def test_an_unknown_kind_of_file_is_refused(tmp_path: Path):
    (tmp_path / "x.xyz").write_bytes(bytes(100))
    with pytest.raises(WeightsError, match="not a kind of weights that can be read"):
        open_weights(tmp_path / "x.xyz")


STATE = {"a": torch.arange(6.0).reshape(2, 3), "half": torch.randn(5).to(torch.bfloat16), "t": torch.randn(3, 2).T}


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("modern", [True, False])
def test_torch_state_dicts_are_read_alone_and_wrapped(tmp_path: Path, wrap: str | None, modern: bool):
    saved: Any = STATE if wrap is None else {wrap: STATE, "epoch": 3, "optimizer": {"lr": 0.1}}
    path = tmp_path / "x.pt"
    torch.save(saved, path, _use_new_zipfile_serialization=modern)
    source = open_weights(path)
    assert sorted(source.names()) == sorted(STATE)
    for name, tensor in STATE.items():
        assert source.shape(name) == tuple(tensor.shape)
        np.testing.assert_array_equal(source.float32(name), tensor.float().numpy(), strict=True)


def test_torch_shards_are_one_source(tmp_path: Path):
    torch.save({"a": STATE["a"]}, tmp_path / "pytorch_model-1.bin")
    torch.save({"t": STATE["t"]}, tmp_path / "pytorch_model-2.bin")
    weight_map = {"a": "pytorch_model-1.bin", "t": "pytorch_model-2.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert sorted(open_weights(tmp_path).names()) == ["a", "t"]


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil",)


@pytest.mark.parametrize("kind", ["torch", "pickle", "module"])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    if kind == "torch":
        torch.save({"a": STATE["a"], "b": Evil()}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"b": Evil()}))
    else:
        torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(WeightsError, match=r"^\S+x\.pt: is a pickle that could run code when it is loaded.*$"):
        open_weights(path).names()
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("raw", [b"\x01junk" * 10, b"PK\x03\x04" + bytes(100)])
def test_a_torch_file_that_is_damaged_is_refused_with_one_line(tmp_path: Path, raw: bytes):
    (tmp_path / "x.pt").write_bytes(raw)
    with pytest.raises(WeightsError, match=r"^[^\n]*is not a torch state dict, or is damaged[^\n]*$"):
        open_weights(tmp_path / "x.pt").names()


@pytest.mark.parametrize("saved", [[1, 2], {"epoch": 3}, torch.zeros(3), {1: torch.zeros(3)}])
def test_a_torch_file_without_a_state_dict_is_refused(tmp_path: Path, saved: Any):
    torch.save(saved, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        open_weights(tmp_path / "x.pt").names()


@pytest.mark.parametrize(
    ("name", "head", "missing", "reason"),
    [
        ("x.pt", b"\x80\x02", "torch", r"reading torch files needs torch: install bossa\[compile\], or convert"),
        ("x.gguf", b"GGUF", "transformers", r"needs torch, transformers and gguf: install bossa\[compile\]"),
    ],
)
def test_without_torch_the_message_says_what_to_install(
    tmp_path: Path, name: str, head: bytes, missing: str, reason: str, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / name).write_bytes(head)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(WeightsError, match=reason):
        open_weights(tmp_path / name).names()


@pytest.mark.slow
def test_a_gguf_file_gives_the_weights_that_transformers_would_run(tmp_path: Path):
    models = os.environ.get("BOSSA_TEST_MODELS")
    if not models or not (Path(models) / "smollm2.gguf").is_file():
        pytest.skip("set BOSSA_TEST_MODELS to a directory that holds smollm2.gguf")
    from transformers import AutoModelForCausalLM

    source = open_weights(Path(models) / "smollm2.gguf")
    model = AutoModelForCausalLM.from_pretrained(models, gguf_file="smollm2.gguf", dtype=torch.float32)
    state = model.state_dict()
    assert sorted(source.names()) == sorted(state)
    for name in list(state)[::40]:
        np.testing.assert_array_equal(source.float32(name), state[name].numpy())


@pytest.mark.parametrize("raw", [b"\0" * 40, b"not\0gguf"])
def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, raw: bytes):
    (tmp_path / "x.gguf").write_bytes(raw)
    with pytest.raises(WeightsError, match="is not a GGUF file"):
        open_weights(tmp_path / "x.gguf").names()


def test_a_damaged_gguf_file_is_refused_with_one_line(tmp_path: Path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(50))
    with pytest.raises(WeightsError, match=r"^[^\n]*transformers cannot read this GGUF file[^\n]*$"):
        open_weights(tmp_path / "x.gguf").names()


@pytest.mark.parametrize("name", ["no/such/deep/path", "./gone", "gone.safetensors", "a b", "/no/where", "x.gguf"])
def test_a_path_that_is_not_there_is_no_such_model(name: str):
    with pytest.raises(ModelError, match="no such model or file: check the path"):
        open_weights(name)


def write_snapshot(cache: Path, name: str, revision: str = "0" * 40) -> Path:
    model = cache / ("models--" + name.replace("/", "--"))
    folder = model / "snapshots" / revision
    folder.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(revision)
    (folder / "config.json").write_text("{}")
    save_file({"a": A}, folder / "model.safetensors")
    return folder


def test_a_model_in_the_hub_cache_is_found_without_the_hub_s_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_snapshot(tmp_path, "someone/model")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert open_weights("someone/model", cache_dir=tmp_path).describe() == str(folder / "model.safetensors")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert open_weights("someone/model").names() == ["a"]


def test_a_cache_whose_revision_points_elsewhere_is_not_followed(tmp_path: Path):
    write_snapshot(tmp_path, "model")
    (tmp_path / "models--model" / "refs" / "main").write_text("../../..")
    assert cached_snapshot("model", tmp_path) is None


def test_a_snapshot_that_lacks_a_shard_is_not_whole(tmp_path: Path):
    folder = write_snapshot(tmp_path, "model")
    (folder / "model.safetensors").unlink()
    assert cached_snapshot("model", tmp_path) is None
    write_shards(folder)
    assert cached_snapshot("model", tmp_path) == folder
    (folder / "two.safetensors").unlink()
    assert cached_snapshot("model", tmp_path) is None


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path):
    program = (
        "import sys\nfrom bossa.weights import open_weights\nfrom bossa.errors import ModelError\n"
        "try: open_weights('someone/model', cache_dir=sys.argv[1])\nexcept ModelError as error: print(error)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout.startswith(
        "someone/model: no such file or directory, and no such model could be fetched from the hub ("
    )
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("no route\nto the hub"), type("ConnectError", (Exception,), {})()])
def test_any_error_of_the_hub_s_client_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    reason = "no route" if str(error) else "ConnectError"
    with pytest.raises(ModelError, match=rf"no such model could be fetched from the hub \({reason}\)") as caught:
        open_weights("someone/model", cache_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_stopping_a_fetch_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", stop)
    with pytest.raises(KeyboardInterrupt):
        open_weights("someone/model", cache_dir=tmp_path)


NAMELESS = "http://a-host-that-is-not-there.invalid"


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("what", ["nobody", "silence", "no such host"])
def test_a_hub_that_does_not_answer_is_given_up_after_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: str, what: str
):
    endpoint = {"nobody": "http://127.0.0.1:9", "silence": silent, "no such host": NAMELESS}[what]
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network, "PATIENCE", 0.5)
    start = time.perf_counter()
    with pytest.raises(ModelError, match="no such model could be fetched from the hub") as caught:
        open_weights("someone/model", cache_dir=tmp_path)
    assert time.perf_counter() - start < 5
    assert "\n" not in str(caught.value)


def test_a_look_up_that_cannot_be_stopped_is_not_waited_for():
    ended = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer in 0\.1 seconds"):
        network.within(0.1, ended.wait)
    ended.set()
    assert network.within(5, lambda: 3) == 3


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME"])
def test_the_home_of_a_user_that_there_is_not_is_one_line(monkeypatch: pytest.MonkeyPatch, variable: str):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.setenv(variable, "~nosuchuser/x")
    with pytest.raises(ModelError, match=rf"^{variable}: ~nosuchuser/x: there is no such user: set it to another"):
        open_weights("someone/model")


def test_a_snapshot_of_shards_without_an_index_is_whole_if_all_are_there(tmp_path: Path):
    folder = write_snapshot(tmp_path, "model")
    (folder / "model.safetensors").unlink()
    save_file({"a": A}, folder / "model-00001-of-00002.safetensors")
    assert cached_snapshot("model", tmp_path) is None
    save_file({"b": B}, folder / "model-00002-of-00002.safetensors")
    assert cached_snapshot("model", tmp_path) == folder
    assert sorted(open_weights("model", cache_dir=tmp_path).names()) == ["a", "b"]
