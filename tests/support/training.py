"""Small things to train on: HDF5 files of made-up articles, models saved to folders, and runs over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from transformers import PretrainedConfig

from bossa.train.processes import Processes
from bossa.train.settings import Settings
from bossa.train.trainer import Result, train
from support import zoo

END_TOKEN = 1


def write_rows(path: Path, ids: Any, types: Any) -> None:
    """A file as the preparation tool writes it."""
    with h5py.File(path, "w") as file:
        for name, given in (("input_ids", ids), ("token_type_ids", types)):
            rows = np.asarray(given, np.int32)
            file.create_dataset(name, data=rows, maxshape=(None, rows.shape[1]), compression="gzip", compression_opts=4)


def article(random: np.random.Generator, longest: int = 20) -> tuple[list[int], list[int]]:
    """A prompt, and a completion that follows from its last token; closed by the end token."""
    prompt = random.integers(3, zoo.VOCABULARY, random.integers(2, longest)).tolist()
    completion = [3 + prompt[-1] % 2, 5]
    return [*prompt, *completion, END_TOKEN], [0] * len(prompt) + [1, 1, 3]


def write_data(folder: Path, *, train: int = 24, dev: int = 6, length: int = 32, longest: int = 20) -> Path:
    """Splits with one article a row; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("dev", dev)):
        random = np.random.default_rng(len(split))
        ids, types = np.full((count, length), 2), np.full((count, length), 2)
        for row in range(count):
            tokens, kinds = article(random, longest)
            ids[row, : len(tokens)], types[row, : len(kinds)] = tokens, kinds
        if count:
            write_rows(folder / f"{split}_1_of_1.hdf5", ids, types)
    return folder


def save_model(folder: Path, name: str = "llama", **more: Any) -> Path:
    """A small random model of an architecture, in Hugging Face's layout."""
    torch.manual_seed(0)
    config: PretrainedConfig = (zoo.ASKED | zoo.MORE)[name].config(**more)
    zoo.build(config).save_pretrained(folder)
    return folder


class Silent:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.evaluations: list[Any] = []

    def started(self, what: str, step: int, steps: int) -> None:
        self.what = what

    def stepped(self, step: Any) -> None:
        self.steps.append(step)

    def evaluated(self, step: int, found: Any, is_best: bool) -> None:
        self.evaluations.append((step, found, is_best))


def run(model: Path, data: Path, output: Path, watcher: Any = None, **settings: Any) -> Result:
    """Train in this process; a few quick steps if nothing else is said."""
    defaults: dict[str, Any] = {"steps": 4, "batch_size": 4, "bf16": "off", "learning_rate": 1e-2, "eval_steps": 2}
    given = Settings(model=str(model), data_dir=data, output=output, **(defaults | settings))
    return train(given, Processes(), watcher or Silent())
