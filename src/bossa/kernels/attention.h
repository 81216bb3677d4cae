// Causal attention over paged K and V, with a softmax that goes page by page. What a row gets depends on its own query
// and on the stored K and V alone: pages are walked in order of absolute position, and positions that a row may not
// see take no part, not even as zeros.
#pragma once

#include "lanes.h"
#include "math.h"
#include "team.h"
#include "tile.h"

namespace bossa {

// Positions of one page.
constexpr int kPage = 32;

struct AttentionShape {
  int heads, kv_heads;  // query heads; heads is a multiple of kv_heads
  int dim, v_dim;       // of a head's queries and keys, and of its values
  float scale;
  int window;           // row i sees j in (i - window, i]; 0: all j <= i
  float softcap;        // scores become softcap * tanh(score / softcap); 0: none
  const float* bias;    // [heads][bias_stride], added to the scores of key position j (ALiBi is one); null: none
  int bias_stride;
  const float* sinks;   // [heads] one more logit in the softmax's denominator; null: none
  size_t page_floats;   // from one page to the next
  size_t layer_offset;  // of this layer's K and V in a page
};

// The rows of a step; see abi.h.
struct Batch {
  int rows, sequences, max_blocks;
  const int32_t *positions, *starts, *block_tables;
};

// In a page, a layer holds K as [kv_heads][dim][kPage], so that lanes run over positions, then V as
// [kv_heads][kPage][v_dim padded to 16].
constexpr size_t padded_v_dim(int v_dim) { return (size_t)(v_dim + kLanes - 1) / kLanes * kLanes; }

// Floats that a layer takes in a page.
constexpr size_t kv_floats(int kv_heads, int dim, int v_dim) {
  return (size_t)kv_heads * kPage * ((size_t)dim + padded_v_dim(v_dim));
}

namespace detail {

inline float* key_block(const AttentionShape& shape, float* kv, int32_t page, int kv_head) {
  return kv + (size_t)page * shape.page_floats + shape.layer_offset + (size_t)kv_head * (size_t)shape.dim * kPage;
}

inline float* value_block(const AttentionShape& shape, float* kv, int32_t page, int kv_head) {
  return key_block(shape, kv, page, shape.kv_heads) + (size_t)kv_head * kPage * padded_v_dim(shape.v_dim);
}

}  // namespace detail

// Stores one row's K and V at its position. k: [kv_heads] heads k_head_stride apart, dim floats each; v likewise.
inline void store_kv(const AttentionShape& shape, float* kv, const int32_t* block_table, int position, const float* k,
                     ptrdiff_t k_head_stride, const float* v, ptrdiff_t v_head_stride) {
  const int32_t page = block_table[position / kPage];
  const int slot = position % kPage;
  for (int head = 0; head < shape.kv_heads; head++) {
    float* keys = detail::key_block(shape, kv, page, head) + slot;
    for (int d = 0; d < shape.dim; d++) keys[(size_t)d * kPage] = k[head * k_head_stride + d];
    float* values = detail::value_block(shape, kv, page, head) + (size_t)slot * padded_v_dim(shape.v_dim);
    memcpy(values, v + head * v_head_stride, sizeof(float) * (size_t)shape.v_dim);
  }
}

namespace detail {

// Queries (a row and a head are one) that walk the pages together, and the floats of their q and output.
constexpr int kMaxQueries = 64;
constexpr int kQueryFloats = 16384;
constexpr int kScorePanels = kPage / kLanes;

// So few queries wait for K and V more than they compute with them: while they read K, V is prefetched, and the next
// page's K while they read V. More queries pay for a page once and then have it in a cache.
constexpr int kStreamingQueries = 8;

// The state of the queries of one unit of work: rows first, the heads of a row side by side.
struct QueryTile {
  int heads;           // heads a row
  int v_floats;        // padded_v_dim
  const float* ahead;  // the keys of the next page
  float* q;            // [queries][dim]
  float* output;       // [queries][v_floats], not yet divided by total
  alignas(64) float scores[kMaxQueries * kPage];
  alignas(64) float top[kMaxQueries];    // the largest score so far
  alignas(64) float base[kMaxQueries];   // what the current page's scores are reduced by
  alignas(64) float decay[kMaxQueries];  // e^(old top - new top)
  alignas(64) float total[kMaxQueries];  // of the weights so far
};

// The positions first .. last - 1 of a page that a row sees.
struct Visible {
  int first, last;
  bool all() const { return first == 0 && last == kPage; }
  bool none() const { return first >= last; }
};

inline Visible visible(const AttentionShape& shape, int position, int page_start) {
  const int last = position + 1 - page_start;
  const int first = shape.window > 0 ? position - shape.window + 1 - page_start : 0;
  return {first > 0 ? first : 0, last < kPage ? last : kPage};
}

// scores[0..MR) = q . keys
template <int MR, bool kAhead>
inline void score_rows(const float* q, int dim, const float* keys, float* scores, const float* ahead) {
  f16 acc[MR][kScorePanels];
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
    for (int p = 0; p < kScorePanels; p++) acc[r][p] = splat(0.0f);
  }
  tile<kAhead>(acc, q, (size_t)dim, keys, kPage, kLanes, dim, ahead, kPage);
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
    for (int p = 0; p < kScorePanels; p++) store(scores + r * kPage + p * kLanes, acc[r][p]);
  }
}

// output[0..MR) = output * decay + weights . values, over `steps` positions and NP panels of the value.
template <int MR, int NP, bool kAhead>
inline void weigh_panels(const float* weights, const float* decay, const float* values, size_t v_floats, int steps,
                         float* output, const float* ahead) {
  f16 acc[MR][NP];
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) acc[r][p] = load(output + r * v_floats + p * kLanes) * splat(decay[r]);
  }
  tile<kAhead>(acc, weights, kPage, values, v_floats, kLanes, steps, ahead, v_floats);
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) store(output + r * v_floats + p * kLanes, acc[r][p]);
  }
}

template <int MR, bool kAhead>
inline void weigh_rows(const float* weights, const float* decay, const float* values, size_t v_floats, int steps,
                       float* output, const float* ahead) {
  constexpr int NP = tile_panels(MR, 4);
  size_t v = 0;
  for (; v + NP * kLanes <= v_floats; v += NP * kLanes) {
    weigh_panels<MR, NP, kAhead>(weights, decay, values + v, v_floats, steps, output + v, ahead + v);
  }
  for (; v < v_floats; v += kLanes) {
    weigh_panels<MR, 1, kAhead>(weights, decay, values + v, v_floats, steps, output + v, ahead + v);
  }
}

// Calls f(row, MR) for tiles of MR rows, MR known to the compiler and as many as the registers hold.
template <int MR>
struct Rows {
  static constexpr int value = MR;
};

template <int MR, class F>
inline void in_tiles(int first, int last, F&& f) {
  for (; first + MR <= last; first += MR) f(first, Rows<MR>());
  if constexpr (MR > 1) {
    if (first < last) in_tiles<MR - 1>(first, last, f);
  }
}

// Turns one query's scores into logits, those out of sight to -inf, and returns the largest.
inline float logits(const AttentionShape& shape, float* scores, Visible seen, const float* bias) {
  f16 largest = splat(-kInfinity);
  for (int p = 0; p < kPage; p += kLanes) {
    f16 s = load(scores + p) * splat(shape.scale);
    if (shape.softcap > 0.0f) s = splat(shape.softcap) * tanh(s / splat(shape.softcap));
    if (bias) s = s + load_n(bias + p, seen.last - p);
    if (!seen.all()) {
      s = where(lane_mask_n(seen.last - p) - lane_mask_n(seen.first - p), s, splat(-kInfinity));
    }
    store(scores + p, s);
    largest = max(largest, s);
  }
  return maximum(largest);
}

// One page for the rows first_row .. last_row - 1 of a tile, all of which see some of it.
template <bool kAhead>
inline void attend_page(const AttentionShape& shape, QueryTile& tile, int head, int first_row, int last_row,
                        const int32_t* positions, int page_start, const float* keys, const float* values) {
  const int first = first_row * tile.heads, last = last_row * tile.heads;
  in_tiles<kTileAccumulators / kScorePanels>(first, last, [&](int i, auto rows) {
    score_rows<decltype(rows)::value, kAhead>(tile.q + (size_t)i * (size_t)shape.dim, shape.dim, keys,
                                              tile.scores + i * kPage, values);
  });

  for (int row = first_row; row < last_row; row++) {
    const Visible seen = visible(shape, positions[row], page_start);
    for (int h = 0; h < tile.heads; h++) {
      const int i = row * tile.heads + h;
      const float* bias =
          shape.bias ? shape.bias + (size_t)(head + h) * (size_t)shape.bias_stride + page_start : nullptr;
      const float here = logits(shape, tile.scores + i * kPage, seen, bias);
      const float top = here <= tile.top[i] ? tile.top[i] : here;
      // Where every score so far is -inf, -inf less itself must give weights of 0 and not NaN.
      tile.base[i] = top == -kInfinity ? 0.0f : top;
      tile.decay[i] = tile.top[i] - tile.base[i];
      tile.top[i] = top;
    }
  }
  for (int i = first; i < last; i += kLanes) {
    store_n(tile.decay + i, exp_nonpositive(load_n(tile.decay + i, last - i)), last - i);
  }
  for (int i = first; i < last; i++) {
    float* scores = tile.scores + i * kPage;
    f16 total = splat(0.0f);
    for (int p = 0; p < kPage; p += kLanes) {
      const f16 weight = exp_nonpositive(load(scores + p) - splat(tile.base[i]));
      store(scores + p, weight);
      total = total + weight;
    }
    tile.total[i] = __builtin_fmaf(tile.total[i], tile.decay[i], sum(total));
  }

  // Rows that see the whole page share the loads of V; the others each stop at their own position.
  for (int row = first_row; row < last_row;) {
    const Visible seen = visible(shape, positions[row], page_start);
    int end = row + 1;
    while (seen.all() && end < last_row && visible(shape, positions[end], page_start).all()) end++;
    in_tiles<kTileRows>(row * tile.heads, end * tile.heads, [&](int i, auto rows) {
      weigh_rows<decltype(rows)::value, kAhead>(tile.scores + i * kPage + seen.first, tile.decay + i,
                                                values + (size_t)seen.first * (size_t)tile.v_floats,
                                                (size_t)tile.v_floats, seen.last - seen.first,
                                                tile.output + (size_t)i * (size_t)tile.v_floats, tile.ahead);
    });
    row = end;
  }
}

// Attention of `rows` rows at the given consecutive positions, for `heads` query heads from `head` on, all of one kv
// head. q and out point at the first of the rows.
inline void attend(const AttentionShape& shape, float* kv, const int32_t* block_table, int kv_head, int head, int heads,
                   int rows, const int32_t* positions, const float* q, size_t ldq, ptrdiff_t q_head_stride, float* out,
                   size_t ldo) {
  QueryTile tile;
  alignas(64) float floats[kQueryFloats];
  tile.heads = heads;
  tile.v_floats = (int)padded_v_dim(shape.v_dim);
  const int queries = rows * heads;
  tile.output = floats;
  tile.q = floats + (size_t)queries * (size_t)tile.v_floats;
  memset(tile.output, 0, sizeof(float) * (size_t)queries * (size_t)tile.v_floats);
  for (int i = 0; i < queries; i++) {
    const int h = i % heads;
    memcpy(tile.q + (size_t)i * (size_t)shape.dim, q + (size_t)(i / heads) * ldq + (head + h) * q_head_stride,
           sizeof(float) * (size_t)shape.dim);
    tile.top[i] = shape.sinks ? shape.sinks[head + h] : -kInfinity;
    tile.total[i] = shape.sinks ? 1.0f : 0.0f;
  }

  const int oldest = shape.window > 0 ? positions[0] - shape.window + 1 : 0;
  int first = 0, last = rows;
  for (int page = oldest > 0 ? oldest / kPage : 0; page <= positions[rows - 1] / kPage; page++) {
    const int start = page * kPage;
    // Positions ascend: the first rows may not have reached this page, the last may have left it behind.
    for (first = 0; visible(shape, positions[first], start).last <= 0;) first++;
    for (last = rows; last > first && visible(shape, positions[last - 1], start).none();) last--;
    if (first == last) continue;
    const float* keys = key_block(shape, kv, block_table[page], kv_head);
    const float* values = value_block(shape, kv, block_table[page], kv_head);
    const int next = page < positions[rows - 1] / kPage ? page + 1 : page;
    tile.ahead = key_block(shape, kv, block_table[next], kv_head);
    if (queries <= kStreamingQueries) {
      attend_page<true>(shape, tile, head, first, last, positions, start, keys, values);
    } else {
      attend_page<false>(shape, tile, head, first, last, positions, start, keys, values);
    }
  }

  for (int i = 0; i < queries; i++) {
    const f16 share = splat(1.0f / tile.total[i]);
    float* to = out + (size_t)(i / heads) * ldo + (size_t)(head + i % heads) * (size_t)shape.v_dim;
    const float* from = tile.output + (size_t)i * (size_t)tile.v_floats;
    for (int v = 0; v < shape.v_dim; v += kLanes) store_n(to + v, load(from + v) * share, shape.v_dim - v);
  }
}

// How the queries are cut into units of work: a tile of rows, and the query heads of one kv head (or a part of them).
struct AttentionPlan {
  int heads, parts;  // query heads of a unit, parts that a kv head's query heads are cut into
  int rows;          // of a unit: a power of two, aligned to absolute positions
};

inline AttentionPlan plan_attention(const AttentionShape& shape) {
  const int group = shape.heads / shape.kv_heads;
  const int fits = kQueryFloats / (shape.dim + (int)padded_v_dim(shape.v_dim));
  const int queries = fits < 1 ? 1 : fits < kMaxQueries ? fits : kMaxQueries;
  AttentionPlan plan;
  plan.parts = (group + queries - 1) / queries;
  plan.heads = (group + plan.parts - 1) / plan.parts;
  plan.parts = (group + plan.heads - 1) / plan.heads;
  plan.rows = kPage;
  while (plan.rows > 1 && plan.rows * plan.heads > queries) plan.rows /= 2;
  return plan;
}

}  // namespace detail

// Attention of every row over positions 0 .. its own, all of which store_kv has stored.
//   q: row t's head h at q + t * ldq + h * q_head_stride; out: row t at out + t * ldo as [heads][v_dim].
// dim + v_dim <= 16,000. Every worker calls it; a barrier before it and one before reading `out` are the caller's.
inline void attention(Worker& worker, const AttentionShape& shape, const float* kv, const Batch& batch, const float* q,
                      size_t ldq, ptrdiff_t q_head_stride, float* out, size_t ldo) {
  const detail::AttentionPlan plan = detail::plan_attention(shape);
  const int group = shape.heads / shape.kv_heads;
  int sequence = -1, first_ticket = 0, end_ticket = 0, tiles = 0, first_tile = 0, start = 0;
  for (int ticket = worker.next();; ticket = worker.next()) {
    while (ticket >= end_ticket) {
      if (++sequence == batch.sequences) return;
      start = batch.starts[sequence];
      const int rows = batch.starts[sequence + 1] - start;
      first_tile = batch.positions[start] / plan.rows;
      tiles = (batch.positions[start] + rows - 1) / plan.rows - first_tile + 1;
      first_ticket = end_ticket;
      end_ticket += tiles * shape.kv_heads * plan.parts;
    }
    // A head's tiles follow each other, the longest first: its K and V stay in a cache, and the last units are short.
    const int unit = ticket - first_ticket;
    const int tile = first_tile + tiles - 1 - unit % tiles;
    const int part = unit / tiles % plan.parts, kv_head = unit / tiles / plan.parts;
    const int first_head = part * plan.heads;
    const int heads = group - first_head < plan.heads ? group - first_head : plan.heads;
    const int origin = batch.positions[start];
    const int end = batch.starts[sequence + 1];
    const int row = start + (tile * plan.rows > origin ? tile * plan.rows - origin : 0);
    const int past = start + (tile + 1) * plan.rows - origin;
    detail::attend(shape, const_cast<float*>(kv), batch.block_tables + (size_t)sequence * (size_t)batch.max_blocks,
                   kv_head, kv_head * group + first_head, heads, (past < end ? past : end) - row,
                   batch.positions + row, q + (size_t)row * ldq, ldq, q_head_stride, out + (size_t)row * ldo, ldo);
  }
}

}  // namespace bossa
