"""Every tokenizer class that transformers has, over the forms in which its files are published: its ids, or a line."""

from __future__ import annotations

import inspect
import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bossa.errors import TokenizerError
from bossa.tokenizer import Tokenizer, settled
from bossa.tokenizer.classes import AS_WRITTEN, MISNAMED, OWN, REGISTERED
from bossa.tokenizer.rules import RULES
from support.tokenizers import MADE, TEXTS, write

pytestmark = pytest.mark.filterwarnings("ignore")
CLASSES = [
    *("GPT2Tokenizer", "GPT2TokenizerFast", "CodeGenTokenizer", "Qwen2Tokenizer", "Qwen2TokenizerFast"),
    *("Qwen3_5Tokenizer", "LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizerFast", "GPTNeoXTokenizerFast"),
    *("CohereTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer"),
    *("BloomTokenizerFast", "NoSuchTokenizer", None, "BertTokenizerFast"),
]
STRIPPING = {"lstrip": True, "rstrip": True, "normalized": False, "single_word": False, "special": True}
CONFIGS: list[dict[str, Any]] = [
    {},
    {"add_prefix_space": True},
    {"add_prefix_space": False},
    {"legacy": True},
    {"add_bos_token": True, "add_eos_token": True, "bos_token": "<s>", "eos_token": "</s>"},
    {"bos_token": None, "eos_token": {"__type": "AddedToken", "content": "</s>", **STRIPPING}, "pad_token": "<pad>"},
    {"split_special_tokens": True},
    {"clean_up_tokenization_spaces": True},
    {"extra_special_tokens": ["[CLS]", "<extra>"]},
    {"extra_special_tokens": {"image_token": "[CLS]"}},
    {"additional_special_tokens": ["<extra>"], "boi_token": "<boi>"},
    {
        "added_tokens_decoder": {
            "2": {"content": "</s>", **STRIPPING},
            "900": {"content": "mid", **STRIPPING, "special": False, "single_word": True},
        },
        "eos_token": "</s>",
    },
]
TYPES = [None, "llama", "qwen2", "qwen3", "gpt2", "mistral", "gemma2", "granite", "phi3", "gpt_neox", "chatlm", "opt"]
FORMS = [form for form in product(MADE, ("json", "pair", "old")) if form[1] != "pair" or form[0].startswith("byte")]
CASES = [(*form, *rest) for form, rest in product(FORMS, product(CLASSES, range(len(CONFIGS)), TYPES))]


def read_both(folder: Path) -> tuple[Any, Tokenizer | TokenizerError]:
    from transformers import AutoTokenizer

    try:
        theirs: Any = AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        theirs = error
    try:
        return theirs, Tokenizer.from_directory(folder)
    except TokenizerError as error:
        return theirs, error


def same(ours: Tokenizer, theirs: Any, text: str) -> None:
    try:
        ids = theirs(text)["input_ids"]
    except Exception:  # a vocabulary without the token for what it has not
        with pytest.raises(TokenizerError):
            ours.encode(text)
        return
    assert ours.encode(text) == ids
    assert ours.encode(text, add_special_tokens=False) == theirs(text, add_special_tokens=False)["input_ids"]
    for skip in (False, True):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("part", range(4))
def test_a_directory_gives_transformers_ids_or_is_refused(tmp_path: Path, part: int):
    """A few of all combinations, always the same ones, and each class with each kind of file."""
    each = [(made, "json", name, 0, None) for made, name in product(MADE, CLASSES[part::4])]
    cases = [*random.Random(part).sample(CASES, 30), *each]
    refused = 0
    for number, (made, how, name, config, model_type) in enumerate(cases):
        folder = tmp_path / str(number)
        write(folder, made, how, CONFIGS[config] | ({"tokenizer_class": name} if name else {}), model_type)
        theirs, ours = read_both(folder)
        if isinstance(ours, TokenizerError):
            refused += 1
            assert str(ours).startswith(str(folder))
            assert "\n" not in str(ours)
            continue
        for text in TEXTS:
            same(ours, theirs, text)
        assert ours.special_tokens == theirs.special_tokens_map
        assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
        assert (ours.pad_token_id, ours.vocab_size) == (theirs.pad_token_id, len(theirs))
    assert refused < len(cases) * 0.6


READ = [
    ("byte_level", "pair", "Qwen2Tokenizer", {}),
    ("byte_level", "pair", "CohereTokenizer", {"add_bos_token": True, "bos_token": "<s>"}),
    ("byte_level", "json", "GPTNeoXTokenizer", {"add_prefix_space": True}),
    ("byte_level", "json", "LlamaTokenizer", {}),  # Llama 3's
    ("byte_level", "json", "PreTrainedTokenizerFast", {}),
    ("byte_fallback", "json", "LlamaTokenizer", {"legacy": True}),
    ("byte_fallback", "json", "LlamaTokenizerFast", {"legacy": False, "add_prefix_space": False}),
    ("byte_fallback", "old", "GemmaTokenizer", {"split_special_tokens": True}),
    ("unigram", "json", "NoSuchTokenizer", {"clean_up_tokenization_spaces": True}),
]


@pytest.fixture(scope="module", params=range(len(READ)))
def pair(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Tokenizer, Any]:
    made, how, name, config = READ[request.param]
    folder = tmp_path_factory.mktemp("tokenizer") / "it"
    write(folder, made, how, config | {"tokenizer_class": name}, None)
    theirs, ours = read_both(folder)
    assert isinstance(ours, Tokenizer)
    return ours, theirs


@given(st.text(st.characters() | st.sampled_from(" \n\r\t▁'s<>/1\u200d\u0301é"), max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_has_transformers_ids(pair: tuple[Tokenizer, Any], text: str):
    same(*pair, text)


def test_what_transformers_saves_is_read_as_it_is(pair: tuple[Tokenizer, Any], tmp_path: Path):
    """A PEF keeps what a class made of the model's files, so the class's rules are not applied again."""
    _, theirs = pair
    theirs.save_pretrained(tmp_path)
    files = settled({path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()})
    assert json.loads(files["tokenizer_config.json"])["tokenizer_class"] == AS_WRITTEN
    kept = Tokenizer.from_files(files)
    for text in TEXTS:
        same(kept, theirs, text)
    assert kept.special_tokens == theirs.special_tokens_map


def test_the_tables_are_those_of_transformers():
    import transformers
    from transformers import TokenizersBackend
    from transformers.models.auto import tokenization_auto as auto

    if transformers.__version__ != "5.23.0":
        pytest.skip("the tables are those of transformers 5.23")
    registered = {key: name.removesuffix("Fast") for key, name in auto.TOKENIZER_MAPPING_NAMES.items() if name}
    assert registered == REGISTERED
    assert auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS == MISNAMED
    names = {*registered.values(), *(name for name in dir(transformers) if name.endswith("Tokenizer"))}
    for name in names - {"AutoTokenizer", "PreTrainedTokenizer"}:
        found = auto.tokenizer_class_from_name(name)
        plain = (
            inspect.isclass(found)
            and issubclass(found, TokenizersBackend)
            and (found is TokenizersBackend or "__init__" not in vars(found))
        )
        assert plain != (name in OWN), name
    assert set(RULES) <= OWN


@pytest.mark.parametrize(
    ("made", "how", "config", "model", "said"),
    [
        ("word_piece", "json", {"tokenizer_class": "BertTokenizer"}, {}, "BertTokenizer, which only transformers can"),
        ("byte_level", "pair", {}, {}, "nothing says of which class they are"),
        ("byte_level", "pair", {}, {"model_type": "mistral"}, "nothing says of which class they are"),
        ("byte_level", "pair", {"tokenizer_class": "LlamaTokenizer"}, {}, "a LlamaTokenizer, which is not read from"),
        (
            "unigram",
            "json",
            {"tokenizer_class": "LlamaTokenizer"},
            {},
            "has a Unigram model, and its class takes a BPE",
        ),
        ("byte_level", "json", {"auto_map": {"AutoTokenizer": ["a.B", None]}}, {}, "is code that comes with the model"),
        ("byte_level", "json", {"fix_mistral_regex": True}, {}, "fix_mistral_regex"),
        ("byte_level", "json", {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}, {}, "several versions"),
        ("byte_level", "json", {"eos_token": {"content": "x"}}, {}, "garbled"),
        ("byte_level", "json", {"eos_token": 3}, {}, "garbled"),
    ],
)
def test_what_only_transformers_reads_is_refused_with_the_remedy(
    tmp_path: Path, made: str, how: str, config: dict[str, Any], model: dict[str, Any], said: str
):
    write(tmp_path / "it", made, how, config, model.get("model_type"))
    with pytest.raises(TokenizerError, match=said) as caught:
        Tokenizer.from_directory(tmp_path / "it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str):
    write(tmp_path / "it", "byte_level", "pair" if name in ("vocab.json", "merges.txt") else "json", {}, "gpt2")
    (tmp_path / "it" / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9085657\n")
    with pytest.raises(TokenizerError, match=rf"{name}: is a Git LFS pointer, not the file itself: fetch it with"):
        Tokenizer.from_directory(tmp_path / "it")
