"""CTranslate2. The model is a converted folder, whose name ends in its compute type; texts are tokenized by the
checkpoint's tokenizer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import ctranslate2

import serve


class CTranslate2Worker:
    """Settings: ``split`` gives each thread sequences of its own, instead of all threads the whole batch; in a job the
    ``batch`` of sequences side by side."""

    def __init__(self, folder: str, tokenizer: str, threads: int) -> None:
        self.folder, self.tokenizer, self.threads = Path(folder), Path(tokenizer), threads
        self.kind = self.folder.name.rpartition("-")[2]
        self._generators: dict[bool, Any] = {}
        self._vocabulary: list[str] = []

    def _generator(self, settings: serve.Settings) -> Any:
        split = bool(settings.get("split", False))
        if split not in self._generators:
            inter, intra = (self.threads, 1) if split else (1, self.threads)
            self._generators[split] = ctranslate2.Generator(
                str(self.folder), device="cpu", compute_type=self.kind, inter_threads=inter, intra_threads=intra
            )
        return self._generators[split]

    def _run(self, prompts: list[list[str]], new: int, settings: serve.Settings) -> list[Any]:
        batch = min(settings.get("batch", len(prompts)), len(prompts))
        if settings.get("split", False):
            batch = -(-batch // self.threads)
        return self._generator(settings).generate_batch(  # type: ignore[no-any-return]
            prompts, max_length=new, min_length=new, beam_size=1, sampling_topk=1, include_prompt_in_result=False,
            max_batch_size=batch, end_token=[],
        )  # fmt: skip

    def _prompts(self, count: int, length: int) -> list[list[str]]:
        if not self._vocabulary:
            import json

            for name in ("vocabulary.json", "vocabulary.txt"):
                path = self.folder / name
                if path.exists():
                    text = path.read_text(encoding="utf-8")
                    self._vocabulary = json.loads(text) if name.endswith("json") else text.split("\n")
        return [[random.choice(self._vocabulary) for _ in range(length)] for _ in range(count)]

    def prefill(self, length: int, repeat: int, settings: serve.Settings) -> list[float]:
        def once() -> float:
            prompts = self._prompts(1, length)
            return length / serve.seconds(lambda: self._run(prompts, 1, settings))

        return serve.repeated(once, repeat)

    def decode(self, batch: int, context: int, steps: int, repeat: int, settings: serve.Settings) -> list[float]:
        def once() -> float:
            prompts = self._prompts(batch, context)
            short = serve.seconds(lambda: self._run(prompts, 1, settings))
            long = serve.seconds(lambda: self._run(prompts, steps + 1, settings))
            return serve.difference(batch * steps, long, short)

        return serve.repeated(once, repeat)

    def generate(self, prompts: list[str], new: int, settings: serve.Settings) -> int:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.tokenizer / "tokenizer.json"))
        results = self._run([tokenizer.encode(prompt).tokens for prompt in prompts], new, settings)
        for result in results:
            tokenizer.decode(result.sequences_ids[0])
        return sum(len(result.sequences_ids[0]) for result in results)


if __name__ == "__main__":
    serve.main(CTranslate2Worker)
