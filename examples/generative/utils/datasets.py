"""What is generated from and what is trained on: records with a prompt, and files of token ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset


class GenerativeDataset(Dataset):
    """The records of a JSONL file, or of all in a directory and below it; each has a ``prompt``.

    Raises:
        ValueError: There is no such file, or a record has no prompt.
    """

    def __init__(self, path: str) -> None:
        place = Path(path)
        files = sorted(place.rglob("*.jsonl")) if place.is_dir() else [place]
        if not files or not all(file.is_file() for file in files):
            raise ValueError(f"{path}: no JSONL file, and no directory with any")
        self.records: list[dict[str, Any]] = []
        for file in files:
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if line.strip():
                    record = json.loads(line)
                    if "prompt" not in record:
                        raise ValueError(f"{file}:{number}: the record has no prompt")
                    self.records.append(record)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.records[index]


class PretrainingGenerativeDataset(Dataset):
    """An HDF5 file of sequences: token ids and token types, both int64 `[L]`."""

    def __init__(self, input_file: str) -> None:
        import h5py  # generating does without it

        with h5py.File(input_file, "r") as file:
            self.columns = [torch.from_numpy(file[name][:]).long() for name in ("input_ids", "token_type_ids")]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return [column[index] for column in self.columns]
