"""``bossa fuse``: a checkpoint with an adapter merged into it."""

from __future__ import annotations

from pathlib import Path

import click

from bossa.cli import options
from bossa.cli.text import show
from bossa.host import streams
from bossa.host.signals import interrupting


@click.command("fuse", short_help="Merge an adapter into a checkpoint.")
@click.argument("model")
@click.option("--adapter", required=True, metavar="DIR", help="The LoRA adapter, in PEFT's format.")
@click.option("--output", required=True, metavar="DIR", help="The folder to make; it must not be there, or be empty.")
@options.cache_dir()
@options.DEBUG
def command(model: str, adapter: str, output: str, cache_dir: Path | None) -> None:
    """Write the checkpoint of MODEL with an adapter merged into it; the last line printed is its folder.

    MODEL is a directory in Hugging Face's layout or a name on its hub. Weights are stored as they were; config,
    tokenizer and generation defaults are copied.
    """
    streams.need(1)
    from bossa.adapters.fuse import fuse

    with interrupting():
        folder = fuse(model, adapter, output, cache_dir=cache_dir)
    show(str(folder), exact=True)
