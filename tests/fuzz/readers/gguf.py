"""GGUF files, as transformers reads them for us."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from bossa.weights.open import open_weights
from fuzz.mutations import NUMBERS, mutate_bytes, odd_number, odd_text
from fuzz.reader import demand
from fuzz.readers.safetensors import check_tensors

UINT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 6, 7, 8, 9, 10
FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", UINT32: "<I", 5: "<i", FLOAT32: "<f", BOOL: "<?", UINT64: "<Q", 11: "<q"}
FORMATS |= {12: "<d"}
WIDTH, LAYERS, VOCABULARY = 32, 1, 8


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]  # the fastest axis first
    kind: int = 0
    offset: int | None = None


@dataclass(frozen=True)
class Gguf:
    """What a file says; the counts are those of what it holds unless they are given."""

    fields: tuple[tuple[str, int, Any], ...]
    tensors: tuple[Tensor, ...]
    version: int = 3
    counts: tuple[int | None, int | None] = (None, None)
    tail: int = field(default=0)


def llama() -> Gguf:
    sizes = {"context_length": 32, "embedding_length": WIDTH, "block_count": LAYERS, "feed_forward_length": 64}
    sizes |= {"attention.head_count": 2, "attention.head_count_kv": 1, "rope.dimension_count": 16, "vocab_size": 8}
    fields: list[tuple[str, int, Any]] = [
        ("general.architecture", STRING, "llama"),
        ("general.name", STRING, "tiny"),
        *((f"llama.{name}", UINT32, value) for name, value in sizes.items()),
        ("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
        ("llama.rope.freq_base", FLOAT32, 10000.0),
        ("tokenizer.ggml.model", STRING, "llama"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, ["<unk>", "<s>", "</s>", *"abcde"])),
        ("tokenizer.ggml.scores", ARRAY, (FLOAT32, [0.0] * VOCABULARY)),
        ("tokenizer.ggml.bos_token_id", UINT32, 1),
        ("tokenizer.ggml.eos_token_id", UINT32, 2),
    ]
    tensors = [Tensor("token_embd.weight", (WIDTH, VOCABULARY)), Tensor("output_norm.weight", (WIDTH,))]
    for part, shape in (
        *(("attn_norm", (WIDTH,)), ("ffn_norm", (WIDTH,)), ("attn_q", (WIDTH, WIDTH)), ("attn_k", (WIDTH, 16))),
        *(("attn_v", (WIDTH, 16)), ("attn_output", (WIDTH, WIDTH)), ("ffn_gate", (WIDTH, 64))),
        *(("ffn_up", (WIDTH, 64)), ("ffn_down", (64, WIDTH))),
    ):
        tensors.append(Tensor(f"blk.0.{part}.weight", shape))
    return Gguf(tuple(fields), tuple(tensors))


def written(file: Gguf) -> bytes:
    out = io.BytesIO()
    tensors, fields = file.counts
    out.write(b"GGUF" + struct.pack("<I", file.version))
    out.write(struct.pack("<Q", len(file.tensors) if tensors is None else tensors))
    out.write(struct.pack("<Q", len(file.fields) if fields is None else fields))
    for name, kind, value in file.fields:
        out.write(text(name) + struct.pack("<I", kind) + raw(kind, value))
    position = 0
    for tensor in file.tensors:
        out.write(text(tensor.name) + struct.pack("<I", len(tensor.shape)))
        out.write(b"".join(struct.pack("<Q", extent % 2**64) for extent in tensor.shape))
        out.write(struct.pack("<IQ", tensor.kind, (position if tensor.offset is None else tensor.offset) % 2**64))
        position += min(-(-4 * prod(tensor.shape) // 32) * 32, 1 << 16)
    out.write(bytes(-out.tell() % 32))
    out.write(b"".join(struct.pack("<f", number % 7 / 7) for number in range(min(position, 1 << 17) // 4)))
    data = out.getvalue()
    return data[: len(data) - file.tail] if file.tail else data


def text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded


def raw(kind: int, value: Any) -> bytes:
    """A field's value in its type; what does not fit it, in 32 bits."""
    if kind == STRING and isinstance(value, str):
        return text(value)
    if kind == ARRAY and isinstance(value, tuple):
        inner, items = value
        return struct.pack("<IQ", inner, len(items)) + b"".join(raw(inner, item) for item in items)
    try:
        return struct.pack(FORMATS[kind], value)
    except (KeyError, struct.error):
        return struct.pack("<I", value % 2**32 if isinstance(value, int) else 0)


class GgufReader:
    """A ``.gguf`` file, by `open_weights`."""

    def seeds(self) -> list[bytes]:
        return [written(llama())]

    def mutate(self, chance: random.Random, bases: Sequence[bytes]) -> bytes:
        if chance.random() < 0.35:
            return mutate_bytes(chance, chance.choice(bases), bases)
        file = llama()
        for _ in range(chance.choice((1, 1, 2))):
            file = changed(chance, file)
        return written(file)

    def passes(self, data: bytes) -> bool:
        return data[:4] == b"GGUF" and int.from_bytes(data[4:8], "little") in (2, 3)

    def read(self, data: bytes, folder: Path) -> None:
        path = folder / "model.gguf"
        path.write_bytes(data)
        source = open_weights(path)
        demand(all(isinstance(name, str) for name in source.names()), "a tensor's name is no text")
        check_tensors(source)


def changed(chance: random.Random, file: Gguf) -> Gguf:
    fields, tensors = list(file.fields), list(file.tensors)
    at = chance.randrange(len(fields)) if fields else 0
    to = chance.randrange(len(tensors)) if tensors else 0
    match chance.randrange(12):
        case 0 if fields:
            del fields[at]
        case 1 if fields:
            fields.insert(at, fields[chance.randrange(len(fields))])
        case 2 | 3 | 4 if fields:
            name, kind, value = fields[at]
            if isinstance(value, str):
                value = chance.choice((odd_text(chance, value), "gpt2", "qwen2", "phi3", "falcon", "t5", "mamba"))
            elif isinstance(value, int):
                value = odd_number(chance, value)
            elif isinstance(value, float):
                value = chance.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))
            else:
                value = (value[0], chance.choice(([], value[1][:3], value[1] * 50, [odd_text(chance)] * 8)))
            fields[at] = (name, kind, value)
        case 5 if fields:
            name, _, value = fields[at]
            fields[at] = (name, chance.choice((*range(14), 99, 2**32 - 1)), value)
        case 6 if fields:
            _, kind, value = fields[at]
            fields[at] = (odd_text(chance, fields[at][0]), kind, value)
        case 7:
            return replace(file, counts=(chance.choice(NUMBERS) % 2**64, None))
        case 8:
            return replace(file, counts=(None, chance.choice(NUMBERS) % 2**64))
        case 9 if tensors:
            shape = list(tensors[to].shape)
            shape[chance.randrange(len(shape))] = odd_number(chance, shape[0])
            tensors[to] = replace(tensors[to], shape=tuple(shape))
        case 10 if tensors:
            kind = chance.choice((*range(40), 2**32 - 1))
            tensors[to] = replace(tensors[to], kind=kind, offset=chance.choice((None, *NUMBERS)))
        case _ if tensors:
            tensors[to] = replace(tensors[to], name=odd_text(chance, tensors[to].name))
    return replace(file, fields=tuple(fields), tensors=tuple(tensors))
