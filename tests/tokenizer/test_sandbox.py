"""Chat templates: those of the kinds that models ship give what transformers gives, and none runs without end."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.errors import PromptError
from bossa.tokenizer.chat import render

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": " Be kind <&>.\n"},
    {"role": "user", "content": "What is 2 + 2? 🎉\n\nSay 'it'."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": [2, None, True]}}}],
    },
    {"role": "tool", "name": "add", "content": '{"sum": 4}'},
    {"role": "assistant", "content": "<think>easy\n</think>\n\nIt is 4.", "reasoning": "easy"},
    {"role": "user", "content": [{"type": "text", "text": "Thanks"}, {"type": "image"}]},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds «numbers».",
            "parameters": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]},
        },
    }
]
TEXT_OF = (
    "{%- macro text(c) -%}{%- if c is string -%}{{ c }}{%- elif c is iterable -%}"
    "{%- for part in c -%}{%- if part['type'] == 'text' -%}{{ part['text'] | trim }}{%- else -%}<image>{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endmacro -%}"
)
TEMPLATES = {
    "chatml": TEXT_OF + "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\n"
    "You help.<|im_end|>\n{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + text(m['content']) + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "pairs": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set start = messages[0]['content'] | trim + "
    "'\n\n' %}{% set rest = messages[1:] %}{% else %}{% set start = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest if m.content is string %}{% if m.role == 'user' %}{{ '[INST] ' ~ (start if loop.first else '') ~ "
    "m.content.strip() ~ ' [/INST]' }}{% elif m.role == 'assistant' %}{{ ' ' + m.content.split('</think>')[-1]"
    ".lstrip('\n') + eos_token }}{% endif %}{% endfor %}",
    "turns": "{{ bos_token }}{% set names = {'assistant': 'model', 'user': 'user'} %}{% for m in messages %}"
    "{% if m.role in names %}{{ '<start_of_turn>' + names[m.role] + '\n' }}{% if m.content is string %}"
    "{{ m.content | trim }}{% elif m.content %}{% for c in m.content %}{{ c.get('text', '<img>') }}{% endfor %}"
    "{% endif %}{{ '<end_of_turn>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n"
    "{% endif %}",
    "headers": "{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- if not tools is defined %}{%- set tools = none %}{%- endif %}{{- '<|h|>system<|/h|>\n\n' + date_string }}"
    "{%- if tools is not none %}{{- 'Tools:\n' }}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- '\n\n' }}"
    "{%- endfor %}{%- endif %}{%- for m in messages %}{%- if 'tool_calls' in m %}{%- if m.tool_calls | length != 1 %}"
    "{{- raise_exception('one at a time') }}{%- endif %}{%- set c = m.tool_calls[0].function %}"
    "{{- '{\"name\": \"' + c.name + '\", ' + '\"parameters\": ' }}{{- c.arguments | tojson }}{{- '}<|eot|>' }}"
    "{%- elif m.role == 'tool' or m.role == 'ipython' %}{{- '<|h|>ipython<|/h|>\n\n' }}"
    "{%- if m.content is mapping or m.content is iterable %}{{- m.content | tojson }}{%- else %}{{- m.content }}"
    "{%- endif %}{{- '<|eot|>' }}{%- elif m.content is string %}{{- '<|h|>' ~ m['role'] ~ '<|/h|>\n\n' ~ "
    "m['content'] | trim ~ '<|eot|>' }}{%- endif %}{%- endfor %}",
    "steps": "{%- set ns = namespace(multi=true, last=messages|length - 1, seen=[]) %}{%- for m in messages[::-1] %}"
    "{%- set i = (messages|length - 1) - loop.index0 %}{%- if ns.multi and m.role == 'user' and not (m.content is "
    "string and m.content.startswith('<tool') and m.content.endswith('>')) %}{%- set ns.multi = false %}{%- set "
    "ns.last = i %}{%- endif %}{%- set ns.seen = ns.seen + [m.role | upper] %}{%- endfor %}{{ ns.last }}"
    "{{ ns.seen | join(', ') }}{%- for m in messages %}{%- if m.reasoning_content is defined and m.reasoning_content %}"
    "{{- '<think>\n' + m.reasoning_content.strip('\n') + '\n</think>\n\n' }}{%- endif %}{%- if loop.previtem is "
    "defined and loop.previtem.role == 'assistant' %}|{%- endif %}{%- if m.tool_calls %}{%- for call in m.tool_calls %}"
    "{%- if call.function %}{%- set call = call.function %}{%- endif %}{{- call.name }}:{%- if call.arguments is string"
    " %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}{%- for k, v in "
    "call.arguments | items %}{{ k }}={{ v }};{% endfor %}{%- endfor %}{%- endif %}{%- endfor %}",
    "words": "{% for m in messages | selectattr('role', 'equalto', 'user') | list %}{{ loop.index }}/{{ loop.length }} "
    "{{ m.content | string | replace(\"'\", '’') | truncate(40) | indent(2) | safe + '<' }}{{ '%s-%03d' % (m.role, 7) "
    "}}{{ '{:>6}|{!r}'.format(m.role, 'x') }}{% endfor %}{{ messages | map(attribute='role') | unique | sort "
    "| join('+') }}{% set roles = messages | groupby('role') %}{% for role, all in roles %}{{ role }}{{ all | length }}"
    "{% endfor %}{{ [[1, 2], [3]] | sum(start=[]) }}{{ [3, 1] | sum }}{{ range(3) | list }}"
    "{{ {'b': 1, 'a': none} | dictsort }}{{ 7 // 2 }}{{ 2 ** 10 }}{{ 'ab' * 3 }}{{ [0] * 2 }}"
    "{{ 'a' in 'ab' }}{{ dict(a=1) }}{{ 1.5 | round | int }}",
    "calls": "{% macro wrap(tag) %}<{{ tag }}>{{ caller() }}</{{ tag }}>{% endmacro %}{% for m in messages %}"
    "{% call wrap(m.role) %}{{ m.content | default('', true) }}{% endcall %}{% if loop.index > 4 %}{% break %}"
    "{% endif %}{% endfor %}{% set body %}{% for t in tools or [] %}{{ t.function.name }}{% else %}none{% endfor %}"
    "{% endset %}{{ body | trim | title }}{% filter upper %}{% generation %}"
    "x{{ documents }}{% endgeneration %}{% endfilter %}"
    "{% for item in [1, [2, [3]]] recursive %}{{ loop(item) if item is iterable else item }}{% endfor %}"
    "{% block end %}{{ messages | length }}{% endblock %}{{ self.end() }}",
}
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, "documents": None}


def theirs(template: str, messages: list[dict[str, Any]], tools: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    chat = [{key: value for key, value in message.items() if value is not None} for message in messages]
    [text], _ = render_jinja_template([chat], chat_template=template, tools=tools, **VARIABLES)
    return str(text)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_templates_of_the_usual_kinds_give_what_transformers_gives(name: str, tools: Any):
    template = TEMPLATES[name]
    for messages in (MESSAGES, MESSAGES[1:2], MESSAGES * 40):
        assert render(template, messages, VARIABLES | {"tools": tools}) == theirs(template, messages, tools)


@given(
    st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": st.text()}),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(sorted(TEMPLATES)),
)
@settings(max_examples=100, deadline=None)
def test_any_conversation_gives_what_transformers_gives(messages: list[dict[str, Any]], name: str):
    assert render(TEMPLATES[name], messages, VARIABLES | {"tools": None}) == theirs(TEMPLATES[name], messages, None)


def test_a_long_conversation_is_within_the_bounds():
    messages = [
        {"role": ("user", "assistant")[turn % 2], "content": f"{turn} " + "word " * 200} for turn in range(2000)
    ]
    for name in ("chatml", "headers", "steps"):
        assert render(TEMPLATES[name], messages, VARIABLES | {"tools": None}) == theirs(TEMPLATES[name], messages, None)


GROWS = (
    "{{% set ns = namespace(a={start}) %}}{{% for i in range(60) %}}{{% set ns.a = {more} %}}{{% endfor %}}"
    "{{{{ {end} }}}}"
)
ENDLESS = [
    "{{ [1] | slice(10 ** 9) | list }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) if range(99999) | sort | length > i %}{% endfor %}",
    "{{ 'x' * 10 ** 12 }}",
    "{{ 10 ** 9 * [1] }}",
    "{{ (10 ** 1000) ** 1000 }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '%(a)1000000000d' % {'a': 1} }}",
    "{{ '%((a))1000000000d' % {'(a)': 1} }}",
    "{{ '%*d' % (10 ** 9, 1) }}",
    "{{ '%.1000000000f' % 1.0 }}",
    "{{ ('%(a)s' * 100000) % {'a': 'x' * 100000} }}",
    "{{ '{:1000000000d}'.format(1) }}",
    "{{ '{:{w}}'.format('a', w=10 ** 9) }}",
    "{{ ('{0}' * 100000).format('x' * 100000) }}",
    "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
    "{{ ('{:>1000000000}' | safe).format(1) }}",
    "{{ 'x'.ljust(10 ** 9) }}",
    "{{ 'x'.rjust(10 ** 9) }}",
    "{{ 'x'.center(10 ** 9) }}",
    "{{ 'x'.zfill(10 ** 9) }}",
    "{{ '\t'.expandtabs(tabsize=10 ** 9) }}",
    "{{ ['x'] | map('center', 10 ** 9) | list }}",
    "{% set a = 'x' * 100000 %}{{ a.replace('x', a) }}",
    "{% set a = 'x' * 100000 %}{{ a | replace('', a) }}",
    "{{ 'a\nb' | indent(10 ** 9) }}",
    "{{ ('a\n' * 100000) | indent('x' * 10000) }}",
    "{{ ('a' * 100000) | wordwrap(1) }}",
    "{{ ('<!---->' * 100000) | striptags }}",
    "{{ [1] | batch(10 ** 9, 0) | list }}",
    "{{ [[1]] | tojson(indent=10 ** 9) }}",
    "{{ [1, 2] | tojson(separators=('x' * 100000, ':')) }}",
    "{{ 'x' * 100000 | join('y' * 100000) }}{{ ('x' * 100000).join('y' * 100000) }}",
    "{{ ('ab' * 100000).strip('c' * 100000) }}",
    "{{ ([[1]] * 100000) | sum(start=[]) | length }}",
    "{{ 1.5 | round(10 ** 8, 'ceil') }}",
    "{{ strftime_now('%Y' * 10000) }}",
    "{{ (('&' * 900000) | e) + ('' | safe) + '&' }}",
    GROWS.format(start="'x'", more="ns.a + ns.a", end="ns.a"),
    GROWS.format(start="'x'", more="ns.a ~ ns.a", end="ns.a"),
    GROWS.format(start="[1]", more="ns.a + ns.a", end="ns.a"),
    GROWS.format(start="[1]", more="[ns.a, ns.a]", end="ns.a"),
    GROWS.format(start="[1]", more="(ns.a, ns.a)", end="ns.a == 1"),
    GROWS.format(start="[1]", more="{'a': ns.a, 'b': ns.a}", end="ns.a | tojson"),
    GROWS.format(start="[1]", more="dict(a=ns.a, b=ns.a)", end="ns.a"),
    GROWS.format(start="{'a': 1}", more="{'a': ns.a.items(), 'b': ns.a.values()}", end="ns.a"),
    GROWS.format(start="2", more="ns.a * ns.a", end="ns.a"),
    GROWS.format(start="''", more="'%s%s' % (ns.a or 1, ns.a or 1)", end="ns.a"),
    "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set b %}{{ ns.a }}{{ ns.a }}{% endset %}"
    "{% set ns.a = b %}{% endfor %}{{ ns.a }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}" + "{% call f() %}" * 19 + "x" + "{% endcall %}" * 19,
    "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "{% for i in range(99999) %}" + "x" * 100000 + "{% endfor %}",
    "{% for i in range(99999) %}" + "{% set x = messages[0].role %}" * 1000 + "{% endfor %}",
    "{% set s = 'x' * 900000 %}{{ [" + "s, " * 2000 + "] | length }}",
    "{% set s = 'x' * 900000 %}{{ " + "s ~ " * 1000 + "1 }}",
    "{% set s = 'x' * 900000 %}" + "".join(f"{{% set a{i} = s[1:] %}}" for i in range(1200)),
    "{% set s = 'x' * 900000 %}{% set t = 'x' * 899999 ~ 'x' %}{% for i in range(99999) %}{{ s == t }}{% endfor %}",
    "{% for i in range(99999) %}{% for j in missing | map('filesizeformat') | list %}{{ j }}{% endfor %}{% endfor %}",
    "{% set s = 'x' * 900000 %}{% for i in range(99999) %}{{ 'xy' in s }}{{ s.count('xy') }}{% endfor %}",
    "{% set ns = namespace(d=[]) %}{% for i in range(99999) %}{% set ns.d = ns.d + [i] %}{% endfor %}",
    "{{ " + "(" * 50000,
    "{{ " + "1 + " * 30000 + "1 }}",
    "{% for i in [1] %}" * 25 + "{% endfor %}" * 25,
    "x" * 200000,
    "{{ lipsum(n=10 ** 6) }}",
]


@pytest.fixture
def little_memory() -> Iterator[None]:
    """At most 1 GiB more than now."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 30), old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)


@pytest.mark.parametrize("template", ENDLESS, ids=lambda template: template[:50])
@pytest.mark.usefixtures("little_memory")
def test_a_template_without_end_is_one_line(template: str):
    """In the processor time that its steps take, ten times over, since the machine is shared."""
    started = time.process_time()
    with pytest.raises(PromptError, match=r"^the chat template does not take these messages \([^\n]+\): correct them$"):
        render(template, MESSAGES[1:2], {})
    assert time.process_time() - started < 10


def test_what_templates_may_not_call_is_named():
    for template, said in [
        ("{{ 'x'.encode().hex() }}", "calls hex of a bytes"),
        ("{{ {}.fromkeys('ab') }}", "calls fromkeys of a type"),
        ("{{ 'x' | urlize }}", "No filter named 'urlize'"),
        ("{% autoescape true %}{% endautoescape %}", "autoescape is not for chat templates"),
    ]:
        with pytest.raises(PromptError, match=said):
            render(template, MESSAGES, {})


PIECES = st.sampled_from(
    ["a", "'xy'", "[1, a]", "{'k': a}", "3", "9 ** 9", "(a, a)", "messages", "range(9999)", "namespace(q=a)", "-1"]
)
ENDS = st.sampled_from(
    [" + a", " ~ a", " * 99999", " ** 99", " % a", "[1:]", "[::-1]", ".items()", " | list", " | join('zz')",
     " | tojson", " | string", " | replace('', 'yy')", ".center(99999)", " | batch(99)", " | slice(99)",
     " | indent(99)", " | e", " | map('string') | list", " | sum(start=a)", " | sort", " | reverse | list",
     " | length", " | upper", ".split('')", " | format(a, a)", ".format(a, a)", " | default(a)", " | groupby(0)",
     " | unique | list", " in a", " == a"]
)  # fmt: skip


@given(st.lists(st.tuples(PIECES, st.lists(ENDS, max_size=3)), min_size=1, max_size=6), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_no_combination_of_operations_runs_without_end(parts: list[tuple[str, list[str]]], times: int):
    body = "".join("{% set a = " + piece + "".join(ends) + " %}{% set ns.a = [a, ns.a] %}" for piece, ends in parts)
    template = (
        f"{{% set ns = namespace(a='x') %}}{{% for i in range({times}) %}}{{% set a = ns.a %}}{body}{{% endfor %}}"
    )
    started = time.process_time()
    with suppress(PromptError):
        render(template + "{{ ns.a }}", MESSAGES[1:2], {})
    assert time.process_time() - started < 20
