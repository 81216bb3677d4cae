"""The sandbox that chat templates run in: jinja2's, with transformers' names, and a price on everything.

A template's tree is rewritten before it is compiled: loops, macros and blocks pay for each turn by how much is in
them, and what is put together, compared or printed passes through a filter that pays for it. What else a template can
do goes through calls, operators, filters and tests, which the environment has in hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache, update_wrapper
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import TemplateAssertionError, TemplateError, nodes, pass_context
from jinja2.environment import Template
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer
from markupsafe import EscapeFormatter, Markup

from bossa.tokenizer.budget import CURRENT, NODE, STEP, Budget, Excess
from bossa.tokenizer.operations import (
    ESTIMATES,
    FILTERS,
    METHODS,
    check_field,
    check_method,
    check_operator,
)

LONGEST_TEMPLATE = 1 << 16
LONGEST_TIME_FORMAT = 1000
VALUES = (*METHODS, type)
"""Plain values, whose methods are looked up; and classes, which have none for templates."""


def run(template: str, variables: dict[str, Any]) -> str:
    """The text that a template makes.

    Raises:
        Exception: the template is not valid, fails, tries what is forbidden, or wants more than its budget.
    """
    if len(template) > LONGEST_TEMPLATE:
        raise Excess(f"the template is longer than {LONGEST_TEMPLATE:,} characters")
    token = CURRENT.set(Budget(variables))
    try:
        return "".join(_compiled(template).generate(**variables))
    finally:
        CURRENT.reset(token)


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    return _Environment().from_string(template)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        filters: dict[str, Any] = JINJA_FILTERS
        tests: dict[str, Any] = JINJA_TESTS
        self.filters = {name: _priced(name, filters[name]) for name in FILTERS} | _INTERNAL
        self.filters["tojson"] = _priced("tojson", _to_json)
        self.filters["sum"] = pass_context(_sum)
        self.tests = {name: _priced(name, test) for name, test in tests.items()}
        del self.globals["lipsum"]  # makes up any amount of text, by chance
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.globals["dict"] = _Dict()
        self.globals["namespace"] = _Namespace

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Pricing().visit(super()._parse(source, name, filename))
        return tree

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as jinja2's
        budget = CURRENT.get()
        budget.charge(STEP + len(args) + len(kwargs))
        if isinstance(__obj, BuiltinMethodType | MethodType):
            owner = __obj.__self__
            if isinstance(__obj, BuiltinMethodType) or isinstance(owner, VALUES):
                check_method(budget, owner, __obj.__name__, args, kwargs)
        return budget.made(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = CURRENT.get()
        budget.charge(STEP)
        check_operator(budget, operator, left, right)
        return budget.made(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if not isinstance(value, MethodType | BuiltinMethodType) or value.__name__ not in ("format", "format_map"):
            return None
        text = value.__self__
        if not isinstance(text, str):
            return None
        kind, maps = type(text), value.__name__ == "format_map"

        def formatted(*args: Any, **kwargs: Any) -> str:
            formatter = _EscapingFormatter(self, text.escape) if isinstance(text, Markup) else _Formatter(self)
            if maps:
                [kwargs], args = args, ()
            return kind(formatter.vformat(text, args, kwargs))

        return update_wrapper(formatted, value)


class _Formatter(SandboxedFormatter):
    """``str.format`` that stops when its text is too long."""

    _length = 0

    def format_field(self, value: Any, format_spec: str) -> Any:
        check_field(format_spec)
        budget = CURRENT.get()
        text = super().format_field(value, format_spec)
        self._length += len(text)
        budget.room(self._length)
        budget.charge(NODE + len(text))
        return text


class _EscapingFormatter(_Formatter, EscapeFormatter):
    def __init__(self, environment: _Environment, escape: Callable[[Any], Markup]) -> None:
        super().__init__(environment, escape=escape)


class _Pricing(NodeTransformer):
    """Rewrites a template's tree so that it pays for what it does."""

    def visit_Template(self, node: nodes.Template) -> nodes.Node:  # noqa: N802 - named after the node, as below
        return self.generic_visit(node)

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        cost = _cost(node.body)
        tested = None if node.test is None else _cost([node.test])
        self.generic_visit(node)
        node.body.insert(0, _step(cost))
        if node.test is not None and tested is not None:
            node.test = nodes.And(_through("__step", nodes.Const(tested)), node.test)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        return self._body(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        return self._body(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Node:  # noqa: N802
        return self._body(node)

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [
            child if isinstance(child, nodes.TemplateData) else _through("__shown", child) for child in node.nodes
        ]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("__joined", nodes.List(node.nodes), node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _seen(node.expr)
        for operand in node.ops:
            operand.expr = _seen(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _through("__made", node) if isinstance(node.arg, nodes.Slice) and node.ctx == "load" else node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._literal(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return self._literal(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self._literal(node) if node.ctx == "load" else node

    def visit_ScopedEvalContextModifier(self, node: nodes.Node) -> nodes.Node:  # noqa: N802
        raise TemplateAssertionError("autoescape is not for chat templates", node.lineno)

    def _body(self, node: Any) -> nodes.Node:
        cost = _cost(node.body)
        self.generic_visit(node)
        node.body.insert(0, _step(cost))
        found: nodes.Node = node
        return found

    def _literal(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        items = node.items
        return node if all(isinstance(item, nodes.Const) for item in items) else _through("__made", node)


def _cost(body: list[Any]) -> int:
    """Units of running a part of a template once, loops in it not counted."""
    cost = STEP
    for part in body:
        for node in (part, *part.find_all(nodes.Node)):
            cost += NODE + (len(node.data) if isinstance(node, nodes.TemplateData) else 0)
    return cost


def _through(name: str, node: Any, place: Any = None) -> nodes.Filter:
    found = nodes.Filter(node, name, [], [], None, None)
    found.set_lineno((place or node).lineno or 1)
    return found


def _seen(node: Any) -> Any:
    return node if isinstance(node, nodes.Const) else _through("__seen", node)


def _step(cost: int) -> nodes.Node:
    return nodes.ExprStmt(_through("__step", nodes.Const(cost))).set_lineno(1)


@pass_context  # so that none of these is run when a template is compiled
def _charge_step(_context: Context, cost: int) -> bool:
    CURRENT.get().charge(cost)
    return True


@pass_context
def _charge_made(_context: Context, value: Any) -> Any:
    return CURRENT.get().made(value)


@pass_context
def _charge_seen(_context: Context, value: Any) -> Any:
    CURRENT.get().seen(value)
    return value


@pass_context
def _charge_shown(_context: Context, value: Any) -> Any:
    text = value if isinstance(value, str) else str(value)
    CURRENT.get().charge(NODE + len(text))
    return text


@pass_context
def _charge_joined(_context: Context, values: list[Any]) -> str:
    budget = CURRENT.get()
    budget.charge(STEP)
    budget.room(sum(budget.size(value).weight for value in values))
    return str(budget.made("".join(map(str, values))))


_INTERNAL: dict[str, Callable[..., Any]] = {
    "__step": _charge_step,
    "__made": _charge_made,
    "__seen": _charge_seen,
    "__shown": _charge_shown,
    "__joined": _charge_joined,
}


def _priced(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that pays for what it is given and for what it makes."""
    leading = 1 if hasattr(function, "jinja_pass_arg") else 0
    estimate = ESTIMATES.get(name)

    def priced(*args: Any, **kwargs: Any) -> Any:
        budget = CURRENT.get()
        budget.charge(STEP)
        for value in (*args[leading:], *kwargs.values()):
            budget.seen(value)
        if estimate is not None:
            estimate(budget, *args[leading:], **kwargs)
        return budget.made(function(*args, **kwargs))

    return update_wrapper(priced, function)


def _sum(context: Context, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
    """``sum``, adding as the operator does: what lists grow to on the way is paid for."""
    environment: Any = context.environment
    values = iterable
    if attribute is not None:
        values = environment.call_filter("map", iterable, kwargs={"attribute": attribute}, context=context)
    total = start
    for value in values:
        total = environment.call_binop(context, "+", total, value)
    return total


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's words for training; here its body is printed as it is."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 reads a set here

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """A namespace that stores nothing under a name that Python itself uses, and does not print what it holds."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _Namespace._refuse(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._refuse(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"

    @staticmethod
    def _refuse(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace cannot store {name!r}")


class _Dict:
    """``dict`` as templates may call it, without the class and its attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    if len(form) > LONGEST_TIME_FORMAT:
        raise Excess(f"it writes the time in more than {LONGEST_TIME_FORMAT:,} characters")
    return datetime.now().strftime(form)
