"""``bossa prepare``: records in, tokenized HDF5 files for training out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bossa.cli import options
from bossa.cli.text import put, redraw, say

if TYPE_CHECKING:
    from bossa.prepare import Report
    from bossa.tokenizer import Tokenizer

RATIO = click.FloatRange(0, 1, max_open=True)
PACKINGS = (
    "full", "greedy::drop", "greedy::truncate_left", "greedy::truncate_right", "single::drop", "single::truncate_left",
    "single::truncate_right",
)  # fmt: skip
BOUNDARY = click.Choice(["jsonl", "prompt_completion_pair"])


@click.command("prepare", short_help="Make tokenized HDF5 files of records, to train on.")
@click.argument("inputs", nargs=-1, metavar="INPUT…")
@click.option("--input_path", "--input_file_path", "more_inputs", multiple=True, hidden=True)
@click.option(
    "--output", "--output_path", type=click.Path(path_type=Path, file_okay=False), required=True,
    help="The folder that is made.",
)  # fmt: skip
@click.option(
    "--tokenizer", "--pretrained_tokenizer", required=True, metavar="MODEL",
    help="The model whose tokenizer it is: a folder, or a name on the hub.",
)  # fmt: skip
@options.cache_dir()
@click.option("--max_seq_length", type=click.IntRange(2), required=True, help="Tokens of a sequence.")
@click.option(
    "--input_packing_config", type=click.Choice(PACKINGS), default="full", show_default=True,
    help="How articles are laid into sequences, and what becomes of those that are longer.",
)  # fmt: skip
@click.option(
    "--packing_boundary", type=BOUNDARY, default="jsonl", show_default=True,
    help="What of a record that is a list stays together.",
)  # fmt: skip
@click.option(
    "--attention_boundary", type=BOUNDARY, default="jsonl", show_default=True, help="What of it an end token closes."
)
@click.option(
    "--shuffle", type=click.Choice(["False", "on_RAM", "large_file"], case_sensitive=False), default="False",
    show_default=True, help="Put the records into an order that is drawn: in memory, or part by part.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of what is drawn.")
@click.option("--dev_ratio", type=RATIO, default=0.0, show_default=True, help="Part of the records to evaluate on.")
@click.option(
    "--test_ratio", type=RATIO, default=0.0, show_default=True, help="Part of them that is set aside, as text."
)
@click.option(
    "--num_training_splits", type=click.IntRange(1),
    help="Files of training data.  [default: 32; 128 from 10 GB, 256 from 100 GB]",
)  # fmt: skip
@click.option("--prompt_keyword", type=options.Text(), default="prompt", show_default=True, help="The prompt's field.")
@click.option(
    "--completion_keyword", type=options.Text(), default="completion", show_default=True, help="The completion's field."
)
@click.option("--prompt_prefix", type=options.Text(), default="", help="Text before each prompt.")
@click.option("--prompt_postfix", type=options.Text(), default="", help="Text behind it.")
@click.option("--disable_space_separator", is_flag=True, help="Put no space before completions.")
@click.option(
    "--apply_chat_template", is_flag=True, help="Prompts and completions are turns, written by the chat template."
)
@click.option("--keep_prompt_only_sequences", is_flag=True, help="Keep sequences without a completion's token.")
@click.option(
    "--categories_path", type=click.Path(path_type=Path),
    help="A JSON list of the names in the records' \"category\"; their numbers are written too.",
)  # fmt: skip
@click.option("--num_workers", type=options.THREADS, help="Threads that encode and compress.  [default: one a core]")
@click.option("--overwrite", "--overwrite_output_path", is_flag=True, help="Replace what was prepared before.")
@options.DEBUG
def command(
    inputs: tuple[str, ...],
    more_inputs: tuple[str, ...],
    output: Path,
    tokenizer: str,
    cache_dir: Path | None,
    num_workers: int | None,
    overwrite: bool,
    categories_path: Path | None,
    **settings: Any,
) -> None:
    """Make tokenized files of INPUT…, for bossa train; the folder's path is printed.

    An input is a file of records (.json, .jsonl, .parquet), of lines of text (.txt), a folder of such, each perhaps
    .gz, or - for standard input. A record has a prompt and a completion, messages, or a text.
    The same command again goes on with what was interrupted.
    """
    paths = (*inputs, *more_inputs)
    if not paths:
        raise click.UsageError("there is nothing to prepare: name files or folders, or - for standard input")
    if num_workers is not None:
        import os

        os.environ["RAYON_NUM_THREADS"] = str(num_workers)  # read by the tokenizers package as it begins
    from bossa.prepare import Settings, prepare

    chosen = Settings(**settings, categories=_categories(categories_path))
    files, loaded = _tokenizer(tokenizer, cache_dir)
    started = time.perf_counter()
    shown = _Shown()
    report = prepare(paths, output, files, loaded, chosen, overwrite=overwrite, workers=num_workers, progress=shown)
    redraw()
    _tell(report, output, time.perf_counter() - started)
    put(f"{output}\n")


def _categories(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    from bossa.errors import DatasetError, shown

    try:
        names = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{shown(str(path))}: cannot be read as JSON ({error}): give a list of names") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DatasetError(f"{shown(str(path))}: is not a list of names: give one")
    return tuple(names)


def _tokenizer(model: str, cache_dir: Path | None) -> tuple[dict[str, bytes], Tokenizer]:
    """The tokenizer's files, and itself."""
    from bossa.tokenizer import Tokenizer, read_tokenizer_files

    folder = Path(model)
    if (folder / "tokenizer.json").is_file():
        return read_tokenizer_files(folder), Tokenizer.from_directory(folder)
    import tempfile

    from bossa.errors import TokenizerError, shown
    from bossa.frontend.sources import find

    with tempfile.TemporaryDirectory() as made:
        files = find(model, None, cache_dir, False).tokenizer_files(Path(made))
    if not files:
        raise TokenizerError(f"{shown(model)}: has no tokenizer that can be read: name a model that has one")
    return files, Tokenizer.from_files(files, model)


class _Shown:
    """How far the work has come, where standard error is a terminal."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, stage: str, count: int) -> None:
        now = time.monotonic()
        if now - self._last > 0.2 and sys.stderr.isatty():
            self._last = now
            redraw(f"{stage}: {count:,}")


def _tell(report: Report, output: Path, seconds: float) -> None:
    for split, files in report.files.items():
        used = report.tokens[split]
        say(
            f"{split}: {report.records[split]:,} records, {report.sequences[split]:,} sequences in {files} files,"
            f" {used:,} tokens, {report.labels[split]:,} of completions"
        )
    if report.records["test"]:
        say(f"test: {report.records['test']:,} records, as text")
    for reason, count in report.left_out.items():
        say(f"left out, {reason}: {count:,}")
    if report.cut:
        say(f"cut to a sequence: {report.cut:,}")
    if report.left_out or report.cut:
        say(f"which they are is in {output / 'logs.log'}")
    say(f"prepared in {seconds:.1f} s")
