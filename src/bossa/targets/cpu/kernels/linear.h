// y = x W^T over packed weights. Each output is one FMA chain over k within blocks of nearly the same length, and the block
// sums are added in order, whatever the number of rows, the tile or the thread that computes it.
#pragma once

#include "amx.h"
#include "lanes.h"
#include "team.h"
#include "tile.h"

namespace bossa {

// The most of k in one chain: fixed for good, because it decides the bits. A panel's block (20 KB in fp32) stays in
// L1 while the row tiles pass over it.
constexpr int kMaxKC = 320;

namespace detail {

// Rows and panels that are computed before the epilogue sees them: their sums are kept on the stack.
constexpr int kBlockRows = 96;
#if defined(BOSSA_AMX)
constexpr int kMostBlockRows = kAmxBlockRows;
#else
constexpr int kMostBlockRows = kBlockRows;
#endif
constexpr int kBlockPanels = 8;
// One line more than the panels need, so that rows do not fall into the same cache sets.
constexpr int kSumsStride = kBlockPanels * kLanes + kLanes;

// Fewer rows than this wait for the weights rather than for the FMA units: their panels are read one after the other.
constexpr int kStreamingRows = 33;

// Tiles of few rows read several panels side by side, which the hardware's own prefetcher follows best.
template <int MR>
constexpr bool kPrefetches = MR > 3;

// k of each block but the last.
inline int block_kc(int K) { return ceil_div(K, ceil_div(K, kMaxKC)); }

// sums[r][p] (+)= x[r][0..k) . panels[p][0..k), prefetching `ahead` on the way.
template <int MR, int NP>
inline void add_block(const float* x, size_t ldx, const float* panels, size_t panel, int k, bool first, float* sums,
                      const float* ahead, size_t ahead_step) {
  f16 acc[MR][NP];
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) acc[r][p] = splat(0.0f);
  }
  tile<kPrefetches<MR>>(acc, x, ldx, panels, kLanes, panel, k, ahead, ahead_step);
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) {
      float* sum = sums + r * kSumsStride + p * kLanes;
      store(sum, first ? acc[r][p] : load(sum) + acc[r][p]);
    }
  }
}

// add_block over all rows, in tiles of MR rows and (where the rows do not divide) MR - 1. The tiles share the
// prefetching of the k at `ahead`, so that memory is busy all the time and not in the first tile alone.
template <int MR, int NP>
inline void add_rows(int rows, const float* x, size_t ldx, const float* panels, size_t panel, int k, bool first,
                     float* sums, const float* ahead) {
  const int tiles = (rows + MR - 1) / MR;
  const int short_tiles = tiles * MR - rows;
  const size_t ahead_step = (size_t)(kLanes + tiles - 1) / (size_t)tiles;
  const size_t ahead_tile = ahead_step * (size_t)k;
  int row = 0;
  for (int t = 0; t < tiles - short_tiles; t++, row += MR) {
    add_block<MR, NP>(x + (size_t)row * ldx, ldx, panels, panel, k, first, sums + row * kSumsStride, ahead, ahead_step);
    ahead += ahead_tile;
  }
  if constexpr (MR > 1) {
    for (int t = 0; t < short_tiles; t++, row += MR - 1) {
      add_block<MR - 1, NP>(x + (size_t)row * ldx, ldx, panels, panel, k, first, sums + row * kSumsStride, ahead,
                            ahead_step);
      ahead += ahead_tile;
    }
  }
}

// All sums of `rows` rows and `count` panels, in tiles of MR rows. `after` is the panel that is read next.
template <int MR>
inline void block_sums_of(int rows, const float* x, size_t ldx, const float* panels, int count, int K, float* sums,
                          const float* after) {
  constexpr int NP = tile_panels(MR, 4);
  const size_t panel = (size_t)K * kLanes;
  const int most = block_kc(K);
  // Blocks from the one that is computed to the one that is fetched, where a panel is read alone: where no more than two
  // tiles pass over it, its next block would come too late.
  const int far = rows <= 2 * MR ? 2 : 1;
  for (int k = 0; k < K; k += most) {
    const int kc = K - k < most ? K - k : most;
    const float* block = panels + (size_t)k * kLanes;
    const int left = ceil_div(K - k, most);
    int p = 0;
    for (; p + NP <= count; p += NP) {
      const float* here = block + (size_t)p * panel;
      const float* ahead = here + NP * panel;
      if (count <= NP) {
        ahead = left > far ? here + (size_t)(far * most) * kLanes : after + (size_t)((far - left) * most) * kLanes;
      } else if (p + NP >= count) {
        ahead = left > 1 ? block + (size_t)kc * kLanes : after;
      }
      add_rows<MR, NP>(rows, x + k, ldx, here, panel, kc, k == 0, sums + p * kLanes, ahead);
    }
    for (; p < count; p++) {
      const float* here = block + (size_t)p * panel;
      add_rows<MR, 1>(rows, x + k, ldx, here, panel, kc, k == 0, sums + p * kLanes, here + panel);
    }
  }
}

// The rows of the tallest tile when `rows` rows are cut into as few tiles as can be, all nearly as tall.
inline int tile_height(int rows) {
  const int tiles = (rows + kTileRows - 1) / kTileRows;
  return (rows + tiles - 1) / tiles;
}

template <int MR = kTileRows>
inline void block_sums(int rows, const float* x, size_t ldx, const float* panels, int count, int K, float* sums,
                       const float* after) {
  if constexpr (MR > 1) {
    if (tile_height(rows) < MR) return block_sums<MR - 1>(rows, x, ldx, panels, count, K, sums, after);
  }
  block_sums_of<MR>(rows, x, ldx, panels, count, K, sums, after);
}

// How the outputs of one linear are cut into units of work.
struct LinearPlan {
  int block_rows, row_blocks;  // rows of a block (the last may have fewer), blocks
  int chunk;                   // panels that are summed together
  int unit, units;             // panels of a unit (a multiple of chunk), units along N
};

// chunk: the panels that are best summed together; a multiple of what the epilogue needs together.
inline LinearPlan plan_linear(int rows, int panels, int chunk, int group, size_t panel_bytes, int workers,
                              int tile_rows = kTileRows, int most_rows = kBlockRows) {
  LinearPlan plan;
  plan.row_blocks = ceil_div(rows, most_rows);
  plan.block_rows = ceil_div(ceil_div(rows, plan.row_blocks), tile_rows) * tile_rows;
  plan.row_blocks = ceil_div(rows, plan.block_rows);
  // Smaller chunks reuse less of what is in cache, and are worth it only where workers would find nothing to do.
  while (chunk % (2 * group) == 0 && ceil_div(panels, chunk) * plan.row_blocks < 2 * workers) chunk /= 2;
  plan.chunk = chunk;
  // Where a unit ends, what was prefetched past it was in vain, and the next one begins with a wait: in units of 256 KB
  // that is a few hundredths of the time, if enough of them are left for the slower worker not to hold up the others.
  const int chunks = ceil_div(panels, plan.chunk);
  const int worthwhile = (int)(262144 / ((size_t)plan.chunk * panel_bytes)) + 1;
  const int affordable = chunks / (4 * workers) + 1;
  plan.unit = plan.chunk * (worthwhile < affordable ? worthwhile : affordable);
  plan.units = ceil_div(panels, plan.unit);
  return plan;
}

// Draws units until there are none left. sum(row, rows, panel, n, sums, after) computes n panels for some rows, and each
// row of them goes to the epilogue of `linear`; `after` is the panel where this worker goes on, for fetching it early.
template <class Sum, class Epilogue>
inline void each_unit(Worker& worker, const LinearPlan& plan, int rows, int panels, Sum&& sum, Epilogue&& epilogue) {
  alignas(64) float sums[kMostBlockRows * kSumsStride];
  const int tickets = plan.units * plan.row_blocks;
  for (int ticket = worker.next(), next = 0; ticket < tickets; ticket = next) {
    // Row blocks change fastest, so that a unit's weights are still in a cache for the next block of rows.
    const int row = ticket % plan.row_blocks * plan.block_rows;
    const int n_rows = rows - row < plan.block_rows ? rows - row : plan.block_rows;
    const int first = ticket / plan.row_blocks * plan.unit;
    const int last = first + plan.unit < panels ? first + plan.unit : panels;
    for (int p = first; p < last; p += plan.chunk) {
      const int n = last - p < plan.chunk ? last - p : plan.chunk;
      int after = p + n;
      if (after >= last) {
        next = worker.next();
        if (next < tickets) after = next / plan.row_blocks * plan.unit;
      }
      sum(row, n_rows, p, n, sums, after);
      for (int r = 0; r < n_rows; r++) epilogue(row + r, p * kLanes, n * kLanes, sums + r * kSumsStride);
    }
  }
}

}  // namespace detail

// y = x W^T, without y: each finished piece goes to epilogue(row, col, n, sums), where sums[0..n) are the outputs
// col .. col + n - 1 of that row. n is a multiple of 16 * group and padding outputs are included.
//   x: [rows] rows ldx floats apart, K floats each; panels: W [N, K] packed as [ceil(N / 16)][K][16], zeros past N.
//   group: panels that the epilogue needs together, 1 or 2; ceil(N / 16) is a multiple of it.
// Every worker calls it; a barrier before reading the results is the caller's.
template <class Epilogue>
inline void linear(Worker& worker, int rows, const float* x, size_t ldx, const float* panels, int N, int K, int group,
                   Epilogue&& epilogue) {
  const int count = detail::ceil_div(N, kLanes);
  const size_t panel = (size_t)K * kLanes;
  int chunk = detail::kBlockPanels;
  if (rows < detail::kStreamingRows) {
    const int side_by_side = tile_panels(detail::tile_height(rows), 4);
    chunk = side_by_side % group == 0 ? side_by_side : side_by_side * group;
  }
  const detail::LinearPlan plan = detail::plan_linear(rows, count, chunk, group, panel * sizeof(float), worker.count);
  const auto sum = [&](int row, int n_rows, int p, int n, float* sums, int after) {
    detail::block_sums(n_rows, x + (size_t)row * ldx, ldx, panels + (size_t)p * panel, n, K, sums,
                       panels + (size_t)after * panel);
  };
  detail::each_unit(worker, plan, rows, count, sum, epilogue);
}

}  // namespace bossa
