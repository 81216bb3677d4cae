#!/usr/bin/env python3
"""Write docs/gpt2: the row program and the generated C++ of GPT-2 small, as this tree makes them.

  write_gpt2_example.py            writes the files that differ, and prints their names
  write_gpt2_example.py --check    only prints the names, and exits with 1 if there are any

The architecture is the default of transformers' GPT2Config: no weights are read, and nothing in the files depends on
the CPU. A test compares them, so run this after a change to the frontend, the passes or the code generator.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bossa.host.files import replacing

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "gpt2"


def example() -> dict[str, str]:
    """The files by name: ``program.txt`` after all passes, ``program.cc`` as it goes to the C++ compiler."""
    from transformers import GPT2Config

    from bossa.frontend.build import sequence_limit
    from bossa.frontend.importer import import_model
    from bossa.ir.text import print_program
    from bossa.passes import optimize
    from bossa.targets.cpu.emit.source import generate
    from bossa.targets.cpu.plan import make_plan

    config = GPT2Config()
    length = sequence_limit(config, None)
    imported = import_model(config, name="gpt2", max_seq_length=length)
    program = optimize(imported.program)
    return {"program.txt": print_program(program), "program.cc": generate(make_plan(program))}


def stale(files: dict[str, str], folder: Path = FOLDER) -> list[str]:
    """Names of the files that are missing in `folder` or have other contents there."""
    return [
        name
        for name, text in files.items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


def main() -> None:
    arguments = sys.argv[1:]
    if arguments not in ([], ["--check"]):
        sys.exit(__doc__)
    files = example()
    differing = stale(files)
    for name in differing:
        print(f"docs/gpt2/{name}")
        if not arguments:
            FOLDER.mkdir(parents=True, exist_ok=True)
            with replacing(FOLDER / name) as file:
                file.write(files[name].encode())
    if arguments and differing:
        sys.exit(1)


if __name__ == "__main__":
    main()
