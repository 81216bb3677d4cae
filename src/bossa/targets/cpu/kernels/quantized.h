// y = x W^T over weights of 8, 6 and 4 bits. The activations of a row are quantized when the linear begins, the products are
// exact integers, and the sums of blocks of k are scaled and added in order: the bits of a row depend on that row alone.
#pragma once

#include "integers.h"
#include "linear.h"
#include "team.h"
#include "row_blocks.h"

namespace bossa {

// The most rows that every worker quantizes for itself instead of meeting the others.
constexpr int kOwnRows = 8;
constexpr int kMostTogether = 2 * kAmxRows;  // in tiles
constexpr int kOwnRoom = kFewestAmxRows < INT32_MAX ? kMostTogether : kOwnRows;

// Rows that a worker has to itself where sections are fused, and what is read past the last one, of which nothing is used.
constexpr int kFusedRoom = kFusedRows + kMostTogether;
static_assert(kFewestFusedRows / 2 > kOwnRows);  // blocks are at least half as large

// Rows of quantized activations that a team needs memory for: those of a step, each worker's own, and what is read past
// the last row; or of fused sections.
constexpr int quantized_rows(int max_rows, int workers) {
  const int together = max_rows + kMostTogether + kOwnRoom * workers;
  const int fused = fuses_rows(max_rows, workers) ? kFusedRoom * workers : 0;
  return together > fused ? together : fused;
}

namespace detail {

// One block of k for MR rows and NP panels.
template <class Format, int MR, int NP, bool kUnpacked>
inline void add_block(const char* x, size_t row_bytes, int K, int k, int kc, const char* const (&panels)[NP],
                      const typename Format::Unpacked* weights, float* out) {
  Format::template add_block<MR, NP, kUnpacked>(x, row_bytes, K, k, kc, panels, weights, out, kSumsStride);
}

// So few rows wait for the weights. Each worker then reads several streams of them side by side, up to so many panels
// long: one stream alone, or short ones, keep too little of the memory on its way.
#if defined(BOSSA_LANES_AVX512) && !defined(BOSSA_AMX)
constexpr int kStreamedRows = 4;
#else
constexpr int kStreamedRows = 2;
#endif
constexpr int kStreams = 4;
constexpr int kStreamPanels = 8;

template <class Format, int MR = kStreamedRows>
inline void streamed_sums(int rows, const char* x, size_t row_bytes, int K, const char* const (&panels)[kStreams],
                          float* out) {
  if constexpr (MR > 1) {
    if (rows < MR) return streamed_sums<Format, MR - 1>(rows, x, row_bytes, K, panels, out);
  }
  for (int k = 0; k < K; k += Format::kKC) {
    add_block<Format, MR, kStreams, false>(x, row_bytes, K, k, Format::kc(K, k), panels, nullptr, out);
  }
}

// Sums of one panel in tiles of MR and MR - 1 rows; where there are enough rows for it, from weights that are unpacked
// once for all of them.
template <class Format, int MR, bool kUnpacked>
inline void panel_tiles(int rows, const char* x, size_t row_bytes, int K, const char* panel, float* out) {
  alignas(64) typename Format::Unpacked weights;
  const int tiles = (rows + MR - 1) / MR;
  const int short_tiles = tiles * MR - rows;
  for (int k = 0; k < K; k += Format::kKC) {
    const int kc = Format::kc(K, k);
    if constexpr (kUnpacked) Format::unpack(panel, K, k, kc, &weights);
    const char* from = x;
    float* to = out;
    for (int t = 0; t < tiles - short_tiles; t++, from += MR * row_bytes, to += MR * kSumsStride) {
      add_block<Format, MR, 1, kUnpacked>(from, row_bytes, K, k, kc, {panel}, &weights, to);
    }
    if constexpr (MR > 1) {
      for (int t = 0; t < short_tiles; t++, from += (MR - 1) * row_bytes, to += (MR - 1) * kSumsStride) {
        add_block<Format, MR - 1, 1, kUnpacked>(from, row_bytes, K, k, kc, {panel}, &weights, to);
      }
    }
  }
}

// Not inlined: it has a tile for each count of rows, and a copy in each linear would fill the instruction cache.
template <class Format, bool kUnpacked, int MR = Format::kRows>
__attribute__((noinline)) void panel_sums(int rows, const char* x, size_t row_bytes, int K, const char* panel, float* out) {
  if constexpr (MR > 1) {
    if (ceil_div(rows, ceil_div(rows, Format::kRows)) < MR) {
      return panel_sums<Format, kUnpacked, MR - 1>(rows, x, row_bytes, K, panel, out);
    }
  }
  panel_tiles<Format, MR, kUnpacked>(rows, x, row_bytes, K, panel, out);
}

// Units of work for few rows: `kStreams` panels at a time, `group` of them adjacent.
template <class Format, class Epilogue>
inline void each_streamed_unit(Worker& worker, int rows, const char* x, size_t row_bytes, int K, const char* panels, int count,
                         int group, Epilogue&& epilogue) {
  const size_t panel_bytes = Format::panel_bytes(K);
  const int streams = kStreams / group;
  // As long as can be, and as many of them for each worker.
  const int rounds = ceil_div(count, worker.count * kStreams * kStreamPanels);
  const int length = ceil_div(ceil_div(count, worker.count * streams * rounds), group) * group;
  // With more workers than there are streams for, each has a panel at a time, and all of them together the memory.
  const bool narrow = count < worker.count * kStreams;
  const int unit = narrow ? group : length * streams;
  alignas(64) float sums[kStreamedRows * kSumsStride];
  for (int first = worker.next() * unit; first < count; first = worker.next() * unit) {
    const int whole = !narrow && first + unit <= count ? length : 0;
    for (int i = 0; i < whole; i += group) {
      const char* at[kStreams];
      for (int s = 0; s < kStreams; s++) {
        at[s] = panels + (size_t)(first + i + s / group * length + s % group) * panel_bytes;
      }
      streamed_sums<Format>(rows, x, row_bytes, K, at, sums);
      for (int r = 0; r < rows; r++) {
        for (int s = 0; s < streams; s++) {
          epilogue(r, (first + i + s * length) * kLanes, group * kLanes, sums + r * kSumsStride + s * group * kLanes);
        }
      }
    }
    for (int p = first + whole * streams; p < count && p < first + unit; p += group) {
      for (int i = 0; i < group; i++) {
        panel_sums<Format, false>(rows, x, row_bytes, K, panels + (size_t)(p + i) * panel_bytes, sums + i * kLanes);
      }
      for (int r = 0; r < rows; r++) epilogue(r, p * kLanes, group * kLanes, sums + r * kSumsStride);
    }
  }
}

}  // namespace detail

// As `linear`, over weights packed as `Format`. scratch: quantized_rows(max_rows, workers) rows of
// Format::row_bytes(K), the same memory for every worker.
template <class Format, class Epilogue>
inline void quantized_linear(Worker& worker, int rows, const float* x, size_t ldx, const Format* weights, int N, int K,
                             int group, char* scratch, int max_rows, Epilogue&& epilogue) {
  const char* panels = (const char*)weights;
  const size_t row_bytes = Format::row_bytes(K), panel_bytes = Format::panel_bytes(K);
  const int count = detail::ceil_div(N, kLanes);
  char* quantized = scratch;
  const bool tiled = rows >= Format::kTiledRows;
  const auto quantize = [&](int first, int last) {
    for (int r = first; r < last; r++) {
      char* to = quantized + (size_t)r * row_bytes;
#if defined(BOSSA_AMX)
      if (tiled) {
        Format::quantize_for_amx(x + (size_t)r * ldx, K, to - r % Format::kTogether * row_bytes, r % Format::kTogether);
        continue;
      }
#endif
      Format::quantize(x + (size_t)r * ldx, K, to);
    }
  };
  if (rows <= kOwnRows) {
    quantized += (size_t)(max_rows + kMostTogether + worker.id * kOwnRoom) * row_bytes;
    quantize(0, rows);
  } else {
    const Share share = share_of(worker, rows);
    quantize(share.begin, share.end);
    worker.barrier();
  }
  static_assert(Format::kTiledRows > detail::kStreamedRows);
  if (rows <= detail::kStreamedRows) {
    detail::each_streamed_unit<Format>(worker, rows, quantized, row_bytes, K, panels, count, group, epilogue);
    return;
  }
  const int chunk = rows <= Format::kRows ? 2 : detail::kBlockPanels;
  const detail::LinearPlan plan =
      tiled ? detail::plan_linear(rows, count, chunk, group, panel_bytes, worker.count, Format::kTogether,
                                  detail::kMostBlockRows)
            : detail::plan_linear(rows, count, chunk, group, panel_bytes, worker.count);
#if defined(BOSSA_AMX)
  if (tiled) {
    const detail::Tiles tiles(Format::kAmxK, Format::kCutsTiles ? rows : kAmxRows);
    const auto sum = [&](int row, int n_rows, int p, int n, float* sums, int) {
      const char* from = quantized + (size_t)row * row_bytes;
      const char* panel = panels + (size_t)p * panel_bytes;
      int i = 0;
      for (; i + 2 <= n; i += 2, panel += 2 * panel_bytes) {
        Format::template amx_sums<2>(n_rows, from, row_bytes, K, {panel, panel + panel_bytes}, sums + i * kLanes,
                                     detail::kSumsStride);
      }
      if (i < n) {
        Format::template amx_sums<1>(n_rows, from, row_bytes, K, {panel}, sums + i * kLanes, detail::kSumsStride);
      }
    };
    detail::each_unit(worker, plan, rows, count, sum, epilogue);
    return;
  }
#endif
  const auto sum = [&](int row, int n_rows, int p, int n, float* sums, int) {
    const char* from = quantized + (size_t)row * row_bytes;
    for (int i = 0; i < n; i++) {
      const char* panel = panels + (size_t)(p + i) * panel_bytes;
      float* to = sums + i * kLanes;
      if constexpr (Format::kPackedRows < INT32_MAX) {
        if (n_rows > Format::kPackedRows) {
          detail::panel_sums<Format, true>(n_rows, from, row_bytes, K, panel, to);
          continue;
        }
      }
      detail::panel_sums<Format, false>(n_rows, from, row_bytes, K, panel, to);
    }
  };
  detail::each_unit(worker, plan, rows, count, sum, epilogue);
}

}  // namespace bossa
