"""``bossa inspect`` of the file of a traced module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bossa.cli.text import size, table
from bossa.errors import PefError

if TYPE_CHECKING:
    from bossa.pef.module import ModulePef

_LISTED = ("input ", "output ", "optimizer ", "parameter ", "buffer ")


def describe(pef: ModulePef, what: str | None) -> str:
    """The text for ``--json``, for ``--program`` (the graph), or for none of them.

    Raises:
        PefError: ``--source``: a traced module has machine code alone.
    """
    match what:
        case "source":
            raise PefError(f"{pef.where}: a traced module keeps no source: --program shows its graph")
        case "program":
            return "\n".join(pef.graph())
        case "json":
            return pef.manifest.encode().decode()
        case _:
            return summary(pef)


def summary(pef: ModulePef) -> str:
    """A page of text about a traced module."""
    manifest, graph = pef.manifest, pef.graph()
    facts = [
        ("name", manifest.name),
        ("traced module", manifest.architecture),
        ("parameters", f"{manifest.parameters:,}"),
        ("compiled for", "inference" if manifest.inference else "training"),
        ("sections", ", ".join(manifest.sections)),
        ("target", " ".join([manifest.target, *manifest.features])),
        ("made by", f"bossa {manifest.bossa_version}, torch {manifest.torch_version}"),
    ]
    if manifest.causal is not None:
        native = pef.native().manifest
        facts.append(("native program", f"{native.architecture}, {native.precision}, {', '.join(native.targets)}"))
    lines = [line for line in graph if line.startswith(_LISTED[:3])]
    counted = [(kind.strip() + "s", sum(line.startswith(kind) for line in graph)) for kind in _LISTED[3:]]
    counted.append(("dropouts", len(manifest.dropped)))
    counted.append(("operators", sum(": %" in line for line in graph)))
    members = [(name, size(member.size)) for name, member in sorted(manifest.members.items())]
    return "\n\n".join(
        [
            table(facts),
            "graph\n" + table([*((line,) for line in lines)], indent=2),
            table([(kind, f"{count:,}") for kind, count in counted], indent=2),
            f"{len(members)} members beside the manifest\n" + table(members, indent=2),
        ]
    )
