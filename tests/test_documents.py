"""What the documents name is there: links, source files, and the passes in their order."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from bossa.cli.app import COMMANDS, ExitCode, bossa
from bossa.passes import PASSES

ROOT = Path(__file__).parent.parent
FOLDERS = ("docs", "benchmarks", "examples")
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "SECURITY.md")),
    *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.md"))),
]
PACKAGES = "|".join(sorted(path.name for path in (ROOT / "src" / "bossa").iterdir() if path.is_dir()))
SOURCE = re.compile(rf"`(?:src/bossa/)?((?:{PACKAGES})/[\w*/]+\.(?:py|h))`")
LINK = re.compile(r"\]\(([^)\s#]*)#?([^)\s]*)\)")


def headings(document: Path) -> set[str]:
    """The headings of a document as links name them."""
    lines = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_source_file_in_a_document_is_there(document: Path):
    text = document.read_text(encoding="utf-8")
    for target, heading in LINK.findall(text):
        if target.startswith("http"):
            continue
        place = document.parent / target if target else document
        assert place.exists(), f"{target} is linked and not there"
        assert not heading or heading in headings(place), f"{target or document.name} has no heading {heading}"
    for name in SOURCE.findall(text):
        assert list((ROOT / "src" / "bossa").glob(name)), f"{name} is named and not there"


NAMED = re.compile(r"`([\w/*]+\.(?:py|h))`")


def test_every_source_file_that_the_architecture_names_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    source = ROOT / "src" / "bossa"
    for name in NAMED.findall(text):
        inside = "targets/cpu/kernels" if name.endswith(".h") and "/" not in name else ""
        assert list((source / inside).glob(name)) or (ROOT / name).exists(), f"{name} is named and not there"


TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_every_promise_about_security_names_a_test_that_is_there():
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| from", "| ---"))]
    for row in rows:
        assert TEST.search(row), f"no test holds: {row}"
    for path, name in TEST.findall(text):
        assert (ROOT / path).is_file(), path
        assert not name or f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path} has no {name}"


def test_the_architecture_lists_the_passes_in_their_order():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("\n## Passes\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [run.__name__ for run in PASSES]


def test_every_stage_can_be_seen_as_the_document_says(monkeypatch, capsys):
    """The last example of adding-an-operator.md, with a small GPT-2 in place of the hub's."""
    from transformers import AutoConfig, GPT2Config

    small = GPT2Config(n_embd=32, n_head=2, vocab_size=64, bos_token_id=0, eos_token_id=0)
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda name: small)
    text = (ROOT / "docs" / "adding-an-operator.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(from .*?)```", text, re.DOTALL)
    exec(code, {})
    printed = capsys.readouterr().out
    assert all(f"=== {run.__name__}\n" in printed for run in PASSES)
    assert "bossa.attention" in printed
    assert "int8" in printed
    assert '#include "' in printed  # the C++


CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
OPTION = re.compile(r"(?<![\w-])--?([a-zA-Z][\w-]*)")
EVERYWHERE = {"debug", "help", "h"}
"""Options of every command, named once above all of them."""


def options_of(command: click.Command) -> set[str]:
    """The names of a command's options and of those of its own commands, as hyphens write them."""
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    own = {
        name.lstrip("-").replace("_", "-")
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.secondary_opts, *(() if option.secondary_opts else option.opts))
    }
    return own.union(*map(options_of, inner))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_document_names_the_options_of_a_command_and_no_others(name: str):
    with bossa.make_context("bossa", ["inspect", "-"]) as context:
        command = bossa.get_command(context, name)
        every = {option for other in COMMANDS for option in options_of(bossa.get_command(context, other))}
    section = CLI.partition(f"\n## bossa {name}\n")[2].partition("\n## ")[0]
    named = {option.replace("_", "-") for option in OPTION.findall(section)}
    assert not options_of(command) - EVERYWHERE - named
    assert not named - every
    assert f"bossa {name}" in CLI.partition("\n## ")[0]


def test_the_document_lists_every_exit_code():
    section = CLI.partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    codes = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE) for code in row.split(",")}
    assert {int(code) for code in ExitCode} <= codes
