// Integer products in AMX tiles: 16 rows of activations by 16 outputs, 64 of k in one instruction. Sums of products
// are exact in 32 bits, so that these have the bits of every other target.
#pragma once

#include "integers.h"

namespace bossa {

// Rows of a tile, and the fewest rows for which tiles pay.
constexpr int kAmxRows = 16;
#if defined(BOSSA_AMX)
constexpr int kFewestAmxRows = 9;
#else
constexpr int kFewestAmxRows = INT32_MAX;
#endif

#if defined(BOSSA_AMX)

namespace detail {

constexpr int kAmxSums = kAmxRows * kLanes;  // of a tile
constexpr int kAmxBlockRows = 192;           // of rows whose weights are prepared for tiles once

// What ldtilecfg reads: palette 1, and the shape of each of eight tiles.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles are read by instructions whose operands the compiler does not see: what was stored at `p` must be there before.
inline void stored_before_tiles(const void* p) { asm volatile("" ::"r"(p) : "memory"); }

// Keeps the tiles of a thread configured, for `kc` of k, at most 64, and for the most rows of activations that there
// are: 0 to 3 for sums, 4 and 5 for rows of activations, 6 and 7 for quads of weights. The system must have granted the
// process their use.
struct Tiles {
  explicit Tiles(int kc, int rows = kAmxRows) {
    TileShapes shapes;
    for (int i = 0; i < 8; i++) shapes.row_bytes[i] = 64, shapes.rows[i] = (uint8_t)(rows < kAmxRows ? rows : kAmxRows);
    shapes.row_bytes[4] = shapes.row_bytes[5] = (uint16_t)kc;
    shapes.rows[6] = shapes.rows[7] = (uint8_t)(kc / 4);
    stored_before_tiles(&shapes);
    _tile_loadconfig(&shapes);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// Packing works on quarters of vectors: this puts the pieces of four in order.
inline __m512i in_order() { return _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0); }

// Two digits each of 64 words, in order.
struct Digits {
  __m512i low, high;
};

// Of words in four registers; those that do not fit 16 bits become the nearest that do. The lower digits are signed.
inline __attribute__((always_inline)) Digits digits(__m512i a, __m512i b, __m512i c, __m512i d, bool signed_low) {
  const __m512i order = in_order(), byte = _mm512_set1_epi16(255), half = _mm512_set1_epi16(128);
  __m512i first = _mm512_packs_epi32(a, b), second = _mm512_packs_epi32(c, d);
  const __m512i low = _mm512_packus_epi16(_mm512_and_si512(first, byte), _mm512_and_si512(second, byte));
  if (signed_low) first = _mm512_add_epi16(first, half), second = _mm512_add_epi16(second, half);
  const __m512i high = _mm512_packs_epi16(_mm512_srai_epi16(first, 8), _mm512_srai_epi16(second, 8));
  return {_mm512_permutexvar_epi32(order, low), _mm512_permutexvar_epi32(order, high)};
}

// The lower bytes of 64 numbers that are no larger, in order.
inline __attribute__((always_inline)) __m512i low_bytes(__m512i a, __m512i b, __m512i c, __m512i d) {
  return _mm512_permutexvar_epi32(in_order(), _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)));
}

// Tiles 0 and 1, or tiles 2 and 3: the lower and the upper digit's sums of a product.
template <int pair>
inline __attribute__((always_inline)) void clear_tile_pair() {
  if constexpr (pair == 0) {
    _tile_zero(0);
    _tile_zero(1);
  } else {
    _tile_zero(2);
    _tile_zero(3);
  }
}

template <int pair>
inline __attribute__((always_inline)) void store_tile_pair(int32_t* lower, int32_t* upper) {
  if constexpr (pair == 0) {
    _tile_stored(0, lower, 64);
    _tile_stored(1, upper, 64);
  } else {
    _tile_stored(2, lower, 64);
    _tile_stored(3, upper, 64);
  }
}

// Tiles 0 to 2 NP - 1, the pairs of NP products.
template <int NP>
inline __attribute__((always_inline)) void clear_tiles() {
  clear_tile_pair<0>();
  if constexpr (NP > 1) clear_tile_pair<1>();
}

template <int NP>
inline __attribute__((always_inline)) void store_tiles(int32_t* sums) {
  store_tile_pair<0>(sums, sums + kAmxSums);
  if constexpr (NP > 1) store_tile_pair<1>(sums + 2 * kAmxSums, sums + 3 * kAmxSums);
}

// A row of the sums of two digits.
inline __attribute__((always_inline)) Sums joined(const int32_t* lower, const int32_t* upper, int row) {
  const __m512i high = _mm512_slli_epi32(_mm512_loadu_si512(upper + row * kLanes), 8);
  return {_mm512_add_epi32(high, _mm512_loadu_si512(lower + row * kLanes))};
}

// The same of the first product that store_tiles has stored.
inline __attribute__((always_inline)) Sums joined(const int32_t* sums, int row) {
  return joined(sums, sums + kAmxSums, row);
}

}  // namespace detail

#endif

}  // namespace bossa
