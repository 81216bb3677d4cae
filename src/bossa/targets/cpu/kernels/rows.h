// Rows of an embedding table, in either layout that a table is stored in; a format whose tables are no floats has its own
// embed_rows.
#pragma once

#include "lanes.h"

namespace bossa {

// Row `token` of a row-major table [V][D].
inline void embed_rows(const float* table, int D, int token, float* out) {
  memcpy(out, table + (size_t)token * (size_t)D, sizeof(float) * (size_t)D);
}

// Row `token` of a matrix packed for `linear` as [ceil(V / 16)][K][16]: a tied head's weights serve the embedding too.
inline void embed_panels(const float* panels, int K, int token, float* out) {
  const float* column = panels + (size_t)(token / kLanes) * (size_t)K * kLanes + token % kLanes;
  for (int k = 0; k < K; k++) out[k] = column[(size_t)k * kLanes];
}

// The same over quantized panels.
template <class Format>
inline void embed_panels(const Format* panels, int K, int token, float* out) {
  for (int k = 0; k < K; k++) out[k] = Format::weight((const char*)panels, K, token, k);
}

}  // namespace bossa
