// 16 lanes as an array: any CPU, no intrinsics, the same bits. Included by lanes.h.
#pragma once

namespace bossa {

struct f16 {
  float v[16];
};

namespace detail {

template <class F>
inline f16 map(F&& f) {
  f16 result;
  for (int i = 0; i < 16; i++) result.v[i] = f(i);
  return result;
}

inline float max1(float a, float b) { return a != a || a > b ? a : b; }
inline float min1(float a, float b) { return a != a || a < b ? a : b; }

}  // namespace detail

inline f16 splat(float x) {
  return detail::map([=](int) { return x; });
}

inline f16 load(const float* p) {
  f16 result;
  memcpy(result.v, p, sizeof result.v);
  return result;
}

inline f16 load_n(const float* p, int n) {
  f16 result = {};
  memcpy(result.v, p, sizeof(float) * (size_t)detail::clip_lanes(n));
  return result;
}

inline f16 load(const bf16* p) {
  return detail::map([=](int i) { return detail::from_bits((int32_t)((uint32_t)p[i].bits << 16)); });
}

inline f16 load(const int8_t* p) {
  return detail::map([=](int i) { return (float)p[i]; });
}

inline void store(float* p, f16 x) { memcpy(p, x.v, sizeof x.v); }

inline void store_n(float* p, f16 x, int n) { memcpy(p, x.v, sizeof(float) * (size_t)detail::clip_lanes(n)); }

inline f16 operator+(f16 a, f16 b) {
  return detail::map([&](int i) { return a.v[i] + b.v[i]; });
}
inline f16 operator-(f16 a, f16 b) {
  return detail::map([&](int i) { return a.v[i] - b.v[i]; });
}
inline f16 operator*(f16 a, f16 b) {
  return detail::map([&](int i) { return a.v[i] * b.v[i]; });
}
inline f16 operator/(f16 a, f16 b) {
  return detail::map([&](int i) { return a.v[i] / b.v[i]; });
}
inline f16 operator-(f16 a) {
  return detail::map([&](int i) { return -a.v[i]; });
}
inline f16 fma(f16 a, f16 b, f16 c) {
  return detail::map([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
inline f16 max(f16 a, f16 b) {
  return detail::map([&](int i) { return detail::max1(a.v[i], b.v[i]); });
}
inline f16 min(f16 a, f16 b) {
  return detail::map([&](int i) { return detail::min1(a.v[i], b.v[i]); });
}
inline f16 at_least(f16 a, f16 bound) {
  return detail::map([&](int i) { return bound.v[i] > a.v[i] ? bound.v[i] : a.v[i]; });
}
inline f16 at_most(f16 a, f16 bound) {
  return detail::map([&](int i) { return bound.v[i] < a.v[i] ? bound.v[i] : a.v[i]; });
}
inline f16 sqrt(f16 a) {
  return detail::map([&](int i) { return __builtin_sqrtf(a.v[i]); });
}
inline f16 floor(f16 a) {
  return detail::map([&](int i) { return __builtin_floorf(a.v[i]); });
}
inline f16 round(f16 a) {
  return detail::map([&](int i) { return __builtin_rintf(a.v[i]); });
}
inline f16 abs(f16 a) {
  return detail::map([&](int i) { return __builtin_fabsf(a.v[i]); });
}
inline f16 copysign(f16 magnitude, f16 sign_of) {
  return detail::map([&](int i) { return __builtin_copysignf(magnitude.v[i], sign_of.v[i]); });
}
inline f16 lt(f16 a, f16 b) {
  return detail::map([&](int i) { return a.v[i] < b.v[i] ? 1.0f : 0.0f; });
}
inline f16 le(f16 a, f16 b) {
  return detail::map([&](int i) { return a.v[i] <= b.v[i] ? 1.0f : 0.0f; });
}
inline f16 gt(f16 a, f16 b) {
  return detail::map([&](int i) { return a.v[i] > b.v[i] ? 1.0f : 0.0f; });
}
inline f16 ge(f16 a, f16 b) {
  return detail::map([&](int i) { return a.v[i] >= b.v[i] ? 1.0f : 0.0f; });
}
inline f16 eq(f16 a, f16 b) {
  return detail::map([&](int i) { return a.v[i] == b.v[i] ? 1.0f : 0.0f; });
}
inline f16 ne(f16 a, f16 b) {
  return detail::map([&](int i) { return a.v[i] != b.v[i] ? 1.0f : 0.0f; });
}
inline f16 where(f16 cond, f16 a, f16 b) {
  return detail::map([&](int i) { return cond.v[i] != 0.0f ? a.v[i] : b.v[i]; });
}

inline f16 where_negative(f16 x, f16 a, f16 b) {
  return detail::map([&](int i) { return __builtin_signbit(x.v[i]) ? a.v[i] : b.v[i]; });
}

inline f16 pow2_rounded(f16 n) {
  return detail::map([&](int i) { return detail::from_bits((int32_t)((uint32_t)detail::to_bits(n.v[i]) << 23)); });
}

inline f16 pow2(f16 n) {
  return detail::map([&](int i) {
    // A NaN or an infinity has no integer to convert; what 2^n is then does not matter, but it must not be undefined.
    const int32_t power = n.v[i] >= -127.0f && n.v[i] <= 128.0f ? (int32_t)n.v[i] : 0;
    return detail::from_bits((power + 127) << 23);
  });
}

inline f16 split(f16 x, f16* exponent) {
  f16 mantissa;
  for (int i = 0; i < 16; i++) {
    // Unsigned, so that the difference may wrap as it does in the vector units.
    const int32_t shifted = (int32_t)((uint32_t)detail::to_bits(x.v[i]) - (uint32_t)detail::kSplitBase);
    exponent->v[i] = (float)(shifted >> 23);
    mantissa.v[i] = detail::from_bits((shifted & 0x7fffff) + detail::kSplitBase);
  }
  return mantissa;
}

inline float maximum(f16 x) {
  float eight[8], four[4];
  for (int i = 0; i < 8; i++) eight[i] = detail::max1(x.v[i], x.v[i + 8]);
  for (int i = 0; i < 4; i++) four[i] = detail::max1(eight[i], eight[i + 4]);
  return detail::max1(detail::max1(four[0], four[2]), detail::max1(four[1], four[3]));
}

inline float sum(f16 x) {
  float eight[8], four[4];
  for (int i = 0; i < 8; i++) eight[i] = x.v[i] + x.v[i + 8];
  for (int i = 0; i < 4; i++) four[i] = eight[i] + eight[i + 4];
  return (four[0] + four[2]) + (four[1] + four[3]);
}

}  // namespace bossa
