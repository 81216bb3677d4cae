"""The same rates from llama.cpp, through the C interface of llama-cpp-python.

llamacpp_rates.py MODEL.gguf THREADS
"""

from __future__ import annotations

import ctypes
import json
import random
import statistics
import sys
import time
from typing import Any

import llama_cpp as llama

PROMPTS = (128, 512, 1000)
BATCHES = (1, 8, 32)
CONTEXT, STEPS = 32, 32


@llama.llama_log_callback
def _silent(level: int, text: bytes, data: Any) -> None:
    pass


def main(path: str, threads: int) -> dict[str, float]:
    llama.llama_log_set(_silent, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    rates: dict[str, float] = {}

    def context(sequences: int, positions: int) -> Any:
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = positions, 2048, 512
        params.n_threads = params.n_threads_batch = threads
        params.n_seq_max = sequences
        params.kv_unified = True
        return llama.llama_init_from_model(model, params)

    def run(ctx: Any, rows: list[tuple[int, int, int, bool]]) -> None:
        """Rows of (token, position, sequence, whether its logits are wanted)."""
        batch = llama.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, wanted
        if llama.llama_decode(ctx, batch) != 0:
            raise SystemExit("llama.cpp refused a batch")
        llama.llama_synchronize(ctx)
        llama.llama_batch_free(batch)

    def prompt(length: int, sequence: int) -> list[tuple[int, int, int, bool]]:
        return [(random.randrange(vocabulary), i, sequence, i == length - 1) for i in range(length)]

    for length in PROMPTS:
        ctx, taken = context(1, 1024), []
        for _ in range(4):
            llama.llama_memory_clear(llama.llama_get_memory(ctx), True)
            rows = prompt(length, 0)
            start = time.perf_counter()
            run(ctx, rows)
            taken.append(time.perf_counter() - start)
        rates[f"prefill {length}"] = length / statistics.median(taken[1:])
        llama.llama_free(ctx)
    for count in BATCHES:
        ctx, taken = context(count, count * 128 if count > 1 else 1024), []
        for sequence in range(count):
            run(ctx, prompt(CONTEXT, sequence))
        for i in range(STEPS):
            rows = [(random.randrange(vocabulary), CONTEXT + i, s, True) for s in range(count)]
            start = time.perf_counter()
            run(ctx, rows)
            taken.append(time.perf_counter() - start)
        rates[f"decode {count}"] = count / statistics.median(taken[1:])
        llama.llama_free(ctx)
    return rates


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
