// 8-bit weights: how they are packed, how the activations that meet them are quantized, and their products.
//
// A packed panel, the same bytes for every target: [16] fp32 scales; [ceil(K / 32)][16] uint8 scales of blocks, padded to
// 64 bytes; [2 ceil(K / 4)][16][2] int8. w = q * block scale * scale. Outputs past N and steps past K are zeros.
#pragma once

#include "integers.h"

namespace bossa {

// 8-bit weights with a scale for each 32 steps of k, and activations of 16 bits with a scale a row.
struct Int8 {
  static constexpr int kBlock = 32;  // steps of k in one integer sum
  static constexpr int kRows = kIntegerRows;
  static constexpr int kPackedRows = INT32_MAX;
  struct Unpacked {};  // weights are widened as they are loaded, which costs as much as loading them widened

  static constexpr size_t words(int K) { return detail::round_up((size_t)K, 4); }
  static constexpr size_t head_bytes(int K) {
    return 64 + detail::round_up((size_t)detail::ceil_div(K, kBlock) * kLanes, 64);
  }
  static constexpr size_t panel_bytes(int K) { return head_bytes(K) + words(K) * kLanes; }
  // A row: the activations as words, then their scale.
  static constexpr size_t row_bytes(int K) { return detail::round_up(words(K) * 2 + sizeof(float), 64) + 64; }

  // One weight of a packed matrix.
  static float weight(const char* panels, int K, int output, int k) {
    const uint8_t* panel = (const uint8_t*)panels + (size_t)(output / kLanes) * panel_bytes(K);
    const int lane = output % kLanes;
    const int8_t q = ((const int8_t*)panel)[head_bytes(K) + (size_t)((k & ~1) * kLanes + lane * 2 + (k & 1))];
    return (float)(q * panel[64 + k / kBlock * kLanes + lane]) * ((const float*)panel)[lane];
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
    *(float*)(row + words(K) * 2) = most / 32767.0f;
  }

  // Steps of k in the block from k on; the last one's are whole pairs.
  static int steps(int K, int k) { return K - k < kBlock ? (K - k + 1) / 2 * 2 : kBlock; }

  // out[r][16 p ..] (+)= the products of MR rows and NP panels over one block from k, `steps` of them.
  template <int MR, int NP, bool kUnpacked>
  static inline __attribute__((always_inline)) void add_block(const char* rows, size_t row_bytes, int K, int k,
                                                              int steps, const char* const (&panels)[NP], const Unpacked*,
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
    for (int i = 0; i < steps; i += 2) {
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) {
        const int8_t* at = (const int8_t*)panels[p] + start + i * kLanes;
        if (MR < detail::kComputing && i % 4 == 0) __builtin_prefetch(at + detail::kAhead<NP>);
        const Pairs w = load_pairs(at);
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++) add_pairs(sums[r][p], w, (const int16_t*)(rows + r * row_bytes) + k + i);
      }
    }
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) {
      const char* panel = panels[p];
      const f16 scale = load_bytes((const uint8_t*)panel + 64 + k / kBlock * kLanes);
      const f16 output_scale = load((const float*)panel);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
        float* to = out + r * out_stride + p * kLanes;
        const f16 here = to_float(sums[r][p]);
        f16 sum = k == 0 ? here * scale : fma(here, scale, load(to));
        if (k + kBlock >= K) {
          sum = sum * (output_scale * splat(*(const float*)(rows + r * row_bytes + words(K) * 2)));
        }
        store(to, sum);
      }
    }
  }
};

}  // namespace bossa
