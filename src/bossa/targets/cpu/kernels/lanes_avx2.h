// 16 lanes as two 256-bit registers (x86-64-v3). Included by lanes.h.
#pragma once

#include <immintrin.h>

namespace bossa {

struct f16 {
  __m256 lo, hi;
};

namespace detail {

// A window of this table that starts at 16 - n selects the first n lanes.
alignas(64) constexpr int32_t kFirstLanes[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

struct LaneSelect {
  __m256i lo, hi;
};

inline LaneSelect first_lanes(int n) {
  const int32_t* window = kFirstLanes + 16 - clip_lanes(n);
  return {_mm256_loadu_si256((const __m256i*)window), _mm256_loadu_si256((const __m256i*)(window + 8))};
}

template <int predicate>
inline f16 compare(f16 a, f16 b) {
  const __m256 one = _mm256_set1_ps(1.0f);
  return {_mm256_and_ps(_mm256_cmp_ps(a.lo, b.lo, predicate), one),
          _mm256_and_ps(_mm256_cmp_ps(a.hi, b.hi, predicate), one)};
}

inline __m256 max_half(__m256 a, __m256 b) {
  return _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}

inline __m128 max_quarter(__m128 a, __m128 b) {
  return _mm_blendv_ps(_mm_max_ps(a, b), a, _mm_cmp_ps(a, a, _CMP_UNORD_Q));
}

inline __m256 min_half(__m256 a, __m256 b) {
  return _mm256_blendv_ps(_mm256_min_ps(a, b), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}

inline __m256 pow2_half(__m256 n) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}

inline __m256 split_half(__m256 x, __m256* exponent) {
  const __m256i base = _mm256_set1_epi32(kSplitBase);
  const __m256i shifted = _mm256_sub_epi32(_mm256_castps_si256(x), base);
  *exponent = _mm256_cvtepi32_ps(_mm256_srai_epi32(shifted, 23));
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_and_si256(shifted, _mm256_set1_epi32(0x7fffff)), base));
}

inline __m256 widen(__m128i bits) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)); }

inline __m256 widen_bytes(__m128i bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }

}  // namespace detail

inline f16 splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }

inline f16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }

inline f16 load_n(const float* p, int n) {
  if (n >= kLanes) return load(p);
  const detail::LaneSelect select = detail::first_lanes(n);
  return {_mm256_maskload_ps(p, select.lo), _mm256_maskload_ps(p + 8, select.hi)};
}

inline f16 load(const bf16* p) {
  return {detail::widen(_mm_loadu_si128((const __m128i*)p)), detail::widen(_mm_loadu_si128((const __m128i*)(p + 8)))};
}

inline f16 load(const int8_t* p) {
  return {detail::widen_bytes(_mm_loadl_epi64((const __m128i*)p)),
          detail::widen_bytes(_mm_loadl_epi64((const __m128i*)(p + 8)))};
}

inline void store(float* p, f16 x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}

inline void store_n(float* p, f16 x, int n) {
  // Masked stores take dozens of cycles on AMD.
  if (n >= kLanes) return store(p, x);
  const detail::LaneSelect select = detail::first_lanes(n);
  _mm256_maskstore_ps(p, select.lo, x.lo);
  _mm256_maskstore_ps(p + 8, select.hi, x.hi);
}

inline f16 operator+(f16 a, f16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline f16 operator-(f16 a, f16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline f16 operator*(f16 a, f16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline f16 operator/(f16 a, f16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }

inline f16 operator-(f16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}

inline f16 fma(f16 a, f16 b, f16 c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }

inline f16 max(f16 a, f16 b) { return {detail::max_half(a.lo, b.lo), detail::max_half(a.hi, b.hi)}; }
inline f16 min(f16 a, f16 b) { return {detail::min_half(a.lo, b.lo), detail::min_half(a.hi, b.hi)}; }
inline f16 at_least(f16 a, f16 bound) { return {_mm256_max_ps(bound.lo, a.lo), _mm256_max_ps(bound.hi, a.hi)}; }
inline f16 at_most(f16 a, f16 bound) { return {_mm256_min_ps(bound.lo, a.lo), _mm256_min_ps(bound.hi, a.hi)}; }
inline f16 sqrt(f16 a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
inline f16 floor(f16 a) { return {_mm256_floor_ps(a.lo), _mm256_floor_ps(a.hi)}; }

inline f16 round(f16 a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}

inline f16 abs(f16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}

inline f16 copysign(f16 magnitude, f16 sign_of) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(sign, magnitude.lo), _mm256_and_ps(sign, sign_of.lo)),
          _mm256_or_ps(_mm256_andnot_ps(sign, magnitude.hi), _mm256_and_ps(sign, sign_of.hi))};
}

inline f16 lt(f16 a, f16 b) { return detail::compare<_CMP_LT_OQ>(a, b); }
inline f16 le(f16 a, f16 b) { return detail::compare<_CMP_LE_OQ>(a, b); }
inline f16 gt(f16 a, f16 b) { return detail::compare<_CMP_GT_OQ>(a, b); }
inline f16 ge(f16 a, f16 b) { return detail::compare<_CMP_GE_OQ>(a, b); }
inline f16 eq(f16 a, f16 b) { return detail::compare<_CMP_EQ_OQ>(a, b); }
inline f16 ne(f16 a, f16 b) { return detail::compare<_CMP_NEQ_UQ>(a, b); }

inline f16 where(f16 cond, f16 a, f16 b) {
  const __m256 zero = _mm256_setzero_ps();
  return {_mm256_blendv_ps(b.lo, a.lo, _mm256_cmp_ps(cond.lo, zero, _CMP_NEQ_UQ)),
          _mm256_blendv_ps(b.hi, a.hi, _mm256_cmp_ps(cond.hi, zero, _CMP_NEQ_UQ))};
}

inline f16 where_negative(f16 x, f16 a, f16 b) {
  return {_mm256_blendv_ps(b.lo, a.lo, x.lo), _mm256_blendv_ps(b.hi, a.hi, x.hi)};
}

inline f16 pow2_rounded(f16 n) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(n.lo), 23)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(n.hi), 23))};
}

inline f16 pow2(f16 n) { return {detail::pow2_half(n.lo), detail::pow2_half(n.hi)}; }

inline f16 split(f16 x, f16* exponent) {
  return {detail::split_half(x.lo, &exponent->lo), detail::split_half(x.hi, &exponent->hi)};
}

inline float maximum(f16 x) {
  const __m256 eight = detail::max_half(x.lo, x.hi);
  const __m128 four = detail::max_quarter(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = detail::max_quarter(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(detail::max_quarter(two, _mm_movehdup_ps(two)));
}

inline float sum(f16 x) {
  const __m256 eight = _mm256_add_ps(x.lo, x.hi);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace bossa
