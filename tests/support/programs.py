"""Random row programs with awkward shapes: odd sizes, strides, joins, several axes, groups, layers that repeat."""

from __future__ import annotations

import random
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bossa.adapters import Pair
from bossa.adapters.match import Matched
from bossa.ir.program import Op, Program
from bossa.ir.slot import Slot, Source
from bossa.ir.values import Apply, Cat, Const, Expr, Shape, Value, View, contiguous_strides, whole
from bossa.ir.verify import verify
from bossa.ops import Attention, CausalConv, Embed, Linear, Map, Reduce, Select

_UNARY = ("neg", "abs", "tanh", "sigmoid", "relu", "silu", "gelu", "gelu_tanh", "cos", "softplus")
_BINARY = ("add", "sub", "mul", "min", "max")
LENGTH = 40


def random_program(chance: random.Random, *, layers: int | None = None, select: bool = False) -> Program:
    """A verified program; the same for the same state of `chance`."""
    program = _Builder(chance).build(chance.randint(1, 3) if layers is None else layers, select)
    verify(program)
    return program


def random_weights(program: Program, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Weights by slot, in the slots' logical shapes; matrices scaled so that sums stay near 1."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(slot.shape) / (slot.shape[-1] ** 0.5 if len(slot.shape) > 1 else 2)).astype(
            np.float32
        )
        for name, slot in program.slots.items()
    }


def joined(before: Program, after: Program, weights: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """The weights of a program's slots after a pass, from those of before it, by the tensors they are made of."""
    tensors = {}
    for name, slot in before.slots.items():
        (source,) = slot.sources
        tensors[source.names[0]] = weights[name].T if source.transpose else weights[name]
    result = {}
    for name, slot in after.slots.items():
        parts = [tensors[s.names[0]].T if s.transpose else tensors[s.names[0]] for s in slot.sources]
        if slot.interleave:
            result[name] = np.stack([p.reshape(-1, 16, p.shape[1]) for p in parts], 1).reshape(slot.shape)
        else:
            result[name] = np.concatenate(parts).reshape(slot.shape)
    return result


def flat(value: Value) -> View:
    """All of a value along one axis."""
    return View("value", value.name, (value.size,), (1,))


class _Builder:
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.ops: list[Op] = []
        self.slots: dict[str, Slot] = {}
        self.tables: dict[str, NDArray[Any]] = {}
        self.values: list[Value] = []
        self.layers = 0
        self.second: Value | None = None
        self.count = 0
        self.vocabulary = chance.choice((1, 7, 16, 33))
        self.width = chance.choice((1, 3, 8, 16, 17, 32, 35))

    def build(self, layers: int, select: bool) -> Program:
        stream = self.define((self.width,))
        self.ops.append(Embed(stream, self.slot("embed", "rows", (self.vocabulary + 2, self.width)), "tokens"))
        if self.chance.random() < 0.5:
            self.tables["t0"] = self.numbers((LENGTH, 2, 3))
        if self.chance.random() < 0.3:
            self.tables["places"] = np.asarray([self.chance.randrange(5) for _ in range(LENGTH)], np.int32)
            place = self.define((self.width,))
            self.ops.append(Embed(place, self.slot("positions", "rows", (5, self.width)), "places"))
        if self.chance.random() < 0.5:  # a second value that goes from layer to layer
            self.second = self.define((self.width,))
            self.ops.append(Map(self.second, Apply("cos", (whole(stream),))))
        kinds = [self.chance.getrandbits(30) for _ in range(self.chance.choice((1, 1, 2)))]
        for layer in range(layers):
            stream = self.layer(stream, f"layers.{layer}", random.Random(kinds[layer % len(kinds)]))
        if select:
            chosen = Value(f"{stream.name}_selected", stream.shape)
            self.ops.append(Select(chosen, whole(stream)))
            self.values, stream = [chosen], chosen
        logits = self.define((self.vocabulary,))
        self.ops.append(Linear(logits, whole(stream), self.slot("head", "panels", (self.vocabulary, self.width))))
        return Program(
            "random", self.vocabulary, LENGTH, tuple(self.ops), logits.name, self.slots, self.tables
        )  # fmt: skip

    def layer(self, stream: Value, name: str, chance: random.Random) -> Value:
        """Ops on the residual stream; the same ones for the same state of `chance`, with weights of their own."""
        outer, self.chance = self.chance, chance
        self.values = [stream] if self.second is None else [stream, self.second]
        for step in range(chance.randint(2, 5)):
            getattr(self, chance.choice(("map", "map", "reduce", "linear", "groups", "attention", "conv", "gate")))(
                f"{name}.{step}"
            )
        made = self.values[-3:]
        last = made[-1]
        if len(made) > 1 and chance.random() < 0.7:  # so that the passes find little that is dead
            last = self.define((sum(value.size for value in made),))
            parts = tuple(flat(value) for value in made)
            self.ops.append(Map(last, Cat(0, tuple(value.size for value in made), parts)))
        out = self.define((self.width,))
        self.ops.append(Linear(out, flat(last), self.slot(f"{name}.out", "panels", (self.width, last.size))))
        result = self.define(stream.shape)
        before: Expr = whole(stream)
        if self.width > 1 and chance.random() < 0.25:  # halves swapped: not to be computed in place
            cut = self.width // 2
            rest = self.width - cut
            halves = (View("value", stream.name, (cut,), (1,), rest), View("value", stream.name, (rest,), (1,)))
            before = Cat(0, (cut, rest), halves)
        pair = (before, whole(out))
        self.ops.append(Map(result, Apply("add", pair if chance.random() < 0.5 else pair[::-1])))
        if self.second is not None:
            old, self.second = self.second, self.define(self.second.shape)
            self.ops.append(Map(self.second, Apply("tanh", (Apply("sub", (whole(out), whole(old))),))))
        self.chance = outer
        return result

    # -- ops --------------------------------------------------------------------------------------------------------

    def map(self, name: str) -> None:
        shape = self.chance.choice(((5,), (16,), (33,), (2, 3), (4, 16), (3, 1, 7), (2, 3, 4), ()))
        expr = self.expr(shape, name, 3)
        self.ops.append(Map(self.define(shape), expr))

    def reduce(self, name: str) -> None:
        domain = self.chance.choice(((5,), (16,), (47,), (2, 3), (3, 1, 7), (2, 3, 20)))
        axes = self.chance.randint(1, len(domain))
        kind = self.chance.choice(("sum", "mean", "max", "min"))
        expr = self.expr(domain, name, 2)
        self.ops.append(Reduce(self.define(domain[: len(domain) - axes]), kind, domain, axes, expr))

    def linear(self, name: str) -> None:
        x = self.chance.choice(self.values)
        inputs = x.size - self.chance.randrange(min(x.size, 3))
        view = View("value", x.name, (inputs,), (1,), x.size - inputs)
        outputs = self.chance.choice((1, 4, 16, 19, 48))
        bias = self.slot(f"{name}.bias", "flat", (outputs,)) if self.chance.random() < 0.5 else None
        transpose = self.chance.random() < 0.3
        weight = self.slot(f"{name}.weight", "panels", (outputs, inputs), transpose=transpose)
        out = self.define((outputs,))
        self.ops.append(Linear(out, view, weight, bias))
        if self.chance.random() < 0.6:
            epilogue = Apply(self.chance.choice(_BINARY), (whole(out), self.view((outputs,), f"{name}.e")))
            self.ops.append(Map(self.define((outputs,)), Apply("tanh", (epilogue,))))

    def groups(self, name: str) -> None:
        """A linear with a leading axis."""
        x = self.chance.choice(self.values)
        groups = next(g for g in (3, 2, 5, 1) if x.size % g == 0)
        inputs, outputs = x.size // groups, self.chance.choice((1, 5, 16, 18))
        view = View("value", x.name, (groups, inputs), (inputs, 1))
        bias = self.slot(f"{name}.bias", "flat", (outputs,)) if self.chance.random() < 0.5 else None
        weight = self.slot(f"{name}.weight", "panels", (outputs, inputs))
        self.ops.append(Linear(self.define((groups, outputs)), view, weight, bias))

    def gate(self, name: str) -> None:
        """Two linears that meet in a product."""
        x = self.chance.choice(self.values)
        outputs = self.chance.choice((16, 48, 20))
        both = []
        for part in ("gate", "up"):
            weight = self.slot(f"{name}.{part}", "panels", (outputs, x.size))
            bias = self.slot(f"{name}.{part}.bias", "flat", (outputs,)) if self.chance.random() < 0.5 else None
            both.append(self.define((outputs,)))
            self.ops.append(Linear(both[-1], flat(x), weight, bias))
        product = Apply("mul", (Apply("silu", (whole(both[0]),)), whole(both[1])))
        self.ops.append(Map(self.define((outputs,)), product))

    def attention(self, name: str) -> None:
        chance = self.chance
        heads, repeats = chance.choice(((1, 1), (2, 1), (4, 2), (3, 3), (6, 2)))
        groups, d, e = heads // repeats, chance.choice((1, 3, 8, 16)), chance.choice((2, 5, 16))
        x = chance.choice(self.values)
        views = []
        for part, count, size in (("q", heads, d), ("k", groups, d), ("v", groups, e)):
            out = self.define((count * size,))
            self.ops.append(Linear(out, flat(x), self.slot(f"{name}.{part}", "panels", (count * size, x.size))))
            views.append(View("value", out.name, (count, size), (size, 1)))
        bias = None
        if chance.random() < 0.3:
            bias = f"bias{heads}"
            slopes = np.arange(1, heads + 1, dtype=np.float32) / 10
            self.tables.setdefault(bias, (np.arange(LENGTH, dtype=np.float32)[:, None] * slopes).astype(np.float32))
        sinks = self.slot(f"{name}.sinks", "flat", (heads,)) if chance.random() < 0.3 else None
        window, softcap = chance.choice((0, 0, 5, 33)), chance.choice((0.0, 0.0, 3.0))
        out = self.define((heads, e))
        self.ops.append(Attention(out, *views, self.layers, d**-0.5, window, softcap, bias, sinks))
        self.layers += 1

    def conv(self, name: str) -> None:
        chance = self.chance
        x = chance.choice(self.values)
        channels = x.size - chance.randrange(min(x.size, 3))
        view = View("value", x.name, (channels,), (1,), x.size - channels)
        taps, dilation = chance.choice((2, 3, 4, 7)), chance.choice((1, 1, 2, 3))
        delay = chance.choice((0, 0, 0, 1, 5))
        across = chance.random() < 0.3  # the taps of all channels beside each other
        shape = (taps, channels) if across else (channels, taps)
        strides = (1, channels) if across else (taps, 1)
        weight = View("weight", self.slot(f"{name}.taps", "flat", shape), (channels, taps), strides)
        self.ops.append(CausalConv(self.define((channels,)), view, weight, self.layers, dilation, delay))
        self.layers += 1

    # -- expressions ------------------------------------------------------------------------------------------------

    def expr(self, shape: Shape, name: str, depth: int) -> Expr:
        chance = self.chance
        roll = chance.random()
        if depth == 0 or roll < 0.2:
            return self.view(shape, name)
        if roll < 0.3:
            return Const(chance.choice((-1.5, 0.25, 1.0)))
        if roll < 0.5:
            return Apply(chance.choice(_UNARY), (self.expr(shape, name, depth - 1),))
        if roll < 0.6:  # a leak, continuous where it bends
            x = self.expr(shape, name, depth - 1)
            return Apply("where", (Apply("gt", (x, Const(0.0))), x, Apply("mul", (Const(0.1), x))))
        if roll < 0.75 and shape and max(shape) > 1:
            axis = chance.choice([axis for axis, extent in enumerate(shape) if extent > 1])
            cut = chance.randint(1, shape[axis] - 1)
            sizes = (cut, shape[axis] - cut)
            parts = tuple(
                self.expr((*shape[:axis], size, *shape[axis + 1 :]), f"{name}.{i}", depth - 1)
                for i, size in enumerate(sizes)
            )
            return Cat(axis, sizes, parts)
        pair = (self.expr(shape, f"{name}.l", depth - 1), self.expr(shape, f"{name}.r", depth - 1))
        return Apply(chance.choice(_BINARY), pair)

    def view(self, shape: Shape, name: str) -> View:
        """A strided view of a value, a table or a new weight."""
        chance = self.chance
        roll = chance.random()
        size = prod(shape)
        if roll < 0.2:
            return View(
                "weight",
                self.slot(f"{name}.w{len(self.slots)}", "flat", shape or (1,)),
                shape,
                contiguous_strides(shape),
            )
        if roll < 0.3 and "t0" in self.tables:
            return self.strided("table", "t0", 6, shape)
        fitting = [value for value in self.values if value.size == size]
        if fitting and chance.random() < 0.7:
            return View("value", chance.choice(fitting).name, shape, contiguous_strides(shape))
        value = chance.choice(self.values)
        return self.strided("value", value.name, value.size, shape)

    def strided(self, space: Any, name: str, size: int, shape: Shape) -> View:
        strides, room = [0] * len(shape), size - 1
        for axis in self.chance.sample(range(len(shape)), len(shape)):
            most = room // (shape[axis] - 1) if shape[axis] > 1 else 1
            strides[axis] = self.chance.randint(0, min(most, 3))
            room -= strides[axis] * (shape[axis] - 1)
        return View(space, name, shape, tuple(strides), self.chance.randint(0, max(room, 0)))

    # -- names ------------------------------------------------------------------------------------------------------

    def define(self, shape: Shape) -> Value:
        self.count += 1
        named = Value(f"v{self.count}", shape)
        self.values.append(named)
        return named

    def slot(self, name: str, layout: Any, shape: Shape, transpose: bool = False) -> str:
        source = Source((name,), shape[::-1] if transpose else shape, transpose)
        self.slots[name] = Slot(name, layout, shape, "fp32", (source,))
        return name

    def numbers(self, shape: Shape) -> NDArray[np.float32]:
        return np.asarray([self.chance.uniform(-1, 1) for _ in range(prod(shape))], np.float32).reshape(shape)


def random_pairs(program: Program, seed: int = 0) -> Matched:
    """What an adapter may have beside the slots of a program: ranks from 1 to 40, beside some sources alone."""
    rng = np.random.default_rng(seed)
    matched: Matched = {}
    for name, slot in program.slots.items():
        parts: list[Pair | None] = []
        for source in slot.sources if slot.layout == "panels" else ():
            n, k = source.shape[::-1] if source.transpose else source.shape
            rank = int(rng.choice([0, 0, 1, 4, 16, 17, 40]))
            down = (rng.standard_normal((rank, k)) / k**0.5).astype(np.float32)
            up = (rng.standard_normal((n, rank)) / max(rank, 1) ** 0.5).astype(np.float32)
            parts.append(Pair(down, up) if rank else None)
        if any(part is not None for part in parts):
            matched[name] = tuple(parts)
    return matched
