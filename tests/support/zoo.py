"""Small models of many architectures: their configs, with random weights that make every part of them matter."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig

LENGTH = 64
VOCABULARY = 199

COMMON: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": LENGTH,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_LAYER_NAMES = ("n_layer", "num_layers", "num_hidden_layers")


@dataclass(frozen=True)
class Model:
    """A small model: transformers' model type and what differs from `COMMON` (None: not passed on)."""

    name: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)

    def config(self, **more: Any) -> PretrainedConfig:
        settings = COMMON | self.settings | more
        return CONFIG_MAPPING[self.kind](**{name: value for name, value in settings.items() if value is not None})


def _models(**entries: dict[str, Any]) -> dict[str, Model]:
    return {name: Model(name, settings.pop("kind", name), settings) for name, settings in entries.items()}


def _rope(kind: str, **settings: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0, **settings}


GROUPED = {"num_key_value_heads": 2}

ASKED = _models(
    gpt2={"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": LENGTH},
    opt={"ffn_dim": 80},
    opt_projected={"kind": "opt", "ffn_dim": 80, "word_embed_proj_dim": 32},
    opt_post_norm={"kind": "opt", "ffn_dim": 80, "do_layer_norm_before": False, "word_embed_proj_dim": 32},
    gpt_neox={"rotary_pct": 0.5},
    gpt_neox_sequential={"kind": "gpt_neox", "use_parallel_residual": False, "rotary_pct": 0.25},
    bloom={"n_layer": 2, "n_head": 4},
    gptj={"n_embd": 48, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "n_positions": LENGTH},
    falcon={"multi_query": True},
    falcon_grouped={"kind": "falcon", "new_decoder_architecture": True, "num_kv_heads": 2},
    falcon_alibi={"kind": "falcon", "alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
    gpt_neo={
        "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 16,
        "num_attention_heads": None, "num_hidden_layers": None,
    },
    phi={"partial_rotary_factor": 0.5},
    phi3={**GROUPED},
    llama={**GROUPED},
    llama_biased={"kind": "llama", "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    mistral={**GROUPED, "sliding_window": 16},
    qwen2={**GROUPED},
    qwen2_windowed={
        "kind": "qwen2", **GROUPED, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1,
    },
    qwen3={**GROUPED, "head_dim": 20},
    gemma={"head_dim": 16, "num_key_value_heads": 1},
    gemma2={"head_dim": 16, **GROUPED, "sliding_window": 16, "query_pre_attn_scalar": 24},
    stablelm={**GROUPED, "partial_rotary_factor": 0.5},
    stablelm_parallel={
        "kind": "stablelm", **GROUPED, "qk_layernorm": True, "use_parallel_residual": True, "use_qkv_bias": True,
        "partial_rotary_factor": 0.5,
    },
    olmo2={**GROUPED},
    lfm2={
        **GROUPED, "num_hidden_layers": 6, "conv_L_cache": 3, "conv_bias": True,
        "layer_types": ["conv", "conv", "full_attention", "conv", "conv", "full_attention"],
    },
)  # fmt: skip

ROPES = _models(
    rope_linear={"kind": "llama", **GROUPED, "rope_parameters": _rope("linear", factor=2.0)},
    rope_dynamic={
        "kind": "llama", **GROUPED, "max_position_embeddings": 32,
        "rope_parameters": _rope("dynamic", factor=2.0, original_max_position_embeddings=32),
    },
    rope_yarn={
        "kind": "llama", **GROUPED, "rope_parameters": _rope("yarn", factor=4.0, original_max_position_embeddings=16),
    },
    rope_llama3={
        "kind": "llama", **GROUPED,
        "rope_parameters": _rope(
            "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
        ),
    },
    rope_longrope={
        "kind": "phi3", **GROUPED, "original_max_position_embeddings": 32,
        "rope_parameters": _rope(
            "longrope", short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5], long_factor=[1.5, 2.0, 2.5, 3.0, 3.5, 4.0],
            original_max_position_embeddings=32,
        ),
    },
)  # fmt: skip

MORE = _models(
    apertus={**GROUPED},
    arcee={**GROUPED},
    biogpt={},
    bitnet={**GROUPED},
    codegen={"n_embd": 48, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "n_positions": LENGTH},
    cohere={**GROUPED},
    cohere2={**GROUPED, "sliding_window": 16},
    cwm={**GROUPED, "sliding_window": 16},
    ernie4_5={**GROUPED},
    exaone4={**GROUPED, "sliding_window": 16},
    gemma3_text={"head_dim": 16, **GROUPED, "sliding_window": 16},
    glm={**GROUPED, "head_dim": 16},
    glm4={**GROUPED, "head_dim": 16},
    gpt_bigcode={"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": LENGTH, "n_inner": 80},
    gpt_neox_japanese={"intermediate_multiple_size": 2},
    granite={**GROUPED, "logits_scaling": 2.0, "residual_multiplier": 0.5, "embedding_multiplier": 3.0},
    helium={**GROUPED, "head_dim": 12},
    hunyuan_v1_dense={**GROUPED, "head_dim": 12},
    hyperclovax={**GROUPED},
    jais2={**GROUPED},
    ministral={**GROUPED, "sliding_window": 16, "head_dim": 12},
    minicpm3={},
    mpt={"d_model": 48, "n_layers": 2, "n_heads": 4, "max_seq_len": LENGTH},
    nanochat={**GROUPED},
    nemotron={**GROUPED, "head_dim": 12},
    olmo={**GROUPED, "clip_qkv": 1.0},
    olmo3={**GROUPED, "sliding_window": 16},
    openai_gpt={"kind": "openai-gpt", "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": LENGTH},
    persimmon={},
    seed_oss={**GROUPED, "head_dim": 12},
    smollm3={**GROUPED},
    starcoder2={**GROUPED, "sliding_window": None},
    vaultgemma={"head_dim": 16, **GROUPED, "sliding_window": 16},
    xglm={"d_model": 48, "ffn_dim": 80, "attention_heads": 4, "num_layers": 2, "num_attention_heads": None},
    ctrl={"n_embd": 48, "n_layer": 2, "n_head": 4, "dff": 80, "n_positions": LENGTH},
    youtu={},
    opt_relu_bias_free={"kind": "opt", "ffn_dim": 80, "enable_bias": False, "layer_norm_elementwise_affine": False},
)

MODELS = ASKED | ROPES | MORE


def build(config: PretrainedConfig, *, seed: int = 0) -> torch.nn.Module:
    """The model in fp32 with eager attention, with weights far enough from zero that each changes the logits."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            value = noise * 0.08 if parameter.dim() > 1 else 0.5 + noise * 0.1
            parameter.copy_(value)
    return model


def reference(model: torch.nn.Module, ids: list[int]) -> NDArray[np.float32]:
    """Logits ``[T, V]`` of one sequence."""
    with torch.no_grad():
        return np.asarray(model(torch.tensor(ids)[None], use_cache=False).logits[0].numpy(), np.float32)


def weights_of(program: Any, model: torch.nn.Module) -> dict[str, NDArray[np.float32]]:
    """The slots of a program in their logical shapes, as the interpreter takes them."""
    state = {name: tensor.detach().numpy() for name, tensor in model.named_parameters(remove_duplicate=False)}
    state |= {name: tensor.detach().numpy() for name, tensor in model.named_buffers()}
    weights = {}
    for name, slot in program.slots.items():
        parts = [state[s.names[0]].T if s.transpose else state[s.names[0]] for s in slot.sources]
        if slot.interleave:
            panels = [part.reshape(-1, 16, part.shape[1]) for part in parts]
            weights[name] = np.stack(panels, 1).reshape(-1, parts[0].shape[1])
        else:
            weights[name] = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return weights


def error(out: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference, relative to the largest logit of its row."""
    return float((np.abs(out - expected).max(1) / np.abs(expected).max(1)).max())


@functools.cache
def imported(name: str, length: int = LENGTH) -> Any:
    """The row program of a small model before any pass."""
    from bossa.frontend.importer import import_model

    return import_model(MODELS[name].config(), name=name, max_seq_length=length).program
