"""An adapter from a folder: its pairs by module, scaled, and the hash of all that they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from os import PathLike, fspath
from pathlib import Path

import numpy as np

from bossa.adapters.config import AdapterConfig, read_config
from bossa.adapters.pair import Floats, Pair
from bossa.errors import AdapterError, shown
from bossa.weights.source import WeightSource

FILES = ("adapter_model.safetensors", "adapter_model.bin")
"""Where the factors are, best first."""
FACTOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.default)?\.weight\Z")
BASE = ".base_layer.weight"
"""What an adapter of the head has beside its factors: a copy of the head of the model that it was made for."""
STRANGE = (
    ("lora_embedding_", "is of an embedding"),
    ("lora_magnitude_vector", "is of DoRA"),
    (".lora_B.bias", "is a bias of a factor"),
    (".bias", "is a bias"),
)
"""What else PEFT writes into an adapter, by a part of its name."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        pairs: by the name of the module that it stands beside, as the model that it was made for has it.
        where: the folder, for messages.
        content_hash: 32 bytes that stand for the pairs and the modules' names.
        transposed: see ``AdapterConfig``.
    """

    pairs: Mapping[str, Pair]
    where: str
    content_hash: bytes
    transposed: bool


def read(folder: str | PathLike[str]) -> Adapter:
    """The adapter in a folder: ``adapter_config.json`` and ``adapter_model.safetensors`` or ``.bin``.

    Raises:
        AdapterError: there is none, it is damaged, or of a kind that is not supported.
        WeightsError: the file of its factors cannot be read.
    """
    place = Path(fspath(folder))
    config = read_config(place)
    source = _open(place)
    factors: dict[str, dict[str, str]] = {}
    names = dict.fromkeys(source.names())
    for name in names:
        match = FACTOR.match(name)
        if name.endswith(BASE) and f"{name.removesuffix(BASE)}.lora_A.weight" in names:
            continue
        if match is None:
            what = next((what for part, what in STRANGE if part in name), "is no factor of a low-rank pair")
            raise AdapterError(
                f"{source.describe()}: tensor {shown(name)!r} {what}, which is not supported: train an adapter of"
                " low-rank pairs beside linears alone, or merge it with PEFT and compile that"
            )
        if match["factor"] in factors.setdefault(match["module"], {}):
            raise AdapterError(f"{source.describe()}: holds {shown(name)!r} under two names: fetch the adapter again")
        factors[match["module"]][match["factor"]] = name
    if not factors:
        raise AdapterError(f"{source.describe()}: holds no low-rank pairs: train the adapter, or pass another")
    digest = blake2b(digest_size=32)
    pairs = {}
    for module in sorted(factors):
        pairs[module] = pair = _pair(module, factors[module], source, config)
        digest.update(repr((module, pair.down.shape, pair.up.shape)).encode("utf-8", "surrogatepass"))
        digest.update(pair.down.tobytes())
        digest.update(pair.up.tobytes())
    return Adapter(pairs, shown(place), digest.digest(), config.transposed)


def _open(folder: Path) -> WeightSource:
    from bossa.weights.open import open_weights

    for name in FILES:
        if (folder / name).is_file():
            return open_weights(folder / name)
    raise AdapterError(f"{shown(folder)}: has no {FILES[0]} and no {FILES[1]}: fetch the adapter again")


def _pair(module: str, names: Mapping[str, str], source: WeightSource, config: AdapterConfig) -> Pair:
    where = source.describe()
    if len(names) < 2:
        missing = "B" if "A" in names else "A"
        raise AdapterError(f"{where}: {shown(module)!r} has no lora_{missing}: fetch the adapter again")
    down, up = (_factor(source, names[factor]) for factor in "AB")
    if down.shape[0] != up.shape[1] or not down.size or not up.size:
        raise AdapterError(
            f"{where}: the factors of {shown(module)!r} are {list(down.shape)} and {list(up.shape)}, which do not"
            " multiply: fetch the adapter again"
        )
    with np.errstate(over="ignore"):
        scaled = up * np.float32(config.scale(module, len(down)))
    for factor in (down, scaled):
        if not np.isfinite(factor).all():
            raise AdapterError(
                f"{where}: the factors of {shown(module)!r} hold NaN or infinity: the adapter is damaged, or its"
                " training diverged"
            )
    return Pair(np.ascontiguousarray(down), np.ascontiguousarray(scaled))


def _factor(source: WeightSource, name: str) -> Floats:
    shape = source.shape(name)
    if len(shape) != 2:
        raise AdapterError(
            f"{source.describe()}: tensor {shown(name)!r} has the shape {list(shape)}, and only linears take adapters:"
            " train one beside linears alone, or merge it with PEFT and compile that"
        )
    return source.float32(name)
