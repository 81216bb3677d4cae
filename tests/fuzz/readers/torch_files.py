"""Torch state dicts, in the ZIP that torch writes today and in the format before it."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch

from bossa.weights.open import open_weights
from fuzz.mutations import mutate_bytes, odd_text
from fuzz.reader import demand
from fuzz.readers.safetensors import check_tensors


def saved(state: object, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def zipped_members(data: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as held:
            return {name: held.read(name) for name in held.namelist()}
    except Exception:  # a damaged one raises whatever its bytes lead to
        return {}


def zipped(members: dict[str, bytes], method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as out:
        for name, data in members.items():
            out.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


class TorchReader:
    """A ``.pt`` file, by `open_weights`."""

    def seeds(self) -> list[bytes]:
        generator = torch.Generator().manual_seed(0)
        state = {
            "model.embed.weight": torch.randn(5, 4, generator=generator),
            "model.norm.weight": torch.randn(4, generator=generator).bfloat16(),
            "half": torch.randn(3, generator=generator).half(),
            "turned": torch.randn(2, 3, generator=generator).T,
            "count": torch.tensor(7),
        }
        wrapped = {"state_dict": state, "epoch": 3, "lr": [0.1]}
        return [saved(state), saved(wrapped), saved(state, zipped=False)]

    def mutate(self, chance: random.Random, bases: Sequence[bytes]) -> bytes:
        data = chance.choice(bases)
        members = zipped_members(data)
        if not members or chance.random() < 0.1:
            return mutate_bytes(chance, data, bases)
        names = list(members)
        pickled = next((name for name in names if name.endswith("data.pkl")), names[0])
        name = pickled if chance.random() < 0.7 else chance.choice(names)
        match chance.randrange(12):
            case 0:
                del members[name]
            case 1:
                members[odd_text(chance, name)[:200].replace("\0", "") or "x"] = members.pop(name)
            case _:
                members[name] = mutate_bytes(chance, members[name], list(members.values()))
        stored = zipfile.ZIP_STORED if chance.random() < 0.95 else zipfile.ZIP_DEFLATED
        return zipped(members, stored)

    def passes(self, data: bytes) -> bool:
        return any(name.endswith("data.pkl") for name in zipped_members(data)) or data[:2] == b"\x80\x02"

    def read(self, data: bytes, folder: Path) -> None:
        path = folder / "model.pt"
        path.write_bytes(data)
        source = open_weights(path)
        demand(all(isinstance(name, str) for name in source.names()), "a tensor's name is no text")
        check_tensors(source)
