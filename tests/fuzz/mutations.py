"""Mutations of bytes and of text, by chance: the same for the same state of the generator."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Sequence

CANARY = "bossa_canary"
"""A word in hostile names: it may stand in comments and texts, and nowhere else in what is generated from them."""
NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 64, 127, 128, 255, 256, 1000, 4096, 32767, 32768, 65535, 65536),
    *(10**6, 10**8, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 10**30),
)
TEXTS = (
    *("", " ", "a", "x" * 300, "x" * 5000, "é", "中文", "🤖", "\u00a0", "0", "-1", "1e400", "nan", "true", "null"),
    *("\x1b[31mred", "\x1b]0;title\x07", "a\nb", "a\r\nb", "\t", "\0", "\x7f", "\x85", "\u2028", "\u202e", "\ufeff"),
    *("../../etc/passwd", "/etc/passwd", "/dev/zero", "..", ".", "a/b", "a\\b", "C:x", "~", "%s%n", "{}", "{{ 7*7 }}"),
    *("(a+)+$", "(a|a)*b", "(" * 500, "[", "*", "\\", '"', "*/", "//", "??/", "weight", "tokens", "__class__"),
    *(f"x\nint {CANARY};//", f"x\rint {CANARY};//", f"x\\\nint {CANARY};", f'"; int {CANARY};', f"*/ int {CANARY}; /*"),
    *(f"x\u2028int {CANARY};//", f"x\x0bint {CANARY};", f"x\x0cint {CANARY};", f"x??/\nint {CANARY};", f"{CANARY}\\"),
)  # fmt: skip
_SIZES = {1: "b", 2: "h", 4: "i", 8: "q"}
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|\d+(?:\.\d+)?(?:e[+-]?\d+)?|\w+|[^\S\n]+|.|\n')


def mutate_bytes(chance: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Bits flipped, numbers put in, pieces put in, taken out, repeated or taken from other inputs; cut or longer."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(result) + 1)
        length = min(chance.choice((1, 2, 4, 8, 16, 64, 256)), len(result) - at)
        match chance.randrange(9):
            case 0 if length:
                result[at] ^= 1 << chance.randrange(8)
            case 1 if length:
                result[at] = chance.randrange(256)
            case 2:
                raw = number(chance, chance.choice((1, 2, 4, 8)))
                result[at : at + len(raw)] = raw
            case 3:
                result[at:at] = chance.randbytes(max(length, 1))
            case 4:
                del result[at : at + length]
            case 5:
                result[at:at] = result[at : at + length] * chance.choice((1, 2, 20))
            case 6 if others:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                result[at : at + length] = other[start : start + chance.choice((4, 32, 256))]
            case 7:
                del result[at:]
            case _:
                result += chance.choice((b"\0", b"\n", b"}", bytes(64), chance.randbytes(9)))
    return bytes(result)


def number(chance: random.Random, size: int) -> bytes:
    """A whole number of so many bytes that readers often get wrong, in either order of bytes."""
    value = chance.choice(NUMBERS) % (1 << 8 * size)
    return struct.pack(chance.choice("<>") + _SIZES[size].upper(), value)


def mutate_text(chance: random.Random, text: str, others: Sequence[str] = ()) -> str:
    """Tokens and lines changed for others of their kind, moved, repeated and taken out."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        text = _lines(chance, text, others) if chance.random() < 0.3 else _tokens(chance, text)
    return text


def _lines(chance: random.Random, text: str, others: Sequence[str]) -> str:
    lines = text.split("\n")
    at, to = chance.randrange(len(lines)), chance.randrange(len(lines))
    match chance.randrange(5):
        case 0:
            lines[at], lines[to] = lines[to], lines[at]
        case 1:
            lines.insert(to, lines[at])
        case 2 if len(lines) > 1:
            del lines[at]
        case 3 if others:
            lines.insert(at, chance.choice(chance.choice(others).split("\n")))
        case _:
            lines[at:at] = [lines[at]] * chance.choice((2, 20, 500))
    return "\n".join(lines)


def _tokens(chance: random.Random, text: str) -> str:
    tokens = _TOKEN.findall(text)
    visible = [place for place, token in enumerate(tokens) if not token.isspace()]
    if not visible:
        return text + odd_text(chance)
    at = chance.choice(visible)
    token = tokens[at]
    alike = [tokens[place] for place in visible if kind(tokens[place]) == kind(token)]
    match chance.randrange(8):
        case 0 | 1 if kind(token) == "number":
            tokens[at] = str(odd_number(chance, int(token) if token.isdigit() else 1))
        case 0 | 1 if kind(token) == "string":
            tokens[at] = quoted(odd_text(chance, token[1:-1]))
        case 2 if kind(token) == "word":
            tokens[at] = quoted(odd_text(chance, token))
        case 3:
            del tokens[at]
        case 4:
            tokens.insert(at, token)
        case 5:
            to = chance.choice(visible)
            tokens[at], tokens[to] = tokens[to], tokens[at]
        case _:
            tokens[at] = chance.choice(alike)
    return "".join(tokens)


def kind(token: str) -> str:
    """What a token may be changed for: another one of its kind."""
    if token[0] == '"':
        return "string"
    return "number" if token[0].isdigit() else "word" if token[0].isalpha() or token[0] == "_" else "mark"


def quoted(text: str) -> str:
    """The text as JSON's, with what JSON wants escaped left raw now and then by those who call this by chance."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in escaped) + '"'


def odd_number(chance: random.Random, value: int) -> int:
    """One near the value, or one that readers often get wrong."""
    near = (value + 1, value - 1, -value, value * 2, value * 1000, value // 2, value + 16)
    return chance.choice(near) if chance.random() < 0.5 else chance.choice(NUMBERS)


def odd_text(chance: random.Random, text: str = "") -> str:
    """One made of the text, or one that readers often get wrong."""
    match chance.randrange(8):
        case 0:
            return text[: chance.randrange(len(text) + 1)]
        case 1:
            return text * chance.choice((2, 50))
        case 2:
            return text.swapcase()
        case 3:
            at = chance.randrange(len(text) + 1)
            return text[:at] + chance.choice(TEXTS) + text[at:]
        case _:
            return chance.choice(TEXTS)
