"""The lane functions against NumPy and math in float64, and bit for bit between targets."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Libraries = Callable[[str], list[ctypes.CDLL]]
F32 = NDArray[np.float32]

SPECIAL = np.array(
    [
        *(0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.5, -0.5, 1e-45, -1e-45, 1e-38, 1e-30, -1e-30, 3.4e38, -3.4e38),
        *(88.7, 88.8, 89, 100, -87, -87.4, -103, -104, -110, 2.5, 3.5, -2.5, 0.625, 0.9, 4, -4, 16777216, 1e6, -1e6),
    ],
    dtype=np.float32,
)


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def unary(library: ctypes.CDLL, name: str, x: F32) -> F32:
    y = np.full_like(x, 77)
    assert library.unary(name.encode(), pointer(x), pointer(y), len(x)) == 0
    return y


def binary(library: ctypes.CDLL, name: str, a: F32, b: F32) -> F32:
    y = np.full_like(a, 77)
    assert library.binary(name.encode(), pointer(a), pointer(b), pointer(y), len(a)) == 0
    return y


def samples(lo: float, hi: float, count: int = 20011) -> F32:
    """Evenly spaced and evenly many per power of two, of both signs where the range has them."""
    rng = np.random.default_rng(7)
    spread = np.exp2(rng.uniform(-40, math.log2(max(abs(lo), abs(hi))), count)) * rng.choice([-1.0, 1.0], count)
    x = np.concatenate([np.linspace(lo, hi, count), spread]).astype(np.float32)
    return np.concatenate([x[(x >= lo) & (x <= hi)], SPECIAL])


def same_bits(a: F32, b: F32) -> bool:
    """Equal bit for bit, any NaN being equal to any other: which NaN an operation gives is the CPU's to choose."""
    return bool(np.all((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))))


def vector(f: Callable[[float], float]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    def apply(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([f(float(v)) if math.isfinite(v) else np.nan for v in x])

    return apply


def logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


erf64 = vector(math.erf)

# name: (oracle, range, relative tolerance, absolute tolerance). One ulp of a float is 6e-8 to 1.2e-7 of it.
UNARY: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], tuple[float, float], float, float]] = {
    "exp": (np.exp, (-104, 89), 1.2e-7, 1.5e-45),
    "exp2_nonpositive": (np.exp2, (-125.5, 0), 1.8e-7, 0),
    "exp2": (np.exp2, (-150, 128), 2e-7, 1.5e-45),
    "log": (np.log, (0, 3e38), 1.2e-7, 0),
    "log1p": (np.log1p, (-0.999, 1e9), 2e-7, 0),
    "tanh": (np.tanh, (-12, 12), 2e-7, 0),
    "erf": (erf64, (-6, 6), 2e-7, 1.5e-45),
    "sigmoid": (logistic, (-87, 100), 2.5e-7, 0),
    "silu": (lambda x: x * logistic(x), (-80, 100), 3e-7, 1.5e-45),
    # 1 + erf(x) and (for gelu_tanh) the rounded argument of exp cost relative accuracy where the result is small.
    "gelu": (lambda x: 0.5 * x * (1 + erf64(x / math.sqrt(2))), (-10, 100), 2.5e-7, 5e-7),
    "gelu_tanh": (
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), (-20, 100), 2.5e-7, 5e-7,
    ),
    "softplus": (lambda x: np.logaddexp(x, 0), (-80, 1e6), 3e-7, 0),
    "rsqrt": (lambda x: 1 / np.sqrt(x), (1e-30, 1e30), 1.8e-7, 0),
    "reciprocal": (lambda x: 1 / x, (1e-30, 1e30), 6e-8, 0),
    "sin": (np.sin, (-1e6, 1e6), 6.1e-8, 1e-12),
    "cos": (np.cos, (-1e6, 1e6), 6.1e-8, 1e-12),
    "sqrt": (np.sqrt, (0, 3e38), 6e-8, 0),
    "abs": (np.abs, (-1e9, 1e9), 0, 0),
    "floor": (np.floor, (-1e9, 1e9), 0, 0),
    "round": (np.rint, (-1e9, 1e9), 0, 0),
    "negate": (np.negative, (-1e9, 1e9), 0, 0),
    "relu": (lambda x: np.maximum(x, 0), (-1e9, 1e9), 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_a_function_is_near_the_float64_one_and_has_the_same_bits_on_every_target(
    name: str, on_every_build: Libraries
) -> None:
    oracle, (lo, hi), relative, absolute = UNARY[name]
    x = samples(lo, hi)
    if name == "exp2_nonpositive":
        x = x[~(x > 0)]
    results = [unary(library, name, x) for library in on_every_build("math")]
    inside = (x >= lo) & (x <= hi)
    with np.errstate(all="ignore"):
        expected = oracle(x.astype(np.float64))
        rounded = expected.astype(np.float32)
    checked = inside & np.isfinite(rounded)
    got, wanted = results[0][checked].astype(np.float64), expected[checked]
    excess = np.abs(got - wanted) - (relative * np.abs(wanted) + absolute)
    worst = int(np.argmax(excess))
    assert excess[worst] <= 0, f"{name}({x[checked][worst]!r}) = {got[worst]!r}, not {wanted[worst]!r}"
    overflown = inside & np.isinf(rounded)
    assert np.array_equal(results[0][overflown], rounded[overflown])
    for result in results[1:]:
        assert same_bits(result, results[0])


@pytest.mark.parametrize(
    ("name", "minus_infinity", "minus_zero", "zero", "infinity"),
    [
        ("exp", 0, 1, 1, np.inf),
        ("exp2_nonpositive", 0, 1, 1, None),
        ("exp2", 0, 1, 1, np.inf),
        ("log", np.nan, -np.inf, -np.inf, np.inf),
        ("log1p", np.nan, -0.0, 0, np.inf),
        ("tanh", -1, -0.0, 0, 1),
        ("erf", -1, -0.0, 0, 1),
        ("sigmoid", 0, 0.5, 0.5, 1),
        ("silu", np.nan, -0.0, 0, np.inf),
        ("gelu", np.nan, -0.0, 0, np.inf),
        ("gelu_tanh", np.nan, -0.0, 0, np.inf),
        ("softplus", 0, math.log(2), math.log(2), np.inf),
        ("relu", 0, -0.0, 0, np.inf),
        ("rsqrt", np.nan, -np.inf, np.inf, 0),
        ("reciprocal", -0.0, -np.inf, np.inf, 0),
        ("sin", np.nan, -0.0, 0, np.nan),
        ("cos", np.nan, 1, 1, np.nan),
        ("sqrt", np.nan, -0.0, 0, np.inf),
        ("floor", -np.inf, -0.0, 0, np.inf),
        ("round", -np.inf, -0.0, 0, np.inf),
    ],
)
def test_a_function_keeps_its_limits_and_passes_nan_on(
    name: str, minus_infinity: float, minus_zero: float, zero: float, infinity: float | None, on_every_build: Libraries
) -> None:
    x = np.array([-np.inf, -0.0, 0.0, np.inf, np.nan], dtype=np.float32)
    expected = np.array([minus_infinity, minus_zero, zero, infinity or 0, np.nan], dtype=np.float32)
    for library in on_every_build("math"):
        y = unary(library, name, x)
        if infinity is None:
            y[3] = 0
        np.testing.assert_array_equal(y, expected)
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(y[number]), np.signbit(expected[number]))


def test_logarithms_of_negative_numbers_are_nan(on_every_build: Libraries) -> None:
    for library in on_every_build("math"):
        assert np.isnan(unary(library, "log", np.array([-1e-45, -1, -3e38], dtype=np.float32))).all()


def test_sines_of_huge_angles_stay_between_minus_one_and_one(on_every_build: Libraries) -> None:
    x = np.array([2.7e8, 1e10, -1e20, 3.4e38], dtype=np.float32)
    results = [unary(library, "sin", x) for library in on_every_build("math")]
    assert np.all(np.abs(results[0]) <= 1)
    assert all(same_bits(result, results[0]) for result in results)


def test_powers_of_two_are_exact(on_every_build: Libraries) -> None:
    n = np.arange(-126, 128, dtype=np.float32)
    for library in on_every_build("math"):
        assert np.array_equal(unary(library, "pow2", n), np.exp2(n.astype(np.float64)).astype(np.float32))


def test_pow_follows_ieee_and_is_within_an_ulp(on_every_build: Libraries) -> None:
    rng = np.random.default_rng(3)
    edges = np.array([0.0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, np.inf, -np.inf, np.nan, 16777217, 1e30], np.float32)
    a, b = (grid.ravel() for grid in np.meshgrid(edges, edges))
    a = np.concatenate([a, rng.uniform(0, 50, 3000).astype(np.float32), rng.normal(size=3000).astype(np.float32)])
    b = np.concatenate([b, rng.uniform(-20, 20, 3000).astype(np.float32), rng.integers(-9, 9, 3000).astype(np.float32)])
    with np.errstate(all="ignore"):
        expected = np.power(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)
    results = [binary(library, "pow", a, b) for library in on_every_build("math")]
    np.testing.assert_allclose(results[0], expected, rtol=1.2e-7, atol=1.5e-45)
    assert np.array_equal(np.signbit(results[0])[~np.isnan(expected)], np.signbit(expected)[~np.isnan(expected)])
    assert all(same_bits(result, results[0]) for result in results)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "lt", "le", "gt", "ge", "eq", "ne", "copysign"])
def test_lane_arithmetic_is_ieee_arithmetic(name: str, on_every_build: Libraries) -> None:
    a, b = (grid.ravel().copy() for grid in np.meshgrid(SPECIAL, SPECIAL))
    operators = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "lt": np.less, "le": np.less_equal,
        "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal, "copysign": np.copysign,
    }  # fmt: skip
    with np.errstate(all="ignore"):
        expected = operators[name](a, b).astype(np.float32)
    for library in on_every_build("math"):
        assert same_bits(binary(library, name, a, b), expected)


def test_fma_rounds_once(on_every_build: Libraries) -> None:
    a = np.float32(1 + 2**-12) * np.ones(5, np.float32)
    expected = np.float32((1 + 2**-12) ** 2 + 0.75)
    b = np.full(5, 1 + 2**-12, np.float32)
    for library in on_every_build("math"):
        assert np.array_equal(binary(library, "fma", a, b), np.full(5, expected))


def test_max_and_min_pass_nan_on_and_take_the_second_of_equals(on_every_build: Libraries) -> None:
    a = np.array([1, np.nan, 2, np.nan, -0.0, 0.0, -np.inf, 3], dtype=np.float32)
    b = np.array([2, 1, np.nan, np.nan, 0.0, -0.0, np.inf, -3], dtype=np.float32)
    for library in on_every_build("math"):
        expected_max = np.array([2, np.nan, np.nan, np.nan, 0.0, -0.0, np.inf, 3], dtype=np.float32)
        expected_min = np.array([1, np.nan, np.nan, np.nan, 0.0, -0.0, -np.inf, -3], dtype=np.float32)
        assert same_bits(binary(library, "max", a, b), expected_max)
        assert same_bits(binary(library, "min", a, b), expected_min)


def test_where_takes_the_first_unless_the_condition_is_zero(on_every_build: Libraries) -> None:
    cond = np.array([0.0, -0.0, 1, -2, np.nan, 1e-45, np.inf], dtype=np.float32)
    b = np.arange(7, dtype=np.float32)
    for library in on_every_build("math"):
        assert binary(library, "where", cond, b).tolist() == [-7, -7, 2, 3, 4, 5, 6]


def test_sums_follow_one_tree(on_every_build: Libraries) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        x = (rng.normal(size=16) * 10.0 ** rng.integers(-3, 4, 16)).astype(np.float32)
        tree = x
        while len(tree) > 1:
            half = len(tree) // 2
            tree = tree[:half] + tree[half:]
        for library in on_every_build("math"):
            library.reduce_sum.restype = ctypes.c_float
            assert np.float32(library.reduce_sum(pointer(x))) == tree[0]


def test_the_largest_and_smallest_lane_are_found_wherever_they_are(on_every_build: Libraries) -> None:
    for library in on_every_build("math"):
        library.reduce_max.restype = library.reduce_min.restype = ctypes.c_float
        for lane in range(16):
            x = np.zeros(16, np.float32)
            x[lane] = 5
            assert library.reduce_max(pointer(x)) == 5
            assert library.reduce_min(pointer(-x)) == -5
            x[lane] = np.nan
            assert math.isnan(library.reduce_max(pointer(x)))
            assert math.isnan(library.reduce_min(pointer(x)))


def test_partial_loads_and_stores_touch_only_their_lanes(on_every_build: Libraries) -> None:
    page = 4096
    for library in on_every_build("math"):
        # The array ends where the mapping ends: reading past it would be a fault.
        mapping = mmap.mmap(-1, page)
        room = np.frombuffer(mapping, dtype=np.float32)
        for n in range(1, 34):
            x = room[-n:]
            x[:] = np.arange(n)
            y = np.full(n + 20, 9, np.float32)
            assert library.unary(b"negate", pointer(x), pointer(y), n) == 0
            assert np.array_equal(y[:n], -np.arange(n))
            assert np.all(y[n:] == 9)


def test_masks_gathers_and_widening_handle_every_count(on_every_build: Libraries) -> None:
    lanes = np.arange(16)
    x = np.arange(1, 200, dtype=np.float32)
    halves = np.array([0x3F80, 0x4049, 0xFF80, 0x0001] * 4, np.uint16)
    wide = (halves.astype(np.uint32) << 16).view(np.float32)
    for library in on_every_build("math"):
        for n in range(-1, 18):
            inside = lanes < n
            y = np.full(16, 9, np.float32)
            library.mask(n, pointer(y))
            assert np.array_equal(y, inside.astype(np.float32))
            library.gather(pointer(x), 7, pointer(y), n)
            assert np.array_equal(y, np.where(inside, x[lanes * 7], 0))
            library.widen(pointer(halves), pointer(y), n)
            assert np.array_equal(y, np.where(inside, wide, 0))
            spread = np.full(120, 9, np.float32)
            library.scatter(pointer(spread), 7, pointer(x), n)
            expected = np.full(120, 9, np.float32)
            expected[lanes[inside] * 7] = x[lanes[inside]]
            assert np.array_equal(spread, expected)


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (5, 16), (33, 7), (40, 37)])
def test_embedding_rows_come_out_of_either_layout(rows: int, width: int, on_every_build: Libraries) -> None:
    rng = np.random.default_rng(rows)
    table = rng.normal(size=(rows, width)).astype(np.float32)
    padded = np.zeros((-(-rows // 16) * 16, width), np.float32)
    padded[:rows] = table
    panels = np.ascontiguousarray(padded.reshape(-1, 16, width).transpose(0, 2, 1))
    for library in on_every_build("math"):
        for gather, values in ((library.rows_f32, table), (library.panels_f32, panels)):
            for token in {0, rows - 1, rows // 2}:
                out = np.full(width + 3, 9, np.float32)
                gather(pointer(values), width, token, pointer(out))
                assert np.array_equal(out[:width], table[token])
                assert np.all(out[width:] == 9)
