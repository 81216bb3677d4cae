// A block of attention over int8 keys and values in AMX tiles. The same numbers as attention_block.h and attention_int8.h
// compute.
#pragma once

#include "attention_int8.h"

namespace bossa {
namespace detail {

// Keeps the tiles that attention over keys and values of this kind computes in.
template <class W>
struct TilesOf {
  explicit TilesOf(const AttentionShape&) {}
};

#if defined(BOSSA_AMX)

// Queries of a tile. Half of what it could hold: what vectors do for them between two uses of tiles then takes less than
// the half microsecond after which the tiles' unit sleeps, and wakes as slowly.
constexpr int kQueryRows = 8;
constexpr int kQuerySums = kQueryRows * kLanes;

// Steps of k in a tile, of features and of positions alike.
inline int amx_steps(const AttentionShape& shape) { return shape.dim % 64 == 0 ? 64 : 32; }

template <>
struct TilesOf<int8_t> : Tiles {
  explicit TilesOf(const AttentionShape& shape) : Tiles(amx_steps(shape), kQueryRows) {}
};

// Whether a unit's queries are worth tiles.
inline bool tiles_pay(const AttentionShape& shape, int queries) {
  return queries >= kFewestAmxQueries && shape.dim % 32 == 0 && shape.dim <= kMostAmxDim && shape.v_dim <= kMostAmxDim;
}

// Stores the digits of one row's 64 words in tiles of `steps`, [64 / steps][lower, upper][8][steps] bytes from `to` on,
// which is where the row begins in the first.
inline void store_digits(Digits digits, int steps, uint8_t* to) {
  // Keys and values have their quads' steps in these places.
  const __m512i places = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
  const __m512i low = _mm512_shuffle_epi8(digits.low, places), high = _mm512_shuffle_epi8(digits.high, places);
  const int tile_bytes = kQueryRows * steps;
  if (steps == 64) {
    _mm512_storeu_si512(to, low);
    _mm512_storeu_si512(to + tile_bytes, high);
    return;
  }
  _mm256_storeu_si256((__m256i*)to, _mm512_castsi512_si256(low));
  _mm256_storeu_si256((__m256i*)(to + tile_bytes), _mm512_castsi512_si256(high));
  _mm256_storeu_si256((__m256i*)(to + 2 * tile_bytes), _mm512_extracti64x4_epi64(low, 1));
  _mm256_storeu_si256((__m256i*)(to + 3 * tile_bytes), _mm512_extracti64x4_epi64(high, 1));
}

// Lane r < 8: rows[r] reduced by the tree of lanes.h's sum and maximum.
template <class Op>
inline __m512 across(const float (*rows)[kLanes], Op&& op) {
  __m512 v[kQueryRows];
#pragma GCC unroll 8
  for (int r = 0; r < 8; r++) v[r] = _mm512_load_ps(rows[r]);
#pragma GCC unroll 4
  for (int r = 0; r < 4; r++) {
    v[r] = op(_mm512_shuffle_f32x4(v[2 * r], v[2 * r + 1], 0x44), _mm512_shuffle_f32x4(v[2 * r], v[2 * r + 1], 0xee));
  }
#pragma GCC unroll 2
  for (int r = 0; r < 2; r++) {
    v[r] = op(_mm512_shuffle_f32x4(v[2 * r], v[2 * r + 1], 0x88), _mm512_shuffle_f32x4(v[2 * r], v[2 * r + 1], 0xdd));
  }
  v[0] = op(_mm512_shuffle_ps(v[0], v[1], 0x44), _mm512_shuffle_ps(v[0], v[1], 0xee));
  const __m512 all = op(_mm512_shuffle_ps(v[0], v[0], 0x88), _mm512_shuffle_ps(v[0], v[0], 0xdd));
  return _mm512_permutexvar_ps(in_order(), all);
}

// The larger of numbers that are not negative, or a NaN, which is larger than all of them: as integers.
inline __m512 largest_or_nan(__m512 a, __m512 b) {
  return _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}

// step_of_levels, to `steps`, and the inverses of the steps, or 0, for the largest magnitudes of 8 queries.
inline __m512 inverse_steps(__m512 largest, float most_levels, __mmask16 mask, float* steps) {
  const __m512 levels = splat(most_levels).v, nan = splat(__builtin_nanf("")).v;
  const __m512 most =
      _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(largest, splat(kLeastDivisible).v, _CMP_NLT_UQ), largest);
  const __mmask16 finite = _mm512_cmp_ps_mask(most, splat(kInfinity).v, _CMP_LT_OQ);
  const __mmask16 positive = _mm512_cmp_ps_mask(most, _mm512_setzero_ps(), _CMP_GT_OQ);
  _mm512_mask_storeu_ps(steps, mask, _mm512_mask_div_ps(nan, finite, most, levels));
  return _mm512_maskz_div_ps(positive, levels, most);
}

// Queries of a tile from `first` on, which lie at from(i), as digits: [tiles of 8][dim / steps][lower, upper][8][steps].
template <class From>
inline void load_queries_in_tiles(const AttentionShape& shape, QueryTile& tile, int first, int last, f16 scale,
                                  From&& from) {
  const int steps = amx_steps(shape), dim = shape.dim;
  alignas(64) float lanes[kQueryRows][kLanes], inverses[kLanes];
  for (int i = first; i < last; i++) {
    const float* x = from(i);
    f16 largest = splat(0.0f);
    for (int d = 0; d < dim; d += kLanes) largest.v = largest_or_nan(largest.v, abs(load(x + d) * scale).v);
    store(lanes[i - first], largest);
  }
  const __m512 largest = across(lanes, largest_or_nan);
  _mm512_store_ps(inverses, inverse_steps(largest, query_levels(dim), first_lanes(last - first), tile.q_step + first));
  for (int i = first; i < last; i++) {
    const float* x = from(i);
    const f16 inverse = splat(inverses[i - first]);
    const auto words = [&](int d) __attribute__((always_inline)) {
      return d < dim ? _mm512_cvtps_epi32((load(x + d) * scale * inverse).v) : _mm512_setzero_si512();
    };
    uint8_t* to = tile.q_digits + 2 * (size_t)first * (size_t)dim + (size_t)((i - first) * steps);
    for (int d = 0; d < dim; d += 64, to += 2 * kQueryRows * 64) {
      store_digits(digits(words(d), words(d + kLanes), words(d + 2 * kLanes), words(d + 3 * kLanes), false), steps, to);
    }
  }
}

constexpr int kKeyPanels = kScoreBlock / kLanes;  // of positions
constexpr int kTilePanels = 4;               // of positions whose weights are split into digits together
constexpr int kValuePanels = 4;              // of features that are multiplied one after the other
constexpr int kNextPanel = 2 * kQuerySums;

// 8 queries from `start` on, of which begin .. end - 1 see a block, and the pages that any of them sees; what they have of
// the block: products of their lower and upper digits with each panel of its keys, the first of which then become logits,
// and those weights, and the weights' digits, as store_digits has them. And what is found for each of them.
struct AmxQueries {
  int start, begin, end;
  int first_page, end_page;
  alignas(64) int32_t scores[kKeyPanels][kNextPanel];
  alignas(64) uint8_t weights[2 * kQueryRows * kScoreBlock];
  alignas(64) float base[kLanes], decay[kLanes], inverse[kLanes];

  __mmask16 mask() const { return (__mmask16)(first_lanes(end - start) & ~first_lanes(begin - start)); }
  // Panels that are looked at: as many as whole tiles have.
  int first_panel() const { return first_page * kPagePanels / kTilePanels * kTilePanels; }
  int end_panel() const { return ceil_div(end_page * kPagePanels, kTilePanels) * kTilePanels; }
  // Where a query's numbers lie in the first panel; the next panel's are kNextPanel on.
  float* of_query(int query) { return (float*)scores[0] + (query - start) * kLanes; }
};

// The digits of queries' features from `at` on, to tiles 4 and 5.
inline __attribute__((always_inline)) void load_digits(const uint8_t* digits, int at, int tile_bytes, int steps) {
  _tile_loadd(4, digits + at, steps);
  _tile_loadd(5, digits + at + tile_bytes, steps);
}

// Products of queries and keys, a panel after the other: while one is multiplied, the one before is stored.
inline void score_in_tiles(const AttentionShape& shape, const QueryTile& tile, const HeadPage<int8_t>* pages,
                           AmxQueries& of) {
  const int steps = amx_steps(shape), tile_bytes = kQueryRows * steps;
  const uint8_t* digits = tile.q_digits + (size_t)(2 * of.start * shape.dim);
  const size_t panel_bytes = (size_t)shape.dim * kLanes;
  _tile_loadd(4, digits, steps);
  _tile_loadd(5, digits + tile_bytes, steps);
  for (int page = of.first_page; page < of.end_page; page++) {
    const int8_t* keys = pages[page].keys;
    int32_t(*sums)[kNextPanel] = of.scores + page * kPagePanels;
    clear_tile_pair<0>();
    for (int d = 0; d < shape.dim; d += steps) {
      if (steps < shape.dim) load_digits(digits, 2 * tile_bytes * (d / steps), tile_bytes, steps);
      _tile_loadd(6, keys + d * kLanes, 64);
      _tile_dpbusd(0, 4, 6);
      _tile_dpbssd(1, 5, 6);
    }
    if (page > of.first_page) store_tile_pair<1>(sums[-1], sums[-1] + kQuerySums);
    clear_tile_pair<1>();
    for (int d = 0; d < shape.dim; d += steps) {
      if (steps < shape.dim) load_digits(digits, 2 * tile_bytes * (d / steps), tile_bytes, steps);
      _tile_loadd(7, keys + panel_bytes + d * kLanes, 64);
      _tile_dpbusd(2, 4, 7);
      _tile_dpbssd(3, 5, 7);
    }
    store_tile_pair<0>(sums[0], sums[0] + kQuerySums);
  }
  int32_t* last = of.scores[of.end_page * kPagePanels - 1];
  store_tile_pair<1>(last, last + kQuerySums);
}

// The positions of a block that a query sees: first .. last - 1.
struct Sight {
  int first, last;

  __mmask16 of(int panel) const {
    return (__mmask16)(first_lanes(last - panel * kLanes) & ~first_lanes(first - panel * kLanes));
  }
};

// From products with keys to logits, -inf for what a query does not see; as `logits` and raise_top. kWhole: each of them
// sees all of the block.
template <bool kWhole>
inline void logits_of(const AttentionShape& shape, QueryTile& tile, int block_start, AmxQueries& of) {
  const bool curved = is_curved(shape);
  const int start = of.start, end = of.end, first_panel = of.first_panel(), end_panel = of.end_panel();
  alignas(64) float lanes[kQueryRows][kLanes];
  for (int i = of.begin; i < end; i++) {
    float* at = of.of_query(i);
    const Sight sight{tile.first[i], tile.last[i]};
    const float* bias = bias_of(shape, tile, i, block_start);
    const f16 step = splat(tile.q_step[i]);
    f16 largest = splat(-kInfinity);
#pragma GCC unroll 4
    for (int p = first_panel; p < end_panel; p++) {
      const int32_t* sums = (const int32_t*)at + p * kNextPanel;
      f16 s = to_float(joined(sums, sums + kQuerySums, 0)) * step * load(tile.key_scales + p * kLanes);
      if (curved) s = curve(shape, s, bias ? bias + p * kLanes : nullptr, sight.last - p * kLanes);
      if (!kWhole) s.v = _mm512_mask_mov_ps(splat(-kInfinity).v, sight.of(p), s.v);
      largest = at_least(largest, s);
      store(at + p * kNextPanel, s);
    }
    store(lanes[i - start], largest);
  }
  float* tops = tile.span.top + of.start;
  const __m512 old = _mm512_maskz_loadu_ps(of.mask(), tops);
  const __m512 here = across(lanes, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); }), top = _mm512_max_ps(here, old);
  const __m512 base = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(top, splat(-kInfinity).v, _CMP_NEQ_UQ), top);
  _mm512_mask_storeu_ps(tops, of.mask(), top);
  _mm512_store_ps(of.base, base);
  store(of.decay, exp2_nonpositive({_mm512_sub_ps(old, base)}));
}

// From logits to weights, values' scales among them, zeros for what a query does not see; as `weights` and
// quantize_weights.
template <bool kWhole>
inline void weights_of(QueryTile& tile, AmxQueries& of) {
  const int start = of.start, end = of.end, first_panel = of.first_panel(), end_panel = of.end_panel();
  alignas(64) float sums[kQueryRows][kLanes], lanes[kQueryRows][kLanes];
  for (int i = of.begin; i < end; i++) {
    float* at = of.of_query(i);
    const Sight sight{tile.first[i], tile.last[i]};
    const f16 base = splat(of.base[i - start]);
    f16 total = splat(0.0f), most = total;
#pragma GCC unroll 4
    for (int p = first_panel; p < end_panel; p++) {
      f16 weight = exp2_nonpositive(load(at + p * kNextPanel) - base);
      total = total + weight;
      weight = weight * load(tile.value_scales + p * kLanes);
      if (!kWhole) weight.v = _mm512_maskz_mov_ps(sight.of(p), weight.v);
      most.v = largest_or_nan(most.v, weight.v);
      store(at + p * kNextPanel, weight);
    }
    store(sums[i - start], total);
    store(lanes[i - start], most);
  }
  float* totals = tile.span.total + of.start;
  const __m512 total = across(sums, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); });
  const __m512 before = _mm512_maskz_loadu_ps(of.mask(), totals);
  _mm512_mask_storeu_ps(totals, of.mask(), _mm512_fmadd_ps(before, load(of.decay).v, total));
  const __m512 largest = across(lanes, largest_or_nan);
  _mm512_store_ps(of.inverse, inverse_steps(largest, kWeightLevels, of.mask(), tile.w_step + of.start));
}

// From weights to their digits.
inline void split_weights(const AttentionShape& shape, AmxQueries& of) {
  const int steps = amx_steps(shape), start = of.start, end = of.end;
  const int first_panel = of.first_panel(), end_panel = of.end_panel();
  for (int i = of.begin; i < end; i++) {
    const float* at = of.of_query(i);
    const f16 inverse = splat(of.inverse[i - start]);
    const auto words = [&](int p) __attribute__((always_inline)) {
      return _mm512_cvtps_epi32((load(at + p * kNextPanel) * inverse).v);
    };
    for (int p = first_panel; p < end_panel; p += kTilePanels) {
      store_digits(digits(words(p), words(p + 1), words(p + 2), words(p + 3), false), steps,
                   of.weights + 2 * kQueryRows * kLanes * p + (i - start) * steps);
    }
  }
  stored_before_tiles(of.weights);
}

// Adds the weighted values of queries.
inline void weigh_in_tiles(const AttentionShape& shape, QueryTile& tile, const AmxQueries& of) {
  alignas(64) int32_t sums[kValuePanels][kNextPanel];
  const int steps = amx_steps(shape), panels = tile.v_floats / kLanes, tile_bytes = kQueryRows * steps;
  const int begin = of.first_page * kPage / steps, end = ceil_div(of.end_page * kPage, steps);
  for (int v = 0; v < panels; v += kValuePanels) {
    const int past = v + kValuePanels < panels ? v + kValuePanels : panels;
    for (int p = v; p < past; p += 2) {
      const bool two = p + 1 < past;
      const int8_t* values = tile.values + p * kScoreBlock * kLanes;
      clear_tiles<2>();
      for (int j = begin; j < end; j++) {
        const uint8_t* digits = of.weights + 2 * tile_bytes * j;
        _tile_loadd(4, digits, steps);
        _tile_loadd(6, values + j * steps * kLanes, 64);
        _tile_dpbusd(0, 4, 6);
        _tile_loadd(5, digits + tile_bytes, steps);
        _tile_dpbusd(1, 5, 6);
        if (two) {
          _tile_loadd(7, values + (kScoreBlock + j * steps) * kLanes, 64);
          _tile_dpbusd(2, 4, 7);
          _tile_dpbusd(3, 5, 7);
        }
      }
      store_tile_pair<0>(sums[p - v], sums[p - v] + kQuerySums);
      if (two) store_tile_pair<1>(sums[p - v + 1], sums[p - v + 1] + kQuerySums);
    }
    for (int i = of.begin; i < of.end; i++) {
      const f16 step = splat(tile.w_step[i]), decay = splat(of.decay[i - of.start]);
      float* to = tile.span.output + (size_t)i * (size_t)tile.v_floats + v * kLanes;
      for (int p = 0; p < past - v; p++, to += kLanes) {
        store(to, fma(to_float(joined(sums[p], sums[p] + kQuerySums, i - of.start)), step, load(to) * decay));
      }
    }
  }
}

// attend_block for queries first .. last - 1, which see some of pages first_page .. end_page - 1.
inline void attend_block_in_tiles(const AttentionShape& shape, QueryTile& tile, int start, int first, int last,
                                  int first_page, int end_page, const HeadPage<int8_t>* pages) {
  // What is not seen is computed with whatever lies there, and not used.
  for (int page = first_page; page < end_page; page++) {
    const HeadPage<int8_t>& from = pages[page];
    memcpy(tile.key_scales + page * kPage, from.key_scales, sizeof(float) * kPage);
    memcpy(tile.value_scales + page * kPage, from.value_scales, sizeof(float) * kPage);
    for (int v = 0; v < tile.v_floats / kLanes; v++) {
      constexpr int kBytes = kPage * kLanes;
      memcpy(tile.values + (v * kScoreBlockPages + page) * kBytes, from.values + (size_t)v * kBytes, kBytes);
    }
  }
  stored_before_tiles(tile.values);
  AmxQueries of;
  for (of.start = first / kQueryRows * kQueryRows; of.start < last; of.start += kQueryRows) {
    of.begin = of.start < first ? first : of.start;
    of.end = of.start + kQueryRows < last ? of.start + kQueryRows : last;
    of.first_page = tile.first[of.begin] / kPage;
    of.end_page = ceil_div(tile.last[of.end - 1], kPage);
    score_in_tiles(shape, tile, pages, of);
    if (tile.last[of.begin] == kScoreBlock && tile.first[of.end - 1] == 0) {
      logits_of<true>(shape, tile, start, of);
      weights_of<true>(tile, of);
    } else {
      logits_of<false>(shape, tile, start, of);
      weights_of<false>(tile, of);
    }
    split_weights(shape, of);
    weigh_in_tiles(shape, tile, of);
  }
}

#endif

}  // namespace detail
}  // namespace bossa
