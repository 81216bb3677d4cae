"""The command line as a process of its own, with the toy model in place of a compiled one.

``$TOY_STEP`` is how many seconds a step takes.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from support.toys import Loading, toy_model

    seconds = float(os.environ.get("TOY_STEP", "0"))
    sys.modules["bossa.loading"] = Loading(toy_model(before_step=lambda _step: time.sleep(seconds)))  # type: ignore

    from bossa.cli import main

    raise SystemExit(main())
