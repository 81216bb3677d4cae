"""Tokenizers' files: an input is a JSON object of their texts by name."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from bossa.errors import BossaError
from bossa.tokenizer import Detokenizer, Tokenizer, read_tokenizer_files, shorten
from fuzz.json_mutations import mutate_json
from fuzz.mutations import mutate_bytes, mutate_text
from fuzz.reader import Wrong, demand
from fuzz.readers.safetensors import is_object

TEXTS = (
    *("", " ", "Hello, world! Isn't it fine?", "  two  spaces\n\nand\ttabs ", "héllo 中文字 🤖 \u200d e\u0301"),
    *(
        "<|endoftext|>mid<s> </s> [CLS]",
        "1234567890 ½ #@!$",
        "\x00\x7f\ufffd \ufeff",
        "a" * 400,
        "the quick brown fox " * 8,
    ),
)
CORPUS = ["the quick brown fox jumps over the lazy dog", "she said ' yes ' and it 's fine . ok ?"]
CHAT = "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
MESSAGES = [{"role": "user", "content": "Hi"}]
Files = dict[str, str]


def described(backend: tokenizers.Tokenizer, **config: object) -> Files:
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    return {"tokenizer.json": backend.to_str(), "tokenizer_config.json": json.dumps(kind | config)}


def byte_level() -> Files:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    flags = {"lstrip": False, "rstrip": True, "normalized": False, "single_word": False, "special": True}
    added = {"290": {"content": "<|im_start|>", **flags}}
    more = {"added_tokens_decoder": added, "extra_special_tokens": ["[CLS]"], "chat_template": CHAT}
    return described(
        backend,
        eos_token="<|endoftext|>",
        bos_token={"__type": "AddedToken", "content": "<|endoftext|>", **flags},
        **more,
    )


def byte_fallback() -> Files:
    vocabulary = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>"])}
    for token in (*(f"<0x{byte:02X}>" for byte in range(0, 256, 3)), *"▁abcdefghijklmnopqrstuvwxyz", "th", "the"):
        vocabulary[token] = len(vocabulary)
    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, [("t", "h"), ("th", "e")], byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return described(backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def unigram() -> Files:
    letters = [
        ("<unk>", 0.0),
        ("</s>", 0.0),
        *((letter, -3.0) for letter in "▁abcdefghijklmnopqrstuvwxyz"),
        ("▁the", -2.0),
    ]
    backend = tokenizers.Tokenizer(models.Unigram(letters, 0))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(tokenizers.Regex(r"\d{1,3}|[^\s\d]+"), "isolated"), pre_tokenizers.Metaspace()]
    )
    backend.decoder = decoders.Metaspace()
    return described(backend, eos_token="</s>", clean_up_tokenization_spaces=True)


def word_level() -> Files:
    words = {word: number for number, word in enumerate(["[UNK]", "[CLS]", "[SEP]", "the", "fox", "dog", ",", "quick"])}
    backend = tokenizers.Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    special = json.dumps({"sep_token": "[SEP]", "cls_token": "[CLS]", "unk_token": "[UNK]"})
    return described(backend, clean_up_tokenization_spaces=True) | {"special_tokens_map.json": special}


def vocabulary_and_merges() -> Files:
    letters = [*"abcdefghijklmnopqrstuvwxyz", "Ġ", "th", "the", "Ġthe", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(letters)}
    config = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": True}
    return {
        "vocab.json": json.dumps(vocabulary),
        "merges.txt": "#version: 0.2\nt h\nth e\nĠ the\n",
        "tokenizer_config.json": json.dumps(config),
        "added_tokens.json": '{"<pad>": 31}',
    }


BUILDS = (byte_level, byte_fallback, unigram, word_level, vocabulary_and_merges)


def files_of(data: bytes) -> Files:
    """The files in an input, or none."""
    try:
        held = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    good = isinstance(held, dict) and all(isinstance(text, str) for text in held.values())
    return held if good else {}


class TokenizerReader:
    """`Tokenizer`: made of its files; texts to ids and back, all at once and one by one."""

    def seeds(self) -> list[bytes]:
        return [json.dumps(build()).encode() for build in BUILDS]

    def mutate(self, chance: random.Random, bases: Sequence[bytes]) -> bytes:
        files = files_of(chance.choice(bases)) or byte_level()
        others = files_of(chance.choice(bases))
        name = chance.choice(list(files))
        roll = chance.random()
        if roll < 0.05 and others:
            other = chance.choice(list(others))
            files[other] = others[other]
        elif roll < 0.1:
            del files[name]
        elif roll < 0.15:
            raw = mutate_bytes(chance, files[name].encode("utf-8", "surrogatepass"))
            files[name] = raw.decode("utf-8", "surrogateescape")
        elif name.endswith(".json"):
            files[name] = mutate_json(chance, files[name])
        else:
            files[name] = mutate_text(chance, files[name])
        return json.dumps(files).encode()

    def passes(self, data: bytes) -> bool:
        files = files_of(data)
        return bool(files) and all(
            is_object(text.encode("utf-8", "surrogatepass")) for name, text in files.items() if name.endswith(".json")
        )

    def read(self, data: bytes, folder: Path) -> None:
        for name, text in files_of(data).items():
            (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
        files = read_tokenizer_files(folder)
        if "tokenizer.json" in files:
            shorten(files["tokenizer.json"])
        tokenizer = Tokenizer.from_files(files, "the PEF")
        size = tokenizer.vocab_size
        refused: list[BossaError] = []
        for text in TEXTS:
            try:
                check(tokenizer, text, size)
            except BossaError as error:
                refused.append(error)
        if tokenizer.chat_template is not None:
            demand(isinstance(tokenizer.chat(MESSAGES), str), "a chat is no text")
        if refused:
            raise refused[0]


def check(tokenizer: Tokenizer, text: str, size: int) -> None:
    ids = tokenizer.encode(text)
    if not all(isinstance(number, int) and number >= 0 for number in ids):
        raise Wrong("an id is not a whole number from 0")
    for skip in (False, True):
        whole = tokenizer.decode(ids, skip_special_tokens=skip)
        detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip)
        parts = [detokenizer.add(number) for number in ids]
        demand("".join([*parts, detokenizer.finish()]) == whole, "ids one at a time give another text than together")
    tokenizer.decode([size + 5, 2**31 - 1])
