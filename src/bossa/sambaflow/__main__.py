"""``python -m bossa.sambaflow PROGRAM.py ARGS…``; exits as the program does, and with 2 after a line of ours."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType

from bossa.errors import BossaError
from bossa.sambaflow.missing import named_in
from bossa.sambaflow.program import run

USAGE = "python -m bossa.sambaflow PROGRAM.py ARGS…"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program that the arguments name; ``argv`` is ``sys.argv[1:]`` when not given.

    An error of ours is one line, after its traceback if the program's arguments have ``--debug``; one of the program's
    is its traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: {USAGE}\n\nRun a program that imports sambaflow, unmodified.", file=sys.stdout)
        return 0 if arguments else 2
    program, *rest = arguments
    try:
        run(program, rest)
    except BossaError as error:
        if "--debug" in rest:
            traceback.print_exc()
        line = re.sub(r"\s*\n\s*", " ", str(error).strip())
        print(f"bossa: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bossa: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        missing = named_in(error)
        if missing is not None:
            if "--debug" in rest:
                traceback.print_exc()
            print(f"bossa: {missing}", file=sys.stderr)
            return 2
        traceback.print_exception(error.with_traceback(_from(error.__traceback__, program)))
        return 1
    return 0


def _from(trace: TracebackType | None, program: str) -> TracebackType | None:
    """A traceback without the frames above the program's."""
    while trace is not None and trace.tb_frame.f_code.co_filename != program:
        trace = trace.tb_next
    return trace


if __name__ == "__main__":
    raise SystemExit(main())
