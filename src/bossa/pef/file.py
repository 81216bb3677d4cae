"""`Pef`: the program of a causal language model, with what is needed to run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bossa.errors import PefError
from bossa.pef import reader
from bossa.pef.checks import parse
from bossa.pef.manifest import Manifest
from bossa.pef.program_file import MANIFEST, WEIGHTS, ProgramFile

TOKENIZER = "tokenizer/"


class Pef(ProgramFile[Manifest]):
    """A program file that ``bossa compile`` makes and ``bossa run`` runs."""

    @classmethod
    def _manifest(cls, data: Mapping[str, Any], where: str) -> Manifest:
        return Manifest.from_json(data, where)

    def program_json(self) -> str:
        """The row program."""
        return self._text("program.json")

    def source(self) -> str:
        """The generated C++ source."""
        return self._text("program.cc")

    def library(self, target: str) -> bytes:
        """The compiled library for ``target``.

        Raises:
            PefError: the file holds none for it.
        """
        if target not in self.manifest.targets:
            held = ", ".join(self.manifest.targets) or "no CPU at all"
            raise PefError(
                f"{self.where}: has no program for {target} (it is for {held}): compile it with --target {target},"
                " or run it with --rebuild"
            )
        return bytes(self.member(library_name(target)))

    def constants(self) -> memoryview:
        """The arrays that ``manifest.constants`` describes."""
        return self.member("constants.bin")

    def tokenizer_files(self) -> dict[str, bytes]:
        """The tokenizer's files by name, as ``Tokenizer.from_files`` takes them; empty when there are none."""
        names = [name for name in self._data if name.startswith(TOKENIZER)]
        return {name[len(TOKENIZER) :]: bytes(self.member(name)) for name in names}

    def config(self) -> dict[str, Any]:
        """The model's config."""
        return parse(bytes(self.member("config.json")), f"{self.where}: config.json")

    def generation_config(self) -> dict[str, Any]:
        """The model's generation config; empty when the model had none."""
        name = "generation_config.json"
        return parse(bytes(self.member(name)), f"{self.where}: {name}") if name in self._data else {}

    def weights(self) -> memoryview | None:
        """The packed weights of a bundled PEF, mapped and unchecked, or None; see ``verify``."""
        return self._data.get(WEIGHTS)

    def __repr__(self) -> str:
        return f"<Pef {self.manifest.name!r} ({self.manifest.architecture}, {self.manifest.precision}) at {self.where}>"

    @classmethod
    def _check_together(cls, manifest: Manifest, sizes: Mapping[str, int], where: str) -> None:
        super()._check_together(manifest, sizes, where)
        for target in manifest.targets:
            if library_name(target) not in sizes:
                raise PefError(f"{where}: its {MANIFEST} names target {target}, which it does not hold: {reader.AGAIN}")
        held = sizes.get("constants.bin", 0)
        for constant in manifest.constants:
            if constant.offset + constant.bytes > held:
                raise PefError(f"{where}: constant {constant.name!r} reaches beyond constants.bin: {reader.AGAIN}")


def library_name(target: str) -> str:
    """The member that holds the library for ``target``."""
    return f"program.{target}.so"
