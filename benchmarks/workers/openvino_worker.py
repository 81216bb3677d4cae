"""OpenVINO GenAI. The model is a folder that optimum-cli exported, with its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openvino_genai as genai

import serve


class OpenVinoWorker:
    """Settings: ``pipeline``, ``paged`` (continuous batching) or ``plain``; ``properties`` of the CPU plugin."""

    def __init__(self, folder: str, tokenizer: str, threads: int) -> None:
        self.folder, self.threads = folder, threads
        self._pipelines: dict[str, Any] = {}

    def _pipeline(self, settings: serve.Settings) -> Any:
        key = json.dumps([settings.get("pipeline"), settings.get("properties")], sort_keys=True)
        if key not in self._pipelines:
            properties = {"INFERENCE_NUM_THREADS": self.threads, **settings.get("properties", {})}
            if settings.get("pipeline") == "plain":
                made = genai.LLMPipeline(self.folder, "CPU", ATTENTION_BACKEND="SDPA", **properties)
            else:
                scheduler = genai.SchedulerConfig()
                scheduler.cache_size = settings.get("cache_gb", 2)
                scheduler.max_num_batched_tokens = 1024
                scheduler.max_num_seqs = settings.get("batch", 256)
                scheduler.enable_prefix_caching = False
                made = genai.ContinuousBatchingPipeline(self.folder, scheduler, "CPU", properties)
            self._pipelines[key] = made
        return self._pipelines[key]

    def _vocabulary(self) -> int:
        config = json.loads((Path(self.folder) / "config.json").read_text())
        return int(config["vocab_size"])

    def _run(self, prompts: list[list[int]], new: int, settings: serve.Settings) -> None:
        import numpy as np
        import openvino

        pipeline = self._pipeline(settings)
        if settings.get("pipeline") == "plain":
            ids = np.array(prompts, np.int64)
            inputs = genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
            pipeline.generate(inputs, _config(new))
        else:
            tensors = [openvino.Tensor(np.array([ids], np.int64)) for ids in prompts]
            pipeline.generate(tensors, [_config(new)] * len(prompts))

    def prefill(self, length: int, repeat: int, settings: serve.Settings) -> list[float]:
        def once() -> float:
            prompts = [serve.random_ids(self._vocabulary(), length)]
            return length / serve.seconds(lambda: self._run(prompts, 1, settings))

        return serve.repeated(once, repeat)

    def decode(self, batch: int, context: int, steps: int, repeat: int, settings: serve.Settings) -> list[float]:
        def once() -> float:
            prompts = [serve.random_ids(self._vocabulary(), context) for _ in range(batch)]
            short = serve.seconds(lambda: self._run(prompts, 1, settings))
            long = serve.seconds(lambda: self._run(prompts, steps + 1, settings))
            return serve.difference(batch * steps, long, short)

        return serve.repeated(once, repeat)

    def generate(self, prompts: list[str], new: int, settings: serve.Settings) -> int:
        pipeline = self._pipeline(settings)
        if settings.get("pipeline") == "plain":
            for prompt in prompts:
                pipeline.generate(prompt, _config(new))
        else:
            pipeline.generate(prompts, [_config(new)] * len(prompts))
        return new * len(prompts)


def _config(new: int) -> Any:
    config = genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = new
    config.ignore_eos, config.do_sample = True, False
    return config


if __name__ == "__main__":
    serve.main(OpenVinoWorker)
