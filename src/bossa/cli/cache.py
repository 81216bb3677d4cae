"""``bossa cache``: the packed weights that are kept on disk."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from bossa.cli import options
from bossa.cli.text import show, size, table
from bossa.errors import shown

if TYPE_CHECKING:
    from bossa.errors import WeightsError


@click.group("cache", short_help="List, verify and prune the packed weights kept on disk.")
def command() -> None:
    """Manage the packed weights that are kept on disk. Later runs map them at once; they can always be made again.

    They are in $BOSSA_CACHE, else in $XDG_CACHE_HOME/bossa, else in ~/.cache/bossa.
    """


@command.command("list", short_help="List what is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@options.DEBUG
def list_entries(as_json: bool) -> None:
    """List what is kept, the last used first: size, days since the last use, key and checkpoint."""
    from bossa.weights.cache import WeightCache

    cache = WeightCache()
    entries = cache.entries()
    if as_json:
        fields = [
            {
                "key": entry.key,
                "source": entry.source,
                "bytes": entry.bytes,
                "last_used": entry.last_used,
                "path": str(entry.path),
            }
            for entry in entries
        ]
        show(json.dumps(fields, indent=2))
        return
    now = time.time()
    rows = [
        (
            size(entry.bytes),
            f"{max(0.0, now - entry.last_used) / 86_400:.1f} days ago",
            entry.key[:12],
            entry.source,
        )
        for entry in entries
    ]
    if rows:
        show(table(rows))
    show(f"{len(rows)} in {cache.directory}: {size(sum(entry.bytes for entry in entries))}")


@command.command("verify", short_help="Check every byte of what is kept.")
@click.option("--remove", is_flag=True, help="Remove what is damaged.")
@options.DEBUG
def verify(remove: bool) -> None:
    """Compare all packed weights with the checksums that were made when they were packed.

    A run checks only a part of every page, which is enough to notice a write that was not finished.
    """
    from bossa.errors import WeightsError
    from bossa.weights.cache import WeightCache
    from bossa.weights.entry import OTHER_VERSION

    cache = WeightCache()
    bad = count = 0
    failed: list[WeightsError] = []
    for entry, problem in cache.verify():
        is_bad = problem not in ("", OTHER_VERSION)
        count += problem != OTHER_VERSION
        bad += is_bad
        if is_bad and remove:
            try:
                cache.remove(entry)
                problem += ", removed"
            except WeightsError as error:
                failed.append(error)
                problem += ", not removed"
        show(f"{entry.key[:12]}  {problem or 'good'}  {size(entry.bytes)}  {entry.source}")
    if bad and not remove:
        raise WeightsError(
            f"{shown(cache.directory)}: {bad} of {count} are damaged: remove them with"
            " 'bossa cache verify --remove'; they are made again when needed"
        )
    show(f"{count - bad} of {count} are good")
    _tell(failed)


@command.command("prune", short_help="Remove packed weights.")
@click.option(
    "--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Remove what was not used for so many days."
)
@click.option(
    "--max-size", type=options.Size(), metavar="SIZE", help="Remove the least recently used until the rest fits."
)
@click.option("--all", "everything", is_flag=True, help="Remove everything.")
@options.DEBUG
def prune(older_than: float | None, max_size: int | None, everything: bool) -> None:
    """Remove packed weights; at least one option must say which. Running programs keep theirs."""
    if older_than is None and max_size is None and not everything:
        raise click.UsageError("say what to remove: --older-than DAYS, --max-size SIZE or --all")
    from bossa.weights.cache import WeightCache

    failed: list[WeightsError] = []
    removed = WeightCache().prune(max_size, older_than, everything, failed.append)
    for entry in removed:
        show(f"removed {entry.key[:12]}  {size(entry.bytes)}  {entry.source}")
    show(f"{len(removed)} removed: {size(sum(entry.bytes for entry in removed))}")
    _tell(failed)


def _tell(failed: list[WeightsError]) -> None:
    """Ends a command that could not remove all that it should have: with the first that it could not.

    Raises:
        WeightsError: there is one.
    """
    if not failed:
        return
    more = f", and {len(failed) - 1} more that cannot be removed" if len(failed) > 1 else ""
    raise type(failed[0])(f"{failed[0]}{more}")
