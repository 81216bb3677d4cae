// Elementary functions on 16 lanes, the same bits on every CPU. Coefficients are our own minimax fits, made by Lawson's
// iteratively reweighted least squares on Chebyshev nodes; the range reductions are the textbook ones, named below.
#pragma once

#include "lanes.h"

namespace bossa {

constexpr float kInfinity = __builtin_inff();
constexpr float kLog2E = 0x1.715476p+0f;

namespace detail {

// c[0] + c[1] x + ... + c[n - 1] x^(n - 1), by Horner's rule.
template <int n>
inline __attribute__((always_inline)) f16 polynomial(f16 x, const float (&c)[n]) {
  f16 y = splat(c[n - 1]);
#pragma GCC unroll 16
  for (int i = n - 2; i >= 0; i--) y = fma(y, x, splat(c[i]));
  return y;
}

// e^r = 1 + r + r^2 P(r) for |r| <= log(2) / 2; P is off by 3e-9 of e^r.
inline f16 exp_reduced(f16 r) {
  constexpr float c[] = {1.0f, 1.0f, 0.5f, 0x1.55549p-3f, 0x1.55545ep-5f, 0x1.123b46p-7f, 0x1.6db414p-10f};
  return polynomial(r, c);
}

// x - n log(2), log(2) in two floats (Cody and Waite, Software Manual for the Elementary Functions, 1980).
inline f16 less_logs_of_2(f16 x, f16 n) {
  return fma(n, splat(0x1.05c61p-29f), fma(n, splat(-0x1.62e43p-1f), x));
}

// y 2^n for integers n in [-252, 254], rounded once even when the result is subnormal.
inline f16 scale_by_pow2(f16 y, f16 n) {
  const f16 half = floor(n * splat(0.5f));
  return y * pow2(half) * pow2(n - half);
}

}  // namespace detail

// Within 1 ulp; 0 below -104, infinity above 88.73.
inline f16 exp(f16 x) {
  const f16 clipped = at_most(at_least(x, splat(-104.0f)), splat(89.0f)), n = round(clipped * splat(kLog2E));
  return detail::scale_by_pow2(detail::exp_reduced(detail::less_logs_of_2(clipped, n)), n);
}

// 2^x, within 2 ulp.
inline f16 exp2(f16 x) {
  const f16 clipped = at_most(at_least(x, splat(-151.0f)), splat(129.0f));
  const f16 n = round(clipped);
  return detail::scale_by_pow2(detail::exp_reduced((clipped - n) * splat(0x1.62e43p-1f)), n);
}

// 2^x for x <= 0, within 2 ulp and exactly 1 at 0, where results under 2^-126 may as well be 0, as in a softmax: at
// -127, pow2_rounded gives 0. The polynomial is off by 9e-8 of 2^r for |r| <= 1/2.
inline __attribute__((always_inline)) f16 exp2_nonpositive(f16 x) {
  constexpr float c[] = {1.0f, 0x1.62e42ap-1f, 0x1.ebf9bcp-3f, 0x1.c6b752p-5f, 0x1.3cea88p-7f, 0x1.5bba14p-10f};
  const f16 clipped = at_least(x, splat(-127.0f));
  const f16 rounder = splat(kPow2Rounder), n = clipped + rounder;
  return detail::polynomial(clipped - (n - rounder), c) * pow2_rounded(n);
}

// Within 1 ulp: x = m 2^e with m in [2/3, 4/3), and log m = 2 atanh(s) with s = (m - 1) / (m + 1), arranged as in
// fdlibm's e_log.c (Sun, 1993) so that the large terms cancel exactly.
inline f16 log(f16 x) {
  constexpr float c[] = {0x1.555554p-1f, 0x1.999c8cp-2f, 0x1.23cea6p-2f, 0x1.f01f5ep-3f};
  const f16 smallest = splat(0x1p-126f);
  const f16 subnormal = lt(x, smallest);
  f16 e;
  const f16 m = split(where(subnormal, x * splat(0x1p+23f), x), &e);
  e = e - subnormal * splat(23.0f);
  const f16 f = m - splat(1.0f);
  const f16 s = f / (splat(2.0f) + f);
  const f16 z = s * s;
  const f16 tail = z * detail::polynomial(z, c);
  const f16 half_square = splat(0.5f) * f * f;
  const f16 low = fma(s, half_square + tail, e * splat(0x1.2fefa4p-17f));
  const f16 finite = fma(e, splat(0x1.62e3p-1f), f - (half_square - low));
  const f16 bounded = where(eq(x, splat(kInfinity)), x, finite);
  return where(gt(x, splat(0.0f)), bounded, where(eq(x, splat(0.0f)), splat(-kInfinity), splat(__builtin_nanf(""))));
}

// log(1 + x), within 2 ulp: log(u) for the rounded u = 1 + x, and the first-order term of what rounding lost
// (Goldberg, What Every Computer Scientist Should Know About Floating-Point Arithmetic, 1991, theorem 4, in sum form).
inline f16 log1p(f16 x) {
  const f16 one = splat(1.0f);
  const f16 u = one + x;
  const f16 corrected = log(u) + (x - (u - one)) / u;
  const f16 plain = log(u);
  return where(eq(u, one), x, where(lt(abs(plain), splat(kInfinity)), corrected, plain));
}

// Below 0.625 an odd polynomial, above 1 - 2 / (e^2|x| + 1) (Cody and Waite). Within 2 ulp.
inline f16 tanh(f16 x) {
  constexpr float c[] = {-0x1.555534p-2f, 0x1.110768p-3f, -0x1.b84448p-5f, 0x1.5256d8p-6f, -0x1.76ac1ap-8f};
  const f16 one = splat(1.0f);
  const f16 z = x * x;
  const f16 small = fma(x * z, detail::polynomial(z, c), x);
  const f16 magnitude = abs(x);
  const f16 large = one - splat(2.0f) / (exp(magnitude + magnitude) + one);
  return copysign(where(lt(magnitude, splat(0.625f)), small, large), x);
}

// Below 0.9 an odd polynomial, above 1 - e^q with q a fit to log(erfc|x|). Within 2 ulp.
inline f16 erf(f16 x) {
  constexpr float near[] = {0x1.06eba8p-3f,  -0x1.812744p-2f,  0x1.ce2e6p-4f,  -0x1.b8162ap-6f,
                            0x1.5513f2p-8f, -0x1.acf7fap-11f, 0x1.66251ep-14f};
  constexpr float far[] = {0x1.65ac06p-13f, -0x1.212698p+0f,  -0x1.444b42p-1f, -0x1.bb565p-4f,
                           0x1.9b1956p-6f,  -0x1.10aa04p-8f, 0x1.c54d4ap-12f, -0x1.5ecd9ep-16f};
  const f16 z = x * x;
  const f16 magnitude = abs(x);
  const f16 small = fma(x, detail::polynomial(z, near), x);
  const f16 large = splat(1.0f) - exp(detail::polynomial(at_most(magnitude, splat(4.0f)), far));
  return where(lt(magnitude, splat(0.9f)), small, copysign(large, x));
}

inline f16 reciprocal(f16 x) { return splat(1.0f) / x; }
inline f16 rsqrt(f16 x) { return splat(1.0f) / sqrt(x); }
inline f16 relu(f16 x) { return at_least(x, splat(0.0f)); }

namespace detail {

// 1 / d for d in [1, 2], exact at both ends, within an ulp: the quadratic whose relative error is a Chebyshev polynomial, at
// most 1/99, then a step of third and one of second order (Newton's, as Householder generalized it).
inline f16 reciprocal_of_1_to_2(f16 d) {
  const f16 one = splat(1.0f), rough = fma(fma(splat(32.0f / 99), d, splat(-144.0f / 99)), d, splat(210.0f / 99));
  const f16 off = fma(-d, rough, one), near = fma(rough, fma(off, off, off), rough);
  return fma(near, fma(-d, near, one), near);
}

}  // namespace detail

// 1 / (1 + e^-x) or e^x / (e^x + 1), whichever has an exp below 1, without a division: within 2 ulp; 0 below -88.
inline __attribute__((always_inline)) f16 sigmoid(f16 x) {
  const f16 z = at_least(-abs(x), splat(-88.0f)), rounder = splat(kPow2Rounder);
  const f16 n = fma(z, splat(kLog2E), rounder), r = detail::less_logs_of_2(z, n - rounder);
  const f16 power = detail::exp_reduced(r) * pow2_rounded(n), one = splat(1.0f);
  return where_negative(x, power, one) * detail::reciprocal_of_1_to_2(one + power);
}

inline f16 silu(f16 x) { return x * sigmoid(x); }

// x Phi(x).
inline f16 gelu(f16 x) { return splat(0.5f) * x * (splat(1.0f) + erf(x * splat(0x1.6a09e6p-1f))); }

// 0.5 x (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), written as x sigmoid(2 u): one exp and no cancellation.
inline f16 gelu_tanh(f16 x) {
  const f16 cubic = fma(x * x * splat(0.044715f), x, x);
  return x * sigmoid(cubic * splat(0x1.988454p+0f));
}

// log(1 + e^x), without overflow.
inline f16 softplus(f16 x) { return at_least(x, splat(0.0f)) + log1p(exp(-abs(x))); }

namespace detail {

template <class F>
inline f16 each_lane(f16 x, F&& f) {
  float lanes[kLanes];
  store(lanes, x);
  for (int i = 0; i < kLanes; i++) lanes[i] = f(lanes[i]);
  return load(lanes);
}

// sin(x + quarters pi / 2). pi / 2 is taken away in two doubles (Cody and Waite), the first with 25 bits, so that its
// multiples are exact up to 2^28; beyond, the angle is first reduced by the double next to 2 pi and means little.
inline float sin1(float x, int quarters) {
  if (!(__builtin_fabsf(x) < kInfinity)) return x - x;
  double angle = (double)x;
  if (__builtin_fabs(angle) > 0x1p+28) angle = __builtin_fmod(angle, 0x1.921fb54442d18p+2);
  const double turns = __builtin_rint(angle * 0x1.45f306dc9c883p-1);
  const int64_t count = (int64_t)turns;
  const double r = (angle - (double)count * 0x1.921fb5p+0) - (double)count * 0x1.110b4611a6263p-26;
  const double z = r * r;
  const int64_t quadrant = count + quarters;
  double y;
  if (quadrant & 1) {
    y = ((0x1.99342eecb54fap-16 * z - 0x1.6c087e8481a4ap-10) * z + 0x1.55553e105c37cp-5) * z - 0x1.ffffffd0c5feap-2;
    y = 1.0 + z * y;
  } else {
    y = ((0x1.6cd879515813fp-19 * z - 0x1.a00f9e2ef4191p-13) * z + 0x1.11110896f270ep-7) * z - 0x1.5555554cbacadp-3;
    y = r * (1.0 + z * y);
  }
  return (float)(quadrant & 2 ? -y : y);
}

// log(x) in double, for finite x > 0: 2 atanh(s) by its Taylor series, 4e-16 from where |s| <= 0.2 leaves it.
inline double log1(float x) {
  double m = (double)x;
  int64_t bits;
  memcpy(&bits, &m, sizeof bits);
  const int64_t base = 0x3fe5555555555555;  // 2/3
  const int64_t e = (bits - base) >> 52;
  bits -= e * ((int64_t)1 << 52);
  memcpy(&m, &bits, sizeof m);
  const double s = (m - 1.0) / (m + 1.0);
  const double z = s * s;
  double series = 0.0;
  for (int j = 21; j >= 1; j -= 2) series = series * z + 1.0 / j;
  return (double)e * 0x1.62e42fefa39efp-1 + 2.0 * s * series;
}

// e^x in double for |x| <= 700, by the Taylor series about the nearest multiple of log(2).
inline double exp1(double x) {
  const double n = __builtin_rint(x * 0x1.71547652b82fep+0);
  const double r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
  double series = 1.0;
  for (int j = 13; j >= 1; j--) series = 1.0 + series * r * (1.0 / j);
  const int64_t bits = ((int64_t)n + 1023) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  return series * power;
}

// IEEE 754-2019 pow, special cases included.
inline float pow1(float x, float y) {
  if (y == 0.0f || x == 1.0f) return 1.0f;
  if (x != x || y != y) return x + y;
  const float magnitude = __builtin_fabsf(x);
  const bool whole = __builtin_fabsf(y) >= 0x1p+24f || __builtin_rintf(y) == y;
  const bool odd = whole && __builtin_fabsf(y) < 0x1p+24f && ((int64_t)y & 1);
  if (x < 0.0f && magnitude < kInfinity && !whole) return __builtin_nanf("");
  float result;
  if (magnitude == 1.0f) {
    result = 1.0f;
  } else if (magnitude == 0.0f || magnitude == kInfinity || __builtin_fabsf(y) == kInfinity) {
    result = (magnitude > 1.0f) == (y > 0.0f) ? kInfinity : 0.0f;
  } else {
    const double power = (double)y * log1(magnitude);
    result = (float)exp1(power < -700.0 ? -700.0 : power > 700.0 ? 700.0 : power);
  }
  return odd && __builtin_signbit(x) ? -result : result;
}

}  // namespace detail

// Within 1 ulp for |x| < 2^28.
inline f16 sin(f16 x) {
  return detail::each_lane(x, [](float v) { return detail::sin1(v, 0); });
}

inline f16 cos(f16 x) {
  return detail::each_lane(x, [](float v) { return detail::sin1(v, 1); });
}

// Within 1 ulp.
inline f16 pow(f16 x, f16 y) {
  float exponents[kLanes];
  store(exponents, y);
  const float* exponent = exponents;
  return detail::each_lane(x, [&](float v) { return detail::pow1(v, *exponent++); });
}

}  // namespace bossa
