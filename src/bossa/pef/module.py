"""`ModulePef`: any traced module as compiled sections, in the container of every program file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from bossa.errors import PefError
from bossa.pef.checks import Fields, parse
from bossa.pef.file import Pef
from bossa.pef.manifest import TRACED_MODULE, Manifest, Member, encoded, read_members, read_version
from bossa.pef.program_file import MANIFEST, ProgramFile

GRAPH = "graph.txt"
NATIVE = "native/"
"""Before the names of members that are the program file of a causal language model."""
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
class CausalPlan:
    """Which inputs of the graph a causal language model's native program serves.

    Attributes:
        input_ids, attention_mask, position_ids: their numbers among the inputs; None for one that the graph has not.
        constants: SHA-256 of the tensors that the program was compiled with and that are no weights.
    """

    input_ids: int
    attention_mask: int | None
    position_ids: int | None
    constants: str

    @classmethod
    def from_json(cls, read: Fields) -> CausalPlan:
        def optional(key: str) -> int | None:
            return None if read.value.get(key) is None else read.integer(key)

        return cls(
            read.integer("input_ids"), optional("attention_mask"), optional("position_ids"), read.digest("constants")
        )


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
        causal: what the native program in the file serves; missing where there is none.
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
    causal: CausalPlan | None
    members: Mapping[str, Member]

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "manifest.json") -> ModuleManifest:
        """The manifest in a parsed JSON object, every field checked.

        Raises:
            PefError: it is of another kind, or a field is missing or wrong.
        """
        read = Fields(data, where)
        version = read_version(read)
        if "kind" not in data:
            raise PefError(
                f"{where}: this is the program of a language model, made by 'bossa compile', and not of a module that a"
                " session compiled: run it with 'bossa run', or give the PEF that the program's own compile wrote"
            )
        kind = read.choice("kind", (TRACED_MODULE,))
        dropped = read.items("dropped")
        if not all(isinstance(drops, bool) for drops in dropped):
            read.refuse("dropped", "a list of true and false")
        backward, causal = data.get("backward"), data.get("causal")
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
            causal=None if causal is None else CausalPlan.from_json(Fields(causal, f"{where}: causal")),
            members=read_members(read),
        )

    def to_json(self) -> dict[str, Any]:
        """The object that ``from_json`` reads; its keys are in a fixed order."""
        result: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        for key in ("features", "sections", "dropped"):
            result[key] = list(result[key])
        result["backward"] = self.backward.to_json() if self.backward else None
        result["causal"] = asdict(self.causal) if self.causal else None
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

    def with_native(self, program: Pef, plan: CausalPlan) -> ModulePef:
        """This file, and in it the program file of a causal language model that does what the section ``fwd`` does."""
        members: dict[str, Any] = {name: self.member(name) for name in self.names() if name != MANIFEST}
        members[NATIVE + MANIFEST] = program.manifest.encode()
        members |= {NATIVE + name: program.member(name) for name in program.names() if name != MANIFEST}
        return ModulePef.build(self.manifest.to_json() | {"causal": asdict(plan)}, members)

    def native(self) -> Pef:
        """The program file in it; its members are compared with their SHA-256 as those of any are.

        Raises:
            PefError: it is damaged, or of a newer format.
        """
        where = f"{self.where}: {NATIVE}{MANIFEST}"
        manifest = Manifest.from_json(parse(bytes(self.member(NATIVE + MANIFEST)), where), where)
        held = {name.removeprefix(NATIVE): data for name, data in self._data.items() if name.startswith(NATIVE)}
        Pef._check_together(manifest, {name: data.nbytes for name, data in held.items() if name != MANIFEST}, where)
        return Pef(manifest, held, self.where, None)
