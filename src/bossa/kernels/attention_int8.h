// The two products of attention over int8 keys and values, in integers: queries and weights are rounded to 16 bits, and
// their products with bytes are exact in 32, so that it does not matter how they are computed.
#pragma once

#include "amx.h"
#include "attention_block.h"

namespace bossa {
namespace detail {

using Products = bossa::Sums;  // of integers, 16 lanes of them

// Keeps the tiles that attention over keys and values of this kind computes in.
template <class W>
struct TilesOf {};
#if defined(BOSSA_AMX)
template <>
struct TilesOf<int8_t> : Tiles {
  TilesOf() : Tiles(kPage) {}
};
#endif

// The largest level of a query whose products with `dim` bytes stay below 2^31, and of a weight, of which a block has 128.
inline float query_levels(int dim) { return dim <= 512 ? 32767.0f : (float)(16909320 / dim); }
constexpr float kWeightLevels = 32767.0f;

// Steps of k in an AMX tile: a page has as many positions.
constexpr int kAmxSteps = kPage;
constexpr int kAmxDigit = kAmxRows * kAmxSteps;  // bytes of one digit of a tile of queries

// What one level stands for; NaN where the largest magnitude is none, or infinite.
inline float step_of_levels(float most, float levels) {
  return most < kInfinity ? most / levels : __builtin_nanf("");
}

// Words [queries][whole quads of dim]: the scaled queries, in units of their own steps.
inline int16_t* query_words(QueryTile& tile) { return (int16_t*)tile.q; }

inline void quantize_query(const AttentionShape& shape, QueryTile& tile, int i, const float* from, f16 scale) {
  const size_t stored = stored_dim<int8_t>(shape.dim);
  f16 largest = splat(0.0f);
  for (int d = 0; d < shape.dim; d += kLanes) largest = max(largest, abs(load_n(from + d, shape.dim - d) * scale));
  const float most = divisible(maximum(largest)), levels = query_levels(shape.dim);
  const f16 inverse = splat(most > 0.0f ? levels / most : 0.0f);
  int16_t* words = query_words(tile) + (size_t)i * stored;
  for (int d = 0; d < shape.dim; d += kLanes) {
    int16_t lanes[kLanes];
    store_words(lanes, load_n(from + d, shape.dim - d) * scale * inverse);
    const size_t left = stored - (size_t)d;
    memcpy(words + d, lanes, sizeof(int16_t) * (left < kLanes ? left : kLanes));
  }
  tile.q_step[i] = step_of_levels(most, levels);
}

// sums[r][p] += words[r] . quads[p] over `quads` quads, for NP panels `panel` bytes apart.
template <int MR, int NP>
inline __attribute__((always_inline)) void add_quads(Products (&sums)[MR][NP], const int16_t* words, size_t stride,
                                                     const int8_t* quads, size_t panel, int count, Ahead& ahead) {
  for (int q = 0; q < count; q++) {
    if (q % 2 == 0) ahead.fetch();
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

#if defined(BOSSA_AMX)

// The digits of 32 words, in the places of quads.
inline void store_digits(__m512i words, uint8_t* low, uint8_t* high) {
  const __m256i places = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
  _mm256_storeu_si256((__m256i*)low, _mm256_shuffle_epi8(_mm512_cvtepi16_epi8(words), places));
  _mm256_storeu_si256((__m256i*)high,
                      _mm256_shuffle_epi8(_mm512_cvtepi16_epi8(_mm512_srai_epi16(words, 8)), places));
}

// Whether a unit's queries are worth tiles.
inline bool tiles_pay(const AttentionShape& shape, int queries) {
  return queries >= kFewestAmxQueries && shape.dim % kAmxSteps == 0 && shape.dim <= kMostAmxDim;
}

// Digits of the queries: [tiles of 16][dim / 32][lower, upper][16][32].
inline void split_queries(const AttentionShape& shape, QueryTile& tile) {
  const int16_t* words = query_words(tile);
  const size_t tile_bytes = (size_t)(2 * kAmxRows * shape.dim);
  for (int i = 0; i < tile.rows * tile.heads; i++, words += shape.dim) {
    uint8_t* to = tile.q_digits + (size_t)(i / kAmxRows) * tile_bytes + i % kAmxRows * kAmxSteps;
    for (int d = 0; d < shape.dim; d += kAmxSteps, to += 2 * kAmxDigit) {
      store_digits(_mm512_loadu_si512(words + d), to, to + kAmxDigit);
    }
  }
}

// Scores of a tile of queries against the two panels of a page.
inline void amx_score_page(const AttentionShape& shape, const uint8_t* digits, const int8_t* keys, int32_t* sums) {
  const size_t panel = (size_t)shape.dim * kLanes;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int d = 0; d < shape.dim; d += kAmxSteps, digits += 2 * kAmxDigit, keys += kAmxSteps * kLanes) {
    _tile_loadd(4, digits, kAmxSteps);
    _tile_loadd(6, keys, 64);
    _tile_dpbusd(0, 4, 6);
    _tile_loadd(5, digits + kAmxDigit, kAmxSteps);
    _tile_dpbssd(1, 5, 6);
    _tile_loadd(7, keys + panel, 64);
    _tile_dpbusd(2, 4, 7);
    _tile_dpbssd(3, 5, 7);
  }
  store_tiles<2>(sums);
}

inline void amx_score_block(const AttentionShape& shape, QueryTile& tile, int first, int last, int first_page,
                            int end_page, const HeadPage<int8_t>* pages) {
  alignas(64) int32_t sums[4 * kAmxSums];
  for (int start = first / kAmxRows * kAmxRows; start < last; start += kAmxRows) {
    const int begin = start < first ? first : start, end = start + kAmxRows < last ? start + kAmxRows : last;
    const uint8_t* digits = tile.q_digits + (size_t)(2 * start * shape.dim);
    for (int page = first_page; page < end_page; page++) {
      if (page * kPage >= tile.last[end - 1] || (page + 1) * kPage <= tile.first[begin]) continue;
      amx_score_page(shape, digits, pages[page].keys, sums);
      for (int i = begin; i < end; i++) {
        const f16 step = splat(tile.q_step[i]);
        float* to = tile.scores + i * kBlock + page * kPage;
        store(to, to_float(joined(sums, i - start)) * step);
        store(to + kLanes, to_float(joined(sums + 2 * kAmxSums, i - start)) * step);
      }
    }
  }
}

// Weighted values of a tile of queries, two panels of them.
inline void amx_weigh_block(QueryTile& tile, int first, int last, int first_page, int end_page,
                            const HeadPage<int8_t>* pages) {
  alignas(64) int32_t sums[4 * kAmxSums];
  const int panels = tile.v_floats / kLanes;
  for (int start = first / kAmxRows * kAmxRows; start < last; start += kAmxRows) {
    const int begin = start < first ? first : start, end = start + kAmxRows < last ? start + kAmxRows : last;
    const uint8_t* digits = tile.weight_digits + (size_t)start / kAmxRows * kBlockPages * 2 * kAmxDigit;
    for (int v = 0; v < panels; v += 2) {
      const bool two = v + 1 < panels;
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      for (int page = first_page; page < end_page; page++) {
        const int8_t* values = pages[page].values + (size_t)v * kPage * kLanes;
        _tile_loadd(4, digits + page * 2 * kAmxDigit, kAmxSteps);
        _tile_loadd(6, values, 64);
        _tile_dpbusd(0, 4, 6);
        _tile_loadd(5, digits + page * 2 * kAmxDigit + kAmxDigit, kAmxSteps);
        _tile_dpbusd(1, 5, 6);
        if (two) {
          _tile_loadd(7, values + kPage * kLanes, 64);
          _tile_dpbusd(2, 4, 7);
          _tile_dpbusd(3, 5, 7);
        }
      }
      store_tiles<2>(sums);
      for (int i = begin; i < end; i++) {
        const f16 step = splat(tile.w_step[i]), decay = splat(tile.decay[i]);
        float* to = tile.span.output + (size_t)i * (size_t)tile.v_floats + v * kLanes;
        store(to, fma(to_float(joined(sums, i - start)), step, load(to) * decay));
        if (two) store(to + kLanes, fma(to_float(joined(sums + 2 * kAmxSums, i - start)), step, load(to + kLanes) * decay));
      }
    }
  }
}

#endif

// Scores of MR queries and NP panels of a page.
template <int MR, int NP>
inline void score_words(const AttentionShape& shape, QueryTile& tile, int i, const int8_t* keys, int position) {
  const size_t stored = stored_dim<int8_t>(shape.dim);
  Products sums[MR][NP];
  clear(sums);
  add_quads(sums, query_words(tile) + (size_t)i * stored, stored, keys, stored * kLanes, (int)stored / kQuad,
            tile.ahead);
#pragma GCC unroll 16
  for (int r = 0; r < MR; r++) {
#pragma GCC unroll 4
    for (int p = 0; p < NP; p++) {
      store(tile.scores + (i + r) * kBlock + position + p * kLanes, to_float(sums[r][p]) * splat(tile.q_step[i + r]));
    }
  }
}

inline void score_block(const AttentionShape& shape, QueryTile& tile, int first, int last, int first_page, int end_page,
                        const HeadPage<int8_t>* pages) {
#if defined(BOSSA_AMX)
  if (tile.tiled) return amx_score_block(shape, tile, first, last, first_page, end_page, pages);
#endif
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

// Turns one query's weights, values' scales among them, into words: zeros from `begin` to `end` where it sees nothing.
inline void quantize_weights(QueryTile& tile, int i, float most, int begin, int end) {
  most = divisible(most);
  const f16 inverse = splat(most > 0.0f ? kWeightLevels / most : 0.0f);
  tile.w_step[i] = step_of_levels(most, kWeightLevels);
  const int first = tile.first[i] / kLanes * kLanes, last = tile.last[i];
  int16_t* words = tile.weight_words + i * kBlock;
  for (int p = begin / kPage * kPage; p < end; p += kLanes) {
    const bool seen = p >= first && p < last;
    store_words(words + p, seen ? load(tile.scores + i * kBlock + p) * inverse : splat(0.0f));
  }
#if defined(BOSSA_AMX)
  if (!tile.tiled) return;
  for (int p = begin / kPage * kPage; p < end; p += kPage) {
    uint8_t* to = tile.weight_digits + (size_t)(i / kAmxRows * kBlockPages + p / kPage) * 2 * kAmxDigit +
                  i % kAmxRows * kAmxSteps;
    if (p + kLanes >= end) store_words(words + p + kLanes, splat(0.0f));
    store_digits(_mm512_loadu_si512(words + p), to, to + kAmxDigit);
  }
#endif
}

// output[0..MR) = output * decay + weights . values, for NP panels of the values from panel v on.
template <int MR, int NP>
inline void weigh_words(QueryTile& tile, int i, int v, int begin, int end, const HeadPage<int8_t>* pages) {
  Products sums[MR][NP];
  clear(sums);
  const int16_t* words = tile.weight_words + i * kBlock;
  for (int position = begin / kQuad * kQuad; position < end;) {
    const int page = position / kPage, slot = position % kPage;
    const int past = end < (page + 1) * kPage ? end : (page + 1) * kPage, quads = (past - position + kQuad - 1) / kQuad;
    add_quads(sums, words + position, kBlock, pages[page].values + (size_t)v * kPage * kLanes + slot * kLanes,
              kPage * kLanes, quads, tile.ahead);
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
  const int begin = tile.first[first], end = tile.last[last - 1], panels = tile.v_floats / kLanes;
#if defined(BOSSA_AMX)
  if (tile.tiled) {
    stored_before_tiles(tile.weight_digits);
    return amx_weigh_block(tile, first, last, begin / kPage, (end + kPage - 1) / kPage, pages);
  }
#endif
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
