"""A GPT-2 or Llama checkpoint in Hugging Face's layout as a GGUF file in fp32, for llama.cpp.

gguf_from_checkpoint.py FOLDER OUT.gguf
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors import safe_open

ARCHITECTURES = {"gpt2": gguf.MODEL_ARCH.GPT2, "llama": gguf.MODEL_ARCH.LLAMA}


def main(folder: Path, target: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    kind = config["model_type"]
    if kind not in ARCHITECTURES:
        sys.exit(f"{folder}: {kind} is not written here: use llama.cpp's own convert_hf_to_gguf.py")
    layers = config.get("n_layer") or config["num_hidden_layers"]
    writer = gguf.GGUFWriter(target, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[kind]])
    writer.add_name(folder.name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    (write_gpt2_sizes if kind == "gpt2" else write_llama_sizes)(writer, config)
    write_tokenizer(writer, folder, config)
    names = gguf.get_tensor_name_map(ARCHITECTURES[kind], layers)
    tied = config.get("tie_word_embeddings", kind == "gpt2")
    for name, array in tensors(folder):
        if tied and name == "lm_head.weight":
            continue
        ours = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if ours is None:
            sys.exit(f"{folder}: no name in GGUF for the tensor {name}")
        writer.add_tensor(ours, np.ascontiguousarray(as_stored(kind, config, name, array)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(folder: Path) -> Any:
    """Name and fp32 array of every tensor, masks that old checkpoints hold left out."""
    index = folder / "model.safetensors.index.json"
    files = (
        sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    )
    for file in files:
        with safe_open(folder / file, "np") as opened:
            for name in opened.keys():  # noqa: SIM118  (not a mapping)
                if not name.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")):
                    yield name, opened.get_tensor(name).astype(np.float32)


def as_stored(kind: str, config: dict[str, Any], name: str, array: np.ndarray) -> np.ndarray:
    """GPT-2's Conv1D matrices the other way round; Llama's queries and keys with rotary pairs side by side."""
    if kind == "gpt2":
        return array.T if array.ndim == 2 and ".h." in f".{name}" else array
    heads = config["num_attention_heads"]
    if name.endswith("k_proj.weight"):
        heads = config.get("num_key_value_heads", heads)
    elif not name.endswith("q_proj.weight"):
        return array
    rows, width = array.shape
    return array.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write_gpt2_sizes(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])


def write_llama_sizes(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or {}
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta", 10000.0))
    writer.add_vocab_size(config["vocab_size"])


def write_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    """A byte-level BPE tokenizer from its tokenizer.json."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = content["model"]
    added = {item["content"]: item for item in content.get("added_tokens", [])}
    ids = {**model["vocab"], **{text: item["id"] for text, item in added.items()}}
    tokens = [f"[unused{i}]" for i in range(config["vocab_size"])]
    types = [gguf.TokenType.UNUSED] * len(tokens)
    for text, number in ids.items():
        tokens[number] = text
        special = text in added and added[text]["special"]
        types[number] = gguf.TokenType.CONTROL if special else gguf.TokenType.NORMAL
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    digits = "Digits" in json.dumps(content.get("pre_tokenizer"))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm" if digits else "gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_add_bos_token(False)
    for add, key in ((writer.add_bos_token_id, "bos_token_id"), (writer.add_eos_token_id, "eos_token_id")):
        value = config.get(key)
        if value is not None:
            add(value[0] if isinstance(value, list) else value)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
