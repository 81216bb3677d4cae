"""The same rates from OpenVINO GenAI's continuous batching.

openvino_rates.py MODEL_DIRECTORY VOCABULARY
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from typing import Any

import numpy as np
import openvino
import openvino_genai

PROMPTS = (128, 512, 1000)
BATCHES = (1, 8, 32)
CONTEXT, STEPS = 32, 32


def main(directory: str, vocabulary: int) -> dict[str, float]:
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 2
    scheduler.max_num_batched_tokens = 1024
    scheduler.enable_prefix_caching = False
    pipeline = openvino_genai.ContinuousBatchingPipeline(directory, scheduler, "CPU")

    def seconds(sequences: int, length: int, new: int, times: int) -> float:
        """The median time to run fresh prompts to `new` tokens each."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new
        config.ignore_eos, config.do_sample = True, False
        taken = []
        for _ in range(times + 1):
            prompts: list[Any] = [
                openvino.Tensor(np.array([[random.randrange(vocabulary) for _ in range(length)]], np.int64))
                for _ in range(sequences)
            ]
            start = time.perf_counter()
            pipeline.generate(prompts, [config] * sequences)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken[1:])

    rates = {f"prefill {length}": length / seconds(1, length, 1, 3) for length in PROMPTS}
    for count in BATCHES:
        decode = seconds(count, CONTEXT, STEPS + 1, 2) - seconds(count, CONTEXT, 1, 2)
        rates[f"decode {count}"] = count * STEPS / decode
    return rates


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
