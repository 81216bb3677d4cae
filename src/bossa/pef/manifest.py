"""The manifest of a PEF: what the program computes, what it needs, and what the file holds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import prod
from typing import Any

from bossa.errors import PefError
from bossa.formats.precision import GONE, KV_PRECISIONS, PRECISIONS, KvPrecision, Precision
from bossa.ir.state import ALIGNMENT
from bossa.pef.checks import Fields, parse
from bossa.pef.slots import read_slots

FORMAT_VERSION = 2
"""The one format version that this Bossa writes and reads."""
TRACED_MODULE = "traced module"
"""The ``kind`` of a program file that holds sections of any module; that of a causal language model has none."""
MAX_BYTES = 16 << 20
"""The largest manifest that is read."""
MOST_SEQUENCES = 2**31 - 1
"""At once: what the native program counts with. As many run as there is memory for."""

MOST_STATE_DRAFTS = 2**16
"""Guessed tokens of a sequence that recurrent state may have room for."""

DTYPE_BYTES = {
    **{"fp32": 4, "float32": 4, "fp64": 8, "float64": 8, "bf16": 2, "fp16": 2, "float16": 2},
    **{"int8": 1, "uint8": 1, "bool": 1, "int16": 2, "int32": 4, "int64": 8},
}
TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}\Z")


class TracedModule(PefError):
    """The file holds a traced module, where the program of a causal language model is wanted."""


@dataclass(frozen=True)
class Member:
    """What the manifest promises of one member: its size in bytes and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Constant:
    """One array of ``constants.bin``: a table that was computed when the model was compiled."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


@dataclass(frozen=True)
class Section:
    """One section of the program, for people to read."""

    name: str
    kind: str
    text: str


@dataclass(frozen=True)
class Manifest:
    """Everything that a PEF says about itself.

    Attributes:
        format_version: ``FORMAT_VERSION``; a change that old readers would misread raises it.
        bossa_version: the Bossa that wrote the file.
        name: what the PEF was called when it was compiled.
        architecture: the model's class in transformers.
        model_type: the model type in its config.
        precision: of the packed weights, one of ``PRECISIONS``.
        max_seq_length: the most positions that a sequence may have.
        batch_size: the most sequences at once.
        vocab_size: number of logits in a row.
        page_size: positions in one KV page.
        page_bytes: bytes of one KV page, all layers together; 0 where nothing is kept of single positions.
        kv_precision: of the keys and values in it, ``fp32``, ``bf16`` or ``int8``.
        arena_bytes_per_row: activation memory for each packed row of a step.
        targets: CPUs that a compiled library is held for, in the order in which they were asked for.
        slots: the packed weights, each as ``bossa.ir.slot.Slot.to_json`` writes it.
        constants: the arrays in ``constants.bin``.
        ignored_tensors: regular expressions of checkpoint tensors that are not wanted and not missed, of the kind
            that ``bossa.checks.patterns`` matches.
        parameters: number of weights.
        sections: the program's sections, in order.
        torch_version, transformers_version: what traced the model.
        members: size and SHA-256 of every other member of the file.
        state_bytes: bytes of recurrent state of one sequence, all layers together, with what is kept of guessed tokens;
            0 where there is none.
        state_drafts: guessed tokens that it has room for.
        adapters: whether the program takes adapters; programs that take none leave it out.
        extra: keys that this Bossa does not know: additions that a reader may ignore.
    """

    format_version: int
    bossa_version: str
    name: str
    architecture: str
    model_type: str
    precision: Precision
    max_seq_length: int
    batch_size: int
    vocab_size: int
    page_size: int
    page_bytes: int
    kv_precision: KvPrecision
    arena_bytes_per_row: int
    targets: tuple[str, ...]
    slots: tuple[Mapping[str, Any], ...]
    constants: tuple[Constant, ...]
    ignored_tensors: tuple[str, ...]
    parameters: int
    sections: tuple[Section, ...]
    torch_version: str
    transformers_version: str
    members: Mapping[str, Member]
    state_bytes: int = 0
    state_drafts: int = 0
    adapters: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "manifest.json") -> Manifest:
        """The manifest in a parsed JSON object, every field checked.

        Raises:
            PefError: a field is missing, of the wrong type or out of range, or a newer Bossa made the file.
        """
        read = Fields(data, where)
        version = read_version(read)
        if data.get("kind") == TRACED_MODULE:
            raise TracedModule(
                f"{where}: holds a traced module, not a causal language model: run it from the program that compiled"
                " it, by samba.utils.trace_graph and samba.session.run"
            )
        precision = read.text("precision")
        if precision in GONE:
            raise PefError(
                f"{where}: was compiled with the precision {precision!r}, which is no longer there: compile the model"
                f" again, with {GONE[precision]}"
            )
        if precision not in PRECISIONS:
            read.refuse("precision", "one of " + ", ".join(PRECISIONS))
        kv_precision = read.text("kv_precision")
        if kv_precision not in KV_PRECISIONS:
            read.refuse("kv_precision", "one of " + ", ".join(KV_PRECISIONS))
        return cls(
            format_version=version,
            bossa_version=read.text("bossa_version"),
            name=read.text("name"),
            architecture=read.text("architecture"),
            model_type=read.text("model_type"),
            precision=precision,
            max_seq_length=read.integer("max_seq_length", 1, 2**31 - 1),
            batch_size=read.integer("batch_size", 1, MOST_SEQUENCES),
            vocab_size=read.integer("vocab_size", 1, 2**31 - 1),
            page_size=read.integer("page_size", 1, 2**16),
            page_bytes=read.integer("page_bytes", 0, 2**48),
            kv_precision=kv_precision,
            arena_bytes_per_row=read.integer("arena_bytes_per_row", 0, 2**48),
            targets=_targets(read),
            slots=read_slots(read),
            constants=_constants(read),
            ignored_tensors=_patterns(read),
            parameters=read.integer("parameters"),
            sections=_sections(read),
            torch_version=read.text("torch_version", empty=True),
            transformers_version=read.text("transformers_version", empty=True),
            members=read_members(read),
            **_state(read),
            adapters=read.boolean("adapters") if "adapters" in read.value else False,
            extra=read.additions(KNOWN),
        )

    def to_json(self) -> dict[str, Any]:
        """The object that ``from_json`` reads; its keys are in a fixed order."""
        result: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self) if item.name in KNOWN}
        result["targets"] = list(self.targets)
        result["slots"] = [dict(slot) for slot in self.slots]
        result["constants"] = [
            {
                "name": constant.name,
                "dtype": constant.dtype,
                "shape": list(constant.shape),
                "offset": constant.offset,
                "bytes": constant.bytes,
            }
            for constant in self.constants
        ]
        result["ignored_tensors"] = list(self.ignored_tensors)
        result["sections"] = [
            {"name": section.name, "kind": section.kind, "text": section.text} for section in self.sections
        ]
        result["members"] = {
            name: {"size": self.members[name].size, "sha256": self.members[name].sha256}
            for name in sorted(self.members)
        }
        if not self.state_bytes:
            del result["state_bytes"], result["state_drafts"]
        if not self.adapters:
            del result["adapters"]
        for key in sorted(self.extra):
            result[key] = self.extra[key]
        return result

    def encode(self) -> bytes:
        """The bytes of ``manifest.json``: the same for equal manifests."""
        return encoded(self.to_json())

    @classmethod
    def decode(cls, data: bytes, where: str = "manifest.json") -> Manifest:
        """Reads the bytes that ``encode`` writes."""
        return cls.from_json(parse(data, where), where)


def encoded(data: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest: the same for equal ones."""
    try:
        return json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise PefError(f"manifest.json: cannot be written as JSON ({error}): report this as a bug") from None


def read_version(read: Fields) -> int:
    """The format version, which is this Bossa's own.

    Raises:
        PefError: it is not.
    """
    version = read.integer("format_version", 1)
    if version > FORMAT_VERSION:
        raise PefError(
            f"{read.path}: format version {version} was made by a newer Bossa (this one reads {FORMAT_VERSION}):"
            " upgrade bossa"
        )
    if version < FORMAT_VERSION:
        raise PefError(
            f"{read.path}: format version {version} was made by an older Bossa (this one reads {FORMAT_VERSION}):"
            " compile the model again"
        )
    return version


KNOWN = frozenset(item.name for item in fields(Manifest)) - {"extra"}


def _state(read: Fields) -> dict[str, int]:
    """The two fields of recurrent state, which programs without it leave out."""
    size = read.integer("state_bytes", 0, 2**48) if "state_bytes" in read.value else 0
    drafts = read.integer("state_drafts", 0, MOST_STATE_DRAFTS) if "state_drafts" in read.value else 0
    if size % ALIGNMENT:
        read.refuse("state_bytes", f"a multiple of {ALIGNMENT}")
    if drafts and not size:
        read.refuse("state_drafts", "0 or left out, since there are no state_bytes")
    return {"state_bytes": size, "state_drafts": drafts}


def _targets(read: Fields) -> tuple[str, ...]:
    targets = read.texts("targets")
    if len(set(targets)) != len(targets) or not all(TARGET.match(target) for target in targets):
        read.refuse("targets", "a list of different target names")
    return targets


def _patterns(read: Fields) -> tuple[str, ...]:
    patterns = read.texts("ignored_tensors")
    if not patterns:
        return ()
    from bossa.checks.patterns import PatternError, check  # few models have any

    for pattern in patterns:
        try:
            check(pattern)
        except PatternError as error:
            read.refuse("ignored_tensors", f"a list of regular expressions that are matched in one pass ({error})")
    return patterns


def _sections(read: Fields) -> tuple[Section, ...]:
    sections = []
    for number, value in enumerate(read.items("sections")):
        item = Fields(value, f"{read.path}: sections[{number}]")
        sections.append(Section(item.text("name"), item.text("kind", empty=True), item.text("text", empty=True)))
    return tuple(sections)


def _constants(read: Fields) -> tuple[Constant, ...]:
    constants = []
    for number, value in enumerate(read.items("constants")):
        item = Fields(value, f"{read.path}: constants[{number}]")
        dtype = item.choice("dtype", tuple(DTYPE_BYTES))
        shape = item.shape("shape")
        size = item.integer("bytes")
        if size != prod(shape) * DTYPE_BYTES[dtype]:
            item.refuse("bytes", f"{prod(shape) * DTYPE_BYTES[dtype]} for its shape and dtype")
        constants.append(Constant(item.text("name"), dtype, shape, item.integer("offset"), size))
    return tuple(constants)


def read_members(read: Fields) -> dict[str, Member]:
    members = {}
    for name, value in read.mapping("members").items():
        item = Fields(value, f"{read.path}: members[{name[:80]!r}]")
        members[name] = Member(item.integer("size"), item.digest("sha256"))
    return members
