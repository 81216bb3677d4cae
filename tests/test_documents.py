"""What the documents name is there: links, source files, and the passes in their order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
