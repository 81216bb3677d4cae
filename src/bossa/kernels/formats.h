// Weights of 8 and of 4 bits: how they are packed, how the activations that meet them are quantized, and their products.
//
// A packed matrix is its panels of 16 outputs, one after the other, the same bytes for every target:
//   Int8: [16] fp32 scales; [2 ceil(K / 4)][16][2] int8. w = q * scale.
//   Int4: [16] fp32 scales; [G][16] uint8 group scales, padded to 64 bytes; [G][4][16][4] bytes, see integers.h, where
//         G = ceil(K / 32). w = (u - 8) * group scale * scale.
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

}  // namespace detail

// 8-bit weights, and activations of 12 bits with a scale a row.
struct Int8 {
  static constexpr int kBlock = 256;  // steps of k in one integer sum
  using Unpacked = int16_t;
  static constexpr int kUnpackedWeights = 1;

  static constexpr size_t words(int K) { return detail::round_up((size_t)K, 4); }
  static constexpr size_t panel_bytes(int K) { return 64 + words(K) * kLanes; }
  static constexpr size_t row_bytes(int K) { return detail::round_up(words(K) * 2 + sizeof(float), 64) + 64; }

  // One weight of a packed matrix.
  static float weight(const char* panels, int K, int output, int k) {
    const char* panel = panels + (size_t)(output / kLanes) * panel_bytes(K);
    const int8_t q = ((const int8_t*)panel)[64 + ((k & ~1) * kLanes) + output % kLanes * 2 + (k & 1)];
    return (float)q * ((const float*)panel)[output % kLanes];
  }

  static float scale(const char* row, int K, int) { return *(const float*)(row + words(K) * 2); }

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

  // sums[r] += rows . weights over `steps` steps from `k`; `steps` is even, or the last ones.
  template <int MR, class W>
  static inline __attribute__((always_inline)) void dot(Sums (&sums)[MR], const char* rows, size_t row_bytes, int k,
                                                        int steps, const W* weights) {
    for (int i = 0; i < steps; i += 2) {
      const Pairs w = load_pairs(weights + (size_t)i * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) add_pairs(sums[r], w, (const int16_t*)(rows + r * row_bytes) + k + i);
    }
  }

  template <int MR>
  static inline void tile(Sums (&sums)[MR], const char* rows, size_t row_bytes, int K, int k, int steps,
                          const char* panel) {
    (void)K;
    dot(sums, rows, row_bytes, k, steps, (const int8_t*)(panel + 64) + (size_t)k * kLanes);
  }

  static void unpack(const char* panel, int K, int k, int steps, int16_t* to) {
    (void)K;
    const int8_t* from = (const int8_t*)(panel + 64) + (size_t)k * kLanes;
    for (int i = 0; i < steps; i += 2) store_pairs(to + i * kLanes, load_pairs(from + i * kLanes));
  }

  template <int MR>
  static inline void unpacked_tile(Sums (&sums)[MR], const char* rows, size_t row_bytes, int k, int steps,
                                   const int16_t* weights) {
    dot(sums, rows, row_bytes, k, steps, weights);
  }
};

// 4-bit weights in groups of 32 steps of k with a scale each, and activations of 8 bits with a scale a block.
struct Int4 {
  static constexpr int kBlock = 128;
  static constexpr int kUnpackedWeights = kGroup * kLanes;

  static constexpr int groups(int K) { return detail::ceil_div(K, kGroup); }
  static constexpr size_t scale_bytes(int K) { return detail::round_up((size_t)groups(K) * kLanes, 64); }
  static constexpr size_t panel_bytes(int K) { return 64 + scale_bytes(K) + (size_t)groups(K) * kGroupBytes; }

  // One weight of a packed matrix.
  static float weight(const char* panels, int K, int output, int k) {
    const uint8_t* panel = (const uint8_t*)panels + (size_t)(output / kLanes) * panel_bytes(K);
    const int group = k / kGroup, lane = output % kLanes;
    const uint8_t* bytes = panel + 64 + scale_bytes(K) + (size_t)group * kGroupBytes;
    const int packed = bytes[k % kGroup / 8 * 64 + lane * 4 + k % 4];
    const int q = (k / 4 % 2 ? packed >> 4 : packed & 15) - kNibbleZero;
    return (float)(q * panel[64 + group * kLanes + lane]) * ((const float*)panel)[lane];
  }

  // A row: for each group where its dots start, and its activations as bytes; the blocks' scales.
  static constexpr int kRowGroup = kGroup + 4;

  static constexpr size_t row_bytes(int K) {
    const size_t blocks = (size_t)detail::ceil_div(K, kBlock);
    return detail::round_up((size_t)groups(K) * kRowGroup + blocks * sizeof(float), 64) + 64;
  }
  static float scale(const char* row, int K, int block) {
    return ((const float*)(row + (size_t)groups(K) * kRowGroup))[block];
  }

  static void quantize(const float* x, int K, char* row) {
    for (int block = 0; block < K; block += kBlock) {
      const int steps = K - block < kBlock ? K - block : kBlock;
      const float most = detail::magnitude(x + block, steps);
      const f16 inverse = splat(most > 0.0f ? 127.0f / most : most);
      ((float*)(row + (size_t)groups(K) * kRowGroup))[block / kBlock] = most / 127.0f;
      for (int k = block; k < block + steps; k += kGroup) {
        char* group = row + k / kGroup * kRowGroup;
        int8_t* q = (int8_t*)group + 4;
        store_bytes(q, load_n(x + k, K - k) * inverse);
        store_bytes(q + kLanes, load_n(x + k + kLanes, K - k - kLanes) * inverse);
        // Weights are stored as u = q + 8: the dots start at what the 8 adds, less.
        int low = 0, high = 0;
        for (int i = 0; i < kGroup; i += 4) {
          low += q[i] + q[i + 1];
          high += q[i + 2] + q[i + 3];
        }
        const int16_t start[2] = {(int16_t)(-kNibbleZero * low), (int16_t)(-kNibbleZero * high)};
        memcpy(group, start, sizeof start);
      }
    }
  }

  template <int MR>
  static inline __attribute__((always_inline)) void start(Dots (&dots)[MR], const char* rows, size_t row_bytes) {
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) {
      int32_t words;
      memcpy(&words, rows + r * row_bytes, sizeof words);
      dots[r] = start_dots(words);
    }
  }

  template <int MR>
  static inline __attribute__((always_inline)) void add(Dots (&dots)[MR], const char* rows, size_t row_bytes, int quad,
                                                        Quads w) {
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) add_dots(dots[r], w, (const int8_t*)rows + r * row_bytes + 4 + 4 * quad);
  }

  template <int MR>
  static inline __attribute__((always_inline)) void finish(Sums (&sums)[MR], const Dots (&dots)[MR], Scales scales) {
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) add_scaled(sums[r], dots[r], scales);
  }

  template <int MR>
  static inline void tile(Sums (&sums)[MR], const char* rows, size_t row_bytes, int K, int k, int steps,
                          const char* panel) {
    int group = k / kGroup;
    const uint8_t* scales = (const uint8_t*)panel + 64 + (size_t)group * kLanes;
    const uint8_t* weights = (const uint8_t*)panel + 64 + scale_bytes(K) + (size_t)group * kGroupBytes;
    rows += group * kRowGroup;
    for (int i = 0; i < steps; i += kGroup) {
      Dots dots[MR];
      start(dots, rows, row_bytes);
#pragma GCC unroll 4
      for (int p = 0; p < kGroupQuads / 2; p++) {
        const Quads packed = load_quads(weights + p * 64);
        add(dots, rows, row_bytes, 2 * p, low_nibbles(packed));
        add(dots, rows, row_bytes, 2 * p + 1, high_nibbles(packed));
      }
      finish(sums, dots, load_scales(scales));
      scales += kLanes, weights += kGroupBytes, rows += kRowGroup;
    }
  }

  // A group unpacked: its scales as words, then its quads as bytes.
  struct Unpacked {
    int16_t scales[2 * kLanes];
    uint8_t quads[kGroup * kLanes];
  };

  static void unpack(const char* panel, int K, int k, int steps, Unpacked* to) {
    int group = k / kGroup;
    const uint8_t* scales = (const uint8_t*)panel + 64 + (size_t)group * kLanes;
    const uint8_t* from = (const uint8_t*)panel + 64 + scale_bytes(K) + (size_t)group * kGroupBytes;
    for (int i = 0; i < steps; i += kGroup, to++, scales += kLanes) {
      store_scales(to->scales, load_scales(scales));
      for (int p = 0; p < kGroupQuads / 2; p++, from += 64) {
        const Quads packed = load_quads(from);
        store_quads(to->quads + 128 * p, low_nibbles(packed));
        store_quads(to->quads + 128 * p + 64, high_nibbles(packed));
      }
    }
  }

  template <int MR>
  static inline void unpacked_tile(Sums (&sums)[MR], const char* rows, size_t row_bytes, int k, int steps,
                                   const Unpacked* weights) {
    rows += k / kGroup * kRowGroup;
    for (int i = 0; i < steps; i += kGroup, rows += kRowGroup, weights++) {
      Dots dots[MR];
      start(dots, rows, row_bytes);
#pragma GCC unroll 8
      for (int q = 0; q < kGroupQuads; q++) add(dots, rows, row_bytes, q, load_quads(weights->quads + q * 64));
      finish(sums, dots, load_scales(weights->scales));
    }
  }
};

}  // namespace bossa
