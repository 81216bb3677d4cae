"""Conversations as prompts: transformers' options and ids, one beginning, and a frame that no cut goes through."""

from __future__ import annotations

import json
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bossa.engine.prompts import conversation_ids, fit_conversation, is_conversation, text_ids
from bossa.engine.truncation import fit_prompt
from bossa.errors import PromptError, RequestError, TokenizerError
from bossa.tokenizer import ChatText, Tokenizer, read_tokenizer_files
from support.tokenizers import write

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'bad' %}{{ raise_exception('roles\nmust alternate') }}"
    "{% endif %}[{{ m.role }}] {{ (m.content if m.content is string else m.content[0].text) | trim }}{{ eos_token }}"
    "{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}{% endfor %}"
    "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{% for d in documents or [] %}{{ d.title }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}{{ image_token }}{{ enable_thinking }}"
)
MESSAGES = [{"role": "user", "content": "the fox "}, {"role": "assistant", "content": " jumps over  "}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """As Llama 2's: a beginning-of-sequence token is put before every text."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("chat") / "it"
    named = [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": "{{ tools | tojson }}!"}]
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "chat_template": named,
        "extra_special_tokens": {"image_token": "<i>"},
    }
    write(folder, "byte_fallback", "json", config, "llama")
    return Tokenizer.from_directory(folder), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_generation_prompt": False},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"continue_final_message": "content", "add_generation_prompt": False},
        {"tools": [TOOL]},
        {"tools": []},
        {"tools": [TOOL], "chat_template": "default"},
        {"documents": [{"title": "T", "text": "x"}]},
        {"chat_template": "{{ messages[0].content }}{{ bos_token }}{{ x }}", "x": (1, "a")},
        {"enable_thinking": False},
        {"bos_token": "other"},
    ],
    ids=str,
)
def test_options_mean_what_they_mean_in_transformers(pair: tuple[Tokenizer, Any], options: dict[str, Any]):
    ours, theirs = pair
    wanted = theirs.apply_chat_template(MESSAGES, tokenize=False, **({"add_generation_prompt": True} | options))
    assert ours.chat(MESSAGES, **options) == wanted
    ids = theirs.apply_chat_template(MESSAGES, **({"add_generation_prompt": True} | options))["input_ids"]
    assert ours.chat_ids(MESSAGES, **options) == ids


@pytest.mark.parametrize(
    "final",
    [
        {"role": "assistant", "content": "It is"},
        {"role": "assistant", "content": "It is  \n"},
        {"role": "assistant", "content": [{"type": "text", "text": "Hm "}]},
        {"role": "assistant", "content": "x", "thinking": "so then "},
    ],
    ids=str,
)
def test_a_final_message_is_continued_as_in_transformers(pair: tuple[Tokenizer, Any], final: dict[str, Any]):
    ours, theirs = pair
    field = "thinking" if "thinking" in final else True
    messages = [MESSAGES[0], final]
    wanted = theirs.apply_chat_template(messages, tokenize=False, continue_final_message=field)
    assert ours.chat(messages, continue_final_message=field) == wanted


def test_a_final_message_that_cannot_be_continued_is_refused(pair: tuple[Tokenizer, Any]):
    ours, _ = pair
    for messages, options, said in [
        ([{"role": "user"}], {}, "has no content to continue"),
        ([{"role": "user", "content": [{"type": "image"}]}], {}, "has no text to continue"),
        (MESSAGES, {"continue_final_message": "mood"}, "has no mood to continue"),
        ([{**MESSAGES[0], "mood": "x"}], {"continue_final_message": "mood"}, "does not read mood"),
        (MESSAGES, {"chat_template": "{{ messages[0].content }}"}, "leaves out part of the final message"),
    ]:
        with pytest.raises(PromptError, match=said):
            ours.chat(messages, **{"continue_final_message": True, **options})
    with pytest.raises(TokenizerError, match="either continues its final message or opens an answer"):
        ours.chat(MESSAGES, add_generation_prompt=True, continue_final_message=True)


@pytest.mark.parametrize("option", ["tokenize", "return_tensors", "padding", "max_length", "return_dict"])
def test_options_about_ids_are_refused_by_name(pair: tuple[Tokenizer, Any], option: str):
    with pytest.raises(TokenizerError, match=f"has no option {option}"):
        pair[0].chat(MESSAGES, **{option: False})


def test_tools_and_documents_of_other_kinds_are_refused(pair: tuple[Tokenizer, Any]):
    for options, said in [
        ({"tools": [TOOL, print]}, r"tools\[1\] is a function: pass its JSON schema"),
        ({"tools": TOOL}, "tools should be a list"),
        ({"tools": ["add"]}, r"tools\[0\] is a str"),
        ({"documents": "x"}, "documents should be a list"),
        ({"documents": ["x"]}, "documents should be objects"),
    ]:
        with pytest.raises(TokenizerError, match=said):
            pair[0].chat(MESSAGES, **options)


def test_a_template_that_refuses_one_conversation_is_that_one_s_error(pair: tuple[Tokenizer, Any]):
    with pytest.raises(PromptError, match=r"\(roles\): correct them$") as caught:
        pair[0].chat([{"role": "bad", "content": "x"}])
    assert isinstance(caught.value, RequestError)
    assert isinstance(caught.value, TokenizerError)
    for messages in ("hi", {"role": "user"}, 3, [["x"]], ["hi"]):
        with pytest.raises(PromptError, match="the chat's messages should be"):
            pair[0].chat(messages)


def test_without_a_default_template_the_names_are_told(pair: tuple[Tokenizer, Any], tmp_path: Path):
    write(tmp_path / "it", "byte_fallback", "json", {"chat_template": {"rag": "r", "tool_use": "t"}}, None)
    tokenizer = Tokenizer.from_directory(tmp_path / "it")
    with pytest.raises(TokenizerError, match="no default chat template: name one of rag, tool_use"):
        tokenizer.chat(MESSAGES)
    assert tokenizer.chat(MESSAGES, chat_template="rag") == "r"
    assert tokenizer.chat(MESSAGES, tools=[TOOL]) == "t"


def test_templates_in_files_of_their_own_come_first(tmp_path: Path):
    from transformers import AutoTokenizer

    folder = tmp_path / "it"
    write(folder, "byte_level", "json", {"chat_template": "old"}, None)
    (folder / "chat_template.jinja").write_text("new")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools | length }}")
    ours, theirs = Tokenizer.from_files(read_tokenizer_files(folder)), AutoTokenizer.from_pretrained(folder)
    assert ours.chat_templates == theirs.chat_template == {"default": "new", "tool_use": "{{ tools | length }}"}


def test_a_prompt_has_one_beginning(pair: tuple[Tokenizer, Any]):
    """What a template wrote is not begun again, and neither is a text that begins itself; encode does as it is told."""
    ours, theirs = pair
    text = ours.chat(MESSAGES)
    assert isinstance(text, ChatText)
    ids = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True)["input_ids"]
    assert ids[0] == ours.bos_token_id
    assert text_ids(ours, text) == ids
    assert text_ids(ours, str(text)) == ids
    assert ours.encode(text) == theirs(text)["input_ids"] == [ours.bos_token_id, *ids]
    for plain in ("the fox", "", " <s>x", "a<s>"):
        assert text_ids(ours, plain) == theirs(plain)["input_ids"]
    assert text_ids(ours, "<s><s>x") == theirs("<s>x")["input_ids"]
    assert conversation_ids(ours, [*MESSAGES]) == ids
    no_beginning = ChatText("[user] x")
    assert text_ids(ours, no_beginning) == theirs("[user] x", add_special_tokens=False)["input_ids"]


def test_where_none_is_added_none_is_taken_away(tmp_path: Path):
    write(tmp_path / "it", "byte_level", "json", {"bos_token": "<s>"}, None)
    tokenizer = Tokenizer.from_directory(tmp_path / "it")
    assert tokenizer.prompt_ids("<s><s>x") == tokenizer.encode("<s><s>x")
    assert tokenizer.prompt_ids("<s><s>x")[:2] == [tokenizer.bos_token_id] * 2


class Framed:
    """A token a letter, and a frame of six around what was said."""

    def __init__(self) -> None:
        self.asked = 0

    def chat(self, messages: Sequence[Any]) -> str:
        self.asked += 1
        return "<" + "".join(f"{message['role'][0]}:{message['content']};" for message in messages) + "A:"

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens
        return [ord(letter) for letter in text]


def test_a_cut_goes_through_the_user_s_text_alone():
    text = "".join(chr(ord("a") + number % 26) for number in range(1000))
    for side, kept in (("left", text[-44:]), ("right", text[:44])):
        tokenizer = Framed()
        ids = fit_conversation(tokenizer, [{"role": "user", "content": text}], 60, 10, side)
        assert "".join(map(chr, ids)) == f"<u:{kept};A:"
        assert tokenizer.asked < 20
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": text}, {"role": "bot", "content": "B"}]
    ids = fit_conversation(Framed(), messages, 60, 10, "right")
    assert "".join(map(chr, ids)) == f"<s:S;u:{text[:36]};b:B;A:"


def test_what_fits_is_not_cut_and_what_cannot_fit_is_refused():
    message = {"role": "user", "content": "hello"}
    assert len(fit_conversation(Framed(), [message], 21, 10, "left")) == 11
    assert len(fit_conversation(Framed(), [message], 10, 10, None)) == 11
    with pytest.raises(RequestError, match="has 6 tokens without the user's newest text, and 5 fit: shorten it"):
        fit_conversation(Framed(), [message], 15, 10, "right")
    with pytest.raises(RequestError, match="there is no user text to cut"):
        fit_conversation(Framed(), [{"role": "system", "content": "hello"}], 15, 10, "right")
    with pytest.raises(RequestError, match="a cut would go through its template: give the messages"):
        fit_prompt(range(20), 20, 10, "left", framed=True)


def test_conversations_are_told_from_token_ids():
    assert is_conversation([{"role": "user"}])
    assert not any(map(is_conversation, ("text", [1, 2], [], [1, {}], {"role": "user"}, types.SimpleNamespace())))
    with pytest.raises(TokenizerError, match="no tokenizer with a chat template: load one"):
        conversation_ids(None, MESSAGES)
    assert json.dumps(MESSAGES) == json.dumps([dict(message) for message in MESSAGES])
