// Exact integer products for 16 outputs at a time, the unit that quantized linears are written in. Every operation gives
// the same numbers on every target, because none of them can overflow:
//
// - Quads: 16 outputs x 4 steps of k in unsigned bytes, 0..15. Dots: their products with signed bytes, -127..127, over
//   32 steps of k, so that each half of a quad sums up to less than 2^15.
// - Pairs: 16 outputs x 2 steps of k in words. Sums: 16 int32, which take 4,096 products of 8 and 12 bits.
#pragma once

#include "lanes.h"

#if defined(BOSSA_LANES_AVX512)
#include "integers_avx512.h"
#elif defined(BOSSA_LANES_AVX2)
#include "integers_avx2.h"
#else
#include "integers_portable.h"
#endif

namespace bossa {

// Steps of k that share a scale in 4-bit weights; quads of a group.
constexpr int kGroup = 32;
constexpr int kGroupQuads = kGroup / 4;
// Bytes of a group of 16 outputs, packed: [4][16][4], quad 2p in the low and quad 2p + 1 in the high half of a byte.
constexpr int kGroupBytes = kGroup * kLanes / 2;

}  // namespace bossa
