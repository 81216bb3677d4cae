// 16 logical float lanes, the unit that every kernel is written in: two AVX2 registers, one AVX-512 register, or an
// array. Every operation gives the same bits in all three.
//
// - max and min: NaN when either operand is NaN (the first one's, if both are); for equal operands, zeros of different
//   sign among them, the second.
// - at_least(a, bound), at_most(a, bound): max and min, at a third of their price; a where the bound is NaN.
// - lt le gt ge eq ne: 1.0 where true, else 0.0; with a NaN only `ne` is true.
// - where(cond, a, b): a where cond is not zero (a NaN is not zero), else b.
// - where_negative(x, a, b): a where x has its sign bit set, -0.0 and some NaNs among them, else b.
// - round: to nearest, halves to even.
// - pow2(n): 2^n for integers n in [-126, 127], 0 for -127, infinity for 128; unspecified elsewhere.
// - pow2_rounded(n + kPow2Rounder): the same, at less; the sum has rounded n to an integer.
// - split(x, &e): m in [2/3, 4/3) with x = m 2^e, for positive normal x; unspecified elsewhere.
// - sum, maximum, minimum: one tree; lane i meets lane i + 8, then i + 4, i + 2, i + 1.
// - counts n of load_n, store_n, ... are clipped to 0..16; lanes past n are never read or written in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bossa {

constexpr int kLanes = 16;

// 3 * 2^22, where the next float is 1 more, and the bias of an exponent: what is added comes out in the lowest bits.
constexpr float kPow2Rounder = 0x1.8p+23f + 127.0f;

// The upper half of a float.
struct bf16 {
  uint16_t bits;
};

namespace detail {

// The bits of 2/3: mantissas are split there, so that log's argument lies evenly about 1.
constexpr int32_t kSplitBase = 0x3f2aaaab;

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

constexpr size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

inline float from_bits(int32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

inline int32_t to_bits(float x) {
  int32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline int clip_lanes(int n) { return n < 0 ? 0 : n > kLanes ? kLanes : n; }

}  // namespace detail
}  // namespace bossa

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include "lanes_avx512.h"
#define BOSSA_LANES_AVX512 1
#elif defined(__AVX2__) && defined(__FMA__)
#include "lanes_avx2.h"
#define BOSSA_LANES_AVX2 1
#else
#include "lanes_portable.h"
#endif

namespace bossa {

inline f16 load_n(const bf16* p, int n) {
  bf16 lanes[kLanes] = {};
  memcpy(lanes, p, sizeof(bf16) * (size_t)detail::clip_lanes(n));
  return load(lanes);
}

// Lane i from p[i * stride].
inline f16 load_strided(const float* p, ptrdiff_t stride, int n) {
  float lanes[kLanes] = {};
  for (int i = 0; i < detail::clip_lanes(n); i++) lanes[i] = p[i * stride];
  return load(lanes);
}

inline void store_strided(float* p, ptrdiff_t stride, f16 x, int n) {
  float lanes[kLanes];
  store(lanes, x);
  for (int i = 0; i < detail::clip_lanes(n); i++) p[i * stride] = lanes[i];
}

// 1.0 in the first n lanes, else 0.0.
inline f16 lane_mask_n(int n) {
  static const float window[2 * kLanes] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  return load(window + kLanes - detail::clip_lanes(n));
}

// The tree of maximum: negation is exact, and swaps max's choice among equals and NaNs in no way.
inline float minimum(f16 x) { return -maximum(-x); }

}  // namespace bossa
