// 16 lanes as one 512-bit register (x86-64-v4). Included by lanes.h.
#pragma once

#include <immintrin.h>

namespace bossa {

struct f16 {
  __m512 v;
};

namespace detail {

inline __mmask16 first_lanes(int n) { return (__mmask16)((1u << clip_lanes(n)) - 1u); }

template <int predicate>
inline f16 compare(f16 a, f16 b) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, b.v, predicate), _mm512_set1_ps(1.0f))};
}

inline __m256 max_half(__m256 a, __m256 b) {
  return _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}

inline __m128 max_quarter(__m128 a, __m128 b) {
  return _mm_blendv_ps(_mm_max_ps(a, b), a, _mm_cmp_ps(a, a, _CMP_UNORD_Q));
}

}  // namespace detail

inline f16 splat(float x) { return {_mm512_set1_ps(x)}; }

inline f16 load(const float* p) { return {_mm512_loadu_ps(p)}; }

inline f16 load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(detail::first_lanes(n), p)}; }

inline f16 load(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)))};
}

inline f16 load(const bf16* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))};
}

inline void store(float* p, f16 x) { _mm512_storeu_ps(p, x.v); }

inline void store_n(float* p, f16 x, int n) { _mm512_mask_storeu_ps(p, detail::first_lanes(n), x.v); }

inline f16 operator+(f16 a, f16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline f16 operator-(f16 a, f16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline f16 operator*(f16 a, f16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline f16 operator/(f16 a, f16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline f16 operator-(f16 a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }

inline f16 fma(f16 a, f16 b, f16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }

inline f16 max(f16 a, f16 b) {
  return {_mm512_mask_mov_ps(_mm512_max_ps(a.v, b.v), _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), a.v)};
}

inline f16 min(f16 a, f16 b) {
  return {_mm512_mask_mov_ps(_mm512_min_ps(a.v, b.v), _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), a.v)};
}

inline f16 at_least(f16 a, f16 bound) { return {_mm512_max_ps(bound.v, a.v)}; }
inline f16 at_most(f16 a, f16 bound) { return {_mm512_min_ps(bound.v, a.v)}; }
inline f16 sqrt(f16 a) { return {_mm512_sqrt_ps(a.v)}; }
inline f16 floor(f16 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
inline f16 round(f16 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline f16 abs(f16 a) { return {_mm512_abs_ps(a.v)}; }

inline f16 copysign(f16 magnitude, f16 sign_of) {
  const __m512 sign = _mm512_set1_ps(-0.0f);
  return {_mm512_or_ps(_mm512_andnot_ps(sign, magnitude.v), _mm512_and_ps(sign, sign_of.v))};
}

inline f16 lt(f16 a, f16 b) { return detail::compare<_CMP_LT_OQ>(a, b); }
inline f16 le(f16 a, f16 b) { return detail::compare<_CMP_LE_OQ>(a, b); }
inline f16 gt(f16 a, f16 b) { return detail::compare<_CMP_GT_OQ>(a, b); }
inline f16 ge(f16 a, f16 b) { return detail::compare<_CMP_GE_OQ>(a, b); }
inline f16 eq(f16 a, f16 b) { return detail::compare<_CMP_EQ_OQ>(a, b); }
inline f16 ne(f16 a, f16 b) { return detail::compare<_CMP_NEQ_UQ>(a, b); }

inline f16 where(f16 cond, f16 a, f16 b) {
  return {_mm512_mask_mov_ps(b.v, _mm512_cmp_ps_mask(cond.v, _mm512_setzero_ps(), _CMP_NEQ_UQ), a.v)};
}

inline f16 where_negative(f16 x, f16 a, f16 b) {
  return {_mm512_mask_mov_ps(b.v, _mm512_movepi32_mask(_mm512_castps_si512(x.v)), a.v)};
}

inline f16 pow2_rounded(f16 n) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(n.v), 23))}; }

inline f16 pow2(f16 n) {
  return {_mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23))};
}

inline f16 split(f16 x, f16* exponent) {
  const __m512i base = _mm512_set1_epi32(detail::kSplitBase);
  const __m512i shifted = _mm512_sub_epi32(_mm512_castps_si512(x.v), base);
  exponent->v = _mm512_cvtepi32_ps(_mm512_srai_epi32(shifted, 23));
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_and_si512(shifted, _mm512_set1_epi32(0x7fffff)), base))};
}

inline __attribute__((always_inline)) float maximum(f16 x) {
  const __m256 eight = detail::max_half(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  const __m128 four = detail::max_quarter(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = detail::max_quarter(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(detail::max_quarter(two, _mm_movehdup_ps(two)));
}

inline float sum(f16 x) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace bossa
