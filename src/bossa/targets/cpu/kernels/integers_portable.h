// Integer products in arrays, which compilers turn into whatever vectors there are. Included by integers.h.
#pragma once

namespace bossa {

struct Quads {
  uint8_t at[4 * kLanes];
};
struct Pairs {
  int16_t at[2 * kLanes];
};
struct Dots {
  int32_t at[kLanes];
};
struct Sums {
  int32_t at[kLanes];
};
struct Scales {
  int16_t at[kLanes];
};

inline Quads load_quads(const uint8_t* p) {
  Quads q;
  memcpy(q.at, p, sizeof q.at);
  return q;
}

inline void store_quads(uint8_t* p, Quads q) { memcpy(p, q.at, sizeof q.at); }

// The quads in the low and in the high halves of 64 bytes.
inline Quads low_nibbles(Quads packed) {
  for (int i = 0; i < 4 * kLanes; i++) packed.at[i] &= 15;
  return packed;
}

inline Quads high_nibbles(Quads packed) {
  for (int i = 0; i < 4 * kLanes; i++) packed.at[i] >>= 4;
  return packed;
}

// The quads with bits 4 and 5 from a byte of four quads' upper bits; which: 0..3, the quad's place in it.
inline Quads with_top(Quads quads, Quads top, int which) {
  for (int i = 0; i < 4 * kLanes; i++) quads.at[i] |= (uint8_t)((top.at[i] >> which * 2 & 3) << 4);
  return quads;
}

// w . x, where x points at 4 signed bytes.
inline Dots dot(Quads w, const int8_t* x) {
  Dots dots;
  for (int i = 0; i < kLanes; i++) {
    int sum = 0;
    for (int k = 0; k < 4; k++) sum += w.at[4 * i + k] * x[k];
    dots.at[i] = sum;
  }
  return dots;
}

inline void add_dots(Dots& dots, Quads w, const int8_t* x) {
  const Dots more = dot(w, x);
  for (int i = 0; i < kLanes; i++) dots.at[i] += more.at[i];
}

// 16 bytes, one an output, as multipliers of dots.
inline Scales load_scales(const uint8_t* p) {
  Scales scales;
  for (int i = 0; i < kLanes; i++) scales.at[i] = p[i];
  return scales;
}

inline Scales load_scales(const int16_t* p) {
  Scales scales;
  memcpy(scales.at, p, sizeof scales.at);
  return scales;
}

// At most 32 words, from which load_scales is cheaper.
inline void store_scales(int16_t* p, Scales scales) { memcpy(p, scales.at, sizeof scales.at); }

// sums += scales * dots
inline void add_scaled(Sums& sums, Dots dots, Scales scales) {
  for (int i = 0; i < kLanes; i++) sums.at[i] += dots.at[i] * scales.at[i];
}

inline Pairs load_pairs(const int16_t* p) {
  Pairs w;
  memcpy(w.at, p, sizeof w.at);
  return w;
}

inline Pairs load_pairs(const int8_t* p) {
  Pairs w;
  for (int i = 0; i < 2 * kLanes; i++) w.at[i] = p[i];
  return w;
}

// k 0 and 1 from 16 unsigned bytes each.
inline Pairs load_pairs(const uint8_t* p, const uint8_t* q) {
  Pairs w;
  for (int i = 0; i < kLanes; i++) w.at[2 * i] = p[i], w.at[2 * i + 1] = q[i];
  return w;
}

inline void store_pairs(int16_t* p, Pairs w) { memcpy(p, w.at, sizeof w.at); }

// k 0 and 1, and k 2 and 3, of 16 outputs from four signed bytes each, whose places are 0, 2, 1, 3.
inline void load_signed_quads(const int8_t* p, Pairs* first, Pairs* second) {
  for (int i = 0; i < 2 * kLanes; i++) first->at[i] = p[2 * i], second->at[i] = p[2 * i + 1];
}

inline Sums no_sums() { return {}; }

// sums += w . x, where x points at 2 words.
inline void add_pairs(Sums& sums, Pairs w, const int16_t* x) {
  for (int i = 0; i < kLanes; i++) sums.at[i] += w.at[2 * i] * x[0] + w.at[2 * i + 1] * x[1];
}

// A group's bytes from its numbers.
struct GroupHead {
  uint8_t scales[kLanes], minima[kLanes];
};

// p: [16] scales, then [16] minima.
inline GroupHead load_head(const uint8_t* p) {
  GroupHead head;
  memcpy(head.scales, p, kLanes);
  memcpy(head.minima, p + kLanes, kLanes);
  return head;
}

// u * scale + minimum, each at most 255.
inline Quads to_first_level(Quads u, GroupHead head) {
  for (int i = 0; i < 4 * kLanes; i++) u.at[i] = (uint8_t)(u.at[i] * head.scales[i / 4] + head.minima[i / 4]);
  return u;
}

// Quads as what words multiply, and the sums of their products, which may wrap around on the way: the same, of one digit
// or of two.
using Factors = Quads;
template <int>
struct WordSums {
  uint32_t at[kLanes];
};
template <int>
constexpr int kWordBytes = 2;

inline Factors factors(Quads w) { return w; }
inline void store_factors(char* p, Factors w) { memcpy(p, w.at, sizeof w.at); }
inline Factors load_factors(const char* p) { return load_quads((const uint8_t*)p); }
template <int kDigits>
inline Sums joined(WordSums<kDigits> sums) {
  Sums all;
  memcpy(all.at, sums.at, sizeof all.at);
  return all;
}

// sums += w . x, where x points at what put_words has written of four k.
template <int kDigits>
inline void add_words(WordSums<kDigits>& sums, Factors w, const char* x) {
  int16_t words[4];
  memcpy(words, x, sizeof words);
  for (int i = 0; i < kLanes; i++) {
    int32_t dot = 0;
    for (int k = 0; k < 4; k++) dot += w.at[4 * i + k] * words[k];
    sums.at[i] += (uint32_t)dot;
  }
}

inline Sums operator+(Sums a, Sums b) {
  for (int i = 0; i < kLanes; i++) a.at[i] = (int32_t)((uint32_t)a.at[i] + (uint32_t)b.at[i]);
  return a;
}

inline Sums all_of(int32_t x) {
  Sums all;
  for (int i = 0; i < kLanes; i++) all.at[i] = x;
  return all;
}

// Rounds 16 numbers of at most 32,512, as add_words reads them, and adds them to `total`.
template <int>
inline void put_words(char* p, f16 x, Sums& total) {
  x = round(x);
  int16_t words[kLanes];
  for (int i = 0; i < kLanes; i++) words[i] = (int16_t)x.v[i], total.at[i] += words[i];
  memcpy(p, words, sizeof words);
}

inline int32_t sum(Sums sums) {
  uint32_t total = 0;
  for (int i = 0; i < kLanes; i++) total += (uint32_t)sums.at[i];
  return (int32_t)total;
}

inline Sums load_sums(const void* p) {
  Sums sums;
  memcpy(sums.at, p, sizeof sums.at);
  return sums;
}

inline void store_sums(void* p, Sums sums) { memcpy(p, sums.at, sizeof sums.at); }

inline f16 to_float(Sums sums) {
  f16 x;
  for (int i = 0; i < kLanes; i++) x.v[i] = (float)sums.at[i];
  return x;
}

// The sum of 32 signed bytes.
inline int sum_group(const int8_t* p) {
  int sum = 0;
  for (int i = 0; i < 32; i++) sum += p[i];
  return sum;
}

// Rounds to the nearest integers, halves to even; |x| <= 127, as bytes, and |x| <= 32,767, as words.
inline void store_bytes(int8_t* p, f16 x) {
  x = round(x);
  for (int i = 0; i < kLanes; i++) p[i] = (int8_t)x.v[i];
}

inline void store_words(int16_t* p, f16 x) {
  x = round(x);
  for (int i = 0; i < kLanes; i++) p[i] = (int16_t)x.v[i];
}

// Unsigned bytes as floats.
inline f16 load_bytes(const uint8_t* p) {
  f16 x;
  for (int i = 0; i < kLanes; i++) x.v[i] = (float)p[i];
  return x;
}

}  // namespace bossa
