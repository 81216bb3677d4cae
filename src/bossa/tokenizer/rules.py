"""What the classes do that take a vocabulary and merges alone: the parts that each puts around its model.

Each function says what one of transformers' classes makes, whatever ``tokenizer.json`` says of the same parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

Config = Mapping[str, Any]
ENDOFTEXT = "<|endoftext|>"
WORDS_OF_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS_OF_QWEN3_5 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Rules:
    """One class.

    Attributes:
        dress: sets the parts of a tokenizer that has a model and nothing else.
        tokens: the special tokens that it has where the files name none.
        from_pair: whether it is read from ``vocab.json`` and ``merges.txt``.
        frames: it sets the frame of special tokens anew from ``add_bos_token`` and ``add_eos_token``.
        fuse_unk, byte_fallback, has_unknown: settings of the model; whether it has the named unknown token.
        again: its special tokens are added once more, "by text" alone or "as special" ones.
        model: the kind of model that it takes.
    """

    dress: Callable[[tokenizers.Tokenizer, Config], None]
    tokens: Mapping[str, str | None]
    fuse_unk: bool = False
    byte_fallback: bool = False
    has_unknown: bool = False
    from_pair: bool = False
    frames: bool = False
    again: str = ""
    model: str = "BPE"


def _gpt2(backend: tokenizers.Tokenizer, config: Config) -> None:
    from tokenizers import decoders, pre_tokenizers

    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=_prefix(config, False))
    backend.decoder = decoders.ByteLevel()


def _codegen(backend: tokenizers.Tokenizer, config: Config) -> None:
    from tokenizers import processors

    _gpt2(backend, config)
    backend.post_processor = processors.ByteLevel(add_prefix_space=True, use_regex=True, trim_offsets=False)


def _gpt_neox(backend: tokenizers.Tokenizer, config: Config) -> None:
    from tokenizers import normalizers

    _gpt2(backend, config)
    backend.normalizer = normalizers.NFC()


def _cohere(backend: tokenizers.Tokenizer, config: Config) -> None:
    from tokenizers import decoders, normalizers, pre_tokenizers

    space = _prefix(config, False)
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=space)]
    )
    backend.decoder = decoders.ByteLevel()


def _qwen(words: str) -> Callable[[tokenizers.Tokenizer, Config], None]:
    def dress(backend: tokenizers.Tokenizer, config: Config) -> None:
        from tokenizers import Regex, decoders, normalizers, pre_tokenizers

        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(words), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=_prefix(config, False), use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()

    return dress


def _llama(backend: tokenizers.Tokenizer, config: Config) -> None:
    from tokenizers import decoders, pre_tokenizers

    space = _prefix(config, True)
    scheme = ("always" if config.get("legacy", False) else "first") if space else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(parts + ([decoders.Strip(content=" ", left=1)] if space else []))


def _gemma(backend: tokenizers.Tokenizer, _config: Config) -> None:
    from tokenizers import decoders, normalizers, pre_tokenizers

    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def _prefix(config: Config, default: bool) -> bool:
    value = config.get("add_prefix_space", default)
    return default if value is None else value


_GPT2 = {"unk_token": ENDOFTEXT, "bos_token": ENDOFTEXT, "eos_token": ENDOFTEXT, "pad_token": None}
_QWEN = {"unk_token": ENDOFTEXT, "bos_token": None, "eos_token": ENDOFTEXT, "pad_token": ENDOFTEXT}

RULES = {
    "GPT2Tokenizer": Rules(_gpt2, _GPT2, from_pair=True),
    "CodeGenTokenizer": Rules(_codegen, _GPT2, from_pair=True),
    "GPTNeoXTokenizer": Rules(_gpt_neox, _GPT2 | {"pad_token": "<|padding|>"}, from_pair=True, frames=True),
    "Qwen2Tokenizer": Rules(_qwen(WORDS_OF_QWEN2), _QWEN, from_pair=True, again="by text"),
    "Qwen3_5Tokenizer": Rules(_qwen(WORDS_OF_QWEN3_5), _QWEN),
    "CohereTokenizer": Rules(
        _cohere,
        {
            "unk_token": "<UNK>",
            "bos_token": "<BOS_TOKEN>",
            "eos_token": "<|END_OF_TURN_TOKEN|>",
            "pad_token": "<PAD>",
            "cls_token": "<CLS>",
            "sep_token": "<SEP>",
            "mask_token": "<MASK_TOKEN>",
        },
        from_pair=True,
        again="as special",
    ),
    "LlamaTokenizer": Rules(
        _llama,
        {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        fuse_unk=True,
        byte_fallback=True,
    ),
    "GemmaTokenizer": Rules(
        _gemma,
        {
            "unk_token": "<unk>",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
        fuse_unk=True,
        byte_fallback=True,
        has_unknown=True,
    ),
}
"""The classes that are read without transformers."""
