"""The program around the commands: finding them, turning errors into one line, and exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, cast

import click

from bossa.cli.text import say, show
from bossa.errors import BossaError, one_message, shortened, shown
from bossa.host import signals, streams


class ExitCode(IntEnum):
    """What the process returns; documented in ``docs/cli.md``."""

    OK = 0
    WRONG = 2  # wrong input or usage: one line on stderr says what
    SOME_RECORDS_FAILED = 3
    INTERRUPTED = 130  # 128 + SIGINT; of another signal, 128 and its number
    READER_GONE = 141  # 128 + SIGPIPE: `bossa run … | head`


_REMEDIES = {errno.ENAMETOOLONG: "give a shorter path"}
COMMANDS = ("prepare", "train", "compile", "run", "eval", "inspect", "fuse", "bench", "cache")


class _Commands(click.Group):
    """The commands by name, each imported when it is asked for: `run` must not pay for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return cast(click.Command, importlib.import_module(f"bossa.cli.{cmd_name}").command)


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from bossa.version import __version__

        show(f"bossa {__version__}")
        ctx.exit()


@click.group(
    cls=_Commands,
    no_args_is_help=False,
    context_settings={
        "token_normalize_func": lambda token: token.replace("_", "-"),  # --max_seq_length is --max-seq-length
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of any error.")
def bossa() -> None:
    """Compile Hugging Face causal language models to one file, and generate from it without PyTorch.

    Options may be spelled with hyphens or with underscores.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``argv`` is ``sys.argv[1:]`` when not given."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    with streams.ready(), warnings.catch_warnings():
        if not debug:
            _quiet_libraries()
        try:
            code = _run(args, debug)
            sys.stdout.flush()
        except BrokenPipeError:
            code = ExitCode.READER_GONE
        except OSError as error:
            code = _report(_reason(error), debug)
        finally:
            streams.settle()
    return code


def _run(args: list[str], debug: bool) -> int:
    try:
        try:
            with bossa.make_context("bossa", args) as context:
                return int(bossa.invoke(context) or ExitCode.OK)
        except click.exceptions.Exit as exit_:  # after --help and --version
            streams.need(1)
            return exit_.exit_code
    except click.ClickException as error:
        return _report(error.format_message() + _hint(error), debug)
    except BossaError as error:
        return _report(str(error), debug)
    except KeyboardInterrupt as interrupt:
        number = signals.number_of(interrupt)
        return _report(signals.describe(number), debug, 128 + number)
    except UnicodeEncodeError as error:
        return _report(f"{error.object!r} cannot be written in this locale: set LC_ALL=C.UTF-8", debug)
    except MemoryError:
        return _report("there is not enough memory: free some, or ask for less at once", debug)


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and not os.path.isabs(error.filename or "") and _is_adrift():
        return "the current folder has been removed: change to one that is there (cd)"
    where = f"{shortened(shown(error.filename), 200)}: " if error.filename is not None else ""
    hint = _REMEDIES.get(error.errno or 0, "")
    return f"{where}{error.strerror or error}{hint and f': {hint}'}"


def _is_adrift() -> bool:
    """Whether the folder that this process is in is gone."""
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def _report(message: str, debug: bool, code: int = ExitCode.WRONG) -> int:
    if debug:
        say(traceback.format_exc().rstrip("\n"), lines=True)
    say(f"bossa: {one_message(message)}")
    return code


def _show_warning(message: Warning | str, *_where: object, **_more: object) -> None:
    say(f"bossa: warning: {one_message(str(message))}")


def _hint(error: click.ClickException) -> str:
    context: Any = getattr(error, "ctx", None)
    return f" (see {context.command_path} --help)" if context is not None else ""


def _quiet_libraries() -> None:
    """Keep libraries from writing warnings and bars of their own between our lines; ``--debug`` lets them."""
    warnings.simplefilter("ignore")
    warnings.filterwarnings("always", module=r"bossa\b")
    warnings.showwarning = _show_warning
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
