"""Bossa. The model is a PEF, whose own tokenizer is used; the tokenizer's folder has the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bossa
import serve
from bossa.ir.slot import Slot
from bossa.pef import Pef

LARGEST_BATCH = 64


class BossaWorker:
    """Settings: ``batch``, the most sequences in one step of a job; the engine puts them together by itself."""

    def __init__(self, pef: str, checkpoint: str, threads: int) -> None:
        self.pef, self.checkpoint, self.threads = Path(pef), Path(checkpoint), threads
        self._model: bossa.LanguageModel | None = None

    def _load(self, batch: int) -> bossa.LanguageModel:
        if self._model is None:
            self._model = bossa.load(
                self.pef,
                weights=self.checkpoint,
                threads=self.threads,
                batch_size=batch,
                generation_config="none",  # the likeliest tokens, whatever the model asks for
            )
        return self._model

    def prefill(self, length: int, repeat: int, settings: serve.Settings) -> list[float]:
        from bossa.bench import prefill_rates

        return list(prefill_rates(self._load(LARGEST_BATCH).engine, length, repeat, float("inf")))

    def decode(self, batch: int, context: int, steps: int, repeat: int, settings: serve.Settings) -> list[float]:
        from bossa.bench import decode_rates

        rates, _ = decode_rates(self._load(LARGEST_BATCH).engine, batch, context, steps, repeat, float("inf"))
        return list(rates)

    def generate(self, prompts: list[str], new: int, settings: serve.Settings) -> int:
        with self._load(settings["batch"]) as model:
            completions = model.generate(prompts, max_new_tokens=new, ignore_eos=True)
        return sum(len(completion.token_ids) for completion in completions)

    def logits(self, ids: list[int]) -> Any:
        return self._load(1).logits(ids)

    def weight_bytes(self) -> int:
        slots = Pef.open(self.pef).manifest.slots
        return sum(Slot.from_json(dict(slot)).nbytes for slot in slots)


if __name__ == "__main__":
    serve.main(BossaWorker)
