"""What people pass for weights and is something else, each named for what it is, with what to do instead."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from bossa.checks.lfs import FETCH, is_lfs_pointer
from bossa.errors import WeightsError, shown

AGAIN = "fetch the file again"
ARCHIVE = "is an archive: unpack it, and pass what is in it"
SAFE = "pass the model's safetensors"
HEADS: tuple[tuple[bytes, str], ...] = (
    (b"GGUF", "is a GGUF file: give it the ending .gguf"),
    (b"\x89HDF", f"is an HDF5 file, as of TensorFlow or Keras: {SAFE}"),
    (b"PK\x03\x04", "is a ZIP file: if torch saved it, give it the ending .pt, else unpack it and pass what is in it"),
    *((head, ARCHIVE) for head in (b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh", b"7z\xbc\xaf\x27\x1c")),
    (b"\x93NUMPY", f"is a NumPy array: {SAFE}"),
    (b"Rar!", ARCHIVE),
    (b"\x7fELF", f"is a program or a library: {SAFE}"),
    (b"\x80", "is a pickle: if torch saved it, give it the ending .pt"),
)
FLAX = f"is a Flax checkpoint: {SAFE}"
ONNX = "is an ONNX model: pass the safetensors of the model that it was exported from"
TENSORFLOW = f"is a TensorFlow checkpoint: {SAFE}"
ENDINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".zst", ".7z", ".rar"), ARCHIVE),
    ((".onnx", ".onnx_data"), ONNX),
    ((".h5", ".keras", ".pb", ".tflite"), TENSORFLOW),
    ((".msgpack",), FLAX),
    ((".distcp", ".metadata"), "is part of a distributed checkpoint: save the whole state dict in one file"),
    ((".incomplete", ".part", ".crdownload", ".aria2", ".tmp"), f"is a download that is not finished: {AGAIN}"),
)
TRAINING = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state(_\d+)?)\.(bin|pt|pth)\Z")
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
MERGE = (
    "is a LoRA adapter, not a model: merge it into its base model (peft: PeftModel.from_pretrained(…)."
    "merge_and_unload().save_pretrained(…)), and pass that"
)
META = re.compile(r"consolidated\.\d+\.pth\Z")
META_SAYS = "is in the layout of Meta's own programs: pass the model in transformers' layout"
DEEPSPEED = "is a DeepSpeed checkpoint: run the zero_to_fp32.py in it, and pass what that makes"

_QUANTIZED: tuple[tuple[str, str], ...] = (
    (r"\.(qweight|qzeros|g_idx)$", "GPTQ or AWQ"),
    (r"\.(weight_scale_inv|weight_scale|input_scale|activation_scale)$", "FP8 or compressed tensors"),
    (r"\.(weight_packed|weight_shape|weight_zero_point|weight_global_scale)$", "compressed tensors"),
    (r"\.(absmax|quant_map|nested_absmax|SCB|weight_format)$|\.quant_state\.bitsandbytes__", "bitsandbytes"),
    (r"_(blocks|scales)$", "MXFP4"),
    (r"\.(scales|biases)$", "MLX, GPTQ or AWQ"),
    (r"\.(codes|codebooks)$", "AQLM"),
    (r"\.W_q$", "HQQ"),
    (r"\.weight\._(data|scale)$", "quanto"),
)
QUANTIZED = tuple((re.compile(pattern), kind) for pattern, kind in _QUANTIZED)
UNQUANTIZED = "pass the unquantized model, or a GGUF file, and choose --precision when compiling"
LORA = re.compile(r"\.(lora_[A-Za-z_]+|base_layer|modules_to_save)\.")
META_NAME = re.compile(r"layers\.0\.(attention\.wq|feed_forward\.w1)\.weight$")


def check_regular(path: Path) -> None:
    """Refuses what is there and is no file that can be read from its start to its end; a pipe would never answer.

    Raises:
        WeightsError: it is a directory, a pipe or a device, or a link to one or to nothing.
    """
    if path.is_file() or not os.path.lexists(path):
        return
    if path.is_dir():
        what = "is a directory where a file is wanted"
    elif path.exists():
        what = "is a pipe or a device, not a regular file"
    else:
        what = "is a link that leads to no file"
    raise WeightsError(f"{shown(path)}: {what}: {AGAIN}")


def check_head(path: Path, own: tuple[bytes, ...] = ()) -> bytes:
    """Refuses a file whose beginning shows that it is no checkpoint at all, or one of another kind.

    Args:
        own: how files of the wanted kind may begin, where they could be taken for another.

    Returns:
        The first 512 bytes.

    Raises:
        WeightsError: it is, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightsError(f"{shown(path)}: cannot be read ({error.strerror}): check its permissions") from None
    if (what := None if own and head.startswith(own) else _kind(head)) is not None:
        raise WeightsError(f"{shown(path)}: {what}")
    return head


def _kind(head: bytes) -> str | None:
    if not head:
        return f"is empty: {AGAIN}"
    if is_lfs_pointer(head):
        return FETCH
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<script")):
        return f"is a web page, as a server that wants a login sends it: {AGAIN}, logged in"
    if head[257:262] == b"ustar":
        return ARCHIVE
    if _is_text(head):
        return f"is text ({' '.join(head.decode('utf-8', 'ignore').split())[:40]!r}…), not weights: {AGAIN}"
    if (what := next((what for magic, what in HEADS if head.startswith(magic)), None)) is not None:
        return what
    is_safetensors = head[4:9] == b"\0\0\0\0{"  # the length of its header may be any bytes
    return None if is_safetensors else _unmarked_kind(head)


def _unmarked_kind(head: bytes) -> str | None:
    """The kind of a file that has no mark of its own, by how its first fields are written."""
    if head[4:8] == b"TFL3":
        return TENSORFLOW
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x2a", b"\x32", b"\x3a", b"\x42"):
        # a version, then a field that has a length: a model's producer, domain or graph, or a saved model's graphs
        return TENSORFLOW if head[1:3] == b"\x01\x12" else ONNX if 1 <= head[1] <= 32 else None
    # a map of MessagePack, and the text that its first key is
    first = 1 if 0x81 <= head[0] <= 0x8F else {0xDE: 3, 0xDF: 5}.get(head[0])
    if first is not None and len(head) > first and (0xA0 < head[first] <= 0xBF or 0xD9 <= head[first] <= 0xDB):
        return FLAX
    return None


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not a letter that the end of the head cuts
            return False
        text = head[: error.start].decode("utf-8")
    return len(text) >= 8 and all(letter.isprintable() or letter in "\r\n\t" for letter in text)


def is_training_state(name: str) -> bool:
    """Whether a file of this name holds the state of a training run beside its weights."""
    return TRAINING.match(name) is not None


def describe_name(name: str) -> str | None:
    """What a file is by its name alone, where that is no checkpoint; None where the name does not say."""
    name = name.lower()
    if is_training_state(name):
        return "is the state of a training run, not weights: pass the model beside it"
    return next((what for endings, what in ENDINGS if name.endswith(endings)), None)


def describe_folder(folder: Path, names: Sequence[str]) -> str | None:
    """What a directory holds where it has no model's weights under their usual names; None where nothing says."""
    held = set(names)
    if held.intersection(ADAPTER):
        return MERGE
    if any(META.match(name) for name in names):
        return META_SAYS
    if "zero_to_fp32.py" in held:
        return DEEPSPEED
    for name in names:
        if (what := describe_name(name)) is not None and not is_training_state(name):
            return f"has no weights that can be read: {shown(name)} {what}"
    inside = [shown(name) for name in names if (folder / name / "model.safetensors").is_file()]
    if inside:
        return f"has no weights itself: pass a directory in it ({', '.join(inside[:4])})"
    return None


def describe_names(names: Iterable[str]) -> str | None:
    """What the names of the tensors show a checkpoint to be, where it is not that of a plain model."""
    kinds: list[str] = []
    for name in names:
        if LORA.search(name):
            return MERGE
        if META_NAME.search(name):
            return META_SAYS
        kinds += (kind for pattern, kind in QUANTIZED if pattern.search(name))
    return f"is quantized ({min(set(kinds), key=_rank)}): {UNQUANTIZED}" if kinds else None


def _rank(kind: str) -> int:
    """The kinds' order in the table, whose surest signs stand first."""
    return [other for _, other in QUANTIZED].index(kind)
