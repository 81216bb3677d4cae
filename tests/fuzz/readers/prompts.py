"""Records of prompts: an input is read as JSON and as JSON Lines, and as what its bytes say where they are gzipped."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

from bossa.dataset import BadRecord, Record, read_records
from bossa.dataset.json_text import dump
from fuzz.json_mutations import mutate_json
from fuzz.mutations import mutate_bytes
from fuzz.reader import demand, wrong_message

LINES = (
    b'{"prompt": "Once upon a time", "id": 1}\n{"prompt": "\\u00e9\\ud83e\\udd16", "n": 18446744073709551616}\n\n'
    b'{"prompt": "x", "nested": {"a": [1, 2.5, null, true]}, "nan": NaN}\n[1]\n"text"\n{"prompt": 5}\n{}\n'
)
DOCUMENT = (
    b'[\n {"prompt": "Once", "id": 1},\n {"prompt": "upon a time", "completion": "x",\n  "more": [[], {}]},\n 3\n]\n'
)
CHAT = b'{"messages": [{"role": "user", "content": "Hi"}], "prompt": "p"}'


class PromptsReader:
    """`read_records`: every record, good or bad, in its place."""

    def seeds(self) -> list[bytes]:
        plain = [LINES, DOCUMENT, CHAT, b"\xef\xbb\xbf" + LINES]
        return [*plain, gzip.compress(LINES, mtime=0), gzip.compress(DOCUMENT, mtime=0)]

    def mutate(self, chance: random.Random, bases: Sequence[bytes]) -> bytes:
        data = chance.choice(bases)
        if data[:2] == b"\x1f\x8b" and chance.random() < 0.7:
            return gzip.compress(self._changed(chance, inflated(data), bases), 1, mtime=0)
        return self._changed(chance, data, bases)

    def _changed(self, chance: random.Random, data: bytes, bases: Sequence[bytes]) -> bytes:
        roll = chance.random()
        if roll < 0.15:
            return mutate_bytes(chance, data, bases)
        text = data.decode("utf-8", "replace")
        if roll < 0.2:
            return text.encode(chance.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")), "replace")
        if is_json(data):
            text = mutate_json(chance, text)
        else:
            lines = text.split("\n")
            at = chance.randrange(len(lines))
            lines[at] = mutate_json(chance, lines[at]) if lines[at] else chance.choice(("", "\r", " ", "\0", "nul"))
            text = "\n".join(lines)
        return text.encode("utf-8", "surrogatepass")

    def passes(self, data: bytes) -> bool:
        plain = inflated(data) if data[:2] == b"\x1f\x8b" else data
        return is_json(plain) or any(is_json(line) for line in plain.split(b"\n"))

    def read(self, data: bytes, folder: Path) -> None:
        ending = ".gz" if data[:2] == b"\x1f\x8b" else ""
        for name in ("x.json", "x.jsonl"):
            path = folder / (name + ending)
            path.write_bytes(data)
            for number, record in enumerate(read_records(str(path))):
                demand(record.index == number and record.line >= 1, "a record is out of its place")
                if isinstance(record, BadRecord):
                    reason = wrong_message(str(record))
                    demand(reason is None, f"{reason}, of a bad record")
                elif isinstance(record, Record):
                    demand(isinstance(record.prompt, str), "a prompt is no text")
                again = json.loads(dump(record.fields))
                demand(list(again) == list(record.fields), "a record that is written has other fields")
            path.unlink()


def inflated(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, ValueError):
        return b""
    except Exception:  # zlib.error, which has no name of its own in gzip
        return b""


def is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True
