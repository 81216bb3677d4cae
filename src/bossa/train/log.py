"""What a run tells of itself: a line of JSON for each step, TensorBoard events, and a chart of the curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from bossa.host.files import replacing
from bossa.train.errors import missing_package

LOG, EVENTS, CHARTS = "log.jsonl", "events", ("curve.svg", "curve.png")


class Log:
    """Writes ``log.jsonl`` and TensorBoard events; of a run that goes on, what came after ``step`` is taken away.

    Raises:
        TrainError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise missing_package(error) from error
        self.path = folder / LOG
        kept = [entry for entry in read_log(folder) if entry["step"] <= step] if step else []
        with replacing(self.path) as file:
            file.writelines(_line(entry).encode() for entry in kept)
        self._file: TextIO = self.path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / EVENTS), purge_step=step + 1)

    def add(self, entry: dict[str, Any]) -> None:
        """One step or evaluation: ``step``, and numbers by name."""
        self._file.write(_line(entry))
        self._file.flush()
        for name, value in entry.items():
            if name != "step":
                self._events.add_scalar(name, value, entry["step"])

    def close(self) -> None:
        """Write what is still held back."""
        self._file.close()
        self._events.close()


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry) + "\n"


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's log; a last line that was cut off is left out."""
    path = folder / LOG
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries


def draw(folder: Path) -> None:
    """Charts of loss and exact match by step, as SVG and PNG.

    Raises:
        TrainError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    entries = read_log(folder)
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 6), constrained_layout=True)
    for axes, names in ((above, ("loss", "eval_loss")), (below, ("exact_match",))):
        for name in names:
            points = [(entry["step"], entry[name]) for entry in entries if name in entry]
            if points:
                axes.plot(
                    *zip(*points, strict=True), marker="" if name == "loss" else "o", label=name.replace("_", " ")
                )
        axes.set_ylabel(names[0].replace("_", " "))
        axes.grid(alpha=0.3)
    above.legend()
    below.set_xlabel("step")
    for name in CHARTS:
        with replacing(folder / name) as file:
            figure.savefig(file, format=name.rpartition(".")[2], dpi=120)
    pyplot.close(figure)
