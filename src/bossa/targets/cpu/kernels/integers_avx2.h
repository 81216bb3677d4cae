// Integer products in pairs of 256-bit registers (x86-64-v3). Included by integers.h.
#pragma once

namespace bossa {

struct Quads {
  __m256i lo, hi;
};
struct Pairs {
  __m256i lo, hi;
};
// Two words for each output: k 0 and 1 of the quads, and k 2 and 3.
struct Dots {
  __m256i lo, hi;
};
struct Sums {
  __m256i lo, hi;
};

namespace detail {

// Compilers sum products as trees, with more values alive than there are registers: this keeps the chain as written.
template <class T>
inline void pin(T& x) {
  asm("" : "+x"(x.lo), "+x"(x.hi));
}

}  // namespace detail

inline Quads load_quads(const uint8_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 32))};
}

inline void store_quads(uint8_t* p, Quads q) {
  _mm256_storeu_si256((__m256i*)p, q.lo);
  _mm256_storeu_si256((__m256i*)(p + 32), q.hi);
}

// The quads in the low and in the high halves of 64 bytes.
inline Quads low_nibbles(Quads packed) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(packed.lo, mask), _mm256_and_si256(packed.hi, mask)};
}

inline Quads high_nibbles(Quads packed) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(_mm256_srli_epi16(packed.lo, 4), mask),
          _mm256_and_si256(_mm256_srli_epi16(packed.hi, 4), mask)};
}

// The quads with bits 4 and 5 from a byte of four quads' upper bits; which: 0..3, the quad's place in it.
inline __attribute__((always_inline)) Quads with_top(Quads quads, Quads top, int which) {
  const __m256i mask = _mm256_set1_epi8(48);
  const int left = which < 2 ? 4 - 2 * which : 0, right = which == 3 ? 2 : 0;
  top.lo = _mm256_and_si256(_mm256_srli_epi16(_mm256_slli_epi16(top.lo, left), right), mask);
  top.hi = _mm256_and_si256(_mm256_srli_epi16(_mm256_slli_epi16(top.hi, left), right), mask);
  return {_mm256_or_si256(quads.lo, top.lo), _mm256_or_si256(quads.hi, top.hi)};
}

// w . x, where x points at 4 signed bytes.
inline Dots dot(Quads w, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, sizeof four);
  const __m256i spread = _mm256_set1_epi32(four);
  return {_mm256_maddubs_epi16(w.lo, spread), _mm256_maddubs_epi16(w.hi, spread)};
}

inline void add_dots(Dots& dots, Quads w, const int8_t* x) {
  const Dots more = dot(w, x);
  dots.lo = _mm256_add_epi16(dots.lo, more.lo);
  dots.hi = _mm256_add_epi16(dots.hi, more.hi);
  detail::pin(dots);
}

// 16 bytes, one an output, as multipliers of dots.
struct Scales {
  __m256i lo, hi;
};

inline Scales load_scales(const uint8_t* p) {
  // Each byte twice, widened to words.
  const __m256i bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)p));
  const __m256i spread = _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1,  //
                                          4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1);
  const __m256i eight = _mm256_set1_epi8(8);
  return {_mm256_shuffle_epi8(bytes, spread), _mm256_shuffle_epi8(bytes, _mm256_or_si256(spread, eight))};
}

inline Scales load_scales(const int16_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 16))};
}

// 32 words, from which load_scales is cheaper.
inline void store_scales(int16_t* p, Scales scales) {
  _mm256_storeu_si256((__m256i*)p, scales.lo);
  _mm256_storeu_si256((__m256i*)(p + 16), scales.hi);
}

// sums += scales * dots
inline void add_scaled(Sums& sums, Dots dots, Scales scales) {
  sums.lo = _mm256_add_epi32(sums.lo, _mm256_madd_epi16(dots.lo, scales.lo));
  sums.hi = _mm256_add_epi32(sums.hi, _mm256_madd_epi16(dots.hi, scales.hi));
  detail::pin(sums);
}

inline Pairs load_pairs(const int16_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 16))};
}

inline Pairs load_pairs(const int8_t* p) {
  return {_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p)),
          _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(p + 16)))};
}

// k 0 and 1 from 16 unsigned bytes each.
inline Pairs load_pairs(const uint8_t* p, const uint8_t* q) {
  const __m128i a = _mm_loadu_si128((const __m128i*)p), b = _mm_loadu_si128((const __m128i*)q);
  return {_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b)), _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b))};
}

inline void store_pairs(int16_t* p, Pairs w) {
  _mm256_storeu_si256((__m256i*)p, w.lo);
  _mm256_storeu_si256((__m256i*)(p + 16), w.hi);
}

// k 0 and 1, and k 2 and 3, of 16 outputs from four signed bytes each, whose places are 0, 2, 1, 3.
inline void load_signed_quads(const int8_t* p, Pairs* first, Pairs* second) {
  const __m256i lo = _mm256_loadu_si256((const __m256i*)p), hi = _mm256_loadu_si256((const __m256i*)(p + 32));
  *first = {_mm256_srai_epi16(_mm256_slli_epi16(lo, 8), 8), _mm256_srai_epi16(_mm256_slli_epi16(hi, 8), 8)};
  *second = {_mm256_srai_epi16(lo, 8), _mm256_srai_epi16(hi, 8)};
}

inline Sums no_sums() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }

// sums += w . x, where x points at 2 words.
inline void add_pairs(Sums& sums, Pairs w, const int16_t* x) {
  int32_t two;
  memcpy(&two, x, sizeof two);
  const __m256i spread = _mm256_set1_epi32(two);
  sums.lo = _mm256_add_epi32(sums.lo, _mm256_madd_epi16(w.lo, spread));
  sums.hi = _mm256_add_epi32(sums.hi, _mm256_madd_epi16(w.hi, spread));
  detail::pin(sums);
}

// What a group has beside its numbers, to bring these to the first level: scales as words twice for each output, minima
// as bytes four times.
struct GroupHead {
  Quads scales, minima;
};

// p: [16] scales, then [16] minima.
inline GroupHead load_head(const uint8_t* p) {
  const __m256i scale = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)p));
  const __m256i minimum = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)(p + kLanes)));
  const __m256i four = _mm256_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3,  //
                                        4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7);
  const __m256i upper = _mm256_add_epi8(four, _mm256_set1_epi8(8)), word = _mm256_set1_epi16(255);
  return {{_mm256_and_si256(_mm256_shuffle_epi8(scale, four), word), _mm256_and_si256(_mm256_shuffle_epi8(scale, upper), word)},
          {_mm256_shuffle_epi8(minimum, four), _mm256_shuffle_epi8(minimum, upper)}};
}

// u * scale + minimum, each at most 255, so that a product of words is two of bytes.
inline Quads to_first_level(Quads u, GroupHead head) {
  return {_mm256_add_epi8(_mm256_mullo_epi16(u.lo, head.scales.lo), head.minima.lo),
          _mm256_add_epi8(_mm256_mullo_epi16(u.hi, head.scales.hi), head.minima.hi)};
}

// k 0 and 2, and k 1 and 3, of quads as words.
inline Pairs even_k(Quads w) {
  const __m256i mask = _mm256_set1_epi16(255);
  return {_mm256_and_si256(w.lo, mask), _mm256_and_si256(w.hi, mask)};
}

inline Pairs odd_k(Quads w) { return {_mm256_srli_epi16(w.lo, 8), _mm256_srli_epi16(w.hi, 8)}; }

// Rounds 16 numbers of at most 32,512, as add_words reads them, and adds them to `total`.
template <int>
inline void put_words(char* p, f16 x, Sums& total) {
  const __m256i lo = _mm256_cvtps_epi32(x.lo), hi = _mm256_cvtps_epi32(x.hi);
  total = {_mm256_add_epi32(total.lo, lo), _mm256_add_epi32(total.hi, hi)};
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);
  _mm256_storeu_si256((__m256i*)p, _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(words, 0xd8), 0xd8));
}

inline int32_t sum(Sums sums) {
  const __m256i eight = _mm256_add_epi32(sums.lo, sums.hi);
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

inline Sums operator+(Sums a, Sums b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
inline Sums all_of(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }

inline Sums load_sums(const void* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}

inline void store_sums(void* p, Sums sums) {
  _mm256_storeu_si256((__m256i*)p, sums.lo);
  _mm256_storeu_si256((__m256i*)p + 1, sums.hi);
}

inline f16 to_float(Sums sums) { return {_mm256_cvtepi32_ps(sums.lo), _mm256_cvtepi32_ps(sums.hi)}; }

// Rounds to the nearest integers, halves to even; |x| <= 127, as bytes, and |x| <= 32,767, as words.
inline void store_bytes(int8_t* p, f16 x) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi)), 0xd8);
  _mm_storeu_si128((__m128i*)p, _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

inline void store_words(int16_t* p, f16 x) {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi));
  _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(words, 0xd8));
}

// Unsigned bytes as floats.
inline f16 load_bytes(const uint8_t* p) {
  const __m128i bytes = _mm_loadu_si128((const __m128i*)p);
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)))};
}

}  // namespace bossa
