"""Running a program as ``python PROGRAM.py ARGS…`` would, with ``sambaflow`` bound to ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from bossa.errors import SambaError
from bossa.sambaflow.names import bind
from bossa.sambaflow.transformers5 import restore


def run(program: str, arguments: Sequence[str]) -> None:
    """Run a program to its end, or to whatever it raises.

    Args:
        program: The path of a Python file.
        arguments: What follows it in ``sys.argv``.

    Raises:
        SambaError: There is no such file.
    """
    path = Path(program)
    if not os.path.isfile(path):
        raise SambaError(f"{program}: no such program; python -m bossa.sambaflow takes the path of a Python file")
    code = compile(path.read_bytes(), program, "exec", dont_inherit=True)
    bind()
    restore()
    main = ModuleType("__main__")
    main.__file__ = program
    with _in_place_of_ours(main, path.resolve().parent, [program, *arguments]):
        exec(code, vars(main))


@contextmanager
def _in_place_of_ours(main: ModuleType, directory: Path, argv: list[str]) -> Iterator[None]:
    """The program's ``__main__``, arguments and path of imports, and what was there before after it.

    The program's own modules are forgotten too: the next program may have other ones of the same names.
    """
    kept, modules = (sys.modules["__main__"], sys.argv, list(sys.path)), set(sys.modules)
    sys.modules["__main__"], sys.argv = main, argv
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.modules["__main__"], sys.argv, sys.path[:] = kept
        for name in set(sys.modules) - modules:
            if _is_of(directory, sys.modules[name]):
                del sys.modules[name]


def _is_of(directory: Path, module: ModuleType) -> bool:
    """Whether a module is the program's own, and not of an environment that is kept beside it."""
    file = getattr(module, "__file__", None)
    places = [Path(file)] if file else [Path(place) for place in getattr(module, "__path__", ())]
    return any(place.resolve().is_relative_to(directory) and "site-packages" not in place.parts for place in places)
