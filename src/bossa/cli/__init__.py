"""The ``bossa`` command: one file a command, each importing what it needs only when it is run."""

from bossa.cli.app import main

__all__ = ["main"]
