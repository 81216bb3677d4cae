"""llama.cpp, through the C interface of llama-cpp-python. The model is a GGUF file, which has its tokenizer in it.

Its rates are of ``llama_decode`` alone: choosing the next token from the logits is not timed.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import Any

import llama_cpp as llama

import serve

Row = tuple[int, int, int, bool]
"""Token, position, sequence, whether its logits are wanted."""


@llama.llama_log_callback
def _silent(level: int, text: bytes, data: Any) -> None:
    pass


class LlamaCppWorker:
    """Settings: ``flash`` attention, ``ubatch`` rows computed at a time, one ``unified`` KV memory for all sequences
    or one each, and in a job the ``batch`` of sequences side by side."""

    def __init__(self, path: str, tokenizer: str, threads: int) -> None:
        self.threads = threads
        llama.llama_log_set(_silent, ctypes.c_void_p(0))
        llama.llama_backend_init()
        self.model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp does not load it")
        self.vocabulary = llama.llama_model_get_vocab(self.model)
        self.tokens = llama.llama_vocab_n_tokens(self.vocabulary)

    def prefill(self, length: int, repeat: int, settings: serve.Settings) -> list[float]:
        context = self._context(1, length + 1, settings)

        def once() -> float:
            llama.llama_memory_clear(llama.llama_get_memory(context), True)
            rows = self._prompt(serve.random_ids(self.tokens, length), 0)
            return length / self._run(context, rows)

        try:
            return serve.repeated(once, repeat)
        finally:
            llama.llama_free(context)

    def decode(self, batch: int, context: int, steps: int, repeat: int, settings: serve.Settings) -> list[float]:
        memory = self._context(batch, context + steps + serve.STEPS_AHEAD, settings)

        def once() -> float:
            llama.llama_memory_clear(llama.llama_get_memory(memory), True)
            for sequence in range(batch):
                self._run(memory, self._prompt(serve.random_ids(self.tokens, context), sequence))
            taken = 0.0
            for step in range(steps + serve.STEPS_AHEAD):
                ids = serve.random_ids(self.tokens, batch)
                rows = [(token, context + step, sequence, True) for sequence, token in enumerate(ids)]
                lasted = self._run(memory, rows)
                taken += lasted if step >= serve.STEPS_AHEAD else 0.0
            return batch * steps / taken

        try:
            return serve.repeated(once, repeat)
        finally:
            llama.llama_free(memory)

    def generate(self, prompts: list[str], new: int, settings: serve.Settings) -> int:
        encoded = [self._encode(prompt) for prompt in prompts]
        batch = min(settings["batch"], len(encoded))
        memory = self._context(batch, max(map(len, encoded)) + new, settings)
        count = 0
        order = sorted(range(len(encoded)), key=lambda number: len(encoded[number]))  # like with like
        for group in serve.groups(len(order), batch):
            count += self._complete(memory, [encoded[order[number]] for number in group], new)
        return count

    def logits(self, ids: list[int]) -> Any:
        import numpy

        memory = self._context(1, len(ids), {"ubatch": 512})
        self._run(memory, [(token, position, 0, True) for position, token in enumerate(ids)])
        rows = numpy.ctypeslib.as_array(llama.llama_get_logits(memory), shape=(len(ids), self.tokens)).copy()
        llama.llama_free(memory)
        return rows

    def weight_bytes(self) -> int:
        return int(llama.llama_model_size(self.model))

    def _complete(self, memory: Any, prompts: Sequence[list[int]], new: int) -> int:
        """Prompts together, then a token of each a step."""
        llama.llama_memory_clear(llama.llama_get_memory(memory), True)
        rows = [row for sequence, ids in enumerate(prompts) for row in self._prompt(ids, sequence)]
        chosen: list[int] = []
        for start in range(0, len(rows), 2048):
            part = rows[start : start + 2048]
            self._run(memory, part)
            chosen += [self._likeliest(memory, i) for i, row in enumerate(part) if row[3]]
        for step in range(new - 1):
            self._run(memory, [(token, len(prompts[s]) + step, s, True) for s, token in enumerate(chosen)])
            chosen = [self._likeliest(memory, i) for i in range(len(prompts))]
        return new * len(prompts)

    def _likeliest(self, memory: Any, row: int) -> int:
        import numpy

        logits = llama.llama_get_logits_ith(memory, row)
        return int(numpy.ctypeslib.as_array(logits, shape=(self.tokens,)).argmax())

    def _encode(self, text: str) -> list[int]:
        data = text.encode()
        room = (llama.llama_token * (len(data) + 8))()
        count = llama.llama_tokenize(self.vocabulary, data, len(data), room, len(room), True, False)
        return list(room[:count])

    def _context(self, sequences: int, length: int, settings: serve.Settings) -> Any:
        params = llama.llama_context_default_params()
        length = -(-length // 256) * 256  # what it rounds to by itself
        params.n_ctx, params.n_batch, params.n_ubatch = length * sequences, 2048, settings.get("ubatch", 512)
        params.n_threads = params.n_threads_batch = self.threads
        params.n_seq_max = sequences
        params.kv_unified = settings.get("unified", True)
        params.flash_attn_type = 1 if settings.get("flash", False) else 0
        context = llama.llama_init_from_model(self.model, params)
        if not context:
            raise RuntimeError(f"no context of {sequences} sequences of {length} tokens")
        return context

    def _prompt(self, ids: Sequence[int], sequence: int) -> list[Row]:
        return [(token, position, sequence, position == len(ids) - 1) for position, token in enumerate(ids)]

    def _run(self, context: Any, rows: Sequence[Row]) -> float:
        """Run packed rows; the seconds that llama.cpp took."""
        batch = llama.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, wanted
        start = time.perf_counter()
        code = llama.llama_decode(context, batch)
        llama.llama_synchronize(context)
        taken = time.perf_counter() - start
        llama.llama_batch_free(batch)
        if code != 0:
            raise RuntimeError(f"llama.cpp refused a batch of {len(rows)} rows ({code})")
        return taken


if __name__ == "__main__":
    serve.main(LlamaCppWorker)
