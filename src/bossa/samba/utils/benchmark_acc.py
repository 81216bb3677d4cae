"""How good a trained model is, in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bossa.host.output import writing


@dataclass(frozen=True)
class AccuracyReport:
    """Metrics of a validation, and what it took to get there."""

    val_metrics: Mapping[str, float]
    batch_size: int
    num_iterations: int

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, with the folders above the file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as file:
            file.write((json.dumps(asdict(self), indent=2) + "\n").encode())
