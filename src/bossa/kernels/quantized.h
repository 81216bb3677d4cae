// y = x W^T over weights of 8 and of 4 bits. The activations of a row are quantized when the linear begins, the products are
// exact integers, and the sums of blocks of k are scaled and added in order: the bits of a row depend on that row alone.
#pragma once

#include "formats.h"
#include "linear.h"
#include "team.h"

namespace bossa {

namespace detail {

// Rows of one tile, and the most rows that every worker quantizes for itself instead of meeting the others.
constexpr int kIntegerRows = 6;
constexpr int kOwnRows = 8;

// Scales the integer sums of one block of k by the rows' scales and adds them up; the last block applies the outputs'.
template <class Format, int MR>
inline void add_scaled_sums(const Sums (&sums)[MR], const char* rows, size_t row_bytes, int K, int block, bool last,
                            const char* panel, float* out) {
  const f16 scale = load((const float*)panel);
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
    const f16 row_scale = splat(Format::scale(rows + r * row_bytes, K, block));
    float* to = out + r * kSumsStride;
    f16 sum = block == 0 ? to_float(sums[r]) * row_scale : fma(to_float(sums[r]), row_scale, load(to));
    store(to, last ? sum * scale : sum);
  }
}

// Sums of one panel for MR rows, straight from the packed weights.
template <class Format, int MR>
inline void packed_rows(const char* rows, size_t row_bytes, int K, const char* panel, float* out) {
  for (int k = 0; k < K; k += Format::kBlock) {
    const int steps = K - k < Format::kBlock ? (int)round_up((size_t)(K - k), 2) : Format::kBlock;
    Sums sums[MR];
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) sums[r] = no_sums();
    Format::template tile<MR>(sums, rows, row_bytes, K, k, steps, panel);
    add_scaled_sums<Format, MR>(sums, rows, row_bytes, K, k / Format::kBlock, k + Format::kBlock >= K, panel, out);
  }
}

template <class Format, int MR = kIntegerRows>
inline void packed_sums(int rows, const char* x, size_t row_bytes, int K, const char* panel, float* out) {
  if constexpr (MR > 1) {
    if (rows < MR) return packed_sums<Format, MR - 1>(rows, x, row_bytes, K, panel, out);
  }
  packed_rows<Format, MR>(x, row_bytes, K, panel, out);
}

// One block of k for MR rows, from unpacked weights.
template <class Format, int MR>
inline void unpacked_rows(const char* rows, size_t row_bytes, int K, int k, int steps, bool last, const char* panel,
                          const typename Format::Unpacked* weights, float* out) {
  Sums sums[MR];
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) sums[r] = no_sums();
  Format::template unpacked_tile<MR>(sums, rows, row_bytes, k, steps, weights);
  add_scaled_sums<Format, MR>(sums, rows, row_bytes, K, k / Format::kBlock, last, panel, out);
}

// The same for any number of rows, in tiles of MR and MR - 1 rows, from weights that are unpacked once for all of them.
template <class Format, int MR>
inline void unpacked_tiles(int rows, const char* x, size_t row_bytes, int K, const char* panel, float* out) {
  alignas(64) typename Format::Unpacked weights[Format::kBlock * kLanes / Format::kUnpackedWeights];
  const int tiles = (rows + MR - 1) / MR;
  const int short_tiles = tiles * MR - rows;
  for (int k = 0; k < K; k += Format::kBlock) {
    const bool last = k + Format::kBlock >= K;
    const int steps = last ? (int)round_up((size_t)(K - k), 2) : Format::kBlock;
    Format::unpack(panel, K, k, steps, weights);
    const char* from = x;
    float* to = out;
    for (int t = 0; t < tiles - short_tiles; t++, from += MR * row_bytes, to += MR * kSumsStride) {
      unpacked_rows<Format, MR>(from, row_bytes, K, k, steps, last, panel, weights, to);
    }
    for (int t = 0; t < short_tiles; t++, from += (MR - 1) * row_bytes, to += (MR - 1) * kSumsStride) {
      unpacked_rows<Format, MR - 1>(from, row_bytes, K, k, steps, last, panel, weights, to);
    }
  }
}

template <class Format>
inline void unpacked_sums(int rows, const char* x, size_t row_bytes, int K, const char* panel, float* out) {
  switch (ceil_div(rows, ceil_div(rows, kIntegerRows))) {
    case 6: return unpacked_tiles<Format, 6>(rows, x, row_bytes, K, panel, out);
    case 5: return unpacked_tiles<Format, 5>(rows, x, row_bytes, K, panel, out);
    default: return unpacked_tiles<Format, 4>(rows, x, row_bytes, K, panel, out);
  }
}

}  // namespace detail

// Rows of Format::row_bytes(K) that quantized_linear needs beside those of a step.
constexpr int quantized_rows(int workers) { return workers * detail::kOwnRows; }

// As `linear`, over weights packed as `Format`. scratch: of max_rows + quantized_rows(workers) rows, the same for every
// worker.
template <class Format, class Epilogue>
inline void quantized_linear(Worker& worker, int rows, const float* x, size_t ldx, const Format* weights, int N, int K,
                             char* scratch, int max_rows, Epilogue&& epilogue) {
  const char* panels = (const char*)weights;
  const size_t row_bytes = Format::row_bytes(K), panel_bytes = Format::panel_bytes(K);
  char* quantized = scratch;
  if (rows <= detail::kOwnRows) {
    quantized += ((size_t)max_rows + (size_t)worker.id * detail::kOwnRows) * row_bytes;
    for (int r = 0; r < rows; r++) Format::quantize(x + (size_t)r * ldx, K, quantized + (size_t)r * row_bytes);
  } else {
    const int first = (int)((int64_t)rows * worker.id / worker.count);
    const int last = (int)((int64_t)rows * (worker.id + 1) / worker.count);
    for (int r = first; r < last; r++) Format::quantize(x + (size_t)r * ldx, K, quantized + (size_t)r * row_bytes);
    worker.barrier();
  }
  const int count = detail::ceil_div(N, kLanes);
  const int chunk = rows <= detail::kIntegerRows ? 2 : detail::kBlockPanels;
  const detail::LinearPlan plan = detail::plan_linear(rows, count, chunk, panel_bytes, worker.count);
  const auto sum = [&](int row, int n_rows, int p, int n, float* sums) {
    const char* from = quantized + (size_t)row * row_bytes;
    for (int i = 0; i < n; i++) {
      const char* panel = panels + (size_t)(p + i) * panel_bytes;
      if (n_rows <= detail::kIntegerRows) {
        detail::packed_sums<Format>(n_rows, from, row_bytes, K, panel, sums + i * kLanes);
      } else {
        detail::unpacked_sums<Format>(n_rows, from, row_bytes, K, panel, sums + i * kLanes);
      }
    }
  };
  detail::each_unit(worker, plan, rows, count, sum, epilogue);
}

}  // namespace bossa
