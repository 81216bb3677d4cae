"""Chat templates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateError
from jinja2.ext import loopcontrols

from bossa.tokenizer import Tokenizer
from fuzz.mutations import mutate_bytes, mutate_text, odd_text, quoted
from fuzz.reader import demand
from fuzz.readers.tokenizers import byte_fallback

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind <&>."},
    {"role": "user", "content": "Hi 🎉 \x1b[31m", "tools": [{"name": "é", "n": 1}], "name": None},
    {"role": "assistant", "content": "Hello", "reasoning": "hm"},
    {"role": "user", "content": [{"type": "text", "text": "x"}]},
]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
PLAIN = """{% for m in messages %}
    {% if m.role == 'bad' %}{{ raise_exception('no ' + m.role) }}{% endif %}
{{ bos_token }}{{ m.role }}: {% generation %}{{ m.content | string | trim }}{% endgeneration %}{{ eos_token }}
{% if m.tools is defined %}{{ m.tools | tojson(indent=2) }}{% endif %}{% if loop.index > 8 %}{% break %}{% endif %}
{% endfor %}{% set n = namespace(x=1) %}{% set n.x = 2 %}{{ n.x }}{{ dict(a=1) }}
{% if add_generation_prompt %}assistant:{% endif %}"""
WITH_TOOLS = """{%- macro field(f, depth=0) -%}{{ f.name | default('?') }}: {{ f | tojson }}{%- endmacro -%}
{%- if tools %}{{ '# Tools' }}{% for t in tools %}{{ field(t.function) }}{% endfor %}{% endif -%}
{%- set first = messages[0].content if messages[0]['role'] == 'system' else '' -%}
{%- for message in messages[1:] | rejectattr('role', 'equalto', 'tool') -%}
{{ '<|im_start|>' ~ message.role ~ '\\n' }}
{%- if message.content is string %}{{ message.content.split('</think>')[-1].lstrip('\\n') }}
{%- else %}{% for part in message.content | selectattr('type', 'equalto', 'text') %}{{ part.text }}{% endfor -%}
{% endif %}
{{- '<|im_end|>\\n' }}{%- if not loop.last %}{{ loop.index0 % 2 }}{% endif -%}
{%- endfor -%}{{ strftime_now('%Y')[:1] }}{{ first | upper | replace('A', 'B') }}"""
VALUES = (
    *("messages", "tools", "bos_token", "messages[0].content", "[1]", "'x'", "1", "10**9", "10**400", "range(9)"),
    *("range(10**5)", "{'a': 1}", "none", "undefined", "namespace()", "cycler", "lipsum", "joiner", "dict", "''.join"),
    *(
        "loop",
        "self",
        "caller",
        "add_generation_prompt",
        "'%s'",
        "'{0}'",
        "'\\x1b[31m'",
        "raise_exception",
        "1.5",
        "-1",
    ),
)
WRAPS = (
    *("({0} * 2)", "({0} + {0})", "({0} ~ {0})", "{0}[{1}]", "{0}.{2}", "({0} % {1})", "{0}({1})"),
    *("({0} ** {1})", "({0} // {1})", "({0} in {1})", "{0}.format({1})", "{0}[::-1]", "{0}[:{1}]"),
    *("{0} | {3}", "{0} | {3}({1})", "{0} | {3} | {3}", "range({0}) | list", "{0} | map('{3}') | list", "not {0}"),
    *("{0} | slice(3) | list", "{0} | batch(2, 'x') | list", "{0} | center(9)", "{0} | indent(2)", "'%5d' % {0}"),
    *("{0} if {1} else {0}", "'{{:9}}'.format({0})", "{0} | format({1})", "{0} is {4}"),
)
LARGE = (
    *(
        "({0} * 10**9)",
        "({0} * 10**12)",
        "[{0}] * 99999",
        "10**10**9",
        "{0} | slice(10**9) | list",
        "range(10**5) | list",
    ),
    *("{0} | batch(10**9, 'x') | list", "{0} | center(10**10)", "{0} | indent(10**9)", "'%*d' % (10**9, 1)"),
    *(
        "'{{:{{}}}}'.format(1, 10**9)",
        "'%0999999999d' % 1",
        "lipsum(10**6)",
        "{0} | wordwrap(1, wrapstring='x' * 10**6)",
    ),
    *("({0} ~ {0}) * 10**5", "2 ** 10**7", "(2 ** 10**5) | string", "('a' * 10**5).replace('a', 'b' * 10**5)"),
)
"""What takes more than any template needs."""
ATTRIBUTES = (
    "__class__",
    "__init__",
    "content",
    "role",
    "append",
    "items",
    "format_map",
    "mro",
    "gi_frame",
    "x",
    "split",
)
FILTERS = (
    *(
        "tojson",
        "list",
        "string",
        "length",
        "sort",
        "unique",
        "join",
        "first",
        "last",
        "sum",
        "groupby",
        "pprint",
        "upper",
    ),
    *(
        "replace",
        "wordwrap",
        "xmlattr",
        "urlize",
        "striptags",
        "filesizeformat",
        "round",
        "int",
        "float",
        "abs",
        "random",
    ),
    *(
        "attr",
        "reject",
        "select",
        "items",
        "dictsort",
        "truncate",
        "forceescape",
        "safe",
        "e",
        "default",
        "reverse",
        "min",
    ),
)
TESTS = ("string", "defined", "iterable", "divisibleby(3)", "sameas(1)", "mapping", "in [1]", "filter", "callable")


def expression(chance: random.Random, depth: int) -> str:
    if depth == 0:
        return quoted(odd_text(chance))[:200] if chance.random() < 0.1 else chance.choice(VALUES)
    parts = [expression(chance, depth - 1), expression(chance, chance.randrange(depth))]
    words = [chance.choice(ATTRIBUTES), chance.choice(FILTERS), chance.choice(TESTS)]
    return chance.choice(WRAPS if chance.random() < 0.95 else LARGE).format(*parts, *words)


def statement(chance: random.Random, depth: int) -> str:
    inner = statement(chance, depth - 1) if depth else "{{ " + expression(chance, chance.randrange(4)) + " }}"
    value = expression(chance, chance.randrange(3))
    if chance.random() < 0.04:
        return chance.choice((
            "{% for i in range(99999) %}" + inner + "{% endfor %}",
            "{% for i in range(9999) %}{% for j in range(9999) %}" + inner + "{% endfor %}{% endfor %}",
            "{% for i in messages recursive %}{{ loop(messages) }}" + inner + "{% endfor %}",
            "{% set n = namespace(x='y') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}" + inner,
            "{% macro m(a) %}{{ m(a) }}{% endmacro %}{{ m(" + value + ") }}" + inner,
        ))  # fmt: skip
    return chance.choice((
        "{% for i in " + value + " %}" + inner + "{% endfor %}",
        "{% set x = " + value + " %}" + inner,
        "{% macro m(a) %}" + inner + "{{ a }}{% endmacro %}{{ m(" + value + ") }}",
        "{% filter upper %}" + inner + "{% endfilter %}",
        "{% set x %}" + inner + "{% endset %}{{ x }}",
        "{% if " + value + " %}" + inner + "{% else %}{{ raise_exception(" + value + ") }}{% endif %}",
        "{% call(x) m() %}" + inner + "{% endcall %}",
        inner + inner,
    ))  # fmt: skip


class TemplateReader:
    """`Tokenizer.chat`: a conversation written out by a template."""

    def __init__(self) -> None:
        self.files = byte_fallback()

    def seeds(self) -> list[bytes]:
        return [PLAIN.encode(), WITH_TOOLS.encode(), b"{{ messages[0].content }}"]

    def mutate(self, chance: random.Random, bases: Sequence[bytes]) -> bytes:
        data = chance.choice(bases)
        roll = chance.random()
        if roll < 0.05:
            return mutate_bytes(chance, data, bases)
        text = data.decode("utf-8", "replace")
        if roll < 0.4:
            text = mutate_text(chance, text, [chance.choice(bases).decode("utf-8", "replace")])
        else:
            made = statement(chance, chance.choice((0, 0, 1, 2, 4)))
            text = made if roll < 0.85 else text + made
        return text.encode("utf-8", "replace")

    def passes(self, data: bytes) -> bool:
        text = data.decode("utf-8", "replace").replace("{% generation %}", "").replace("{% endgeneration %}", "")
        try:
            Environment(extensions=[loopcontrols]).parse(text)
        except (TemplateError, RecursionError):
            return False
        return True

    def read(self, data: bytes, folder: Path) -> None:
        files = {name: text.encode() for name, text in self.files.items()} | {"chat_template.jinja": data}
        text = Tokenizer.from_files(files, "the PEF").chat(MESSAGES, tools=TOOLS, now="today")
        demand(isinstance(text, str), "a template gives no text")
