// Rows of an embedding table, in either layout that a table is stored in.
#pragma once

#include "formats.h"

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

// The same over quantized panels.
inline void embed_panels(const Int8* panels, int K, int token, float* out) {
  for (int k = 0; k < K; k++) out[k] = Int8::weight((const char*)panels, K, token, k);
}

template <int kBits, int kDigits>
inline void embed_panels(const Ladders<kBits, kDigits>* panels, int K, int token, float* out) {
  for (int k = 0; k < K; k++) out[k] = Ladders<kBits, kDigits>::weight((const char*)panels, K, token, k);
}

template <int kBits>
inline void embed_panels(const Grouped<kBits>* panels, int K, int token, float* out) {
  for (int k = 0; k < K; k++) out[k] = Grouped<kBits>::weight((const char*)panels, K, token, k);
}

// Row `token` of a quantized table of V rows.
inline void embed_rows(const Int8* table, int V, int D, int token, float* out) {
  const f16 scale = splat(((const float*)table)[token]);
  const int8_t* row = (const int8_t*)table + detail::round_up(sizeof(float) * (size_t)V, 64) + (size_t)token * (size_t)D;
  for (int d = 0; d < D; d += kLanes) {
    int8_t lanes[kLanes] = {};
    memcpy(lanes, row + d, (size_t)(D - d < kLanes ? D - d : kLanes));
    store_n(out + d, load(lanes) * scale, D - d);
  }
}

}  // namespace bossa
