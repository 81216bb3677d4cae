"""PEFs: containers, manifests and members changed, with checksums, sizes and directory put right again or not."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from bossa.cli.app import main
from bossa.errors import BossaError, PefError
from bossa.ir.text import print_program
from bossa.passes import optimize
from bossa.pef import Pef, reader, row_program
from bossa.pef.container import Entry, directory, local_header
from bossa.pef.module import CausalPlan, ModulePef
from bossa.pef.writer import checksum
from bossa.targets.cpu import assemble
from bossa.targets.cpu.plan import make_plan, pack_constants
from fuzz.json_mutations import mutate_json
from fuzz.mutations import mutate_bytes, mutate_text, odd_text
from fuzz.reader import demand, wrong_message
from fuzz.readers.programs import check_source
from fuzz.readers.tokenizers import word_level
from support.programs import random_program

MANIFEST = "manifest.json"
SAVED = "a sound file is not saved to the same bytes"
Members = dict[str, bytes]


def tiny_pef(seed: int, *, bundled: bool) -> Pef:
    """The file of a small random program; what stands for its library is no machine code."""
    program = optimize(random_program(random.Random(seed)), "fp32")
    plan = make_plan(program)
    text = {"format": row_program.TEXT_FORMAT, "program": print_program(program).splitlines()}
    members = {
        "program.x86-64-v3.so": b"\x7fELF no machine code",
        "program.json": json.dumps(text, indent=1).encode(),
        "program.cc": b"int x;\n",
        "constants.bin": pack_constants(program),
        "config.json": b'{"model_type": "gpt2", "eos_token_id": [1, 2], "vocab_size": 33}',
        "generation_config.json": b'{"eos_token_id": 1, "do_sample": true, "temperature": 0.7, "bad_words_ids": [[1]]}',
        **{f"tokenizer/{name}": text.encode() for name, text in word_level().items()},
    }
    if bundled:
        members["weights.bin"] = bytes(256)
    manifest = {
        **assemble.native_fields(plan, ["x86-64-v3"]),
        **{"bossa_version": "0.1.0", "name": "tiny", "architecture": "TinyForCausalLM", "model_type": "tiny"},
        **{"precision": "fp32", "batch_size": 4, "ignored_tensors": [r"attn\.(masked_)?bias"], "parameters": 384},
        **{"torch_version": "2.13.0", "transformers_version": "5.23.0"},
    }
    return Pef.build(manifest, members)


def tiny_module() -> ModulePef:
    operands = [{"source": "saved", "number": 0, "stride": [3, 1]}, {"source": "tangent", "number": 0, "stride": []}]
    manifest: dict[str, Any] = {
        **{"kind": "traced module", "name": "net", "architecture": "Net", "bossa_version": "0.1.0"},
        **{"torch_version": "2.13.0", "target": "x86-64-v3", "features": ["amx_tile"], "inference": False},
        **{"parameters": 6, "sections": ["fwd", "bckwd"], "dropped": [True, False]},
        "backward": {"operands": operands, "saved": 1, "tangents": [0], "gradients": ["lin.weight"]},
    }
    members = {"graph.txt": b"input x float32[2]\n", "fwd.so": b"f", "bckwd.so": b"b", "bckwd.json": b"{}"}
    return ModulePef.build(manifest, members)


def encoded(pef: Pef | ModulePef) -> bytes:
    """The bytes of its file."""
    return packed([(name, bytes(pef._data[name])) for name in pef.names()])


def packed(members: Sequence[tuple[str, bytes]], wrong: int | None = None) -> bytes:
    """A container with a right directory and checksums (but for member ``wrong``), whatever its members are."""
    entries, chunks, position = [], [], 0
    for number, (name, data) in enumerate(members):
        crc = checksum(memoryview(data)) ^ (number == wrong)
        entry = Entry(name, crc, len(data), position)
        chunks += [local_header(entry), data]
        entries.append(entry)
        position += len(chunks[-2]) + len(data)
    return b"".join([*chunks, directory(entries, position)])


def unpacked(data: bytes) -> Members:
    """The members of a file that is sound, or nothing."""
    try:
        return {name: bytes(view) for name, view in reader.read(memoryview(data), "a base").data.items()}
    except PefError:
        return {}


def repaired(members: Members) -> Members:
    """The members, with a manifest that promises what they are."""
    try:
        manifest = json.loads(members[MANIFEST])
    except (KeyError, ValueError, RecursionError):
        return members
    if not isinstance(manifest, dict):
        return members
    manifest["members"] = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(members.items())
        if name != MANIFEST
    }
    for name in members:  # that of a program inside a module's file has a manifest of its own
        if name.endswith(f"/{MANIFEST}"):
            folder = name.removesuffix(MANIFEST)
            inner = {key.removeprefix(folder): data for key, data in members.items() if key.startswith(folder)}
            members = members | {name: repaired(inner)[MANIFEST]}
            manifest["members"][name] = {
                "size": len(members[name]),
                "sha256": hashlib.sha256(members[name]).hexdigest(),
            }
    return members | {MANIFEST: json.dumps(manifest, indent=1).encode()}


def mutate_pef(chance: random.Random, bases: Sequence[bytes]) -> bytes:
    data = chance.choice(bases)
    members = unpacked(data)
    if not members or chance.random() < 0.15:
        return mutate_bytes(chance, data, bases)
    others = unpacked(chance.choice(bases))
    roll = chance.random()
    if roll < 0.4:
        members[MANIFEST] = mutate_json(chance, members[MANIFEST].decode("utf-8", "replace")).encode("utf-8", "replace")
    elif roll < 0.85:
        name = chance.choice([name for name in members if name != MANIFEST] or [MANIFEST])
        members[name] = mutate_member(chance, name, members[name], list(others.values()))
    names = list(members)
    listed = list(members.items())
    if roll >= 0.85:
        at = chance.randrange(len(names))
        match chance.randrange(6):
            case 0:
                del members[names[at]]
            case 1:
                members[odd_text(chance, names[at]).encode("utf-8", "replace").decode()[:300]] = members.pop(names[at])
            case 2 if others:
                name = chance.choice(list(others))
                members[name] = others[name]
            case 3:
                members[odd_text(chance, "tokenizer/x")] = chance.randbytes(5)
            case 4:
                chance.shuffle(names)
                members = {name: members[name] for name in names}
            case _:
                return packed([*listed, listed[at]])
    if chance.random() < 0.9:
        members = repaired(members)
    wrong = chance.randrange(len(members)) if members and chance.random() < 0.02 else None
    return packed(list(members.items()), wrong)


def mutate_member(chance: random.Random, name: str, data: bytes, others: Sequence[bytes]) -> bytes:
    text = data.decode("utf-8", "replace")
    if name.endswith("program.json") and chance.random() < 0.8:
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            held = json.loads(text)
            lines = mutate_text(chance, "\n".join(held["program"])).split("\n")
            return json.dumps(held | {"program": lines}).encode()
    if name.endswith(".json") and chance.random() < 0.8:
        return mutate_json(chance, text).encode("utf-8", "replace")
    return mutate_bytes(chance, data, others)


@contextlib.contextmanager
def compiling_nothing() -> Iterator[list[str]]:
    """What is handed to the C++ compiler, which is not run."""
    sources: list[str] = []

    def build_library(source: str, target: str) -> bytes:
        sources.append(source)
        return b"\x7fELF"

    with mock.patch.object(assemble, "build_library", build_library):
        yield sources


def run_command(*arguments: str) -> str:
    """A command of bossa, in this process; what it prints. It ends well, or with one line and exit code 2."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(arguments))
    demand(code in (0, 2), f"bossa {arguments[0]} ends with {code}")
    message = err.getvalue().removesuffix("\n")
    if code == 2:
        demand(message.startswith("bossa: "), f"bossa {arguments[0]} ends with 2 and says {message[:80]!a}")
        reason = wrong_message(message)
        demand(reason is None, f"bossa {arguments[0]}: {reason}")
    return out.getvalue()


class PefReader:
    """`Pef`: opened, checked, saved again, shown, and its native code written anew from its row program."""

    def seeds(self) -> list[bytes]:
        return [encoded(tiny_pef(seed, bundled=seed == 2)) for seed in (1, 2, 5, 9)]

    def mutate(self, chance: random.Random, bases: Sequence[bytes]) -> bytes:
        return mutate_pef(chance, bases)

    def passes(self, data: bytes) -> bool:
        return bool(unpacked(data))

    def read(self, data: bytes, folder: Path) -> None:
        path = folder / "model.pef"
        path.write_bytes(data)
        with contextlib.suppress(BossaError):
            for option in ((), ("--json",), ("--program",), ("--source",)):
                run_command("inspect", str(path), *option)
        with Pef.open(path) as pef:
            for constant in pef.manifest.constants:
                demand(constant.offset + constant.bytes <= len(pef.constants()), "a constant reaches beyond the file")
            errors = []
            for use in (pef.verify, pef.config, pef.generation_config, pef.source, lambda: rebuilt(pef)):
                try:
                    use()
                except BossaError as error:
                    errors.append(error)
            for error in errors:
                reason = wrong_message(str(error))
                demand(reason is None, f"{reason}")
            if errors:
                raise errors[0]
            demand(pef.save(folder / "copy.pef").read_bytes() == data, SAVED)


def rebuilt(pef: Pef) -> None:
    with compiling_nothing() as sources:
        again = assemble.rebuild(pef)
    demand(len(sources) == 1, "a program is rebuilt without its source being compiled")
    check_source(sources[0])
    demand(again.manifest.slots == pef.manifest.slots, "the rebuilt program has other weights")


class ModulePefReader:
    """`ModulePef`, with a program of a causal language model in it or without."""

    def seeds(self) -> list[bytes]:
        module = tiny_module()
        plan = CausalPlan(0, 1, None, "0" * 64)
        return [encoded(module), encoded(module.with_native(tiny_pef(1, bundled=False), plan))]

    def mutate(self, chance: random.Random, bases: Sequence[bytes]) -> bytes:
        return mutate_pef(chance, bases)

    def passes(self, data: bytes) -> bool:
        return bool(unpacked(data))

    def read(self, data: bytes, folder: Path) -> None:
        path = folder / "net.pef"
        path.write_bytes(data)
        run_command("inspect", str(path))
        with ModulePef.open(path) as pef:
            pef.verify()
            demand(pef.save(folder / "copy.pef").read_bytes() == data, SAVED)
            for name in pef.manifest.sections:
                pef.section(name)
            pef.graph()
            if pef.manifest.causal is not None:
                rebuilt(pef.native())
