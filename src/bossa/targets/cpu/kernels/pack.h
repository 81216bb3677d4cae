// Packing: rows of a checkpoint's tensor into panels of 16 outputs or into a table, in the formats that a program has.
#pragma once

#include <stdlib.h>

#include "packing.h"

namespace bossa {

namespace detail {

struct half {
  uint16_t bits;
};

inline float widen_stored(float x) { return x; }
inline float widen_stored(bf16 x) { return from_bits((int32_t)((uint32_t)x.bits << 16)); }
inline float widen_stored(half x) {
  const uint32_t magnitude = (uint32_t)(x.bits & 0x7fff) << 13, sign = (uint32_t)(x.bits & 0x8000) << 16;
  const uint32_t special = magnitude >= 0x7c00u << 13 ? 0x7f800000u : 0;
  return from_bits(to_bits(from_bits((int32_t)magnitude) * 0x1p112f) | (int32_t)(special | sign));
}

// x[k][16]: the lanes of one panel, from rows `row_stride` and k `k_stride` numbers apart; other lanes are zeros.
template <class T>
inline void load_panel(const T* source, ptrdiff_t row_stride, ptrdiff_t k_stride, PanelLanes lanes, int K, float* x) {
  if (lanes.count < kLanes) memset(x, 0, (size_t)K * kLanes * sizeof(float));
  constexpr int kTile = 16;
  if (k_stride == 1 && lanes.count == kLanes) {
    float tile[kLanes][kTile];
    for (int k = 0; k < K; k += kTile) {
      const int width = K - k < kTile ? K - k : kTile;
      for (int o = 0; o < kLanes; o++) {
        for (int i = 0; i < width; i++) tile[o][i] = widen_stored(source[o * row_stride + k + i]);
      }
      for (int i = 0; i < width; i++) {
        for (int o = 0; o < kLanes; o++) x[(k + i) * kLanes + o] = tile[o][i];
      }
    }
    return;
  }
  for (int k = 0; k < K; k++) {
    for (int o = 0; o < lanes.count; o++) {
      x[k * kLanes + lanes.first + o] = widen_stored(source[o * row_stride + k * k_stride]);
    }
  }
}

// x[k]: a row of numbers that lie `k_stride` apart.
template <class T>
inline void load_row(const T* source, ptrdiff_t k_stride, int K, float* x) {
  for (int k = 0; k < K; k++) x[k] = widen_stored(source[k * k_stride]);
}

// Calls `read` with the numbers as they are stored. Whether that is known.
template <class Read>
inline bool as_stored(const void* source, const char* stored, Read read) {
  if (strcmp(stored, "F32") == 0) return read((const float*)source), true;
  if (strcmp(stored, "BF16") == 0) return read((const bf16*)source), true;
  if (strcmp(stored, "F16") == 0) return read((const half*)source), true;
  return false;
}

// Why numbers with this largest magnitude, NaN where there is one, cannot be packed; NULL where they can.
inline const char* refusal(float most, float largest) {
  if (!(most < __builtin_inff())) return "not finite";
  return most > largest ? "too large" : nullptr;
}

// As `pack`, in one format.
template <class Format>
inline const char* pack_as(const void* source, const char* stored, int64_t row_stride, int64_t k_stride, int64_t rows, int K,
                           int64_t first, int64_t panel_step, char* panels) {
  if (!as_stored(source, stored, [](auto*) {})) return "not known";
  float* x = (float*)malloc((size_t)(K ? K : 1) * kLanes * sizeof(float));
  if (!x) return "no memory";
  const size_t bytes = Packing<Format>::panel_bytes(K);
  const char* refused = nullptr;
  char* panel = panels + (size_t)(first / kLanes) * bytes;
  int lane = (int)(first % kLanes);
  for (int64_t row = 0; row < rows; panel += (size_t)panel_step * bytes, lane = 0) {
    const int64_t left = rows - row;
    const PanelLanes lanes{lane, left < kLanes - lane ? (int)left : kLanes - lane};
    as_stored(source, stored, [&](auto* from) { load_panel(from + row * row_stride, row_stride, k_stride, lanes, K, x); });
    const f16 most = largest(x, K);
    if ((refused = refusal(maximum(most), Packing<Format>::kLargest))) break;
    Packing<Format>::put(x, K, most, lanes, panel);
    row += lanes.count;
  }
  free(x);
  return refused ? refused : "packed";
}

// As `pack_table`, in one format.
template <class Format>
inline const char* pack_table_as(const void* source, const char* stored, int64_t row_stride, int64_t k_stride, int64_t rows,
                                 int K, int64_t first, int64_t height, char* table) {
  if (!as_stored(source, stored, [](auto*) {})) return "not known";
  const int vectors = (K + kLanes - 1) / kLanes;
  float* x = (float*)calloc((size_t)(vectors ? vectors : 1) * kLanes, sizeof(float));
  if (!x) return "no memory";
  const char* refused = nullptr;
  for (int64_t row = 0; row < rows; row++) {
    as_stored(source, stored, [&](auto* from) { load_row(from + row * row_stride, k_stride, K, x); });
    const float most = maximum(largest(x, vectors));
    if ((refused = refusal(most, Packing<Format>::kLargest))) break;
    TablePacking<Format>::put(x, K, most, first + row, height, table);
  }
  free(x);
  return refused ? refused : "packed";
}

}  // namespace detail

// Packs `rows` rows of K numbers, which lie `row_stride` and `k_stride` numbers apart in `source` and are stored as "F32",
// "BF16" or "F16", into panels that are zero where nothing was packed yet; in that of the formats whose name `format` is.
// The first row goes to packed row `first`; where a panel is full, the next is `panel_step` panels on. Calls may run at once
// on several threads if their rows differ. Returns "packed"; "not finite" or "too large" for a number that cannot be
// packed; "no memory"; or "not known" for another format.
template <class... Formats>
inline const char* pack(const void* source, const char* stored, int64_t row_stride, int64_t k_stride, int64_t rows, int64_t K,
                        const char* format, int64_t first, int64_t panel_step, void* panels) {
  const char* result = "not known";
  const auto tried = [&](const char* name, auto pack_it) {
    if (strcmp(format, name) != 0) return false;
    result = pack_it(source, stored, row_stride, k_stride, rows, (int)K, first, panel_step, (char*)panels);
    return true;
  };
  (void)(tried(Packing<Formats>::kName, detail::pack_as<Formats>) || ...);
  return result;
}

// As `pack`, into a table of `height` rows, from row `first` on.
template <class... Formats>
inline const char* pack_table(const void* source, const char* stored, int64_t row_stride, int64_t k_stride, int64_t rows,
                              int64_t K, const char* format, int64_t first, int64_t height, void* table) {
  const char* result = "not known";
  [[maybe_unused]] const auto tried = [&](const char* name, auto pack_it) {
    if (strcmp(format, name) != 0) return false;
    result = pack_it(source, stored, row_stride, k_stride, rows, (int)K, first, height, (char*)table);
    return true;
  };
  (void)(tried(Packing<Formats>::kName, detail::pack_table_as<Formats>) || ...);
  return result;
}

}  // namespace bossa
