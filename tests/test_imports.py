"""Who may import whom: the run path without torch, each part only what stands above it, and no files in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import bossa

SOURCE = Path(bossa.__file__).parent

RUN_PATH = [
    "ir",
    "ops",
    "formats",
    "pef",
    "weights",
    "adapters",
    "targets",
    "runtime",
    "sampling",
    "engine",
    "dataset",
    "cli.run",
    "cli.eval",
    "eval",
    "cli.bench",
    "bench",
]

ORDER = [
    "version",
    "errors",
    "checks",
    "host",
    "formats",
    "ir",
    "ops",
    "passes",
    "pef",
    "weights",
    "adapters",
    "targets",
    "runtime",
    "tokenizer",
    "sampling",
    "engine",
    "dataset",
    "generation_config",
    "frontend",
    "compiler",
    "language_model",
    "loading",
    "eval",
    "prepare",
    "train",
    "bench",
    "sambaflow",
    "samba",
    "cli",
]
"""Each part may import those above it in this list, and nothing else of ours; ``bossa`` itself and its ``__main__``
may import all."""

TORCH = {"torch", "transformers", "gguf"}
MAY_IMPORT_TORCH = {"frontend", "compiler", "train", "samba", "sambaflow"}
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


def test_every_part_has_its_place_in_the_order():
    parts = {path.stem if path.is_file() else path.name for path in SOURCE.iterdir() if not path.name.startswith("_")}
    assert sorted(parts - {"py"}) == sorted(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_down_one_list(path: Path):
    package, part, tree = parse(path)
    place = ORDER.index(part) if part in ORDER else len(ORDER)
    for name, statement in imports(tree, package):
        if not name.startswith("bossa."):
            continue
        target = name.split(".")[1]
        if target in ORDER:
            assert ORDER.index(target) <= place, f"{path}:{statement.lineno}: {part} may not import {name}"


def test_no_files_import_each_other_in_a_circle():
    """Imports inside functions, and those for types alone, count: a file is understood with all that it names."""
    files = {module_name(path): path for path in FILES}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        package, _, tree = parse(path)
        graph[module] = set(named_modules(tree, package, files)) - {module}
    order = TopologicalSorter(graph)
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' → '.join(error.args[1])}")


def named_modules(tree: ast.AST, package: list[str], files: Collection[str]) -> Iterator[str]:
    """The files that an import names; ``from package import name`` is the file of that name, where there is one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield from (name for name in [f"{base}.{alias.name}"] if name in files)
            if base in files and not all(f"{base}.{alias.name}" in files for alias in node.names):
                yield base


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
