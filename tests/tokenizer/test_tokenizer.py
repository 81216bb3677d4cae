"""The tokenizer against transformers' own, on tokenizers of every kind and on real ones where they are at hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from bossa.errors import TokenizerError
from bossa.tokenizer import Detokenizer, Tokenizer, read_tokenizer_files, shorten

TEXTS = [
    "",
    " ",
    "Hello, world! Isn't it fine? I don't , you 've",
    "  two  spaces\n\nand\ttabs ",
    "héllo wörld ñ 中文字 🤖🎉 \u200d e\u0301",
    "<|endoftext|>mid<|endoftext|> <s> </s> [CLS] [UNK] <|im_start|>user",
    "1234567890 3.14 ½ #@!$ http://a.b/c?d=e",
    "\x00\x7f\ufffd \ufeff",
]
CORPUS = [*TEXTS, "the quick brown fox jumps over the lazy dog " * 3, "she said ' yes ' and it 's fine . ok ?"]
CHAT = (
    "{% for m in messages %}\n    {% if m.role == 'bad' %}{{ raise_exception('no ' + m.role) }}{% endif %}\n"
    "{{ bos_token }}{{ m.role }}: {% generation %}{{ m.content }}{% endgeneration %}{{ eos_token }}\n"
    "{% if m.tools is defined %}{{ m.tools | tojson(indent=2) }}{% endif %}"
    "{% if loop.index > 8 %}{% break %}{% endif %}\n"
    "{% endfor %}{% set n = namespace(x=1) %}{% set n.x = 2 %}{{ n.x }}{{ dict(a=1) }}\n"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind <&>."},
    {"role": "user", "content": "Hi 🎉", "tools": [{"name": "é", "n": 1}], "name": None},
    {"role": "assistant", "content": "Hello", "reasoning": "hm"},
]
Build = Callable[[Path], None]


def save(backend: tokenizers.Tokenizer, folder: Path, **config: Any) -> None:
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | config))


def byte_level(folder: Path) -> None:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    backend.train_from_iterator(CORPUS, trainer)
    save(backend, folder, eos_token="<|endoftext|>", bos_token="<|endoftext|>", chat_template=CHAT)


def byte_level_with_additions(folder: Path) -> None:
    """Tokens that the config alone adds, spaces to clean up that BPE ignores, and truncation to ignore."""
    byte_level(folder)
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    size = backend.get_vocab_size()
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    flags = {"lstrip": False, "rstrip": True, "normalized": False, "single_word": False, "special": True}
    save(
        backend,
        folder,
        clean_up_tokenization_spaces=True,
        pad_token="<pad>",
        eos_token={"__type": "AddedToken", "content": "</s>", **flags},
        added_tokens_decoder={str(size): {"content": "<|im_start|>", **flags}},
        extra_special_tokens=["[CLS]"],
    )


def byte_fallback(folder: Path) -> None:
    """As Llama 2's: BPE over characters with bytes for the rest, and a beginning-of-sequence token."""
    backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    alphabet = list("▁abcdefghijklmnopqrstuvwxyz.,'")
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special[:3], initial_alphabet=alphabet)
    backend.train_from_iterator(["▁the▁quick▁brown▁fox"] * 3, trainer)
    described = json.loads(backend.to_str())
    vocabulary = described["model"]["vocab"]
    for token in special[3:]:
        vocabulary[token] = len(vocabulary)
    backend = tokenizers.Tokenizer.from_str(json.dumps(described))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    save(backend, folder, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def unigram(folder: Path) -> None:
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>")
    backend.train_from_iterator(CORPUS, trainer)
    save(backend, folder, eos_token="</s>", bos_token="<s>", clean_up_tokenization_spaces=True)


def word_piece(folder: Path) -> None:
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "[CLS]", "[SEP]"])
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    save(backend, folder, clean_up_tokenization_spaces=True, sep_token="[SEP]", cls_token="[CLS]", unk_token="[UNK]")


def plain_words(folder: Path) -> None:
    """No decoder at all, and special tokens in a file of their own, as older models have them."""
    words = {word: number for number, word in enumerate(["<unk>", "the", "fox", "dog", ",", "quick"])}
    backend = tokenizers.Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    save(backend, folder)
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>", "unk_token": "<unk>"}))


BUILDS = [byte_level, byte_level_with_additions, byte_fallback, unigram, word_piece, plain_words]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tokenizers built here, and the real ones in $BOSSA_TEST_MODELS."""
    root = tmp_path_factory.mktemp("tokenizers")
    found = {}
    for build in BUILDS:
        build(root / build.__name__)
        found[build.__name__] = root / build.__name__
    for name in REAL:
        found[name] = Path(os.environ.get("BOSSA_TEST_MODELS", "/nowhere")) / name
    return found


REAL = ["smollm2-135m", "gpt2-random"]
KINDS = [build.__name__ for build in BUILDS] + REAL


@pytest.fixture(scope="module")
def pair(folders: dict[str, Path], request: pytest.FixtureRequest) -> tuple[Tokenizer, Any]:
    from transformers import AutoTokenizer

    folder = folders[request.param]
    if not folder.is_dir():
        pytest.skip("set BOSSA_TEST_MODELS to a directory that holds smollm2-135m and gpt2-random")
    return Tokenizer.from_directory(folder), AutoTokenizer.from_pretrained(folder)


each = pytest.mark.parametrize("pair", KINDS, indirect=True)


@each
def test_encoding_and_decoding_equal_transformers(pair: tuple[Tokenizer, Any]):
    ours, theirs = pair
    for text in CORPUS:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids, text
        assert ours.encode(text, add_special_tokens=False) == theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.eos_token_id == theirs.eos_token_id
    assert ours.bos_token_id == theirs.bos_token_id
    assert ours.pad_token_id == theirs.pad_token_id
    assert ours.vocab_size == len(theirs)


@each
@given(text=st.text(max_size=60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_encoded_and_decoded_as_transformers_does(pair: tuple[Tokenizer, Any], text: str):
    ours, theirs = pair
    ids = theirs(text)["input_ids"]
    assert ours.encode(text) == ids
    assert ours.decode(ids) == theirs.decode(ids)


@each
@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ids_one_at_a_time_give_the_text_of_all_of_them(pair: tuple[Tokenizer, Any], data: st.DataObject):
    tokenizer, _ = pair
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=30))
    for skip in (False, True):
        detokenizer = Detokenizer(tokenizer, skip_special_tokens=skip)
        parts = [detokenizer.add(token) for token in ids]
        parts.append(detokenizer.finish())
        assert "".join(parts) == tokenizer.decode(ids, skip_special_tokens=skip)


@each
def test_text_comes_as_its_tokens_do_and_never_half_a_character(pair: tuple[Tokenizer, Any]):
    tokenizer, _ = pair
    text = "the quick brown fox 🤖🎉 é jumps over the lazy dog the quick fox"
    ids = tokenizer.encode(text, add_special_tokens=False)
    whole = tokenizer.decode(ids)
    detokenizer = Detokenizer(tokenizer)
    so_far = ""
    for number, token in enumerate(ids):
        so_far += detokenizer.add(token)
        assert whole.startswith(so_far)
        if number > len(ids) * 3 // 4:
            assert len(so_far) > len(whole) // 3, "most of the text is out before the end"


@given(
    strips=st.lists(st.tuples(st.sampled_from("  a"), st.integers(1, 3)), max_size=3),
    ids=st.lists(st.integers(0, 3), max_size=25),
    cut=st.integers(0, 5),
)
@example(strips=[(" ", 1), (" ", 1)], ids=[1, 0, 2], cut=0)
@settings(deadline=None, max_examples=300)
def test_text_as_it_comes_is_that_of_all_ids_whatever_a_decoder_strips_at_the_start(
    strips: list[tuple[str, int]], ids: list[int], cut: int
):
    backend = tokenizers.Tokenizer(models.BPE({"▁": 0, "a": 1, "▁b": 2, "▁▁a": 3}, []))
    stripped = [decoders.Strip(text, start, 0) for text, start in strips]
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), *stripped])
    tokenizer = Tokenizer.from_files({"tokenizer.json": backend.to_str().encode()})
    detokenizer = Detokenizer(tokenizer, ids[:cut])
    text = tokenizer.decode(ids[:cut]) + "".join(map(detokenizer.add, ids[cut:])) + detokenizer.finish()
    assert text == tokenizer.decode(ids)


@each
def test_with_a_prompt_the_text_is_what_follows_it(pair: tuple[Tokenizer, Any]):
    tokenizer, _ = pair
    ids = tokenizer.encode("the quick brown fox 🤖 jumps over the lazy dog")
    for cut in range(len(ids) + 1):
        before = tokenizer.decode(ids[:cut])
        if before.endswith("\ufffd"):
            continue
        detokenizer = Detokenizer(tokenizer, ids[:cut])
        parts = [detokenizer.add(token) for token in ids[cut:]]
        assert before + "".join(parts) + detokenizer.finish() == tokenizer.decode(ids)


@pytest.mark.parametrize("pair", ["byte_level", "smollm2-135m"], indirect=True)
@pytest.mark.parametrize("opened", [True, False])
def test_chats_equal_transformers(pair: tuple[Tokenizer, Any], opened: bool):
    ours, theirs = pair
    for messages in (MESSAGES, MESSAGES[1:2]):
        wanted = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened)
        assert ours.chat(messages, add_generation_prompt=opened) == wanted
        ids = theirs.apply_chat_template(messages, add_generation_prompt=opened)["input_ids"]
        assert ours.encode(wanted, add_special_tokens=False) == ids


def with_template(folder: Path, template: str) -> Tokenizer:
    return Tokenizer.from_files(read_tokenizer_files(folder) | {"chat_template.jinja": template.encode()})


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% set n = namespace(__class__=1) %}",
        "{% set n = namespace(a=1) %}{% set n._b = 2 %}",
        "{{ range(10000000) }}",
        "{{ 1 / 0 }}",
        "{{ messages[9].role.x }}",
        "{% if %}",
        "{% include 'x' %}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_one_line(folders: dict[str, Path], template: str):
    tokenizer = with_template(folders["byte_level"], template)
    with pytest.raises(TokenizerError, match=r"^the chat template does not take these messages \([^\n]*$"):
        tokenizer.chat(MESSAGES)


def test_objects_in_messages_reach_no_template(folders: dict[str, Path]):
    class Rich:
        secret = "x"

    tokenizer = with_template(folders["byte_level"], "{{ messages[0].content }}{{ messages[0].content.secret }}")
    assert tokenizer.chat([{"role": "user", "content": Rich()}]) == "<Rich>"


def test_the_time_is_offered_to_templates(folders: dict[str, Path]):
    assert with_template(folders["byte_level"], "{{ strftime_now('%Y') }}").chat(MESSAGES).isdigit()


def test_a_shortened_file_describes_the_same_tokenizer(folders: dict[str, Path]):
    for name, folder in folders.items():
        if not (folder / "tokenizer.json").is_file():
            continue
        data = (folder / "tokenizer.json").read_bytes()
        short = shorten(data)
        assert len(short) < len(data), name
        assert backend(short).to_str() == backend(data).to_str()


def backend(data: bytes) -> Any:
    import tokenizers

    return tokenizers.Tokenizer.from_buffer(data)


def test_merges_of_parts_with_spaces_stay_pairs_and_odd_files_stay_as_they_are(folders: dict[str, Path]):
    content = json.loads((folders["byte_level"] / "tokenizer.json").read_bytes())
    model = content["model"]
    for token in ("a b", "a bc"):
        model["vocab"][token] = len(model["vocab"])
    model["vocab"].setdefault("c", len(model["vocab"]))
    model["merges"].append(["a b", "c"])
    data = json.dumps(content).encode()
    assert json.loads(shorten(data))["model"]["merges"] == model["merges"]
    for odd in (b"", b"{}", b"[1]", b'{"model": {"type": "BPE"}}'):
        assert shorten(odd) == odd


def test_without_a_template_or_messages_a_chat_says_so(folders: dict[str, Path]):
    with pytest.raises(TokenizerError, match="has no chat template: pass a prompt instead"):
        Tokenizer.from_directory(folders["unigram"]).chat(MESSAGES)
    with pytest.raises(TokenizerError, match="no messages"):
        Tokenizer.from_directory(folders["byte_level"]).chat([])


@pytest.mark.parametrize("named", [{"default": CHAT, "tool": "x"}, [{"name": "default", "template": CHAT}]])
def test_the_default_of_several_templates_is_used(folders: dict[str, Path], named: Any):
    files = read_tokenizer_files(folders["byte_level"])
    files["tokenizer_config.json"] = json.dumps({"chat_template": named}).encode()
    assert Tokenizer.from_files(files).chat_template == CHAT


@pytest.mark.parametrize("config", [{}, {"add_prefix_space": True}, {"add_bos_token": True, "pad_token": "<p>"}])
def test_a_vocabulary_and_merges_make_gpt2_s_tokenizer(folders: dict[str, Path], tmp_path: Path, config: Any):
    from transformers import GPT2Tokenizer

    model = json.loads((folders["byte_level"] / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "GPT2Tokenizer"}))
    ours, theirs = Tokenizer.from_directory(tmp_path), GPT2Tokenizer.from_pretrained(tmp_path)
    for text in CORPUS:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids)
    assert (ours.eos_token_id, ours.pad_token_id) == (theirs.eos_token_id, theirs.pad_token_id)


def test_no_tokenizer_says_what_to_pass(tmp_path: Path):
    with pytest.raises(TokenizerError, match=r"has no tokenizer \(tokenizer\.json, or .*pass a directory that has one"):
        Tokenizer.from_directory(tmp_path)
    with pytest.raises(TokenizerError, match="no such directory"):
        Tokenizer.from_directory(tmp_path / "no")
    with pytest.raises(TokenizerError, match="has no tokenizer"):
        Tokenizer.from_files({})
    (tmp_path / "tokenizer.model").touch()
    with pytest.raises(TokenizerError, match=r"has a tokenizer\.model but no tokenizer\.json: convert it"):
        Tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff"),
        ("tokenizer.json", b""),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {"content": "a"}}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"1": {}}}'),
        ("tokenizer_config.json", b'{"added_tokens_decoder": [1]}'),
        ("tokenizer_config.json", b'{"extra_special_tokens": 3}'),
    ],
)
def test_damaged_files_are_refused_with_one_line(folders: dict[str, Path], name: str, data: bytes):
    files = read_tokenizer_files(folders["byte_level"]) | {name: data}
    with pytest.raises(TokenizerError, match=r"^the PEF: [^\n]*fetch the tokenizer again$"):
        Tokenizer.from_files(files)


def test_a_vocabulary_and_merges_that_disagree_are_refused():
    with pytest.raises(TokenizerError, match=r"vocab\.json and merges\.txt do not go together"):
        Tokenizer.from_files({"vocab.json": b'{"a": 0}', "merges.txt": b"x y\n"})


def test_half_a_surrogate_pair_is_refused(folders: dict[str, Path]):
    with pytest.raises(TokenizerError, match="not valid Unicode"):
        Tokenizer.from_directory(folders["byte_level"]).encode("\ud800")


def test_the_module_imports_neither_the_library_nor_jinja_before_they_are_needed():
    program = "import sys, bossa.tokenizer; print({'tokenizers', 'jinja2', 'transformers', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
