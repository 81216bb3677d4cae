"""`ModulePef`: any traced module as compiled sections, in the container of every program file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from bossa.pef.checks import Fields
from bossa.pef.manifest import TRACED_MODULE, Member, encoded, read_members, read_version
from bossa.pef.program_file import ProgramFile

GRAPH = "graph.txt"
SOURCES = ("argument", "result", "saved", "tangent")


@dataclass(frozen=True)
class BackwardPlan:
    """How the section ``bckwd`` is called.

    Attributes:
        operands: its inputs: where each comes from (one of `SOURCES`), its number there, and its strides.
        saved: how many tensors ``fwd`` gives for it behind the outputs and changed buffers.
        tangents: the outputs that gradients start at, by number.
        gradients: the parameter that each of its outputs belongs to.
    """

    operands: tuple[tuple[str, int, tuple[int, ...]], ...]
    saved: int
    tangents: tuple[int, ...]
    gradients: tuple[str, ...]

    @classmethod
    def from_json(cls, read: Fields) -> BackwardPlan:
        operands = []
        for number, value in enumerate(read.items("operands")):
            item = Fields(value, f"{read.path}: operands[{number}]")
            operands.append((item.choice("source", SOURCES), item.integer("number"), item.shape("stride")))
        tangents = read.items("tangents")
        if not all(type(number) is int and number >= 0 for number in tangents):
            read.refuse("tangents", "a list of whole numbers")
        return cls(tuple(operands), read.integer("saved"), tuple(tangents), read.texts("gradients"))

    def to_json(self) -> dict[str, Any]:
        operands = [
            {"source": source, "number": number, "stride": list(stride)} for source, number, stride in self.operands
        ]
        return {**asdict(self), "operands": operands}


@dataclass(frozen=True)
class ModuleManifest:
    """Everything that the file of a traced module says about itself.

    Attributes:
        kind: ``traced module``.
        name, architecture: what the file was called when it was compiled, and the module's class.
        bossa_version, torch_version: what made it; compiled sections run with that torch alone.
        target, features: the CPU that it was compiled for, and flags of the CPU that its code uses beyond the target.
        inference: whether it was compiled for the section ``fwd`` alone.
        parameters: number of weights.
        sections: those that it has, in the order in which they run.
        dropped: for each dropout, whether the sections have it; where not, its rate was 0, and is still.
        backward: how ``bckwd`` is called; missing where there is none.
        members: size and SHA-256 of every other member of the file.
    """

    format_version: int
    kind: str
    name: str
    architecture: str
    bossa_version: str
    torch_version: str
    target: str
    features: tuple[str, ...]
    inference: bool
    parameters: int
    sections: tuple[str, ...]
    dropped: tuple[bool, ...]
    backward: BackwardPlan | None
    members: Mapping[str, Member]

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "manifest.json") -> ModuleManifest:
        """The manifest in a parsed JSON object, every field checked.

        Raises:
            PefError: it is of another kind, or a field is missing or wrong.
        """
        read = Fields(data, where)
        version = read_version(read)
        kind = read.choice("kind", (TRACED_MODULE,))
        dropped = read.items("dropped")
        if not all(isinstance(drops, bool) for drops in dropped):
            read.refuse("dropped", "a list of true and false")
        backward = data.get("backward")
        return cls(
            format_version=version,
            kind=kind,
            name=read.text("name"),
            architecture=read.text("architecture"),
            bossa_version=read.text("bossa_version"),
            torch_version=read.text("torch_version"),
            target=read.text("target"),
            features=read.texts("features"),
            inference=read.boolean("inference"),
            parameters=read.integer("parameters"),
            sections=read.texts("sections"),
            dropped=tuple(dropped),
            backward=None if backward is None else BackwardPlan.from_json(Fields(backward, f"{where}: backward")),
            members=read_members(read),
        )

    def to_json(self) -> dict[str, Any]:
        """The object that ``from_json`` reads; its keys are in a fixed order."""
        result: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        for key in ("features", "sections", "dropped"):
            result[key] = list(result[key])
        result["backward"] = self.backward.to_json() if self.backward else None
        result["members"] = {name: asdict(self.members[name]) for name in sorted(self.members)}
        return result

    def encode(self) -> bytes:
        """The bytes of ``manifest.json``."""
        return encoded(self.to_json())


class ModulePef(ProgramFile[ModuleManifest]):
    """The file of a traced module, which ``samba.session.compile`` writes and ``samba.utils.trace_graph`` reads."""

    made_by = "the program's command compile, or samba.session.compile"

    @classmethod
    def _manifest(cls, data: Mapping[str, Any], where: str) -> ModuleManifest:
        return ModuleManifest.from_json(data, where)

    def graph(self) -> list[str]:
        """The graph as text, a line for each of its parts."""
        return self._text(GRAPH).splitlines()

    def section(self, name: str) -> tuple[memoryview, memoryview | None]:
        """The library of a section, and the operators that it calls by name, where it calls any."""
        calls = f"{name}.json"
        return self.member(f"{name}.so"), self.member(calls) if calls in self.names() else None
