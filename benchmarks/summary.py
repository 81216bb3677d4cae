"""The table of one machine and model that docs/performance.md has: quality, rates, whole processes and ratios together.

    python benchmarks/summary.py benchmarks/results/xeon-amx/gpt2 --quality benchmarks/results/xeon-amx/quality

It is made of the tables that compare.py and quality.py have written into those folders, and becomes summary.md in the
first. What of ours is not to be in it is named with `--without int4-kv8`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from comparison.machine import body, headed
from comparison.results import OURS, markdown
from comparison.session import WARM

Table = list[list[str]]
RATIOS = {bits: f"ratio, {bits}" for bits in ("32 bits", "8 bits", "4 bits", "any precision")}
"""The rows for ratios, by what ratios.md calls ours."""
ANY = RATIOS["any precision"]


def read_table(path: Path) -> Table:
    """The cells of a file's table, its header first; none without the file."""
    if not path.is_file():
        return []
    lines = [line for line in body(path.read_text(encoding="utf-8")).splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if set(row[0]) != {"-"}]


def summary(folder: Path, quality: Path | None, without: Collection[str] = ()) -> str:
    """One row an engine: perplexity against fp32, tokens a second, seconds of whole processes; then ratios to peers."""
    rates = read_table(folder / "rates.md")
    processes, taken = read_table(folder / "processes.md"), {}
    columns = [index for index, name in enumerate(processes[0]) if name.endswith(", s")] if processes else []
    for row in processes[1:]:
        taken[row[0].removesuffix(f" {WARM}")] = [row[index] for index in columns]
    changes = {row[0]: row[2] for row in read_table(quality / "quality.md")[1:]} if quality is not None else {}
    head = ["", "perplexity, against fp32", *rates[0][1:], *(processes[0][index] for index in columns)]
    rows = []
    for name, *values in rates[1:]:
        if name.removeprefix(f"{OURS} ") not in without:
            rows.append([name, changes.get(name, ""), *values, *taken.get(name, [""] * len(columns))])
    return markdown(head, rows + ratio_rows(folder, head, without))


def ratio_rows(folder: Path, head: Sequence[str], without: Collection[str]) -> Table:
    """Ratios to the best peer, a row for each kind of comparison; of whole processes the best of ours that was warm."""
    found: dict[str, dict[str, str]] = {row: {} for row in RATIOS.values()}
    for what, ours, *_, ratio, _aim in read_table(folder / "ratios.md")[1:]:
        case, _, compared = what.partition(", ")
        if ours.removeprefix(f"{OURS} ") not in without:
            found[RATIOS[compared.partition(" against ")[0]]][case] = ratio
    for what, ours, *_, ratio in read_table(folder / "process-ratios.md")[1:]:
        name, _, kind = ours.removeprefix(f"{OURS} ").partition(" ")
        if kind == WARM and name not in without:
            best = found[ANY].setdefault(f"{what}, s", ratio)
            found[ANY][f"{what}, s"] = max(best, ratio, key=lambda text: float(text.rstrip("x") or 0))
    return [[row, "", *(values.get(name, "") for name in head[2:])] for row, values in found.items() if values]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what compare.py has written")
    parser.add_argument("--quality", type=Path, help="what quality.py has written, on any machine")
    parser.add_argument("--without", action="append", default=[], help="a precision of ours; may be repeated")
    args = parser.parse_args(arguments)
    if not (args.folder / "rates.md").is_file():
        parser.error(f"{args.folder} has no rates.md: run compare.py")
    first = (args.folder / "rates.md").read_text(encoding="utf-8").splitlines()[0]
    line = first.removeprefix("> ").removesuffix(".") if first.startswith(">") else ""
    table = summary(args.folder, args.quality, args.without)
    (args.folder / "summary.md").write_text(headed(line, table), encoding="utf-8")
    print(table, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
