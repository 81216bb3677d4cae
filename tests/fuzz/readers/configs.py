"""``config.json`` and ``generation_config.json``: an input is a JSON object of both texts by name."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from bossa.frontend import sources
from bossa.frontend.build import LONGEST, sequence_limit
from fuzz.json_mutations import mutate_json
from fuzz.mutations import mutate_bytes
from fuzz.reader import demand
from fuzz.readers.safetensors import is_object
from fuzz.readers.tokenizers import files_of

COMMON = {"vocab_size": 199, "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 64}
WIDE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80}
WIDE |= {"num_key_value_heads": 2, "head_dim": 12}
GENERATION = {"eos_token_id": [1, 2], "do_sample": True, "temperature": 0.7, "top_k": 5, "bad_words_ids": [[3, 4]]}
ROPE = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
CONFIGS: tuple[dict[str, object], ...] = (
    {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 48, "n_layer": 2, "n_head": 4, **COMMON},
    {
        "model_type": "llama",
        "num_key_value_heads": 2,
        "rope_parameters": ROPE,
        "torch_dtype": "bfloat16",
        **COMMON,
        **WIDE,
    },
    {
        "model_type": "mistral",
        "sliding_window": 16,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        **COMMON,
        **WIDE,
    },
    {"model_type": "qwen2", "use_sliding_window": False, "layer_types": ["full_attention"] * 2, **COMMON, **WIDE},
)


class ConfigReader:
    """`sources.find`: the config and the generation defaults of a directory, and the longest sequence."""

    def seeds(self) -> list[bytes]:
        generation = json.dumps(GENERATION)
        return [
            json.dumps({"config.json": json.dumps(config), "generation_config.json": generation}).encode()
            for config in CONFIGS
        ]

    def mutate(self, chance: random.Random, bases: Sequence[bytes]) -> bytes:
        files = files_of(chance.choice(bases)) or {"config.json": "{}"}
        name = "config.json" if chance.random() < 0.8 else chance.choice(list(files))
        text = files.get(name, "{}")
        if chance.random() < 0.1:
            files[name] = mutate_bytes(chance, text.encode("utf-8", "replace")).decode("utf-8", "surrogateescape")
        else:
            files[name] = mutate_json(chance, text)
        return json.dumps(files).encode()

    def passes(self, data: bytes) -> bool:
        return is_object(files_of(data).get("config.json", "").encode("utf-8", "surrogatepass"))

    def read(self, data: bytes, folder: Path) -> None:
        model = folder / "model"
        model.mkdir()
        for name, text in files_of(data).items():
            (model / name).write_bytes(text.encode("utf-8", "surrogateescape"))
        source = sources.find(str(model), None, None, False)
        demand(source.name == "model", "a model is not called what its directory is")
        length = sequence_limit(source.config, None)
        demand(isinstance(length, int) and 2 <= length <= LONGEST, "the longest sequence is out of range")
        kept = source.generation_config
        demand(kept is None or isinstance(json.loads(json.dumps(kept)), dict), "the generation defaults are no object")
