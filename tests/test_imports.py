"""Who may import whom: the run path without torch, and each part only what stands before it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bossa

SOURCE = Path(bossa.__file__).parent

RUN_PATH = ["program", "pef", "weights", "runtime", "engine", "dataset", "cli.run", "cli.bench", "bench"]

EVERYONE = {
    *("errors", "version", "precision", "weights.slot", "cpu", "signature", "pages", "host", "checks"),
    "generation_config",
}
"""Words that all parts speak: the errors, the version, the precisions, what a packed weight is, what this CPU runs; the
memory, files and cores that they ask for; how what comes from outside is checked and shown; and what of a model's
generation config is followed."""

PARTS: dict[str, set[str]] = {
    "host": set(),
    "checks": set(),
    "frontend": {"program", "tokenizer.bounds", "tokenizer.library"},
    "program": set(),
    "passes": {"program"},
    "codegen": {"program"},
    "pef": set(),
    "weights": set(),
    "runtime": {"pef", "weights"},
    "bench": {"program", "codegen", "weights", "engine"},
    "engine": {"runtime", "tokenizer"},
    "dataset": set(),
    "tokenizer": set(),
    "sambaflow": {"samba"},
}
"""For each part, the other parts that it may import; what is missing here (the commands, and the modules beside the
packages that put the parts together) may import all of them."""

TORCH = {"torch", "transformers", "gguf"}
MAY_IMPORT_TORCH = {"frontend", "compiler", "samba", "sambaflow", "train"}
MAY_IMPORT_TORCH_LATE = {"weights"}
"""Inside a function alone: for checkpoints in torch's own format."""


def imports(tree: ast.AST, package: list[str]) -> Iterator[tuple[str, ast.stmt]]:
    """Every module that a file of a package imports, by its full name, with the statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            # `from bossa import errors` imports the module bossa.errors
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "bossa" else [base]
            yield from ((name, node) for name in names)


def is_top_level(tree: ast.Module, statement: ast.stmt) -> bool:
    """Whether a statement runs when the module is imported; not under TYPE_CHECKING or in a function."""
    return statement in tree.body


def module_name(path: Path) -> str:
    names = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def parse(path: Path) -> tuple[list[str], str, ast.Module]:
    """The package that a file is in, the part of the project it belongs to, and its syntax tree."""
    names = path.relative_to(SOURCE.parent).with_suffix("").parts
    return list(names[:-1]), names[1], ast.parse(path.read_text(encoding="utf-8"), str(path))


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("part", RUN_PATH)
def test_the_run_path_imports_where_torch_is_not_installed(part: str):
    modules = [module for module in map(module_name, FILES) if f"{module}.".startswith(f"bossa.{part}.")]
    assert modules, f"bossa.{part} has no source"
    blocked = f"import sys; sys.modules.update(dict.fromkeys({sorted(TORCH)}))"
    program = f"{blocked}; import importlib; [importlib.import_module(module) for module in {modules}]"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_run_command_loads_nothing_heavy_before_it_knows_what_to_do():
    heavy = ["numpy", "rich", "tokenizers", "huggingface_hub", "jinja2", "torch", "transformers", "orjson"]
    program = f"import sys, bossa.cli.run; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "path", [path for path in FILES if parse(path)[1] in PARTS], ids=lambda path: str(path.relative_to(SOURCE))
)
def test_a_part_imports_only_the_parts_that_it_may(path: Path):
    package, part, tree = parse(path)
    allowed = PARTS[part] | EVERYONE | {part}
    for name, statement in imports(tree, package):
        if name == "bossa" or name.startswith("bossa."):
            target = name.removeprefix("bossa").removeprefix(".")
            assert any(target == other or target.startswith(f"{other}.") for other in allowed), (
                f"{path}:{statement.lineno}: {part} may not import {name}"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_torch_is_imported_only_where_models_are_read(path: Path):
    package, part, tree = parse(path)
    for name, statement in imports(tree, package):
        if name.partition(".")[0] not in TORCH or part in MAY_IMPORT_TORCH:
            continue
        assert part in MAY_IMPORT_TORCH_LATE, f"{path}:{statement.lineno}: {part} may not import {name}"
        assert not is_top_level(tree, statement), f"{path}:{statement.lineno}: import {name} inside a function"


def test_the_checks_above_see_every_way_to_import():
    text = (
        "import bossa.engine\nfrom bossa import pef\nfrom bossa.runtime.program import Program\nfrom ..cli import app\n"
    )
    found = [name for name, _ in imports(ast.parse(text), ["bossa", "weights"])]
    assert found == ["bossa.engine", "bossa.pef", "bossa.runtime.program", "bossa.cli"]
