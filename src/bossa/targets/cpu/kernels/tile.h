// The register tile that `linear` and `attention` are built of: a few rows times a few panels of 16 outputs.
#pragma once

#include "lanes.h"

namespace bossa {

// Accumulators that fit the vector registers beside the operands, and the most rows of a tile.
#if defined(BOSSA_LANES_AVX512)
constexpr int kTileAccumulators = 24;
constexpr int kTileRows = 12;
#else
constexpr int kTileAccumulators = 6;
constexpr int kTileRows = 6;
#endif

// Whether numbers are converted as they are loaded, and held in registers; fp32 is read by the multiply-add itself.
template <class W>
constexpr bool kConverted = true;
template <>
constexpr bool kConverted<float> = false;

// acc[r][p] = a[r][:] . b[:][p], one FMA chain over k, continued from what acc holds.
//   a: rows lda floats apart, K floats each.
//   b: each k b_step elements after the one before, with panels of 16 lanes b_panel elements apart.
//   kAhead: prefetch memory that is read soon, at `ahead` (a pointer per panel, as b), ahead_step further with every k.
template <bool kAhead = false, int MR, int NP, class W>
inline __attribute__((always_inline)) void tile(f16 (&acc)[MR][NP], const float* a, size_t lda, const W* b,
                                                size_t b_step, size_t b_panel, int K, const W* ahead = nullptr,
                                                size_t ahead_step = 0) {
  // A pointer to every third row: those between lie one and two strides on, which an address can say by itself. With a
  // pointer to each, the one that prefetches would be kept in memory.
  const float* rows[(MR + 2) / 3];
#pragma GCC unroll 16
  for (int i = 0; i < (MR + 2) / 3; i++) rows[i] = a + (size_t)(3 * i) * lda;
  for (int k = 0; k < K; k++) {
    if constexpr (kAhead) {
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) __builtin_prefetch(ahead + (size_t)p * b_panel);
      ahead += ahead_step;
    }
    if constexpr (kConverted<W>) {
      // A panel at a time: all of them side by side leave too few registers for the accumulators.
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) {
        const f16 lanes = load(b + (size_t)p * b_panel);
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++) {
          acc[r][p] = fma(splat(rows[r / 3][(size_t)(r % 3) * lda]), lanes, acc[r][p]);
        }
      }
    } else {
      f16 lanes[NP];
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) lanes[p] = load(b + (size_t)p * b_panel);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
        const f16 x = splat(rows[r / 3][(size_t)(r % 3) * lda]);
#pragma GCC unroll 16
        for (int p = 0; p < NP; p++) acc[r][p] = fma(x, lanes[p], acc[r][p]);
      }
    }
    b += b_step;
#pragma GCC unroll 16
    for (int i = 0; i < (MR + 2) / 3; i++) {
      rows[i]++;
      asm("" : "+r"(rows[i]));
    }
  }
}

// Panels side by side in a tile of `rows` rows: as many as the accumulators allow, so that few rows still keep enough
// chains in flight to hide the latency of an FMA.
constexpr int tile_panels(int rows, int most) {
  return kTileAccumulators / rows < 1 ? 1 : kTileAccumulators / rows > most ? most : kTileAccumulators / rows;
}

}  // namespace bossa
