// Integer products in AMX tiles: 16 rows of activations by 16 outputs, 64 steps of k in one instruction. Sums of products
// are exact in 32 bits, so that these have the bits of every other target.
#pragma once

#include "integers.h"

#if defined(__AMX_INT8__) && defined(__AMX_TILE__) && defined(BOSSA_LANES_AVX512)
#define BOSSA_AMX 1
#endif

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

// Keeps the tiles of a thread configured, for `steps` of k, at most 64, and for the most rows of activations that there
// are: 0 to 3 for sums, 4 and 5 for rows of activations, 6 and 7 for quads of weights. The system must have granted the
// process their use.
struct Tiles {
  explicit Tiles(int steps, int rows = kAmxRows) {
    TileShapes shapes;
    for (int i = 0; i < 8; i++) shapes.row_bytes[i] = 64, shapes.rows[i] = (uint8_t)(rows < kAmxRows ? rows : kAmxRows);
    shapes.row_bytes[4] = shapes.row_bytes[5] = (uint16_t)steps;
    shapes.rows[6] = shapes.rows[7] = (uint8_t)(steps / 4);
    stored_before_tiles(&shapes);
    _tile_loadconfig(&shapes);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// Tiles 0 to 2 NP - 1, the lower and the upper digit's sums of NP products, one after the other.
template <int NP>
inline __attribute__((always_inline)) void store_tiles(int32_t* sums) {
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + kAmxSums, 64);
  if constexpr (NP > 1) {
    _tile_stored(2, sums + 2 * kAmxSums, 64);
    _tile_stored(3, sums + 3 * kAmxSums, 64);
  }
}

// A row of the sums of two digits that store_tiles has stored.
inline __attribute__((always_inline)) Sums joined(const int32_t* sums, int row) {
  const __m512i upper = _mm512_loadu_si512(sums + kAmxSums + row * kLanes);
  return {_mm512_add_epi32(_mm512_slli_epi32(upper, 8), _mm512_loadu_si512(sums + row * kLanes))};
}

}  // namespace detail

#endif

}  // namespace bossa
