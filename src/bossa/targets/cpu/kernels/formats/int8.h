// int8: weights of 8 bits, how the activations that meet them are quantized, their products, and packing.
//
// A packed panel, the same bytes for every target: [16] fp32 scales; [ceil(K / 32)][16] uint8 scales of blocks, padded to
// 64 bytes; [2 ceil(K / 4)][16][2] int8. w = q * block scale * scale. Outputs past N and k past K are zeros. A table of rows
// is [V] fp32 scales, padded to 64 bytes, then [V][D] int8.
#pragma once

#include "amx.h"
#include "packing.h"

namespace bossa {

// 8-bit weights with a scale for each 32 of k, and activations of 16 bits with a scale a row.
struct Int8 {
  static constexpr int kScaleBlock = 32;   // k that share a scale
  static constexpr int kKC = kScaleBlock;  // k of one integer sum
  static constexpr int kRows = kIntegerRows;
  static constexpr int kAmxK = kScaleBlock;  // of a tile
  static constexpr int kPackedRows = INT32_MAX;
  static constexpr int kTiledRows = kFewestAmxRows;
  static constexpr int kTogether = kAmxRows;  // rows that lie in tiles together
  static constexpr bool kCutsTiles = false;
  struct Unpacked {};  // weights are widened as they are loaded, which costs as much as loading them widened

  static constexpr size_t words(int K) { return detail::round_up((size_t)K, 4); }
  static constexpr size_t head_bytes(int K) {
    return 64 + detail::round_up((size_t)detail::ceil_div(K, kScaleBlock) * kLanes, 64);
  }
  static constexpr size_t panel_bytes(int K) { return head_bytes(K) + words(K) * kLanes; }
  // A row: the activations as words, or for tiles as their lower bytes and then their upper ones; and their scale.
  static constexpr size_t bytes(int K) { return detail::round_up((size_t)K, 64); }
  static constexpr size_t row_bytes(int K) { return 2 * bytes(K) + 64; }
  static float& row_scale(char* row, int K) { return *(float*)(row + 2 * bytes(K)); }
  static float row_scale(const char* row, int K) { return *(const float*)(row + 2 * bytes(K)); }

  // One weight of a packed matrix.
  static float weight(const char* panels, int K, int output, int k) {
    const uint8_t* panel = (const uint8_t*)panels + (size_t)(output / kLanes) * panel_bytes(K);
    const int lane = output % kLanes;
    const int8_t q = ((const int8_t*)panel)[head_bytes(K) + (size_t)((k & ~1) * kLanes + lane * 2 + (k & 1))];
    return (float)(q * panel[64 + k / kScaleBlock * kLanes + lane]) * ((const float*)panel)[lane];
  }

  static void quantize(const float* x, int K, char* row) {
    const float most = detail::magnitude(x, K);
    const f16 inverse = splat(most > 0.0f ? 32767.0f / most : most);
    int16_t* q = (int16_t*)row;
    int16_t last[kLanes];
    int k = 0;
    for (; k + kLanes <= K; k += kLanes) store_words(q + k, load(x + k) * inverse);
    if (k < K) {
      store_words(last, load_n(x + k, K - k) * inverse);
      memcpy(q + k, last, (words(K) - (size_t)k) * sizeof(int16_t));
    }
    row_scale(row, K) = most / 32767.0f;
  }

  // k of the block from k on; the last one's are whole pairs.
  static int kc(int K, int k) { return K - k < kKC ? (K - k + 1) / 2 * 2 : kKC; }

  // out[r][16 p ..] (+)= the products of MR rows and NP panels over the block of `kc` from k on.
  template <int MR, int NP, bool kUnpacked>
  static inline __attribute__((always_inline)) void add_block(const char* rows, size_t row_bytes, int K, int k,
                                                              int kc, const char* const (&panels)[NP], const Unpacked*,
                                                              float* out, size_t out_stride) {
    static_assert(!kUnpacked);
    const size_t start = head_bytes(K) + (size_t)k * kLanes;
    Sums sums[MR][NP];
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) sums[r][p] = no_sums();
    }
#pragma GCC unroll 4
    for (int i = 0; i < kc; i += 2) {
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) {
        const int8_t* at = (const int8_t*)panels[p] + start + i * kLanes;
        if (MR < detail::kComputing && i % 4 == 0) detail::fetch_ahead<NP>(at);
        const Pairs w = load_pairs(at);
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++) add_pairs(sums[r][p], w, (const int16_t*)(rows + r * row_bytes) + k + i);
      }
    }
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) {
      const char* panel = panels[p];
      const f16 scale = load_bytes((const uint8_t*)panel + 64 + k / kScaleBlock * kLanes);
      const f16 output_scale = load((const float*)panel);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
        float* to = out + r * out_stride + p * kLanes;
        const f16 here = to_float(sums[r][p]);
        f16 sum = k == 0 ? here * scale : fma(here, scale, load(to));
        if (k + kScaleBlock >= K) {
          sum = sum * (output_scale * splat(row_scale(rows + r * row_bytes, K)));
        }
        store(to, sum);
      }
    }
  }

#if defined(BOSSA_AMX)
  static constexpr int kChunk = 256;  // k whose weights are prepared together

  // Rows for tiles, 16 at a time: [bytes(K) / 32][lower, upper][16][32] bytes, then their scales. `rows`: where the first
  // of the 16 would lie alone.
  static void quantize_for_amx(const float* x, int K, char* rows, int row) {
    const float most = detail::magnitude(x, K);
    const f16 inverse = splat(most > 0.0f ? 32767.0f / most : most);
    int8_t* low = (int8_t*)rows + row * kAmxK;
    for (int k = 0; k < (int)bytes(K); k += kLanes) {
      const __m512i q = _mm512_cvtps_epi32((k + kLanes <= K ? load(x + k) * inverse : load_n(x + k, K - k) * inverse).v);
      int8_t* to = low + (size_t)(k / kAmxK) * 2 * kAmxRows * kAmxK + k % kAmxK;
      _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8(q));
      _mm_storeu_si128((__m128i*)(to + kAmxRows * kAmxK), _mm512_cvtepi32_epi8(_mm512_srai_epi32(q, 8)));
    }
    row_scales(rows, K)[row] = most / 32767.0f;
  }

  static float* row_scales(char* rows, int K) { return (float*)(rows + 2 * kAmxRows * bytes(K)); }
  static const float* row_scales(const char* rows, int K) { return (const float*)(rows + 2 * kAmxRows * bytes(K)); }

  // Of `kc` of a panel from k on: quads, zeros past K, and the scales of their blocks as floats.
  static void to_quads(const char* panel, int K, int k, int kc, uint8_t* quads, float* scales) {
    const __m512i places = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,  //
                                            23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const uint8_t* from = (const uint8_t*)panel + head_bytes(K) + (size_t)k * kLanes;
    const int packed = detail::ceil_div(kc, 4);
    for (int i = 0; i < packed; i++) {
      __builtin_prefetch(from + (packed + i) * 64);
      const __m512i pairs = _mm512_loadu_si512(from + i * 64);
      _mm512_storeu_si512(quads + i * 64, _mm512_permutexvar_epi16(places, pairs));
    }
    const int blocks = detail::ceil_div(kc, kScaleBlock);
    for (int i = packed; i < blocks * kScaleBlock / 4; i++) _mm512_storeu_si512(quads + i * 64, _mm512_setzero_si512());
    for (int b = 0; b < blocks; b++) {
      store(scales + b * kLanes, load_bytes((const uint8_t*)panel + 64 + (k / kScaleBlock + b) * kLanes));
    }
  }

  // The products of a tile of rows and one block, of their lower and of their upper bytes.
  static void multiply(const char* rows, const uint8_t* quads, int32_t* sums) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_loadd(4, rows, kAmxK);
    _tile_loadd(6, quads, 64);
    _tile_dpbusd(0, 4, 6);
    _tile_loadd(5, rows + kAmxRows * kAmxK, kAmxK);
    _tile_dpbssd(1, 5, 6);
    detail::store_tiles<1>(sums);
  }

  static void add_scaled_block(const int32_t* sums, f16 scale, f16 (&acc)[kAmxRows]) {
#pragma GCC unroll 16
    for (int r = 0; r < kAmxRows; r++) {
      acc[r] = fma(to_float(detail::joined(sums, r)), scale, acc[r]);
    }
  }

  // out[r][0..16) = the products of `rows` rows, in tiles, and one panel. Whole tiles of `out` are written.
  template <int NP>
  static void amx_sums(int rows, const char* x, size_t row_bytes, int K, const char* const (&panels)[NP], float* out,
                       size_t out_stride) {
    if constexpr (NP > 1) {
      for (int p = 0; p < NP; p++) amx_sums<1>(rows, x, row_bytes, K, {panels[p]}, out + p * kLanes, out_stride);
      return;
    }
    const char* panel = panels[0];
    constexpr int kTileBytes = 2 * kAmxRows * kAmxK;
    alignas(64) uint8_t quads[kChunk * kLanes];
    alignas(64) float scales[kChunk / kScaleBlock * kLanes];
    alignas(64) int32_t sums[2][2 * detail::kAmxSums];
    const f16 output_scale = load((const float*)panel);
    for (int k = 0; k < K; k += kChunk) {
      const int kc = K - k < kChunk ? K - k : kChunk, blocks = detail::ceil_div(kc, kScaleBlock);
      to_quads(panel, K, k, kc, quads, scales);
      detail::stored_before_tiles(quads);
      for (int row = 0; row < rows; row += kAmxRows) {
        const char* tiles = x + row * row_bytes;
        const char* from = tiles + (size_t)(k / kScaleBlock) * kTileBytes;
        float* to = out + row * out_stride;
        f16 acc[kAmxRows];
        // With a negative zero an FMA has the product's own sign where that is zero.
#pragma GCC unroll 16
        for (int r = 0; r < kAmxRows; r++) acc[r] = k == 0 ? splat(-0.0f) : load(to + r * out_stride);
        multiply(from, quads, sums[0]);
        for (int b = 0; b + 1 < blocks; b++) {
          multiply(from + (b + 1) * kTileBytes, quads + (b + 1) * kScaleBlock * kLanes, sums[(b + 1) % 2]);
          add_scaled_block(sums[b % 2], load(scales + b * kLanes), acc);
        }
        add_scaled_block(sums[(blocks - 1) % 2], load(scales + (blocks - 1) * kLanes), acc);
#pragma GCC unroll 16
        for (int r = 0; r < kAmxRows; r++) {
          if (k + kChunk >= K) acc[r] = acc[r] * (output_scale * splat(row_scales(tiles, K)[r]));
          store(to + r * out_stride, acc[r]);
        }
      }
    }
  }
#endif
};

template <>
struct Packing<Int8> {
  static constexpr const char* kName = "int8";
  static constexpr float kLargest = detail::kLargest;
  // Shares of a block's largest number that are tried as what its greatest level stands for.
  static constexpr float kReaches[] = {1.0f, 0.985f, 0.97f, 0.955f, 0.94f};

  static constexpr size_t panel_bytes(int K) { return Int8::panel_bytes(K); }

  // The levels of 16 numbers that are in units of their rows' scales; inverse: of the block scale.
  static f16 levels(f16 scaled, f16 inverse) { return detail::within(round(scaled * inverse), -127.0f, 127.0f); }

  // The block scale of 16 outputs: the one of the least squared error of those that are tried. x: [kc][16].
  static f16 block_scale(const float* x, int kc, f16 inverse) {
    const f16 wanted = detail::largest(x, kc) * inverse * splat(1.0f / 127.0f);
    f16 best = splat(__builtin_inff()), scale = splat(1.0f);
    for (const float reach : kReaches) {
      const f16 tried = detail::within(-floor(-(wanted * splat(reach))), 1.0f, 255.0f), by = splat(1.0f) / tried;
      f16 error = splat(0.0f);
      for (int k = 0; k < kc; k++) {
        const f16 scaled = load(x + k * kLanes) * inverse, miss = scaled - levels(scaled, by) * tried;
        error = error + miss * miss;
      }
      const f16 better = lt(error, best);
      best = where(better, error, best);
      scale = where(better, tried, scale);
    }
    return scale;
  }

  static void put(const float* x, int K, f16 most, PanelLanes lanes, char* panel) {
    f16 inverse;
    const f16 scale = detail::scale_of(most, 127.0f * 255.0f, &inverse);
    detail::put_floats(lanes, panel, scale);
    char* q = panel + Int8::head_bytes(K);
    for (int block = 0; block < K; block += Int8::kScaleBlock) {
      const int end = block + Int8::kScaleBlock < K ? block + Int8::kScaleBlock : K;
      const f16 multiplier = block_scale(x + block * kLanes, end - block, inverse), by = splat(1.0f) / multiplier;
      detail::put_unsigned(lanes, panel + 64 + block / Int8::kScaleBlock * kLanes,
                           where(gt(scale, splat(0.0f)), multiplier, splat(0.0f)));
      for (int k = block; k < end; k += 2) {
        int8_t first[kLanes], second[kLanes] = {}, pairs[kLanes][2];
        store_bytes(first, levels(load(x + k * kLanes) * inverse, by));
        if (k + 1 < end) store_bytes(second, levels(load(x + (k + 1) * kLanes) * inverse, by));
        for (int o = 0; o < kLanes; o++) pairs[o][0] = first[o], pairs[o][1] = second[o];
        lanes.put(q + k * kLanes, pairs, 2);
      }
    }
  }
};

namespace detail {

// Where the numbers of a row are in a table of V rows of D numbers, whose scales come first.
inline size_t table_row(int64_t V, int D, int64_t row) {
  return round_up(sizeof(float) * (size_t)V, 64) + (size_t)row * (size_t)D;
}

}  // namespace detail

template <>
struct TablePacking<Int8> {
  static void put(const float* x, int K, float most, int64_t row, int64_t height, char* table) {
    f16 inverse;
    const f16 scale = detail::scale_of(splat(most), 127.0f, &inverse);
    store_n((float*)table + row, scale, 1);
    char* q = table + detail::table_row(height, K, row);
    for (int k = 0; k < K; k += kLanes) {
      const int n = K - k < kLanes ? K - k : kLanes;
      int8_t levels[kLanes];
      store_bytes(levels, round(load_n(x + k, n) * inverse));
      memcpy(q + k, levels, (size_t)n);
    }
  }
};

// Row `token` of a quantized table of V rows.
inline void embed_rows(const Int8* table, int V, int D, int token, float* out) {
  const f16 scale = splat(((const float*)table)[token]);
  const int8_t* row = (const int8_t*)table + detail::table_row(V, D, token);
  for (int d = 0; d < D; d += kLanes) {
    int8_t lanes[kLanes] = {};
    memcpy(lanes, row + d, (size_t)(D - d < kLanes ? D - d : kLanes));
    store_n(out + d, load(lanes) * scale, D - d);
  }
}

}  // namespace bossa
