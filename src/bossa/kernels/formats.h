// Weights of 8 and of 4 bits: how they are packed, how the activations that meet them are quantized, and their products.
//
// A packed matrix is its panels of 16 outputs, one after the other, the same bytes for every target:
//   Int8: [16] fp32 scales; [ceil(K / 64)][16] uint8 scales of blocks, padded to 64 bytes; [2 ceil(K / 4)][16][2] int8.
//         w = q * block scale * scale.
//   Int4: [16] fp32 scales; [16] fp32 steps; [2 ceil(G / 2)][2][16] uint8, the scales and the minima of each group;
//         [G][4][16][4] bytes, see integers.h, where G = ceil(K / 32). w = u * group scale * scale - minimum * step.
// Outputs past N and steps past K are zeros. A table of rows is [V] fp32 scales, padded to 64 bytes, then [V][D] int8.
#pragma once

#include "integers.h"

namespace bossa {

namespace detail {

// Largest |x| of K floats, 0 when that is too small to divide by.
inline float magnitude(const float* x, int K) {
  f16 most = splat(0.0f);
  for (int k = 0; k < K; k += kLanes) most = max(most, abs(load_n(x + k, K - k)));
  const float result = maximum(most);
  return result < 1e-30f ? 0.0f : result;
}

// Fewer rows wait for the weights, which are then prefetched so many bytes ahead, less where several panels are read.
constexpr int kComputing = 5;
template <int NP>
constexpr int kAhead = NP > 1 ? 512 : 2048;

}  // namespace detail

// 8-bit weights with a scale for each 64 steps of k, and activations of 12 bits with a scale a row.
struct Int8 {
  static constexpr int kBlock = 64;  // steps of k in one integer sum
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
    const f16 inverse = splat(most > 0.0f ? 2047.0f / most : most);
    int16_t* q = (int16_t*)row;
    int16_t last[kLanes];
    int k = 0;
    for (; k + kLanes <= K; k += kLanes) store_words(q + k, load(x + k) * inverse);
    if (k < K) {
      store_words(last, load_n(x + k, K - k) * inverse);
      memcpy(q + k, last, (words(K) - (size_t)k) * sizeof(int16_t));
    }
    *(float*)(row + words(K) * 2) = most / 2047.0f;
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

// 4-bit weights in groups of 32 steps of k with a scale and a minimum each, and activations of 8 bits with a scale for
// each block of k.
struct Int4 {
  static constexpr int kBlock = 128;
  static constexpr int kPackedRows = 6;  // more are worth unpacking the weights for
  static constexpr int kBlockGroups = kBlock / kGroup;

  static constexpr int groups(int K) { return detail::ceil_div(K, kGroup); }
  static constexpr size_t head_bytes(int K) { return 128 + detail::round_up((size_t)groups(K), 2) * 2 * kLanes; }
  static constexpr size_t panel_bytes(int K) { return head_bytes(K) + (size_t)groups(K) * kGroupBytes; }

  // One block of a row of activations, and the sums of its groups.
  struct Block {
    int8_t q[kBlock];
    int16_t sums[kBlockGroups];
    float scale;
    char unused[4];
  };
  static constexpr size_t row_bytes(int K) {
    return detail::round_up((size_t)detail::ceil_div(K, kBlock) * sizeof(Block), 64) + 64;
  }

  // One weight of a packed matrix.
  static float weight(const char* panels, int K, int output, int k) {
    const uint8_t* panel = (const uint8_t*)panels + (size_t)(output / kLanes) * panel_bytes(K);
    const int group = k / kGroup, lane = output % kLanes;
    const float *scales = (const float*)panel, *steps = scales + kLanes;
    const uint8_t* of_group = panel + 128 + group * 2 * kLanes + lane;
    const int packed = panel[head_bytes(K) + (size_t)group * kGroupBytes + (size_t)(k % kGroup / 8 * 64 + lane * 4 + k % 4)];
    const int u = k / 4 % 2 ? packed >> 4 : packed & 15;
    return (float)(u * of_group[0]) * scales[lane] - (float)of_group[kLanes] * steps[lane];
  }

  static void quantize(const float* x, int K, char* row) {
    Block* block = (Block*)row;
    for (int k = 0; k < K; k += kBlock, block++) {
      const int steps = K - k < kBlock ? K - k : kBlock;
      const float most = detail::magnitude(x + k, steps);
      const f16 inverse = splat(most > 0.0f ? 127.0f / most : most);
      block->scale = most / 127.0f;
      for (int i = 0; i < kBlock; i += kLanes) store_bytes(block->q + i, load_n(x + k + i, steps - i) * inverse);
      for (int g = 0; g < kBlockGroups; g++) block->sums[g] = (int16_t)sum_group(block->q + g * kGroup);
    }
  }

  // Steps of k in the block from k on; the last one's are whole groups.
  static int steps(int K, int k) { return K - k < kBlock ? groups(K - k) * kGroup : kBlock; }

  // A panel's block, unpacked: of each group the scales as words and the quads as bytes; the minima in pairs of groups.
  struct Unpacked {
    int16_t scales[kBlockGroups][2 * kLanes];
    uint8_t quads[kBlockGroups][kGroup * kLanes];
    int16_t minima[kBlockGroups / 2][2 * kLanes];
  };

  static void unpack(const char* panel, int K, int k, int steps, Unpacked* to) {
    const uint8_t* head = (const uint8_t*)panel + 128 + (size_t)k / kGroup * 2 * kLanes;
    const uint8_t* from = (const uint8_t*)panel + head_bytes(K) + (size_t)k / kGroup * kGroupBytes;
    for (int g = 0; g < steps / kGroup; g++) {
      // What is unpacked next comes while the tiles compute.
      for (int i = 0; i < kGroupBytes; i += 64) __builtin_prefetch(from + steps / kGroup * kGroupBytes + i);
      store_scales(to->scales[g], load_scales(head + g * 2 * kLanes));
      for (int p = 0; p < kGroupQuads / 2; p++, from += 64) {
        const Quads packed = load_quads(from);
        store_quads(to->quads[g] + 128 * p, low_nibbles(packed));
        store_quads(to->quads[g] + 128 * p + 64, high_nibbles(packed));
      }
    }
    for (int g = 0; g < steps / kGroup; g += 2) store_pairs(to->minima[g / 2], minima(head + g * 2 * kLanes));
  }

  static Pairs minima(const uint8_t* head) { return load_pairs(head + kLanes, head + 3 * kLanes); }

  // out[r][16 p ..] (+)= the products of MR rows and NP panels over one block from k, `steps` of them; from the packed
  // weights, or from one panel's unpacked ones.
  template <int MR, int NP, bool kUnpacked>
  static inline __attribute__((always_inline)) void add_block(const char* rows, size_t row_bytes, int K, int k,
                                                              int steps, const char* const (&panels)[NP],
                                                              const Unpacked* unpacked,                                                              float* out, size_t out_stride) {
    static_assert(NP == 1 || !kUnpacked);
    const size_t head_start = 128 + (size_t)k / kGroup * 2 * kLanes;
    const size_t start = head_bytes(K) + (size_t)k / kGroup * kGroupBytes;
    rows += (size_t)k / kBlock * sizeof(Block);
    const int groups = steps / kGroup;
    Sums sums[MR][NP];
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) sums[r][p] = no_sums();
    }
    for (int g = 0; g < groups; g++) {
      const int8_t* x = (const int8_t*)rows + g * kGroup;
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) {
        const uint8_t* at = (const uint8_t*)panels[p] + start + g * kGroupBytes;
        Dots dots[MR];
#pragma GCC unroll 8
        for (int q = 0; q < kGroupQuads; q += 2) {
          Quads low, high;
          if constexpr (kUnpacked) {
            low = load_quads(unpacked->quads[g] + 64 * q);
          } else {
            high = load_quads(at + q * 32);
            if (MR < detail::kComputing) __builtin_prefetch(at + q * 32 + detail::kAhead<NP>);
            low = low_nibbles(high);
          }
#pragma GCC unroll 16
          for (int r = 0; r < MR; r++) {
            if (q == 0) {
              dots[r] = dot(low, x + r * row_bytes);
            } else {
              add_dots(dots[r], low, x + r * row_bytes + 4 * q);
            }
          }
          high = kUnpacked ? load_quads(unpacked->quads[g] + 64 * q + 64) : high_nibbles(high);
#pragma GCC unroll 16
          for (int r = 0; r < MR; r++) add_dots(dots[r], high, x + r * row_bytes + 4 * q + 4);
        }
        const Scales scales = kUnpacked ? load_scales(unpacked->scales[g])
                                        : load_scales((const uint8_t*)panels[p] + head_start + g * 2 * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++) add_scaled(sums[r][p], dots[r], scales);
      }
    }
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) {
      const uint8_t* head = (const uint8_t*)panels[p] + head_start;
      Sums less[MR];
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) less[r] = no_sums();
      for (int g = 0; g < groups; g += 2) {
        const Pairs pairs = kUnpacked ? load_pairs(unpacked->minima[g / 2]) : minima(head + g * 2 * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++) add_pairs(less[r], pairs, ((const Block*)(rows + r * row_bytes))->sums + g);
      }
      const float* scales = (const float*)panels[p];
      const f16 scale = load(scales), step = load(scales + kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
        const f16 row_scale = splat(((const Block*)(rows + r * row_bytes))->scale);
        const f16 sum = fma(-to_float(less[r]), step, to_float(sums[r][p]) * scale);
        float* to = out + r * out_stride + p * kLanes;
        store(to, k == 0 ? sum * row_scale : fma(sum, row_scale, load(to)));
      }
    }
  }
};

}  // namespace bossa
