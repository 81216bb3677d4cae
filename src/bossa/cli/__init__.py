"""The ``bossa`` command: one file a command, each importing what it needs only when it is run."""

from __future__ import annotations

TYPE_CHECKING = False  # a name that type checkers know; importing typing takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``argv`` is ``sys.argv[1:]`` when not given, in a process of its own.

    There a signal ends it in one line, while it is still being imported too.
    """
    if argv is None:
        from bossa.host.signals import quit_at_once

        quit_at_once()
    from bossa.cli.app import main as run

    return run(argv)


__all__ = ["main"]
