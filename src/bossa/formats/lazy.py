"""NumPy, loaded when a name of it is first asked for.

Formats say how large weights are to whoever reads a program file, and quantize them for whoever packs: only the second
is worth the tenth of a second that NumPy takes to load.
"""

from __future__ import annotations

from typing import Any


class _NumPy:
    def __getattr__(self, name: str) -> Any:
        import numpy

        return getattr(numpy, name)


np = _NumPy()
