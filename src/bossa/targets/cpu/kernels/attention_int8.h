// The two products of attention over int8 keys and values, in integers: queries and weights are rounded to 16 bits, and
// their products with bytes are exact in 32, so that it does not matter how they are computed.
#pragma once

#include "attention_block.h"

namespace bossa {
namespace detail {

using Products = Sums;  // of integers, 16 lanes of them

// The largest level of a query whose products with `dim` bytes stay below 2^31, and of a weight, of which a block has 128.
inline float query_levels(int dim) { return dim <= 512 ? 32767.0f : (float)(16909320 / dim); }
constexpr float kWeightLevels = 32767.0f;

// What one level stands for; NaN where the largest magnitude is none, or infinite.
inline float step_of_levels(float most, float levels) {
  return most < kInfinity ? most / levels : __builtin_nanf("");
}

// Words [queries][whole quads of dim]: the scaled queries, in units of their own steps.
inline int16_t* query_words(QueryTile& tile) { return (int16_t*)tile.q; }

// The inverse of query i's step, which it notes.
inline float query_inverse(const AttentionShape& shape, QueryTile& tile, int i, const float* from, f16 scale) {
  f16 largest = splat(0.0f);
  for (int d = 0; d < shape.dim; d += kLanes) largest = max(largest, abs(load_n(from + d, shape.dim - d) * scale));
  const float most = divisible(maximum(largest)), levels = query_levels(shape.dim);
  tile.q_step[i] = step_of_levels(most, levels);
  return most > 0.0f ? levels / most : 0.0f;
}

inline void quantize_query(const AttentionShape& shape, QueryTile& tile, int i, const float* from, f16 scale) {
  const size_t stored = stored_dim<int8_t>(shape.dim);
  const f16 inverse = splat(query_inverse(shape, tile, i, from, scale));
  int16_t* words = query_words(tile) + (size_t)i * stored;
  for (int d = 0; d < shape.dim; d += kLanes) {
    int16_t lanes[kLanes];
    store_words(lanes, load_n(from + d, shape.dim - d) * scale * inverse);
    const size_t left = stored - (size_t)d;
    memcpy(words + d, lanes, sizeof(int16_t) * (left < kLanes ? left : kLanes));
  }
}

// sums[r][p] += words[r] . quads[p] over `quads` quads, for NP panels `panel` bytes apart.
template <int MR, int NP>
inline __attribute__((always_inline)) void add_quads(Products (&sums)[MR][NP], const int16_t* words, size_t stride,
                                                     const int8_t* quads, size_t panel, int count, PagePrefetch& prefetch) {
  for (int q = 0; q < count; q++) {
    if (q % 2 == 0) prefetch.fetch();
#pragma GCC unroll 4
    for (int p = 0; p < NP; p++) {
      Pairs first, second;
      load_signed_quads(quads + (size_t)p * panel + q * kQuad * kLanes, &first, &second);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) add_pairs(sums[r][p], first, words + r * stride + q * kQuad);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) add_pairs(sums[r][p], second, words + r * stride + q * kQuad + 2);
    }
  }
}

template <int MR, int NP>
inline void clear(Products (&sums)[MR][NP]) {
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 4
    for (int p = 0; p < NP; p++) sums[r][p] = no_sums();
  }
}

// Panels side by side: enough chains for a single row.
constexpr int integer_panels(int rows) { return rows > 2 ? 1 : 2; }

// Scores of MR queries and NP panels of a page.
template <int MR, int NP>
inline void score_words(const AttentionShape& shape, QueryTile& tile, int i, const int8_t* keys, int position) {
  const size_t stored = stored_dim<int8_t>(shape.dim);
  Products sums[MR][NP];
  clear(sums);
  add_quads(sums, query_words(tile) + (size_t)i * stored, stored, keys, stored * kLanes, (int)stored / kQuad,
            tile.prefetch);
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 4
    for (int p = 0; p < NP; p++) {
      store(tile.scores + (i + r) * kScoreBlock + position + p * kLanes, to_float(sums[r][p]) * splat(tile.q_step[i + r]));
    }
  }
}

inline void score_block(const AttentionShape& shape, QueryTile& tile, int first, int last, int first_page, int end_page,
                        const HeadPage<int8_t>* pages) {
  with_height<kIntegerRows>(last - first, [&](auto tallest) {
    constexpr int MR = decltype(tallest)::value;
    constexpr int NP = integer_panels(MR);
    for (int page = first_page; page < end_page; page++) {
      in_tiles<MR>(first, last, [&](int i, auto height) {
        constexpr int H = decltype(height)::value;
        for (int p = 0; p < kPagePanels; p += NP) {
          const int position = page * kPage + p * kLanes;
          if (position >= tile.last[i + H - 1] || position + NP * kLanes <= tile.first[i]) continue;
          score_words<H, NP>(shape, tile, i, pages[page].keys + (size_t)p * stored_dim<int8_t>(shape.dim) * kLanes,
                             position);
        }
      });
    }
  });
}

// The inverse of the step of query i's weights, the largest of which is `most`; it notes the step.
inline float weights_inverse(QueryTile& tile, int i, float most) {
  most = divisible(most);
  tile.w_step[i] = step_of_levels(most, kWeightLevels);
  return most > 0.0f ? kWeightLevels / most : 0.0f;
}

// Turns one query's weights, values' scales among them, into words: zeros from `begin` to `end` where it sees nothing.
inline void quantize_weights(QueryTile& tile, int i, float most, int begin, int end) {
  const f16 inverse = splat(weights_inverse(tile, i, most));
  const int first = tile.first[i] / kLanes * kLanes, last = tile.last[i];
  int16_t* words = tile.weight_words + i * kScoreBlock;
  for (int p = begin / kPage * kPage; p < end; p += kLanes) {
    const bool seen = p >= first && p < last;
    store_words(words + p, seen ? load(tile.scores + i * kScoreBlock + p) * inverse : splat(0.0f));
  }
}

// output[0..MR) = output * decay + weights . values, for NP panels of the values from panel v on.
template <int MR, int NP>
inline void weigh_words(QueryTile& tile, int i, int v, int begin, int end, const HeadPage<int8_t>* pages) {
  Products sums[MR][NP];
  clear(sums);
  const int16_t* words = tile.weight_words + i * kScoreBlock;
  for (int position = begin / kQuad * kQuad; position < end;) {
    const int page = position / kPage, slot = position % kPage;
    const int past = end < (page + 1) * kPage ? end : (page + 1) * kPage, quads = (past - position + kQuad - 1) / kQuad;
    add_quads(sums, words + position, kScoreBlock, pages[page].values + (size_t)v * kPage * kLanes + slot * kLanes,
              kPage * kLanes, quads, tile.prefetch);
    position += quads * kQuad;
  }
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 4
    for (int p = 0; p < NP; p++) {
      float* to = tile.span.output + (size_t)(i + r) * (size_t)tile.v_floats + (size_t)(v + p) * kLanes;
      store(to, fma(to_float(sums[r][p]), splat(tile.w_step[i + r]), load(to) * splat(tile.decay[i + r])));
    }
  }
}

inline void weigh_block(QueryTile& tile, int first, int last, const HeadPage<int8_t>* pages) {
  const int panels = tile.v_floats / kLanes;
  with_height<kIntegerRows>(last - first, [&](auto tallest) {
    constexpr int MR = decltype(tallest)::value;
    constexpr int NP = integer_panels(MR);
    int v = 0;
    for (; v + NP <= panels; v += NP) {
      in_tiles<MR>(first, last, [&](int i, auto height) {
        constexpr int H = decltype(height)::value;
        weigh_words<H, NP>(tile, i, v, tile.first[i], tile.last[i + H - 1], pages);
      });
    }
    for (; NP > 1 && v < panels; v++) {
      in_tiles<MR>(first, last, [&](int i, auto height) {
        constexpr int H = decltype(height)::value;
        weigh_words<H, 1>(tile, i, v, tile.first[i], tile.last[i + H - 1], pages);
      });
    }
  });
}

}  // namespace detail
}  // namespace bossa
