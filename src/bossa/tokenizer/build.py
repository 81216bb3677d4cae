"""From a tokenizer's files to the tokenizer of the tokenizers library, step by step as transformers builds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bossa.checks.vocabulary import check_ids
from bossa.errors import TokenizerError
from bossa.tokenizer.bounds import Growth, check, check_added, check_before
from bossa.tokenizer.classes import AS_WRITTEN, class_of
from bossa.tokenizer.files import PAIR, read_object, refuse_pointer
from bossa.tokenizer.library import call
from bossa.tokenizer.rules import RULES, Rules

if TYPE_CHECKING:
    import tokenizers

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
Token = Any
"""A token's text, or the library's ``AddedToken``."""


@dataclass(frozen=True)
class Built:
    """A tokenizer.

    Attributes:
        backend: the library's.
        named: the special tokens by their roles, those that only this model has after the common ones.
        config: its settings.
        growth: how much it may make of a text.
    """

    backend: tokenizers.Tokenizer
    named: dict[str, str]
    config: dict[str, Any]
    growth: Growth


def build(files: Mapping[str, bytes], where: str) -> Built:
    """The tokenizer that the files describe.

    Raises:
        TokenizerError: there is none, a file is damaged, or it is one that only transformers can read.
    """
    config = read_object(files, "tokenizer_config.json", where)
    whole = "tokenizer.json" in files
    if not whole and not all(name in files for name in PAIR):
        raise TokenizerError(
            f"{where}: has no tokenizer (tokenizer.json, or vocab.json and merges.txt): pass a directory that has one"
            " with --model_name_or_path"
        )
    loaded = _loaded(files, where) if whole else None
    model = loaded.model if loaded is not None else _from_pair(files, where)
    rules = _rules(files, config, where)
    if whole:
        config.pop("add_bos_token", None)  # the file has its frame of special tokens
        config.pop("add_eos_token", None)
    try:
        plan = _Plan.of(config, files, rules, loaded, where)
        if loaded is not None and rules is None:
            backend = loaded
        else:
            assert rules is not None
            backend = _dressed(model, rules, plan, where)
            if loaded is not None and loaded.post_processor is not None:
                backend.post_processor = loaded.post_processor
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = bool(config.get("split_special_tokens", False))
        growth = check(backend, where)
        check_added(growth, map(str, plan.tokens), where)
        plan.add_to(backend, rules, where)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise TokenizerError(
            f"{where}: the tokens that tokenizer_config.json adds are garbled: fetch the tokenizer again"
        ) from None
    return Built(backend, {role: str(token) for role, token in plan.named.items()}, config, growth)


def _rules(files: Mapping[str, bytes], config: Mapping[str, Any], where: str) -> Rules | None:
    """The rules of the tokenizer's class; None where its file is taken as it is written."""
    model = read_object(files, "config.json", where)
    data = bytes(files.get("tokenizer.json", b""))
    name = class_of(config, model, b'"ByteLevel"' in data)
    compile_it = "compile with --model_name_or_path and this directory, which puts its tokenizer into the PEF"
    if name is None:
        raise TokenizerError(
            f"{where}: its tokenizer is code that comes with the model (auto_map): {compile_it}, and"
            " --trust-remote-code where the code is to be run"
        )
    if name != AS_WRITTEN and name not in RULES:
        raise TokenizerError(f"{where}: its tokenizer is a {name}, which only transformers can read: {compile_it}")
    rules = RULES.get(name)
    versions = config.get("fast_tokenizer_files")
    if isinstance(versions, list) and any(version != "tokenizer.json" for version in versions):
        raise TokenizerError(f"{where}: its tokenizer has files for several versions of transformers: {compile_it}")
    if config.get("fix_mistral_regex"):
        raise TokenizerError(f"{where}: its tokenizer asks for fix_mistral_regex, which is not done here: {compile_it}")
    if "tokenizer.json" not in files and (rules is None or not rules.from_pair):
        said = f"it is a {name}, which is not read from them" if rules else "nothing says of which class they are"
        raise TokenizerError(
            f"{where}: has vocab.json and merges.txt, and {said}: pass a directory that has a tokenizer.json, or name"
            " tokenizer_class in tokenizer_config.json"
        )
    return rules


def _loaded(files: Mapping[str, bytes], where: str) -> tokenizers.Tokenizer:
    import tokenizers

    data = bytes(files["tokenizer.json"])
    refuse_pointer(data, f"{where}: tokenizer.json")
    check_ids(data, f"{where}: tokenizer.json")
    check_before(data, where)

    def problem(reason: str) -> TokenizerError:
        return TokenizerError(f"{where}: tokenizer.json cannot be read ({reason}): fetch the tokenizer again")

    backend: tokenizers.Tokenizer = call(problem, tokenizers.Tokenizer.from_buffer, data)
    return backend


def _from_pair(files: Mapping[str, bytes], where: str) -> Any:
    from tokenizers import models

    vocabulary = read_object(files, "vocab.json", where)
    check_ids(bytes(files["vocab.json"]), f"{where}: vocab.json")
    refuse_pointer(files["merges.txt"], f"{where}: merges.txt")

    def problem(reason: str) -> TokenizerError:
        return TokenizerError(
            f"{where}: vocab.json and merges.txt do not go together ({reason}): fetch the tokenizer again"
        )

    return call(problem, lambda: models.BPE(vocab=vocabulary, merges=_merges(files["merges.txt"]), fuse_unk=False))


def _merges(data: bytes) -> list[tuple[str, str]]:
    lines = bytes(data).decode("utf-8").split("\n")
    pairs = []
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\r")
        if line.startswith("#version") or (not line and number == len(lines)):
            continue
        left, *right = line.split(" ")
        if len(right) != 1:
            raise ValueError(f"line {number} of merges.txt is no pair")
        pairs.append((left, right[0]))
    return pairs


def _dressed(model: Any, rules: Rules, plan: _Plan, where: str) -> tokenizers.Tokenizer:
    """A tokenizer with this vocabulary and the parts of its class."""
    import tokenizers

    kind = type(model).__name__
    if kind != rules.model:
        raise TokenizerError(
            f"{where}: tokenizer.json has a {kind} model, and its class takes a {rules.model} model: correct"
            " tokenizer_class in tokenizer_config.json"
        )
    model.dropout = None
    model.unk_token = str(plan.named.get("unk_token")) if rules.has_unknown else None
    model.continuing_subword_prefix = None if rules.byte_fallback else ""
    model.end_of_word_suffix = None if rules.byte_fallback else ""
    model.fuse_unk = rules.fuse_unk
    model.byte_fallback = rules.byte_fallback
    model.ignore_merges = False
    backend = tokenizers.Tokenizer(model)
    rules.dress(backend, plan.config)
    return backend


@dataclass(frozen=True)
class _Plan:
    """The tokens that the files add and name.

    Attributes:
        config: the tokenizer's settings.
        added: tokens in the order in which they are added.
        named: the special tokens by their roles.
        extra: special tokens without a role.
        framed: the files say whether the special tokens stand around a text.
    """

    config: dict[str, Any]
    added: list[Token]
    named: dict[str, Token]
    extra: list[Token]
    framed: bool

    @property
    def tokens(self) -> list[Token]:
        """All of them; one may be there twice."""
        return [*self.added, *self.named.values(), *self.extra]

    @classmethod
    def of(
        cls,
        config: dict[str, Any],
        files: Mapping[str, bytes],
        rules: Rules | None,
        loaded: tokenizers.Tokenizer | None,
        where: str,
    ) -> _Plan:
        framed = "add_bos_token" in config or "add_eos_token" in config
        if "additional_special_tokens" in config and not config.get("extra_special_tokens"):
            config["extra_special_tokens"] = config.pop("additional_special_tokens")
        own: dict[str, Token] = dict(config.pop("model_specific_special_tokens", None) or {})
        strings = {key: value for key, value in config.items() if _is_role(key) and isinstance(value, str)}
        named_extra = config.get("extra_special_tokens")
        if strings or isinstance(named_extra, dict):
            own = dict(strings)
        if isinstance(named_extra, dict):
            own |= config.pop("extra_special_tokens")
        numbered: dict[int, Token] = {}
        if "added_tokens_decoder" in config:
            numbered = {int(number): _added_token(token) for number, token in config["added_tokens_decoder"].items()}
        else:
            _take_map(config, own, read_object(files, "special_tokens_map.json", where))
            numbered = _listed(config, read_object(files, "added_tokens.json", where))
            if loaded is not None:
                numbered |= loaded.get_added_tokens_decoder()
        by_text = {str(token): token for token in numbered.values()}
        named: dict[str, Token] = {}
        if loaded is not None and loaded.padding is not None and "pad_token" not in (rules.tokens if rules else ()):
            config.setdefault("pad_token", loaded.padding["pad_token"])
        for role in NAMED:
            value = _converted(config[role]) if role in config else (rules.tokens.get(role) if rules else None)
            if value is not None:
                named[role] = by_text.get(str(_token(value)), value) if role in config else value
        roles = {key: _converted(value) for key, value in config.items() if _is_role(key) and key not in strings}
        own = {key: value for key, value in roles.items() if _is_token(value)} | own
        named |= {role: _token(_converted(value)) for role, value in own.items()}
        extra = config.get("extra_special_tokens") or []
        if not isinstance(extra, list):
            raise TypeError
        extra = [_token(_converted(value)) for value in extra]
        return cls(config, [numbered[number] for number in sorted(numbered)], named, extra, framed)

    def add_to(self, backend: tokenizers.Tokenizer, rules: Rules | None, where: str) -> None:
        """Give the tokenizer its tokens, and the frame of special tokens that they stand in."""
        from tokenizers import AddedToken

        tokens = list(self.added)
        known = {token.content for token in backend.get_added_tokens_decoder().values()} | set(map(str, tokens))
        for token in (*self.named.values(), *self.extra):
            if str(token) not in known:
                known.add(str(token))
                tokens.append(token)
        roles = set(map(str, self.named.values()))
        ready = []
        for token in tokens:
            if isinstance(token, str):
                token = AddedToken(token, special=True)
            elif not token.special and str(token) in roles:
                token.special = True
            ready.append(token)

        def problem(reason: str) -> TokenizerError:
            return TokenizerError(
                f"{where}: the tokens that its files add are not taken ({reason}): fetch the tokenizer again"
            )

        call(problem, backend.add_tokens, ready)
        if rules is not None and rules.again == "by text":
            texts = dict.fromkeys(map(str, (*self.named.values(), *self.extra)))
            call(problem, backend.add_tokens, [AddedToken(text, special=True) for text in texts])
        if self.framed or backend.post_processor is None or (rules is not None and rules.frames):
            call(problem, self._frame, backend)
        if rules is not None and rules.again == "as special":
            again = [
                AddedToken(token, special=True, normalized=False) if isinstance(token, str) else token
                for token in (*self.named.values(), *self.extra)
            ]
            call(problem, backend.add_special_tokens, again)

    def _frame(self, backend: tokenizers.Tokenizer) -> None:
        from tokenizers import processors

        ends = [
            str(self.named[role]) if self.config.get(f"add_{role}") and role in self.named else ""
            for role in ("bos_token", "eos_token")
        ]
        numbers = {end: self.number(backend, end) for end in ends if end}
        parts = [f"{ends[0]}:0" if ends[0] else "", "$A:0", f"{ends[1]}:0" if ends[1] else ""]
        backend.post_processor = processors.TemplateProcessing(
            single=[part for part in parts if part], special_tokens=list(numbers.items())
        )

    def number(self, backend: tokenizers.Tokenizer, text: str) -> int:
        """The id of a special token; a text that has none gets the unknown token's."""
        number = backend.token_to_id(text)
        if number is None and "unk_token" in self.named:
            number = backend.token_to_id(str(self.named["unk_token"]))
        if number is None:
            raise ValueError(f"{text} has no id")
        return number


def _take_map(config: dict[str, Any], own: dict[str, Token], described: Mapping[str, Any]) -> None:
    """Special tokens of the older file, which come before those of ``tokenizer_config.json``."""
    for key, value in described.items():
        if key == "extra_special_tokens" and isinstance(value, list):
            kept = list(config.get(key) or [])
            value = kept + [token for token in map(_special, value) if token not in kept]
        elif isinstance(value, dict) and key != "extra_special_tokens":
            value = _special(value)
        config[key] = value
    if isinstance(config.get("extra_special_tokens"), dict):
        own |= config.pop("extra_special_tokens")
    if "additional_special_tokens" in config and "extra_special_tokens" not in config:
        config["extra_special_tokens"] = config.pop("additional_special_tokens")


def _listed(config: Mapping[str, Any], described: Mapping[str, Any]) -> dict[int, Token]:
    """The tokens of ``added_tokens.json``."""
    from tokenizers import AddedToken

    special = {str(_token(_converted(config[role]))) for role in NAMED if config.get(role)}
    special |= {str(_token(_converted(value))) for value in config.get("extra_special_tokens") or []}
    return {
        int(number): AddedToken(text, normalized=text not in special, special=text in special)
        for text, number in described.items()
    }


def _is_role(key: str) -> bool:
    return key.endswith("_token") and key not in NAMED


def _special(value: Any) -> Token:
    from tokenizers import AddedToken

    if not isinstance(value, dict):
        return value
    return AddedToken(**{**{key: item for key, item in value.items() if key != "__type"}, "special": True})


def _converted(value: Any) -> Any:
    """A token that is written as an object of its own type."""
    if isinstance(value, dict) and value.get("__type") == "AddedToken":
        return _added_token({key: item for key, item in value.items() if key != "__type"})
    return value


def _added_token(value: Any) -> Token:
    from tokenizers import AddedToken

    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise TypeError
    return AddedToken(**value)


def _is_token(value: Any) -> bool:
    from tokenizers import AddedToken

    return isinstance(value, str | AddedToken)


def _token(value: Any) -> Token:
    if not _is_token(value):
        raise TypeError
    return value
