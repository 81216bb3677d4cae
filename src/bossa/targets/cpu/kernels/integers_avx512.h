// Integer products in 512-bit registers (x86-64-v4), with the dot-product instructions where there are any. Included by
// integers.h.
#pragma once

namespace bossa {

struct Quads {
  __m512i all;
};
struct Pairs {
  __m512i all;
};
// With VNNI one int32 for each output; without, the two words of the 256-bit version.
struct Dots {
  __m512i all;
};
struct Sums {
  __m512i all;
};

inline Quads load_quads(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store_quads(uint8_t* p, Quads q) { _mm512_storeu_si512(p, q.all); }

// The quads in the low and in the high halves of 64 bytes.
inline Quads low_nibbles(Quads packed) { return {_mm512_and_si512(packed.all, _mm512_set1_epi8(15))}; }

inline Quads high_nibbles(Quads packed) {
  return {_mm512_and_si512(_mm512_srli_epi16(packed.all, 4), _mm512_set1_epi8(15))};
}

// The quads with bits 4 and 5 from a byte of four quads' upper bits; which: 0..3, the quad's place in it.
inline __attribute__((always_inline)) Quads with_top(Quads quads, Quads top, int which) {
  const unsigned left = which < 2 ? 4u - 2u * (unsigned)which : 0u, right = which == 3 ? 2u : 0u;
  const __m512i bits = _mm512_srli_epi16(_mm512_slli_epi16(top.all, left), right);
  return {_mm512_or_si512(quads.all, _mm512_and_si512(bits, _mm512_set1_epi8(48)))};
}

struct Scales {
  __m512i all;
};

inline Scales load_scales(const int16_t* p) { return {_mm512_loadu_si512(p)}; }

// 32 words, from which load_scales is cheaper.
inline void store_scales(int16_t* p, Scales scales) { _mm512_storeu_si512(p, scales.all); }

#if defined(__AVX512VNNI__)

// w . x, where x points at 4 signed bytes.
inline Dots dot(Quads w, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, sizeof four);
  return {_mm512_dpbusd_epi32(_mm512_setzero_si512(), w.all, _mm512_set1_epi32(four))};
}

inline void add_dots(Dots& dots, Quads w, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, sizeof four);
  dots.all = _mm512_dpbusd_epi32(dots.all, w.all, _mm512_set1_epi32(four));
}

// 16 bytes, one an output, as multipliers of dots.
inline Scales load_scales(const uint8_t* p) { return {_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))}; }

// sums += scales * dots
inline void add_scaled(Sums& sums, Dots dots, Scales scales) {
  sums.all = _mm512_add_epi32(sums.all, _mm512_mullo_epi32(dots.all, scales.all));
}

#else

inline Dots dot(Quads w, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, sizeof four);
  return {_mm512_maddubs_epi16(w.all, _mm512_set1_epi32(four))};
}

inline void add_dots(Dots& dots, Quads w, const int8_t* x) {
  dots.all = _mm512_add_epi16(dots.all, dot(w, x).all);
}

inline Scales load_scales(const uint8_t* p) {
  const __m512i words = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
  return {_mm512_or_si512(words, _mm512_slli_epi32(words, 16))};
}

inline void add_scaled(Sums& sums, Dots dots, Scales scales) {
  sums.all = _mm512_add_epi32(sums.all, _mm512_madd_epi16(dots.all, scales.all));
}

#endif

inline Pairs load_pairs(const int16_t* p) { return {_mm512_loadu_si512(p)}; }
inline Pairs load_pairs(const int8_t* p) { return {_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p))}; }

// k 0 and 1 from 16 unsigned bytes each.
inline Pairs load_pairs(const uint8_t* p, const uint8_t* q) {
  const __m512i a = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
  const __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)q));
  return {_mm512_or_si512(a, _mm512_slli_epi32(b, 16))};
}

inline void store_pairs(int16_t* p, Pairs w) { _mm512_storeu_si512(p, w.all); }

// k 0 and 1, and k 2 and 3, of 16 outputs from four signed bytes each, whose places are 0, 2, 1, 3.
inline void load_signed_quads(const int8_t* p, Pairs* first, Pairs* second) {
  const __m512i all = _mm512_loadu_si512(p);
  first->all = _mm512_srai_epi16(_mm512_slli_epi16(all, 8), 8);
  second->all = _mm512_srai_epi16(all, 8);
}

inline Sums no_sums() { return {_mm512_setzero_si512()}; }

// sums += w . x, where x points at 2 words.
inline void add_pairs(Sums& sums, Pairs w, const int16_t* x) {
  int32_t two;
  memcpy(&two, x, sizeof two);
#if defined(__AVX512VNNI__)
  sums.all = _mm512_dpwssd_epi32(sums.all, w.all, _mm512_set1_epi32(two));
#else
  sums.all = _mm512_add_epi32(sums.all, _mm512_madd_epi16(w.all, _mm512_set1_epi32(two)));
#endif
}

// What a group has beside its numbers, to bring these to the first level: scales as words twice for each output, minima
// as bytes four times.
struct GroupHead {
  Quads scales, minima;
};

// p: [16] scales, then [16] minima.
inline GroupHead load_head(const uint8_t* p) {
  const __m512i four = _mm512_set_epi32(0x0f0f0f0f, 0x0e0e0e0e, 0x0d0d0d0d, 0x0c0c0c0c, 0x0b0b0b0b, 0x0a0a0a0a, 0x09090909,
                                        0x08080808, 0x07070707, 0x06060606, 0x05050505, 0x04040404, 0x03030303,
                                        0x02020202, 0x01010101, 0);
  const __m512i scale = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)p));
  const __m512i minimum = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)(p + kLanes)));
  return {{_mm512_maskz_shuffle_epi8(0x5555555555555555ull, scale, four)}, {_mm512_shuffle_epi8(minimum, four)}};
}

// u * scale + minimum, each at most 255, so that a product of words is two of bytes.
inline Quads to_first_level(Quads u, GroupHead head) {
  return {_mm512_add_epi8(_mm512_mullo_epi16(u.all, head.scales.all), head.minima.all)};
}

inline Sums operator+(Sums a, Sums b) { return {_mm512_add_epi32(a.all, b.all)}; }
inline Sums all_of(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline Sums load_sums(const void* p) { return {_mm512_loadu_si512(p)}; }
inline void store_sums(void* p, Sums sums) { _mm512_storeu_si512(p, sums.all); }
inline int32_t sum(Sums sums) { return _mm512_reduce_add_epi32(sums.all); }

#if defined(__AVX512VNNI__)

// Quads as what words multiply. Here these are one or two digits, each with a sum of its own.
struct Factors {
  Quads all;
};
template <int kDigits>
struct WordSums {
  Sums of[kDigits];  // from the lowest on
};
template <int kDigits>
constexpr int kWordBytes = kDigits;

inline Factors factors(Quads w) { return {w}; }
inline void store_factors(char* p, Factors w) { store_quads((uint8_t*)p, w.all); }
inline Factors load_factors(const char* p) { return {load_quads((const uint8_t*)p)}; }
inline Sums joined(WordSums<1> sums) { return sums.of[0]; }

inline Sums joined(WordSums<2> sums) {
  return {_mm512_add_epi32(_mm512_slli_epi32(sums.of[1].all, 8), sums.of[0].all)};
}

// sums += w . x, where x points at what put_words has written of four k.
template <int kDigits>
inline __attribute__((always_inline)) void add_words(WordSums<kDigits>& sums, Factors w, const char* x) {
#pragma GCC unroll 2
  for (int i = 0; i < kDigits; i++) {
    int32_t four;
    memcpy(&four, x + 4 * i, sizeof four);
    sums.of[i].all = _mm512_dpbusd_epi32(sums.of[i].all, w.all.all, _mm512_set1_epi32(four));
  }
}

// Rounds 16 numbers of at most 32,512, or of 127 where they are one digit, as add_words reads them, and adds them to `total`.
template <int kDigits>
inline void put_words(char* p, f16 x, Sums& total) {
  const __m512i words = _mm512_cvtps_epi32(x.v);
  total.all = _mm512_add_epi32(total.all, words);
  const __m128i low = _mm512_cvtepi32_epi8(words);
  if constexpr (kDigits == 1) {
    _mm_storeu_si128((__m128i*)p, low);
    return;
  }
  const __m128i high = _mm512_cvtepi32_epi8(_mm512_srai_epi32(_mm512_add_epi32(words, _mm512_set1_epi32(128)), 8));
  _mm_storeu_si128((__m128i*)p, _mm_unpacklo_epi32(low, high));
  _mm_storeu_si128((__m128i*)p + 1, _mm_unpackhi_epi32(low, high));
}

#else

// k 0 and 2, and k 1 and 3, of quads as words.
inline Pairs even_k(Quads w) { return {_mm512_and_si512(w.all, _mm512_set1_epi16(255))}; }
inline Pairs odd_k(Quads w) { return {_mm512_srli_epi16(w.all, 8)}; }

// Rounds 16 numbers of at most 32,512, as add_words reads them, and adds them to `total`.
template <int>
inline void put_words(char* p, f16 x, Sums& total) {
  const __m512i rounded = _mm512_cvtps_epi32(x.v);
  total.all = _mm512_add_epi32(total.all, rounded);
  const __m256i words = _mm512_cvtsepi32_epi16(rounded);
  _mm256_storeu_si256((__m256i*)p, _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(words, 0xd8), 0xd8));
}

#endif

inline f16 to_float(Sums sums) { return {_mm512_cvtepi32_ps(sums.all)}; }

// Rounds to the nearest integers, halves to even; |x| <= 127, as bytes, and |x| <= 32,767, as words.
inline void store_bytes(int8_t* p, f16 x) {
  _mm_storeu_si128((__m128i*)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x.v)));
}

inline void store_words(int16_t* p, f16 x) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x.v)));
}

// Unsigned bytes as floats.
inline f16 load_bytes(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)))};
}

}  // namespace bossa
