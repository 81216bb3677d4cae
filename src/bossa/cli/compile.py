"""``bossa compile``: a model in, a program file out."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bossa.cli import options
from bossa.cli.progress import Stages
from bossa.cli.text import show
from bossa.errors import CompileError, PefError
from bossa.formats.precision import GONE, KV_PRECISIONS, PRECISIONS, why_not
from bossa.host import streams
from bossa.host.signals import interrupting

if TYPE_CHECKING:
    from typing import Any

    from bossa.formats.precision import KvPrecision, Precision

WANTED = "give the folder with --output-folder; a name has at most 200 bytes and no control characters"
OPTIONAL_PACKAGES = ("torch", "transformers", "gguf", "accelerate")


class PrecisionChoice(click.Choice[str]):
    """One of ``PRECISIONS``; a word that once was one is told what to take instead."""

    def __init__(self) -> None:
        super().__init__(list(PRECISIONS))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in GONE:
            self.fail(str(why_not(value)), param, ctx)
        return super().convert(value, param, ctx)


@click.command("compile", short_help="Compile a model into a program file.")
@click.argument("model", required=False)
@click.option("--model_name_or_path", metavar="MODEL", help="The same as the MODEL argument.")
@click.option("--config_name", metavar="CONFIG", help="Take the architecture from this config; weights are not needed.")
@options.cache_dir()
@options.max_seq_length("as many as the model was made for, but at most 32,768")
@click.option(
    "-b", "--batch-size", type=options.SEQUENCES, default=1, show_default=True, help="The most sequences at once."
)
@click.option(
    "--pef-name",
    type=options.Text(),
    metavar="NAME",
    help="The program's name.  [default: made from the time and the process id]",
)
@click.option(
    "--output-folder",
    type=click.Path(path_type=Path),
    default=Path("out"),
    show_default=True,
    help="The program is written to FOLDER/NAME/NAME.pef.",
)
@click.option(
    "--precision",
    type=PrecisionChoice(),
    default="fp32",
    show_default=True,
    help=f"How weights are stored: {'; '.join(f'{word} {when}' for word, when in PRECISIONS.items())}.",
)
@click.option(
    "--kv-precision",
    type=click.Choice(KV_PRECISIONS),
    default="fp32",
    show_default=True,
    help="How keys and values are stored; int8 has one scale per token and head.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="The kind of CPU to build for (x86-64-v3, x86-64-v4, x86-64-v4-vnni, x86-64-v4-amx, aarch64, portable); may be"
    " repeated.  [default: this machine's]",
)
@click.option("--bundle", is_flag=True, help="Include the packed weights in the file.")
@click.option("--adapters", is_flag=True, help="Let the program take LoRA adapters (bossa run --adapter).")
@click.option("--trust-remote-code", is_flag=True, help="Allow the model to run Python code that comes with it.")
@click.option(
    "--examples_to_generate",
    type=options.CountOrAll(),
    expose_value=False,
    help="Accepted for compatibility, without effect.",
)
@options.INFERENCE
@options.DEBUG
def command(
    model: str | None,
    model_name_or_path: str | None,
    config_name: str | None,
    cache_dir: Path | None,
    max_seq_length: int | None,
    batch_size: int,
    pef_name: str | None,
    output_folder: Path,
    precision: Precision,
    kv_precision: KvPrecision,
    targets: tuple[str, ...],
    bundle: bool,
    adapters: bool,
    trust_remote_code: bool,
) -> None:
    """Compile MODEL into one program file; the last line printed is its path.

    MODEL is a name on the Hugging Face hub, a directory in its layout, or a GGUF file. Its weights are not read
    unless --bundle is given.
    """
    streams.need(1)
    if model is not None and model_name_or_path not in (None, model):
        raise click.UsageError(f"two models are given: {model} and {model_name_or_path}; give one")
    model = model or model_name_or_path
    if not model and not config_name:
        raise click.UsageError("no model is given: name one, as in 'bossa compile gpt2', or give --config_name")
    name = _checked_name(pef_name) if pef_name is not None else _name_of_this_moment()
    folder = output_folder / name
    _refuse_unwritable(folder)
    with Stages() as stage:
        try:
            from bossa.compiler import compile as compile_model

            click.get_current_context().with_resource(interrupting())  # there are folders to remove from now on
            pef = compile_model(
                model,
                config_name=config_name,
                precision=precision,
                kv_precision=kv_precision,
                max_seq_length=max_seq_length,
                batch_size=batch_size,
                targets=list(targets) or None,
                bundle=bundle,
                adapters=adapters,
                cache_dir=cache_dir,
                trust_remote_code=trust_remote_code,
                name=name,
                progress=stage,
            )
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in OPTIONAL_PACKAGES:
                raise
            raise CompileError(
                f"compiling needs {error.name}, which is not installed: pip install 'bossa[compile]'"
            ) from error
        stage("write")
        path = folder / f"{name}.pef"
        pef.save(path)
    show(str(path), exact=True)


def _name_of_this_moment() -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


def _checked_name(name: str) -> str:
    from bossa.errors import shown
    from bossa.pef import is_file_name

    if not is_file_name(name):
        raise click.UsageError(f"--pef-name {shown(repr(name))[:80]} is not a file name: {WANTED}")
    return name


def _refuse_unwritable(folder: Path) -> None:
    """Say before the work, not after it, that its result could not be written."""
    parent = folder.absolute()
    try:
        while not parent.exists():
            parent = parent.parent
    except OSError as error:
        raise PefError(f"{folder}: cannot be written ({error.strerror}): choose another --output-folder") from None
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise PefError(f"{folder}: cannot be written: {parent} is not a writable folder")
