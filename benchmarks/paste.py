"""Puts the tables that the benchmarks have written into a document, as they are.

    python benchmarks/paste.py docs/performance.md xeon-amx=benchmarks/results/xeon-amx/gpt2

Between `<!-- xeon-amx/summary: begin -->` and `<!-- xeon-amx/summary: end -->` comes summary.md of that folder, without
the line at its top, and so on for each such place whose name before the slash is given; the others stay as they are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from comparison.machine import body

PLACE = re.compile(r"(<!-- ([\w-]+)/([\w-]+): begin -->\n)(.*?)(<!-- \2/\3: end -->)", re.DOTALL)


def paste(text: str, folders: Mapping[str, Path]) -> str:
    """The document with every place filled that a folder is given for.

    Raises:
        FileNotFoundError: a folder lacks the table of a place.
    """

    def fill(place: re.Match[str]) -> str:
        begin, group, name, _, end = place.groups()
        if group not in folders:
            return place[0]
        table = body((folders[group] / f"{name}.md").read_text(encoding="utf-8"))
        return f"{begin}\n{table}\n{end}"

    return PLACE.sub(fill, text)


def main(arguments: Sequence[str]) -> int:
    document, *given = arguments
    pairs = [item.partition("=") for item in given]
    if not pairs or any(not folder for _, _, folder in pairs):
        print(__doc__, file=sys.stderr)
        return 2
    path = Path(document)
    path.write_text(paste(path.read_text(encoding="utf-8"), {name: Path(folder) for name, _, folder in pairs}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [""]))
