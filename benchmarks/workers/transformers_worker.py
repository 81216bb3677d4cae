"""transformers, eager or compiled by torch. The model is a checkpoint's folder."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, StaticCache

import serve


class TransformersWorker:
    """Settings: ``dtype``, float32 where none is given; ``attention``, one of transformers' implementations;
    ``compile``, with a static cache and weights that are constants to the compiler; in a job the ``batch`` of sequences
    side by side."""

    def __init__(self, folder: str, tokenizer: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.folder = folder
        self._models: dict[tuple[str, str], Any] = {}
        self._compiled: dict[str, Any] = {}

    def _model(self, settings: serve.Settings) -> Any:
        attention, dtype = settings.get("attention", "sdpa"), settings.get("dtype", "float32")
        if (attention, dtype) not in self._models:
            self._models[attention, dtype] = AutoModelForCausalLM.from_pretrained(
                self.folder, dtype=getattr(torch, dtype), attn_implementation=attention
            ).eval()
        return self._models[attention, dtype]

    def _step(self, settings: serve.Settings) -> Any:
        """What runs tokens: the model, or its compiled form."""
        model = self._model(settings)
        if not settings.get("compile", False):
            return model
        attention = settings.get("attention", "sdpa")
        if attention not in self._compiled:
            import torch._inductor.config

            torch._inductor.config.freezing = True
            torch._dynamo.config.recompile_limit = 64
            self._compiled[attention] = torch.compile(model, dynamic=False)
        return self._compiled[attention]

    def _cache(self, batch: int, length: int, settings: serve.Settings) -> Any:
        if not settings.get("compile", False):
            return None
        config = self._model(settings).config
        cache = StaticCache(config=config, max_cache_len=length)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        cache.early_initialization(batch, heads, width, torch.float32, torch.device("cpu"))
        for layer in cache.layers:  # their own tensors are marked as static, which the compiler takes for constants
            layer.keys, layer.values = torch.zeros_like(layer.keys), torch.zeros_like(layer.values)
            layer.cumulative_length = torch.zeros_like(layer.cumulative_length)
        return cache

    @torch.no_grad()
    def prefill(self, length: int, repeat: int, settings: serve.Settings) -> list[float]:
        step = self._step(settings)

        def once() -> float:
            ids = self._ids(1, length, settings)
            positions = torch.arange(length)[None]
            cache = self._cache(1, length, settings)
            return length / serve.seconds(
                lambda: step(ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
            )

        return serve.repeated(once, repeat)

    @torch.no_grad()
    def decode(self, batch: int, context: int, steps: int, repeat: int, settings: serve.Settings) -> list[float]:
        model, step = self._model(settings), self._step(settings)

        def once() -> float:
            cache = self._cache(batch, context + steps + serve.STEPS_AHEAD, settings)
            ids = self._ids(batch, context, settings)
            positions = torch.arange(context).expand(batch, -1)
            out = model(ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
            taken = 0.0
            for i in range(steps + serve.STEPS_AHEAD):
                chosen = out.logits[:, -1:].argmax(-1)
                position = torch.full((batch, 1), context + i)

                def run(chosen: Any = chosen, position: Any = position, cache: Any = out.past_key_values) -> None:
                    nonlocal out
                    out = step(chosen, position_ids=position, past_key_values=cache, use_cache=True, logits_to_keep=1)

                lasted = serve.seconds(run)
                taken += lasted if i >= serve.STEPS_AHEAD else 0.0
            return batch * steps / taken

        return serve.repeated(once, repeat)

    @torch.no_grad()
    def generate(self, prompts: list[str], new: int, settings: serve.Settings) -> int:
        from transformers import AutoTokenizer

        model = self._model(settings)
        tokenizer = AutoTokenizer.from_pretrained(self.folder, padding_side="left")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        count = 0
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))  # like with like
        for group in serve.groups(len(order), settings["batch"]):
            inputs = tokenizer([prompts[order[number]] for number in group], return_tensors="pt", padding=True)
            out = model.generate(
                **inputs, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
            tokenizer.batch_decode(out)
            count += (out.shape[1] - inputs["input_ids"].shape[1]) * len(group)
        return count

    @torch.no_grad()
    def logits(self, ids: list[int]) -> Any:
        return self._model({"attention": "eager"})(torch.tensor([ids]), use_cache=False).logits[0].numpy()

    def weight_bytes(self) -> int:
        parameters = self._model({"attention": "eager"}).parameters()
        return sum(parameter.numel() * parameter.element_size() for parameter in parameters)

    def _ids(self, batch: int, length: int, settings: serve.Settings) -> Any:
        return torch.randint(0, self._model(settings).config.vocab_size, (batch, length))


if __name__ == "__main__":
    serve.main(TransformersWorker)
