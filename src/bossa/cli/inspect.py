"""``bossa inspect``: what is in a program file, without running anything of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bossa.cli import inspect_module, options
from bossa.cli.text import show, size, table

if TYPE_CHECKING:
    from bossa.pef import Manifest, Pef

WIDEST = 80
"""Letters of a section's text that are shown; ``--program`` has it whole."""

_NUMBER = re.compile(r"\d+")


@click.command("inspect", short_help="Show what is in a program file.")
@click.argument("pef", type=click.Path(path_type=Path))
@click.option("--source", "what", flag_value="source", help="Print the generated C++ instead.")
@click.option("--program", "what", flag_value="program", help="Print the row program instead.")
@click.option("--json", "what", flag_value="json", help="Print the manifest instead, as JSON.")
@options.DEBUG
def command(pef: Path, what: str | None) -> None:
    """Show what is in the file PEF: manifest, memory, sections, weight slots and members. Nothing in it is run."""
    from bossa.pef import Pef, TracedModule
    from bossa.pef.module import ModulePef

    try:
        opened = Pef.open(pef)
    except TracedModule:
        show(inspect_module.describe(ModulePef.open(pef), what), exact=what is not None)
        return
    match what:
        case "source":
            text = opened.source()
        case "program":
            text = _program(opened)
        case "json":
            text = opened.manifest.encode().decode()
        case _:
            text = summary(opened)
    show(text, exact=what is not None)


def _program(pef: Pef) -> str:
    """The row program's own text; what is in the file as it is where that cannot be read."""
    text = pef.program_json()
    try:
        return "\n".join(json.loads(text)["program"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return text


def summary(pef: Pef) -> str:
    """A page of text about a program file."""
    manifest = pef.manifest
    return "\n\n".join([_facts(pef), _sizes(manifest), _sections(manifest), _slots(manifest), _members(manifest)])


def _facts(pef: Pef) -> str:
    manifest = pef.manifest
    names = pef.names()
    tokenizer = any(name.startswith("tokenizer/") for name in names)
    return table(
        [
            ("name", manifest.name),
            ("architecture", f"{manifest.architecture} ({manifest.model_type})"),
            ("parameters", f"{manifest.parameters:,}"),
            ("precision", manifest.precision),
            ("keys and values", manifest.kv_precision),
            ("vocabulary", f"{manifest.vocab_size:,}"),
            ("sequences at once", f"{manifest.batch_size:,}"),
            ("tokens a sequence", f"{manifest.max_seq_length:,}"),
            *([("adapters", "taken by --adapter")] if manifest.adapters else []),
            ("targets", ", ".join(manifest.targets) or "none"),
            ("tokenizer", "in the file" if tokenizer else "not in the file"),
            ("weights", "in the file" if "weights.bin" in names else "not in the file"),
            ("made by", _makers(manifest)),
        ]
    )


def _makers(manifest: Manifest) -> str:
    makers = [("bossa", manifest.bossa_version), ("torch", manifest.torch_version)]
    makers.append(("transformers", manifest.transformers_version))
    return ", ".join(f"{name} {version}" for name, version in makers if version)


def _sizes(manifest: Manifest) -> str:
    from bossa.ir.slot import Slot

    packed = sum(Slot.from_json(dict(slot)).nbytes for slot in manifest.slots)
    pages = -(-manifest.max_seq_length // manifest.page_size)
    sequence = pages * manifest.page_bytes
    return "memory\n" + table(
        [
            ("packed weights", size(packed)),
            ("constants", size(sum(constant.bytes for constant in manifest.constants))),
            ("arena, a row of a step", size(manifest.arena_bytes_per_row)),
            (f"KV, a page of {manifest.page_size} positions", size(manifest.page_bytes)),
            ("KV, a sequence of full length", size(sequence)),
            (f"KV, {manifest.batch_size} of them", size(sequence * manifest.batch_size)),
            *([("recurrent state, a sequence", size(manifest.state_bytes))] if manifest.state_bytes else []),
        ],
        indent=2,
    )


def _sections(manifest: Manifest) -> str:
    rows = [(section.name, section.kind, _short(section.text)) for section in manifest.sections]
    return f"{len(rows)} sections\n" + table(rows, indent=2)


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _slots(manifest: Manifest) -> str:
    """The weight slots, one line for those that differ in their layer's number alone: ``--json`` has them all."""
    from bossa.ir.slot import Slot

    slots = [Slot.from_json(dict(slot)) for slot in manifest.slots]
    alike = Counter(
        (
            _NUMBER.sub("*", slot.name),
            slot.layout,
            slot.dtype,
            "×".join(map(str, slot.shape)),
            size(slot.nbytes),
            " + ".join(_NUMBER.sub("*", source.names[0]) for source in slot.sources),
        )
        for slot in slots
    )
    rows = [(f"{count} ×" if count > 1 else "", *row) for row, count in alike.items()]
    return f"{len(slots)} weight slots\n" + table(rows, indent=2)


def _members(manifest: Manifest) -> str:
    rows = [(name, size(member.size)) for name, member in sorted(manifest.members.items())]
    return f"{len(rows)} members beside the manifest\n" + table(rows, indent=2)
