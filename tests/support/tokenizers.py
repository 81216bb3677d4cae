"""Small tokenizers of every kind, made here, and the texts that tell them apart."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "",
    " ",
    "Hello, world! Isn't it fine? I don't , you 've",
    "  two  spaces\n\nand\ttabs ",
    " lead",
    "▁x ▁ y",
    "a\r\nb\r\n\r\n c   \n  d   ",
    "héllo wörld ñ 中文字 🤖🎉 \u200d e\u0301",
    "مرحبا  بكم 👩\u200d👩\u200d👧 İI ſ ﷺ",
    "<s>mid</s> <s> <|endoftext|>x <bos> [CLS]<UNK> <extra><|im_start|>",
    "1234567890 3.14 ½ #@!$ http://a.b/c?d=e",
    "\x00\x7f\ufffd \ufeff",
    "the quick brown fox " * 300,
]
WORDS = ["the quick brown fox jumps over the lazy dog " * 3, "she said ' yes ' and it 's fine . ok ?", *TEXTS[2:6]]
SPECIAL = ["<unk>", "<s>", "</s>"]
EXTRA = {"single_word": False, "lstrip": True, "rstrip": False, "normalized": True, "special": False}


@cache
def byte_level() -> str:
    """As GPT-2's: BPE over bytes."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<|endoftext|>", *SPECIAL], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(WORDS, trainer)
    return backend.to_str()


@cache
def byte_fallback() -> str:
    """As Llama 2's: BPE over characters with bytes for the rest, a token that strips, and padding."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=list("▁abcdefghijklmnopqrstuvwxyz.,'")
    )
    backend.train_from_iterator([text.replace(" ", "▁") for text in WORDS[:3]], trainer)
    described = json.loads(backend.to_str())
    vocabulary = described["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    described["added_tokens"].append({"id": len(vocabulary), "content": "<extra>", **EXTRA})
    backend = Tokenizer.from_str(json.dumps(described))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.enable_padding(pad_token="[PAD]")
    return backend.to_str()


@cache
def unigram() -> str:
    """As SentencePiece's other kind."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>")
    backend.train_from_iterator(WORDS, trainer)
    return backend.to_str()


@cache
def word_piece() -> str:
    """As BERT's."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    backend.train_from_iterator(
        WORDS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"])
    )
    return backend.to_str()


MADE = {"byte_level": byte_level, "byte_fallback": byte_fallback, "unigram": unigram, "word_piece": word_piece}


def write(folder: Path, made: str, how: str, config: dict[str, Any], model_type: str | None) -> None:
    """A model's directory with a tokenizer in one of the forms in which they are published.

    Args:
        folder: a new one.
        made: a key of ``MADE``.
        how: "json", "pair" for vocab.json and merges.txt, or "old" with the older files beside tokenizer.json.
        config: tokenizer_config.json.
        model_type: what config.json says; None for none.
    """
    folder.mkdir()
    described = MADE[made]()
    if how == "pair":
        model = json.loads(described)["model"]
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        merges = "\n".join(" ".join(pair) for pair in model["merges"])
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    else:
        (folder / "tokenizer.json").write_text(described)
    if how == "old":
        flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        tokens = {"bos_token": {"content": "<s>", **flags}, "pad_token": "<pp>", "additional_special_tokens": ["<q>"]}
        (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
        (folder / "added_tokens.json").write_text(json.dumps({"<q>": 700, "<plain>": 701}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if model_type is not None:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
