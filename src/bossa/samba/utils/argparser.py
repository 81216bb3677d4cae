"""The command line of a program: four commands, the framework's arguments and the program's own."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bossa.errors import SambaError, kind_of
from bossa.samba import arguments
from bossa.samba.logging import samba_logger, set_log_level

COMMANDS = ("compile", "run", "test", "measure-performance")

ActionT = TypeVar("ActionT", bound=argparse.Action)
AddArguments = Callable[[argparse.ArgumentParser], Any]

_TUNING: dict[str, dict[str, Any]] = {
    "--mapping": {"help": "how operators are mapped to the hardware"},
    "--arch": {"help": "the generation of the hardware"},
    "--num-tiles": {"type": int, "help": "tiles of a chip to use"},
    "--n-chips": {"type": int, "help": "chips to use"},
    "--n-iters": {"type": int, "help": "iterations to measure"},
    "--resources-scaling-factors": {"type": float, "nargs": "+", "help": "shares of the hardware for each section"},
}
"""Tuning of hardware that is not here: taken, and said once to mean nothing."""


class _Parser(argparse.ArgumentParser):
    """A parser in which an argument takes the place of an earlier one of the same name, default and all."""

    def __init__(self, **options: Any) -> None:
        super().__init__(conflict_handler="resolve", **options)

    def _add_action(self, action: ActionT) -> ActionT:
        # Those that are left by other names only, such as -b where the program defines --batch-size alone, would
        # otherwise go on setting the earlier default.
        earlier = [other for other in self._actions if other.dest == action.dest and other.option_strings]
        added = super()._add_action(action)
        if isinstance(action, argparse._StoreAction) and action.option_strings:
            for other in earlier:
                for option in other.option_strings:
                    self._option_string_actions[option] = added
                    if option not in added.option_strings:
                        added.option_strings = [*added.option_strings, option]
                if other in self._actions:
                    other.container._remove_action(other)  # type: ignore[attr-defined]
        return added


def parse_app_args(
    argv: Sequence[str] | None = None,
    dev_mode: bool = False,
    common_parser_fn: AddArguments | None = None,
    compile_parser_fn: AddArguments | None = None,
    test_parser_fn: AddArguments | None = None,
    run_parser_fn: AddArguments | None = None,
) -> argparse.Namespace:
    """The arguments of a program, with the command in ``command``; also kept for the session.

    Args:
        argv: Without the program's name; `sys.argv[1:]` when not given.
        dev_mode: Adds ``--visualize`` and ``--acc-report-json``, which tests of programs read.
        common_parser_fn: Adds the program's arguments to the parser of every command.
        compile_parser_fn: Adds those of ``compile``.
        test_parser_fn: Adds those of ``test``.
        run_parser_fn: Adds those of ``run`` and ``measure-performance``.
    """
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    own = {
        "compile": compile_parser_fn,
        "run": run_parser_fn,
        "test": test_parser_fn,
        "measure-performance": run_parser_fn,
    }
    for command in COMMANDS:
        of_command = commands.add_parser(command)
        _add_framework_arguments(of_command, command)
        if dev_mode:
            of_command.add_argument("--visualize", action="store_true", help="taken; nothing is drawn")
            of_command.add_argument("--acc-report-json", help="where the program writes its accuracy")
        for add in (common_parser_fn, own[command]):
            if add is not None:
                add(of_command)
    args = parser.parse_args(argv)
    arguments.keep(args)
    _say_what_means_nothing(args)
    return args


def _add_framework_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    parser.add_argument("--inference", action="store_true", help="forward only")
    parser.add_argument("-b", "--batch-size", type=int, default=1, help="samples in one pass")
    parser.add_argument("--data-parallel", action="store_true", help="one process a replica")
    parser.add_argument("--reduce-on-rdu", action="store_true", help="reduce gradients between replicas in the session")
    parser.add_argument("--world-size", type=int, default=1, help="replicas")
    parser.add_argument("--log-level", help="the least level of messages to write")
    parser.add_argument("--debug", action="store_true", help="show a traceback with every error")
    for name, options in _TUNING.items():
        parser.add_argument(name, **options)
    if command == "compile":
        parser.add_argument("--pef-name", help="the name of the PEF; one of the time and process without it")
        parser.add_argument("--output-folder", default=arguments.DEFAULT_FOLDER, help="where the PEF's folder goes")
        for level in ("o0", "o1", "o2", "o3"):
            parser.add_argument(
                f"-{level}",
                f"--{level}",
                dest="optimization_level",
                action="store_const",
                const=level,
                default=arguments.DEFAULT_LEVEL,
                help="how much operators are fused",
            )
    else:
        parser.add_argument("-p", "--pef", required=command == "run", help="the PEF to run")


def _say_what_means_nothing(args: argparse.Namespace) -> None:
    if args.log_level is not None:
        set_log_level(args.log_level)
    for option in _TUNING:
        name = option.removeprefix("--").replace("-", "_")
        measured = name == "n_iters" and args.command == "measure-performance"
        if getattr(args, name, None) is not None and not measured:
            samba_logger.info(f"{option} has no meaning on this machine and is ignored", log_limit=1)


def parse_yaml_to_args(file: str | os.PathLike[str], args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the values of a YAML file in their places; also kept for the session.

    Args:
        file: A mapping of argument names, with hyphens or underscores, to values. Names that no argument has are added.
        args: What `parse_app_args` gave. It is left as it is.

    Raises:
        SambaError: The file is not there, or is no such mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise SambaError(f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SambaError(f"{file}: not YAML: {error}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise SambaError(f"{file}: a mapping of argument names to values is needed, not {kind_of(values)}")
    overlaid = argparse.Namespace(**vars(args))
    for name, value in values.items():
        setattr(overlaid, str(name).replace("-", "_"), value)
    arguments.keep(overlaid)
    return overlaid
