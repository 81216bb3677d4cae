// Exact integer products for 16 outputs at a time, the unit that quantized linears are written in. Every operation gives
// the same numbers on every target, because none of them can overflow:
//
// - Quads: 16 outputs x 4 k in unsigned bytes. Dots: their products with signed bytes, -127..127, over 32 k
//   where the quads are 0..15, over 8 where they are 0..63, so that each half of a quad sums up to less than 2^15.
// - Pairs: 16 outputs x 2 k in words. Sums: 16 int32, which take 256 products of 8 and 16 bits.
#pragma once

#include "lanes.h"

#if defined(__AMX_INT8__) && defined(__AMX_TILE__) && defined(BOSSA_LANES_AVX512)
#define BOSSA_AMX 1
#endif

#if defined(BOSSA_LANES_AVX512)
#include "integers_avx512.h"
#elif defined(BOSSA_LANES_AVX2)
#include "integers_avx2.h"
#else
#include "integers_portable.h"
#endif

namespace bossa {

#if defined(BOSSA_LANES_AVX512) || defined(BOSSA_LANES_AVX2)
// The sum of 32 signed bytes.
inline int sum_group(const int8_t* p) {
  const __m256i words = _mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_loadu_si256((const __m256i*)p));
  const __m256i eight = _mm256_madd_epi16(words, _mm256_set1_epi16(1));
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
#endif

#if (defined(BOSSA_LANES_AVX512) && !defined(__AVX512VNNI__)) || defined(BOSSA_LANES_AVX2)

// Dots are words, so that those of a group may have a factor for nothing.
#define BOSSA_DOTS_OF_WORDS 1

// Looks through a row's groups of 32 signed bytes for the largest sum of magnitudes that k 0 and 1, or 2 and 3, of four
// quads have together, and of all eight: what these may be multiplied by.
class LargestDots {
 public:
  void look(const int8_t* group) {
    const __m256i magnitudes = _mm256_abs_epi8(_mm256_loadu_si256((const __m256i*)group));
    const __m256i quads = _mm256_maddubs_epi16(magnitudes, _mm256_set1_epi8(1));
    const __m256i two = _mm256_add_epi16(quads, _mm256_shuffle_epi32(quads, 0x4e));
    const __m256i four = _mm256_add_epi16(two, _mm256_shuffle_epi32(two, 0xb1));
    four_ = _mm256_max_epi16(four_, four);
    eight_ = _mm256_max_epi16(eight_, _mm256_add_epi16(four, _mm256_permute4x64_epi64(four, 0x4e)));
  }

  int of_four() const { return largest(four_); }
  int of_eight() const { return largest(eight_); }

 private:
  static int largest(__m256i sums) {
    const __m128i most = _mm_max_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    const int first = (int16_t)_mm_extract_epi16(most, 0), second = (int16_t)_mm_extract_epi16(most, 1);
    return first > second ? first : second;
  }

  __m256i four_ = _mm256_setzero_si256(), eight_ = _mm256_setzero_si256();
};

// Quads as what words multiply, and the sums of their products, which may wrap around on the way: the same, of one digit
// or of two.
struct Factors {
  Pairs even, odd;
};
template <int>
struct WordSums {
  Sums all;
};
template <int>
constexpr int kWordBytes = 2;

inline Factors factors(Quads w) { return {even_k(w), odd_k(w)}; }

inline void store_factors(char* p, Factors w) {
  store_pairs((int16_t*)p, w.even);
  store_pairs((int16_t*)p + 2 * kLanes, w.odd);
}

inline Factors load_factors(const char* p) {
  return {load_pairs((const int16_t*)p), load_pairs((const int16_t*)p + 2 * kLanes)};
}

template <int kDigits>
inline Sums joined(WordSums<kDigits> sums) {
  return sums.all;
}

// sums += w . x, where x points at what put_words has written of four k.
template <int kDigits>
inline void add_words(WordSums<kDigits>& sums, Factors w, const char* x) {
  add_pairs(sums.all, w.even, (const int16_t*)x);
  add_pairs(sums.all, w.odd, (const int16_t*)x + 2);
}

#endif

// The most rows of one tile: as many as the registers hold the dots of.
#if defined(BOSSA_LANES_AVX512)
constexpr int kIntegerRows = 8;
#elif defined(BOSSA_LANES_AVX2)
constexpr int kIntegerRows = 5;
#else
constexpr int kIntegerRows = 2;
#endif

// k that share a scale in weights of 4 and 6 bits; quads of a group.
constexpr int kGroup = 32;
constexpr int kGroupQuads = kGroup / 4;
// Bytes of the low halves of a group of 16 outputs, packed: [4][16][4], quad 2p in the low and quad 2p + 1 in the high half
// of a byte. Of 6 bits the upper two follow, [2][16][4], from the lowest bits on those of quads 4p to 4p + 3.
constexpr int kNibbleBytes = kGroup * kLanes / 2;

// Quads q and q + 1 of a packed group of 4 or 6 bits, q even.
template <int kBits>
inline __attribute__((always_inline)) void load_two(const uint8_t* group, int q, Quads* low, Quads* high) {
  const Quads packed = load_quads(group + q * 32);
  *low = low_nibbles(packed);
  *high = high_nibbles(packed);
  if constexpr (kBits == 6) {
    const Quads top = load_quads(group + kNibbleBytes + q / 4 * 64);
    *low = with_top(*low, top, q % 4);
    *high = with_top(*high, top, q % 4 + 1);
  }
}

// One number of a packed group, from its place in the first quad.
template <int kBits>
inline int packed_number(const uint8_t* at, int quad) {
  const int nibble = at[quad / 2 * 64] >> quad % 2 * 4 & 15;
  return kBits == 4 ? nibble : nibble | (at[kNibbleBytes + quad / 4 * 64] >> quad % 4 * 2 & 3) << 4;
}

namespace detail {

// A largest magnitude, 0 when it is too small to divide by.
constexpr float kLeastDivisible = 1e-30f;
inline float divisible(float most) { return most < kLeastDivisible ? 0.0f : most; }

// Largest |x| of K floats, or 0.
inline float magnitude(const float* x, int K) {
  f16 most[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
  int k = 0;
  for (; k + 4 * kLanes <= K; k += 4 * kLanes) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) most[i] = max(most[i], abs(load(x + k + i * kLanes)));
  }
  for (; k < K; k += kLanes) most[0] = max(most[0], abs(load_n(x + k, K - k)));
  return divisible(maximum(max(max(most[0], most[1]), max(most[2], most[3]))));
}

// Fewer rows wait for the weights, which are then fetched so many bytes ahead: where several panels are read side by side,
// and where one is, which is fetched into the second cache too, from further ahead. The processors with AMX have their
// memory further away than the others with AVX-512.
#if defined(BOSSA_AMX)
constexpr int kComputing = kIntegerRows + 1, kAhead = 1024, kAloneAhead = 8192, kFarAhead = 0;
#elif defined(BOSSA_LANES_AVX512)
constexpr int kComputing = kIntegerRows + 1, kAhead = 256, kAloneAhead = 1024, kFarAhead = 16384;
#else
constexpr int kComputing = 5, kAhead = 512, kAloneAhead = 2048, kFarAhead = 0;
#endif

// Fetches what follows `at` in one of NP panels that are read side by side.
template <int NP>
inline __attribute__((always_inline)) void fetch_ahead(const void* at) {
  __builtin_prefetch((const char*)at + (NP > 1 ? kAhead : kAloneAhead));
  if (NP == 1 && kFarAhead > 0) __builtin_prefetch((const char*)at + kFarAhead, 0, 2);
}

}  // namespace detail

}  // namespace bossa
