"""What is passed for weights and is something else: one line each, which says what it is and what to do."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from bossa.checks.lfs import is_lfs_pointer
from bossa.errors import BossaError, WeightsError
from bossa.weights import Slot, Source, bind, open_weights
from bossa.weights.shards import MAX_NAME

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
PAGE = b"\n<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>"


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("x"), io.BytesIO())
    return buffer.getvalue()


def refusal(path: Path) -> str:
    with pytest.raises(BossaError) as caught:
        open_weights(path).names()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "x.pt", "x.gguf", "x.xyz"])
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (POINTER, "is a Git LFS pointer, not the file itself: fetch it with 'git lfs pull'"),
        (PAGE, "is a web page, as a server that wants a login sends it"),
        (b"Entry not found", "is text ('Entry not found'…), not weights"),
        ('{"error": "Accès refusé"}'.encode(), 'is text (\'{"error": "Accès refusé"}\'…), not weights'),
        (b"", "is empty"),
        (archive(), "is an archive: unpack it"),
    ],
)
def test_what_is_no_checkpoint_is_named_whatever_its_ending(tmp_path: Path, name: str, raw: bytes, reason: str):
    (tmp_path / name).write_bytes(raw)
    assert refusal(tmp_path / name).startswith(f"{tmp_path / name}: {reason}")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"GGUF" + bytes([3]) + bytes(99), "is a GGUF file: give it the ending .gguf"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
        (b"\x1f\x8b\x08\x00abcdefgh" + bytes(99), "is an archive"),
        (b"PK\x03\x04\x14\x00\x08\x08" + bytes(99), "is a ZIP file: if torch saved it, give it the ending .pt"),
        (b"\x80\x02}q\x00(X\x01\x00" + bytes(99), "is a pickle: if torch saved it, give it the ending .pt"),
        (b"\x81\xa6params\x81\xa5dense" + bytes(99), "is a Flax checkpoint: pass the model's safetensors"),
        (b"\xde\x00\x20\xd9\x28" + b"model.layers.0" * 3 + bytes(99), "is a Flax checkpoint"),
        (b"\xdf\x00\x01\x00\x00\xa6params" + bytes(99), "is a Flax checkpoint"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0" + bytes(99), "is an ONNX model"),
        (b"\x08\x0a\x3a\xff\xff\x03\x0a\x10node" + bytes(99), "is an ONNX model"),
        (b"\x08\x01\x12\xaa\x8b\x05\x0a\x10abcd" + bytes(99), "is a TensorFlow checkpoint"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(99), "is a TensorFlow checkpoint"),
        (bytes(range(200, 256)) * 3, "x.safetensors: is not a safetensors file: fetch the file again"),
        (b"\x08\x03\x12\0\0\0\0\0" + b'{"a":' + bytes(99), "or is cut short: its header claims 1180424 bytes"),
    ],
)
def test_a_safetensors_file_of_another_kind_is_named(tmp_path: Path, raw: bytes, reason: str):
    (tmp_path / "x.safetensors").write_bytes(raw)
    assert reason in refusal(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("model.zip", "is an archive: unpack it"),
        ("model.tar.gz", "is an archive: unpack it"),
        ("model.onnx", "is an ONNX model"),
        ("tf_model.h5", "is a TensorFlow checkpoint"),
        ("flax_model.msgpack", "is a Flax checkpoint"),
        ("model.safetensors.incomplete", "is a download that is not finished"),
        ("training_args.bin", "is the state of a training run, not weights: pass the model beside it"),
        ("optimizer.pt", "is the state of a training run"),
        ("rng_state_0.pth", "is the state of a training run"),
        ("model-00002-of-00003.safetensors", "is one of 3 shards: pass the directory"),
    ],
)
def test_a_file_of_another_kind_is_named_by_its_name(tmp_path: Path, name: str, reason: str):
    torch.save({"a": torch.ones(3)}, tmp_path / name)
    assert reason in refusal(tmp_path / name)


@pytest.mark.parametrize("kind", ["pipe", "device", "nothing", "directory"])
@pytest.mark.parametrize("names", [
    ["model.safetensors"], ["pytorch_model.bin"], ["model.safetensors.index.json"],
    ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], ["indexed.safetensors"],
])  # fmt: skip
def test_what_is_no_regular_file_in_a_directory_is_named(tmp_path: Path, names: list[str], kind: str):
    if names == ["indexed.safetensors"]:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": names[0]}}))
    for name in names:
        if kind == "pipe":
            os.mkfifo(tmp_path / name)
        elif kind == "directory":
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).symlink_to("/dev/zero" if kind == "device" else tmp_path / "away")
    reason = {"directory": "is a directory where a file is wanted", "nothing": "is a link that leads to no file"}
    what = reason.get(kind, "is a pipe or a device, not a regular file")
    assert refusal(tmp_path) == f"{tmp_path / names[0]}: {what}: fetch the file again"


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "x.safetensors")
    assert "is a pipe or a device" in refusal(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], r"is a LoRA adapter.*merge_and_unload"),
        (["consolidated.00.pth", "params.json"], "is in the layout of Meta's own programs"),
        (["zero_to_fp32.py", "latest"], "run the zero_to_fp32.py in it"),
        (["config.json", "tf_model.h5"], "tf_model.h5 is a TensorFlow checkpoint"),
        (["config.json", "flax_model.msgpack", "training_args.bin"], "flax_model.msgpack is a Flax checkpoint"),
        (["model.safetensors.crdownload"], "is a download that is not finished"),
        (["training_args.bin", "optimizer.pt", "config.json"], "has no model.safetensors .* pass a directory"),
        (["training_args.bin", "weights.pt"], r"pass one of its files by name \(weights\.pt\)"),
    ],
)
def test_a_directory_of_another_kind_is_named(tmp_path: Path, names: list[str], reason: str):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert re.search(reason, refusal(tmp_path))


def test_the_runs_in_a_directory_are_named(tmp_path: Path):
    (tmp_path / "checkpoint-500").mkdir()
    (tmp_path / "checkpoint-500" / "model.safetensors").write_bytes(b"")
    assert "pass a directory in it (checkpoint-500)" in refusal(tmp_path)


def shards(folder: Path, stem: str, count: int, ending: str = ".safetensors") -> list[Path]:
    paths = [folder / f"{stem}-{number:05d}-of-{count:05d}{ending}" for number in range(1, count + 1)]
    for number, path in enumerate(paths):
        if ending == ".safetensors":
            save_file({f"t{number}": np.full(3, number, np.float32)}, path)
        else:
            torch.save({f"t{number}": torch.full((3,), float(number))}, path)
    return paths


@pytest.mark.parametrize(
    ("stem", "ending"), [("model", ".safetensors"), ("pytorch_model", ".bin"), ("x", ".safetensors")]
)
def test_shards_without_an_index_are_read_if_all_are_there(tmp_path: Path, stem: str, ending: str):
    paths = shards(tmp_path, stem, 3, ending)
    source = open_weights(tmp_path)
    assert sorted(source.names()) == ["t0", "t1", "t2"]
    assert source.read("t2").tolist() == [2, 2, 2]
    before = source.identity()
    (tmp_path / "beside.txt").write_text("x")
    assert source.identity() == before
    os.utime(paths[1])
    assert source.identity() != before
    paths[1].unlink()
    assert f"has 2 of 3 shards of '{stem}' and no index; missing: {paths[1].name}: fetch" in refusal(tmp_path)


def test_of_the_usual_shards_safetensors_come_first_and_others_do_not_count(tmp_path: Path):
    shards(tmp_path, "model", 2)
    shards(tmp_path, "pytorch_model", 3, ".bin")
    shards(tmp_path, "consolidated", 4)
    assert sorted(open_weights(tmp_path).names()) == ["t0", "t1"]


@pytest.mark.parametrize("stems", [("a", "b"), ("model", "model")])
def test_shards_of_several_models_are_refused(tmp_path: Path, stems: tuple[str, str]):
    shards(tmp_path, stems[0], 2)
    shards(tmp_path, stems[1], 3)
    assert "has shards of several models and no index" in refusal(tmp_path)


@pytest.mark.parametrize(
    "name", ["m" * 5000 + ".safetensors", "ä" * (MAX_NAME // 2 + 1), "a\x1b[2J", "a/" * 20 + "b", "\u202ex"]
)
def test_a_shard_s_name_that_no_file_can_have_is_one_line(tmp_path: Path, name: str):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    text = refusal(tmp_path)
    assert "names a shard" in text
    assert "which is not a file beside it" in text
    assert text.isprintable()
    assert len(text) < 400


@pytest.mark.parametrize("path", ["m" * 5000, "m" * 5000 + ".safetensors", "a\0b", "m/" * 3000])
def test_a_path_that_cannot_be_is_no_such_model(path: str):
    assert "no such model or file" in refusal(Path(path))


def test_an_index_that_is_a_pointer_is_named(tmp_path: Path):
    (tmp_path / "model.safetensors.index.json").write_bytes(POINTER)
    assert "is a Git LFS pointer" in refusal(tmp_path)


def test_a_shard_that_is_a_pointer_is_named(tmp_path: Path):
    paths = shards(tmp_path, "model", 2)
    paths[0].write_bytes(POINTER)
    assert refusal(tmp_path).startswith(f"{paths[0]}: is a Git LFS pointer")


SLOTS = [
    Slot(name, "flat", (2, 3), "fp32", (Source((name,), (2, 3)),))
    for name in ("model.layers.0.q_proj.weight", "model.layers.0.o_proj.weight", "model.norm.weight")
]
PLAIN = {slot.name: np.ones((2, 3), np.float32) for slot in SLOTS}
Q = "model.layers.0.q_proj"


def without(*names: str) -> dict[str, Any]:
    return {name: array for name, array in PLAIN.items() if name not in names}


ONE = np.ones(1, np.float32)


@pytest.mark.parametrize(
    ("arrays", "kind"),
    [
        (without(f"{Q}.weight") | {f"{Q}.{part}": ONE for part in ("qweight", "qzeros", "scales")}, "GPTQ or AWQ"),
        ({f"{slot.name[:-6]}{part}": ONE for slot in SLOTS for part in ("qweight", "g_idx")}, "GPTQ or AWQ"),
        (PLAIN | {f"{Q}.weight_scale_inv": ONE}, "FP8 or compressed tensors"),
        (without(f"{Q}.weight") | {f"{Q}.weight_packed": ONE, f"{Q}.weight_shape": ONE}, "compressed tensors"),
        (PLAIN | {f"{Q}.weight": ONE, f"{Q}.weight.absmax": ONE, f"{Q}.weight.quant_map": ONE}, "bitsandbytes"),
        (PLAIN | {f"{Q}.SCB": ONE}, "bitsandbytes"),
        (without(f"{Q}.weight") | {f"{Q}_blocks": ONE, f"{Q}_scales": ONE}, "MXFP4"),
        (PLAIN | {f"{Q}.weight": ONE, f"{Q}.scales": ONE, f"{Q}.biases": ONE}, "MLX, GPTQ or AWQ"),
    ],
)
def test_a_quantized_checkpoint_is_called_that(checkpoint: Any, arrays: dict[str, Any], kind: str):
    with pytest.raises(WeightsError) as caught:
        bind(SLOTS, checkpoint(arrays))
    assert str(caught.value) == (
        f"memory: is quantized ({kind}): pass the unquantized model, or a GGUF file, and choose --precision when"
        " compiling"
    )


@pytest.mark.parametrize(
    "arrays",
    [
        {f"base_model.model.{Q}.lora_A.weight": ONE, f"base_model.model.{Q}.lora_B.weight": ONE},
        without(f"{Q}.weight") | {f"{Q}.base_layer.weight": ONE, f"{Q}.lora_A.default.weight": ONE},
    ],
)
def test_an_adapter_is_called_that(checkpoint: Any, arrays: dict[str, Any]):
    with pytest.raises(WeightsError, match=r"^memory: is a LoRA adapter, not a model: merge it into its base model"):
        bind(SLOTS, checkpoint(arrays))


def test_numbers_of_8_bits_are_refused_before_anything_is_made(tmp_path: Path):
    from safetensors.torch import save_file as save_torch

    tensors = {name: torch.ones(2, 3).to(torch.float8_e4m3fn) for name in PLAIN}
    save_torch(tensors, tmp_path / "x.safetensors")
    with pytest.raises(
        WeightsError, match=r"is stored as F8_E4M3, which is not read: .* or pass the unquantized model"
    ):
        bind(SLOTS, open_weights(tmp_path / "x.safetensors"))


def test_a_plain_checkpoint_with_a_tensor_too_many_is_not_called_quantized(checkpoint: Any):
    with pytest.raises(WeightsError, match=r"not part of the program: model\.extra\.weight"):
        bind(SLOTS, checkpoint(PLAIN | {"model.extra.weight": ONE}))


def test_a_zip_that_torch_did_not_save_is_one_line(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:
        file.writestr("a.txt", "x")
    assert "is not a torch state dict, or is damaged" in refusal(tmp_path / "x.pt")


STARTS = st.sampled_from([b"", POINTER, PAGE, b"GGUF\3\0\0\0", b"PK\3\4", b"\x80\2", b"\x1f\x8b", save(PLAIN)])


@given(STARTS, st.integers(0, 200), st.binary(max_size=300), st.sampled_from(["safetensors", "pt", "gguf", "xyz"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_checkpoint_or_one_line(tmp_path: Path, start: bytes, cut: int, rest: bytes, ending: str):
    path = tmp_path / f"x.{ending}"
    path.write_bytes(start[:cut] + rest)
    refusal = ""
    try:
        open_weights(path).names()
    except WeightsError as error:
        refusal = str(error)
    assert refusal.isprintable()


@pytest.mark.parametrize("raw", [b"", b"version", b"versions https://git-lfs.github.com/spec/v1", b"\0" * 200])
def test_other_files_are_no_pointers(raw: bytes):
    assert not is_lfs_pointer(raw)
