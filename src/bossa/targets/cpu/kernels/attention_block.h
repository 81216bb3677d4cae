// A block of attention: queries against the keys and values of 128 positions, with the softmax's running sums.
#pragma once

#include "page_prefetch.h"
#include "amx.h"
#include "math.h"

namespace bossa {
namespace detail {

// Queries (a row and a head are one) that go through the blocks together, and the floats of their q and outputs.
constexpr int kMaxQueries = 48;
constexpr int kQueryFloats = 32768;

// Tiles of AMX take as many queries as are worth it, with no more features than there is room for.
constexpr int kFewestAmxQueries = 6, kMostAmxDim = 256;

// What a softmax has come to: for each query its largest score, the sum of its weights, and its weighted values, not
// yet divided by that sum. No weights yet: -inf, 0 and zeros.
struct SoftmaxSums {
  float *top, *total;
  float* output;  // [queries][v_floats]
};

// The queries of one unit of work: rows first, the heads of a row side by side.
struct QueryTile {
  int rows, heads;  // heads a row
  int v_floats;     // v_dim in whole panels
  int first_head;   // of all query heads
  int kv_head;
  int next_head;  // whose keys and values are read after these, by as many queries; -1 where that is not known
  const int32_t* positions;  // [rows]
  const int32_t* block_table;
  float* q;   // [queries][dim], scaled; of int8 keys words instead, see attention_int8.h
  SoftmaxSums span;  // of the span that is being summed up
  SoftmaxSums all;   // of the spans before it
  PagePrefetch prefetch;
  alignas(64) float scores[kMaxQueries * kScoreBlock];
  alignas(64) float base[kMaxQueries];   // what the current block's scores are reduced by
  alignas(64) float decay[kMaxQueries];  // 2^(old top - new top)
  int first[kMaxQueries], last[kMaxQueries];  // positions of the block that a query sees: first .. last - 1
  // Of int8 keys and values: what a level of a query stands for, and of its weights; these, [queries][kScoreBlock]; and the
  // digits of queries that go by tiles.
  float q_step[kMaxQueries], w_step[kMaxQueries];
  alignas(64) int16_t weight_words[kMaxQueries * kScoreBlock];
#if defined(BOSSA_AMX)
  bool tiled;
  alignas(64) uint8_t q_digits[2 * kMaxQueries * kMostAmxDim];
  alignas(64) int8_t values[kMostAmxDim * kScoreBlock];  // of a block, panel after panel; and all scales
  alignas(64) float key_scales[kScoreBlock], value_scales[kScoreBlock];
#endif
  alignas(64) float tops[2 * kMaxQueries], totals[2 * kMaxQueries];
  alignas(64) float floats[kQueryFloats];
};

inline int oldest_position(const AttentionShape& shape, int position) {
  return shape.window > 0 && position >= shape.window ? position - shape.window + 1 : 0;
}

template <int N>
struct Int {
  static constexpr int value = N;
};

// The rows of the tallest register tile when `count` rows are cut into as few as can be, of `most` at most and all nearly
// as tall, known to the compiler.
template <int most = kTileRows, int MR = most, class F>
inline void with_height(int count, F&& f) {
  if constexpr (MR > 1) {
    const int tiles = (count + most - 1) / most;
    if ((count + tiles - 1) / tiles < MR) return with_height<most, MR - 1>(count, f);
  }
  f(Int<MR>());
}

// Calls f(row, height) for tiles of MR rows and (where the rows do not divide) MR - 1.
template <int MR, class F>
inline void in_tiles(int first, int last, F&& f) {
  const int tiles = (last - first + MR - 1) / MR;
  const int tall = last - first - tiles * (MR - 1);
  for (int t = 0; t < tall; t++, first += MR) f(first, Int<MR>());
  if constexpr (MR > 1) {
    for (; first < last; first += MR - 1) f(first, Int<MR - 1>());
  }
}

// scores[0..MR) = q . keys, for NP panels of positions.
template <int MR, int NP, class W>
inline void score_tile(const float* q, int dim, const W* keys, float* scores, PagePrefetch& prefetch) {
  f16 acc[MR][NP];
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) acc[r][p] = splat(0.0f);
  }
  fetching_tile(acc, q, (size_t)dim, keys, (size_t)dim * kLanes, dim, prefetch);
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) store(scores + r * kScoreBlock + p * kLanes, acc[r][p]);
  }
}

// The scores of queries first .. last - 1 against the panels of a block that any query of a register tile sees.
template <class W>
inline void score_block(const AttentionShape& shape, QueryTile& tile, int first, int last, int first_page, int end_page,
                        const HeadPage<W>* pages) {
  static_assert(!kScaled<W>, "int8 has its own");
  with_height(last - first, [&](auto tallest) {
    constexpr int MR = decltype(tallest)::value;
    constexpr int NP = tile_panels(MR, kPagePanels);
    for (int page = first_page; page < end_page; page++) {
      in_tiles<MR>(first, last, [&](int i, auto height) {
        constexpr int H = decltype(height)::value;
        for (int p = 0; p < kPagePanels; p += NP) {
          const int position = page * kPage + p * kLanes;
          if (position >= tile.last[i + H - 1] || position + NP * kLanes <= tile.first[i]) continue;
          score_tile<H, NP>(tile.q + (size_t)i * (size_t)shape.dim, shape.dim,
                            pages[page].keys + (size_t)p * (size_t)shape.dim * kLanes,
                            tile.scores + i * kScoreBlock + position, tile.prefetch);
        }
      });
    }
  });
}

inline bool is_curved(const AttentionShape& shape) { return shape.softcap > 0.0f || shape.bias != nullptr; }

// The biases of query i in the block at `start`, or null.
inline const float* bias_of(const AttentionShape& shape, const QueryTile& tile, int i, int start) {
  if (!shape.bias) return nullptr;
  return shape.bias + (size_t)(tile.first_head + i % tile.heads) * (size_t)shape.bias_stride + start;
}

// Logits of base 2 from scores that are curved: capped, or with biases, of which n are there.
inline f16 curve(const AttentionShape& shape, f16 s, const float* bias, int n) {
  if (shape.softcap > 0.0f) s = splat(shape.softcap) * tanh(s / splat(shape.softcap));
  if (bias) s = s + load_n(bias, n);
  return s * splat(kLog2E);
}

// Turns one query's scores into logits of base 2, those out of sight to -inf, and returns the largest that is no NaN.
template <class W>
inline float logits(const AttentionShape& shape, float* scores, int first, int last, const HeadPage<W>* pages,
                    const float* bias) {
  const bool curved = is_curved(shape);
  f16 largest = splat(-kInfinity);
  for (int p = first / kLanes * kLanes; p < last; p += kLanes) {
    f16 s = load(scores + p);
    if constexpr (kScaled<W>) s = s * load(pages[p / kPage].key_scales + p % kPage);
    if (curved) s = curve(shape, s, bias ? bias + p : nullptr, last - p);
    const bool partly = first > p || last < p + kLanes;
    if (partly) s = where(lane_mask_n(last - p) - lane_mask_n(first - p), s, splat(-kInfinity));
    if (kScaled<W> || curved || partly) store(scores + p, s);
    largest = at_least(largest, s);
  }
  return maximum(largest);
}

// Notes query i's largest logit of a block, and returns what its logits are reduced by; decay is its exponent for now.
inline float raise_top(QueryTile& tile, int i, float here) {
  const float top = here > tile.span.top[i] ? here : tile.span.top[i];
  // Where every score so far is -inf, -inf less itself must give weights of 0 and not NaN.
  const float base = top == -kInfinity ? 0.0f : top;
  tile.decay[i] = tile.span.top[i] - base;
  tile.span.top[i] = top;
  return base;
}

// Turns one query's logits into weights, and returns their sum. Where values have scales, weights are multiplied by them,
// zeros where nothing is seen, and the largest is `most`.
template <class W>
inline float weights(float* scores, float base, int first, int last, const HeadPage<W>* pages, float* most) {
  f16 total = splat(0.0f), largest = splat(0.0f);
  for (int p = first / kLanes * kLanes; p < last; p += kLanes) {
    f16 weight = exp2_nonpositive(load(scores + p) - splat(base));
    total = total + weight;
    if constexpr (kScaled<W>) {
      weight = weight * load(pages[p / kPage].value_scales + p % kPage);
      if (first > p || last < p + kLanes) {
        weight = where(lane_mask_n(last - p) - lane_mask_n(first - p), weight, splat(0.0f));
      }
      largest = max(largest, weight);
    }
    store(scores + p, weight);
  }
  if constexpr (kScaled<W>) *most = maximum(largest);
  return sum(total);
}

// output[0..MR) = output * decay + weights . values, for NP panels of the values from panel v on.
template <int MR, int NP, class W>
inline void weigh_tile(QueryTile& tile, int i, size_t v, const HeadPage<W>* pages) {
  f16 acc[MR][NP];
  float* output = tile.span.output + (size_t)i * (size_t)tile.v_floats + v * kLanes;
  const float* scores = tile.scores + i * kScoreBlock;
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) {
      acc[r][p] = load(output + r * tile.v_floats + p * kLanes) * splat(tile.decay[i + r]);
    }
  }
  // All see what lies between the last one's first position and the first one's last.
  const int begin = tile.first[i + MR - 1], end = tile.last[i], last = tile.last[i + MR - 1];
  for (int position = tile.first[i]; position < last;) {
    const int page = position / kPage, slot = position % kPage;
    const W* values = pages[page].values + v * kPage * kLanes + slot * kLanes;
    if (position >= begin && position < end) {
      const int steps = (end < (page + 1) * kPage ? end : (page + 1) * kPage) - position;
      fetching_tile(acc, scores + position, kScoreBlock, values, kPage * kLanes, steps, tile.prefetch);
      position += steps;
      continue;
    }
    f16 lanes[NP];
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) lanes[p] = load(values + p * kPage * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) {
      if (position < tile.first[i + r] || position >= tile.last[i + r]) continue;
      const f16 weight = splat(scores[r * kScoreBlock + position]);
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) acc[r][p] = fma(weight, lanes[p], acc[r][p]);
    }
    position++;
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) store(output + r * tile.v_floats + p * kLanes, acc[r][p]);
  }
}

template <class W>
inline void weigh_block(QueryTile& tile, int first, int last, const HeadPage<W>* pages) {
  const size_t panels = (size_t)tile.v_floats / kLanes;
  with_height(last - first, [&](auto tallest) {
    constexpr int MR = decltype(tallest)::value;
    constexpr int NP = tile_panels(MR, 4);
    size_t v = 0;
    for (; v + NP <= panels; v += NP) {
      in_tiles<MR>(first, last, [&](int i, auto height) {
        weigh_tile<decltype(height)::value, NP>(tile, i, v, pages);
      });
    }
    for (; NP > 1 && v < panels; v++) {
      in_tiles<MR>(first, last, [&](int i, auto height) {
        weigh_tile<decltype(height)::value, 1>(tile, i, v, pages);
      });
    }
  });
}

// Sets out to fetch the pages that are read after the block at `start`, of which positions first .. last - 1 are seen, if
// the queries are few: those of the next block, or of the next head's first.
template <class W>
inline void start_prefetch(const AttentionShape& shape, QueryTile& tile, void* kv, int start, int first, int last,
                       int queries) {
  PagePrefetch& prefetch = tile.prefetch;
  prefetch = PagePrefetch();
  if (sizeof(W) == sizeof(float) || queries > kTileRows) return;
  const int end = tile.positions[tile.rows - 1] / kPage + 1;
  int next = start / kPage + kScoreBlockPages, head = tile.kv_head;
  if (next >= end) {
    if (tile.next_head < 0) return;
    head = tile.next_head;
    next = oldest_position(shape, tile.positions[0]) / kScoreBlock * kScoreBlockPages;
  }
  for (; prefetch.count < kScoreBlockPages && next + prefetch.count < end; prefetch.count++) {
    prefetch.pages[prefetch.count] = (const uint8_t*)head_page<W>(shape, kv, tile.block_table[next + prefetch.count], head).keys;
  }
  prefetch.bytes = HeadLayout<W>(shape.dim, shape.v_dim).bytes;
  const int pages = (last - 1) / kPage - first / kPage + 1;
  const int times = (pages * shape.dim + last - first) / kFetchSteps + 1;
  prefetch.lines = (int)(prefetch.bytes / 64) * prefetch.count / times + 1;
}

inline void quantize_weights(QueryTile& tile, int i, float most, int begin, int end);
inline void attend_block_in_tiles(const AttentionShape& shape, QueryTile& tile, int start, int first, int last,
                                  int first_page, int end_page, const HeadPage<int8_t>* pages);

// The block of positions that starts at `start`, for all queries that see some of it.
template <class W>
inline void attend_block(const AttentionShape& shape, QueryTile& tile, void* kv, int start) {
  // Positions ascend: the first rows may not have reached this block, the last may have left it behind.
  int first = tile.rows * tile.heads, last = 0, oldest = kScoreBlock, newest = 0;
  for (int row = 0; row < tile.rows; row++) {
    const int begin = oldest_position(shape, tile.positions[row]) - start, end = tile.positions[row] + 1 - start;
    if (begin >= kScoreBlock || end <= 0) continue;
    for (int i = row * tile.heads; i < (row + 1) * tile.heads; i++) {
      tile.first[i] = begin > 0 ? begin : 0;
      tile.last[i] = end < kScoreBlock ? end : kScoreBlock;
    }
    if (first > row * tile.heads) first = row * tile.heads;
    last = (row + 1) * tile.heads;
  }
  if (first >= last) return;
  oldest = tile.first[first];
  newest = tile.last[last - 1];
  const int first_page = oldest / kPage, end_page = (newest + kPage - 1) / kPage;
  HeadPage<W> pages[kScoreBlockPages];
  for (int page = first_page; page < end_page; page++) {
    pages[page] = head_page<W>(shape, kv, tile.block_table[start / kPage + page], tile.kv_head);
  }

#if defined(BOSSA_AMX)
  if constexpr (kScaled<W>) {
    if (tile.tiled) return attend_block_in_tiles(shape, tile, start, first, last, first_page, end_page, pages);
  }
#endif
  start_prefetch<W>(shape, tile, kv, start, oldest, newest, last - first);
  score_block(shape, tile, first, last, first_page, end_page, pages);
  for (int i = first; i < last; i++) {
    const float* bias = bias_of(shape, tile, i, start);
    tile.base[i] = raise_top(tile, i, logits(shape, tile.scores + i * kScoreBlock, tile.first[i], tile.last[i], pages, bias));
  }
  for (int i = first; i < last; i += kLanes) {
    store_n(tile.decay + i, exp2_nonpositive(load_n(tile.decay + i, last - i)), last - i);
  }
  for (int i = first; i < last; i++) {
    float most;
    const float total = weights(tile.scores + i * kScoreBlock, tile.base[i], tile.first[i], tile.last[i], pages, &most);
    if constexpr (kScaled<W>) quantize_weights(tile, i, most, oldest, newest);
    tile.span.total[i] = __builtin_fmaf(tile.span.total[i], tile.decay[i], total);
  }
  weigh_block(tile, first, last, pages);
}

}  // namespace detail
}  // namespace bossa
