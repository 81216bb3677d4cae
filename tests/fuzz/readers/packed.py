"""Entries of the cache of packed weights, their headers changed and their checksums put right again or not."""

from __future__ import annotations

import json
import os
import random
import struct
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from bossa.weights import cache
from fuzz.json_mutations import mutate_json
from fuzz.mutations import NUMBERS, mutate_bytes
from fuzz.reader import demand
from fuzz.readers.program_files import run_command

TOTAL = 4096
BLOB = bytes(number % 251 for number in range(TOTAL))
NAMES = ("a", "b")


def fill(memory: object, offset: int) -> None:
    memory[offset : offset + TOTAL] = BLOB  # type: ignore[index]


class CacheReader:
    """`WeightCache`: an entry found or made again, listed and pruned."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            kept = cache.WeightCache(folder)
            self.key = kept.key([], "the fuzzed checkpoint")
            kept.open_or_build(self.key, "/models/the fuzzed checkpoint", TOTAL, fill)
            (entry,) = kept.entries()
            self.name = entry.path.name
            self.seed = entry.path.read_bytes()
        self.header = len(self.seed) - TOTAL

    def seeds(self) -> list[bytes]:
        return [self.seed]

    def mutate(self, chance: random.Random, bases: Sequence[bytes]) -> bytes:
        data = chance.choice(bases)
        if len(data) < self.header or chance.random() < 0.25:
            return mutate_bytes(chance, data, bases)
        version, size, _ = struct.unpack_from("<III", data, 8)
        text = data[20 : 20 + size].decode("utf-8", "replace")
        if chance.random() < 0.1:
            version = chance.choice(NUMBERS) % 2**32
        else:
            text = mutate_json(chance, text)
        raw = text.encode("utf-8", "surrogatepass")[: self.header - 20]
        claimed = len(raw) if chance.random() < 0.9 else chance.choice(NUMBERS) % 2**32
        head = self.seed[:8] + struct.pack("<III", version, claimed, zlib.crc32(raw)) + raw
        return head.ljust(self.header, b"\0") + data[self.header :]

    def passes(self, data: bytes) -> bool:
        if len(data) < self.header or data[:8] != self.seed[:8]:
            return False
        _, size, crc = struct.unpack_from("<III", data, 8)
        return zlib.crc32(data[20 : 20 + size]) == crc

    def read(self, data: bytes, folder: Path) -> None:
        kept = cache.WeightCache(folder)
        kept.directory.mkdir(mode=0o700)
        path = kept.directory / self.name
        path.touch(0o600)
        path.write_bytes(data)
        with mock.patch.dict(os.environ, {"BOSSA_CACHE": str(folder)}):
            run_command("cache", "list")
            listed = json.loads(run_command("cache", "list", "--json"))
        demand(len(listed) <= 1, "one entry is listed twice")
        found = kept.find(self.key, TOTAL)
        memory, offset, _ = kept.open_or_build(self.key, "/models/x", TOTAL, fill)
        demand(len(memory) - offset >= TOTAL, "an entry is shorter than its weights")
        if found is None:
            demand(bytes(memory[offset : offset + TOTAL]) == BLOB, "an entry that is made again has other bytes")
        kept.prune(everything=True)
        demand(not list(kept.directory.iterdir()), "something is left of a cache that was pruned whole")
