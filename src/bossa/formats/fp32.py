"""fp32: floats as they are."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from bossa.formats.format import Format
from bossa.formats.geometry import PANEL

if TYPE_CHECKING:
    import numpy as np

    from bossa.formats.format import F32, U8
else:
    from bossa.formats.lazy import np


@dataclass(frozen=True)
class Fp32(Format):
    """A panel is [K][16], a table its rows."""

    def panel_bytes(self, k: int) -> int:
        return 4 * PANEL * k

    def activation_bytes(self, k: int) -> int:
        return 0

    def put(self, rows: F32, panels: U8, first: int, panel_step: int = 1) -> None:
        count, k = rows.shape
        if not k:
            return
        packed = panels.view(np.float32).reshape(-1, k, PANEL)
        lane, panel = first % PANEL, first // PANEL
        done = min(-lane % PANEL, count)
        if done:
            packed[panel, :, lane : lane + done] = rows[:done].T
            panel += panel_step
        whole = (count - done) // PANEL
        if whole:
            shaped = rows[done : done + whole * PANEL].reshape(whole, PANEL, k).transpose(0, 2, 1)
            packed[panel : panel + whole * panel_step : panel_step] = shaped
            done += whole * PANEL
            panel += whole * panel_step
        if done < count:
            packed[panel, :, : count - done] = rows[done:].T

    def get(self, panels: U8, k: int, count: int) -> F32:
        return panels.view(np.float32).reshape(-1, k, PANEL).transpose(0, 2, 1).reshape(-1, k)[:count]

    def table_bytes(self, height: int, width: int) -> int:
        return 4 * height * width

    def put_table(self, rows: F32, table: U8, height: int, first: int) -> None:
        table.view(np.float32).reshape(height, -1)[first : first + len(rows)] = rows

    def get_table(self, table: U8, height: int) -> F32:
        return table.view(np.float32).reshape(height, -1)


FORMATS = (Fp32("fp32", 32, "fp32", ("panels", "rows", "flat"), "float", "formats/fp32.h", inf),)
