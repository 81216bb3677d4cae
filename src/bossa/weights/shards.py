"""The index of a checkpoint in several files: which shard holds which tensor, with every path kept inside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bossa.errors import WeightsError

MAX_INDEX = 256 << 20
"""The largest index that is read, in bytes."""


@dataclass(frozen=True)
class Shards:
    """The shard files, in order of their names, and the shard's name of each tensor."""

    files: list[Path]
    weight_map: dict[str, str]


def read_index(path: Path) -> Shards:
    """Reads ``*.index.json``.

    Raises:
        WeightsError: it is not a valid index, names a file outside its directory, or a shard is missing.
    """

    def refuse(what: str) -> NoReturn:
        raise WeightsError(f"{path}: {what}: fetch the checkpoint again")

    try:
        if path.stat().st_size > MAX_INDEX:
            refuse(f"is larger than {MAX_INDEX >> 20} MiB")
        data = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        refuse(f"cannot be read ({error.strerror})")
    except (ValueError, RecursionError):
        refuse("is not valid JSON")
    weight_map = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        refuse("is not an index of shards: it has no weight_map")
    for name in set(map(str, weight_map.values())):
        if not _is_inside(name):
            refuse(f"names a shard {name[:80]!r}, which is not a file beside it")
    if not all(isinstance(name, str) for name in weight_map.values()):
        refuse("has a shard name that is not text")
    names = sorted(set(weight_map.values()))
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        refuse(f"shards are missing: {', '.join(missing[:4])}{more}")
    return Shards([path.parent / name for name in names], weight_map)


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    bad = any(part in ("", ".", "..") for part in parts)
    return not bad and not any(letter in "\\:" or ord(letter) < 32 for letter in name)


def check_shards(held: Mapping[str, Iterable[str]], weight_map: Mapping[str, str] | None, where: Path) -> None:
    """Checks that no tensor is in two files, and that each is in the file that the index says.

    Args:
        held: the names in each file, by the file's name as the index writes it.

    Raises:
        WeightsError: one is not.
    """
    home: dict[str, str] = {}
    for file, names in held.items():
        for name in names:
            if name in home:
                raise WeightsError(
                    f"{where}: tensor {name!r} is in both {home[name]} and {file}: fetch the checkpoint again"
                )
            home[name] = file
    for name, file in (weight_map or {}).items():
        if home.get(name) != file:
            raise WeightsError(f"{where}: tensor {name!r} is not in {file}, where it should be: fetch the file again")
