// Rows of an embedding table, in either layout that a table is stored in.
#pragma once

#include "lanes.h"

namespace bossa {

// Row `token` of a row-major table [V][D].
template <class W>
inline void embed_rows(const W* table, int D, int token, float* out) {
  const W* row = table + (size_t)token * (size_t)D;
  for (int d = 0; d < D; d += kLanes) store_n(out + d, load_n(row + d, D - d), D - d);
}

namespace detail {

inline float widen1(float x) { return x; }

inline float widen1(bf16 x) {
  const uint32_t bits = (uint32_t)x.bits << 16;
  float wide;
  memcpy(&wide, &bits, sizeof wide);
  return wide;
}

}  // namespace detail

// Row `token` of a matrix packed for `linear` as [ceil(V / 16)][K][16]: a tied head's weights serve the embedding too.
template <class W>
inline void embed_panels(const W* panels, int K, int token, float* out) {
  const W* column = panels + (size_t)(token / kLanes) * (size_t)K * kLanes + token % kLanes;
  for (int k = 0; k < K; k++) out[k] = detail::widen1(column[(size_t)k * kLanes]);
}

}  // namespace bossa
