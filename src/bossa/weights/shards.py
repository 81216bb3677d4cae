"""The index of a checkpoint in several files: which shard holds which tensor, with every path kept inside."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bossa.checks.lfs import FETCH, is_lfs_pointer
from bossa.errors import WeightsError, shown
from bossa.weights.kinds import check_regular

MAX_INDEX = 32 << 20
"""The largest index that is read, in bytes: a model of 1,000 tensors has one of 100 kB."""
MAX_SHARDS = 10_000
MAX_NAME = 255
"""Bytes of the longest file name that Linux allows."""
NUMBERED = re.compile(
    r"(?P<stem>[^/]*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ending>\.safetensors|\.bin)\Z", re.ASCII
)
"""How transformers names shards."""


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
        raise WeightsError(f"{shown(path)}: {what}: fetch the checkpoint again")

    try:
        if path.stat().st_size > MAX_INDEX:
            refuse(f"is an index of more than {MAX_INDEX >> 20} MiB, which is not read")
        raw = path.read_bytes()
    except OSError as error:
        refuse(f"cannot be read ({error.strerror})")
    if is_lfs_pointer(raw):
        raise WeightsError(f"{shown(path)}: {FETCH}")
    try:
        data = json.loads(raw.decode("utf-8"))
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
    if len(names) > MAX_SHARDS:
        refuse(f"names {len(names):,} shards, and no more than {MAX_SHARDS:,} are read")
    for name in names:
        check_regular(path.parent / name)
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        refuse(f"shards are missing: {_listed(missing)}")
    return Shards([path.parent / name for name in names], weight_map)


def numbered_shards(folder: Path, names: Iterable[str]) -> list[Path]:
    """The shards of a model whose index is not there, by their numbers; none where there are none.

    Raises:
        WeightsError: one of them is missing, or there are those of several models.
    """
    found: dict[tuple[str, str, int], set[int]] = {}
    for name in names:
        match = NUMBERED.match(name)
        if match is not None and 1 <= int(match["number"]) <= int(match["count"]):
            group = (match["stem"], match["ending"], int(match["count"]))
            found.setdefault(group, set()).add(int(match["number"]))
    usual = [group for group in found if group[:2] in (("model", ".safetensors"), ("pytorch_model", ".bin"))]
    groups = usual[:1] if len({group[:2] for group in usual}) == len(usual) and usual else list(found)
    if not groups:
        return []
    if len(groups) > 1:
        shards = ", ".join(shown(_shard(group, min(found[group]))) for group in groups[:4])
        raise WeightsError(
            f"{shown(folder)}: has shards of several models and no index ({shards}): keep those of one alone"
        )
    stem, _, count = groups[0]
    wanted = set(range(1, count + 1))
    if found[groups[0]] != wanted:
        missing = [_shard(groups[0], number) for number in sorted(wanted - found[groups[0]])[:MAX_SHARDS]]
        raise WeightsError(
            f"{shown(folder)}: has {len(found[groups[0]])} of {count} shards of {shown(stem)!r} and no index; missing:"
            f" {_listed(missing)}: fetch the checkpoint again"
        )
    return [folder / _shard(groups[0], number) for number in sorted(wanted)]


def describe_shard(path: Path) -> str | None:
    """What to do with one shard that is given by its name; None where it is none, or the only one."""
    match = NUMBERED.match(path.name)
    if match is None or int(match["count"]) <= 1:
        return None
    return f"is one of {int(match['count'])} shards: pass the directory that they are in"


def _shard(group: tuple[str, str, int], number: int) -> str:
    stem, ending, count = group
    return f"{stem}-{number:05d}-of-{count:05d}{ending}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(shown(name) for name in names[:4]) + more


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    bad = any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > MAX_NAME for part in parts)
    return not bad and len(parts) <= 8 and not any(letter in "\\:" or not letter.isprintable() for letter in name)


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
                    f"{shown(where)}: tensor {name!r} is in both {shown(home[name])} and {shown(file)}: fetch the"
                    " checkpoint again"
                )
            home[name] = file
    for name, file in (weight_map or {}).items():
        if home.get(name) != file:
            raise WeightsError(
                f"{shown(where)}: tensor {name!r} is not in {shown(file)}, where it should be: fetch the file again"
            )
