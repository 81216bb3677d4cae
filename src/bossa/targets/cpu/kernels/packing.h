// What packing is made of: the parts that the formats' headers share. The bits are those of the NumPy in
// src/bossa/formats/, which is the definition: one operation at a time, no FMA.
#pragma once

#include "integers.h"

namespace bossa {

// The lanes of a panel that a tensor's rows go to; its other lanes belong to another tensor, or are padding.
struct PanelLanes {
  int first, count;

  // Writes the lanes of 16 items of `size` bytes.
  void put(void* to, const void* items, size_t size) const {
    memcpy((char*)to + (size_t)first * size, (const char*)items + (size_t)first * size, (size_t)count * size);
  }
};

// How a format packs panels. Its header specializes this by its type, with
//   static constexpr const char* kName           what it is called in programs
//   static constexpr float kLargest              the largest magnitude that it takes
//   static constexpr size_t panel_bytes(int K)
//   static void put(const float* x, int K, f16 most, PanelLanes lanes, char* panel)
//                                                packs x [K][16], finite numbers, `most` being the largest magnitudes
template <class Format>
struct Packing;

// How a format packs rows of a table. Where it has tables, its header specializes this, with
//   static void put(const float* x, int K, float most, int64_t row, int64_t height, char* table)
//                                                packs x [K], finite numbers, `most` being the largest magnitude, as a row
//                                                of a table of so many
template <class Format>
struct TablePacking;

namespace detail {

// Rows with nothing larger than the first are zeros; what is larger than the second is refused by formats of integers.
constexpr float kSmallest = 1e-30f, kLargest = 1e37f;

// The largest |x| of each lane; NaN where there is one.
inline f16 largest(const float* x, int K) {
  f16 most = splat(0.0f);
  for (int k = 0; k < K; k++) most = max(most, abs(load(x + k * kLanes)));
  return most;
}

// The scale at which `most` is the level `levels`, and its inverse; zeros where that is too small.
inline f16 scale_of(f16 most, float levels, f16* inverse) {
  const f16 some = ge(most, splat(kSmallest)), divisor = where(some, most, splat(1.0f));
  *inverse = where(some, splat(levels) / divisor, splat(0.0f));
  return where(some, most / splat(levels), splat(0.0f));
}

inline void put_floats(PanelLanes lanes, char* to, f16 x) {
  float items[kLanes];
  store(items, x);
  lanes.put(to, items, 4);
}

inline f16 within(f16 x, float least, float most) { return at_most(at_least(x, splat(least)), splat(most)); }

// Whole numbers 0..255, as bytes.
inline void put_unsigned(PanelLanes lanes, char* to, f16 x) {
  // Bytes are signed where they are stored, and 255 is not one: 128 less, then the highest bit turned.
  int8_t bytes[kLanes];
  store_bytes(bytes, x - splat(128.0f));
  for (int o = 0; o < kLanes; o++) bytes[o] = (int8_t)(bytes[o] ^ -128);
  lanes.put(to, bytes, 1);
}

}  // namespace detail

}  // namespace bossa
