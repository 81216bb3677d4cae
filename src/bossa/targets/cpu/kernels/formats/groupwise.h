// int4 and int6: group-wise quantization with minima. Weights of 4 and of 6 bits, in groups of 32 of k with a scale and a
// minimum each; activations of 8 bits with a scale for each block of k; their products, and packing.
//
// A packed panel, the same bytes for every target: [16] fp32 scales; [16] fp32 units of minima; [2 ceil(G / 2)][2][16]
// uint8, the scales and the minima of each group; then G = ceil(K / 32) groups, see integers.h.
// w = u * group scale * scale - minimum * unit. Outputs past N and k past K are zeros.
#pragma once

#include "amx.h"
#include "groups.h"
#include "packing.h"

namespace bossa {

template <int kBits>
struct Groupwise {
  static constexpr int kActivationBlock = 128;   // k of a row of activations that share a scale
  static constexpr int kKC = kActivationBlock;  // k of one integer sum
  using Groups = GroupSums<kBits, kKC>;
  using Unpacked = typename Groups::Unpacked;
  static constexpr int kBlockGroups = Groups::kGroups;
  static constexpr int kMost = (1 << kBits) - 1;
  static constexpr size_t kBytes = Groups::kBytes;  // of a group
  static constexpr int kRows = Groups::kRows;
  static constexpr int kAmxK = 64;  // of a tile
  static constexpr int kPackedRows = kRows + 1;  // more are worth unpacking the weights for
  static constexpr int kTiledRows = kFewestAmxRows;
  static constexpr int kTogether = kAmxRows;  // rows that lie in tiles together
  static constexpr bool kCutsTiles = false;

  static constexpr int groups(int K) { return detail::ceil_div(K, kGroup); }
  static constexpr size_t head_bytes(int K) { return 128 + detail::round_up((size_t)groups(K), 2) * 2 * kLanes; }
  static constexpr size_t panel_bytes(int K) { return head_bytes(K) + (size_t)groups(K) * kBytes; }

  // What belongs to a block of a row of activations beside its bytes: the sums of its groups, and its scale.
  struct Block {
    int16_t sums[kBlockGroups];  // first, for GroupSums
    float scale;
    char unused[4];
  };
  // A row: its activations as bytes, whole blocks of them, then the blocks.
  static constexpr size_t bytes(int K) { return detail::round_up((size_t)K, kKC); }
  static constexpr size_t row_bytes(int K) {
    return detail::round_up(bytes(K) + bytes(K) / kKC * sizeof(Block), 64) + 64;
  }
  static const Block* blocks(const char* row, int K) { return (const Block*)(row + bytes(K)); }

  // One weight of a packed matrix.
  static float weight(const char* panels, int K, int output, int k) {
    const uint8_t* panel = (const uint8_t*)panels + (size_t)(output / kLanes) * panel_bytes(K);
    const int group = k / kGroup, lane = output % kLanes, quad = k % kGroup / 4;
    const float *scales = (const float*)panel, *units = scales + kLanes;
    const uint8_t* of_group = panel + 128 + group * 2 * kLanes + lane;
    const uint8_t* at = panel + head_bytes(K) + (size_t)group * kBytes + (size_t)(lane * 4 + k % 4);
    return (float)(packed_number<kBits>(at, quad) * of_group[0]) * scales[lane] - (float)of_group[kLanes] * units[lane];
  }

  // One block of a row: its `kc` activations as bytes, zeros after them; returns their scale.
  static inline __attribute__((always_inline)) float quantize_block(const float* x, int kc, int8_t* q) {
    alignas(64) float last[kKC];
    if (kc < kKC) {
      memset(last, 0, sizeof last);
      memcpy(last, x, (size_t)kc * sizeof(float));
      x = last;
    }
    f16 most = splat(0.0f);
    for (int i = 0; i < kKC; i += kLanes) most = max(most, abs(load(x + i)));
    const float top = detail::divisible(maximum(most));
    const f16 inverse = splat(top > 0.0f ? 127.0f / top : top);
    for (int i = 0; i < kKC; i += kLanes) store_bytes(q + i, load(x + i) * inverse);
    return top / 127.0f;
  }

  // Sums come after all bytes of a row are stored: what was stored in pieces is slow to read at once.
  static void quantize(const float* x, int K, char* row) {
    Block* block = (Block*)(row + bytes(K));
    int8_t* q = (int8_t*)row;
    for (int k = 0; k < K; k += kKC) {
      block[k / kKC].scale = quantize_block(x + k, K - k < kKC ? K - k : kKC, q + k);
    }
    for (int k = 0; k < K; k += kGroup) block[k / kKC].sums[k % kKC / kGroup] = (int16_t)sum_group(q + k);
    for (int g = groups(K); g % kBlockGroups != 0; g++) block[g / kBlockGroups].sums[g % kBlockGroups] = 0;
  }

  // k of the block from k on; the last one's are whole groups.
  static int kc(int K, int k) { return K - k < kKC ? groups(K - k) * kGroup : kKC; }

  static size_t head_of(int k) { return 128 + (size_t)k / kGroup * Groups::kHead; }
  static size_t bytes_of(int K, int k) { return head_bytes(K) + (size_t)k / kGroup * kBytes; }

  static void unpack(const char* panel, int K, int k, int kc, Unpacked* to) {
    const uint8_t* at = (const uint8_t*)panel;
    Groups::unpack(at + head_of(k), at + bytes_of(K, k), kc / kGroup, to);
  }

  // out[r][16 p ..] (+)= the products of MR rows and NP panels over the block of `kc` from k on; from the packed
  // weights, or from one panel's unpacked ones.
  template <int MR, int NP, bool kUnpacked>
  static inline __attribute__((always_inline)) void add_block(const char* rows, size_t row_bytes, int K, int k,
                                                              int kc, const char* const (&panels)[NP],
                                                              const Unpacked* unpacked, float* out, size_t out_stride) {
    const char* metas = (const char*)(blocks(rows, K) + k / kKC);
    const int groups = kc / kGroup;
    Sums sums[MR][NP];
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) sums[r][p] = no_sums();
    }
    Groups::template add<MR, NP, kUnpacked>(sums, rows + k, row_bytes, groups, panels, head_of(k), bytes_of(K, k),
                                            unpacked);
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) {
      Sums less[MR][1];
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) less[r][0] = no_sums();
      Groups::template add_minima<MR, 1, kUnpacked>(less, 0, metas, row_bytes, groups,
                                                    (const uint8_t*)panels[p] + head_of(k), unpacked);
      const float* scales = (const float*)panels[p];
      const f16 scale = load(scales), unit = load(scales + kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
        const f16 row_scale = splat(((const Block*)(metas + r * row_bytes))->scale);
        const f16 sum = fma(-to_float(less[r][0]), unit, to_float(sums[r][p]) * scale);
        float* to = out + r * out_stride + p * kLanes;
        store(to, k == 0 ? sum * row_scale : fma(sum, row_scale, load(to)));
      }
    }
  }

#if defined(BOSSA_AMX)
  // Rows for tiles, 16 at a time: first their bytes, [bytes(K) / 64][16][64], then the blocks of each. `row`: where the
  // first of the 16 would lie alone.
  static void quantize_for_amx(const float* x, int K, char* rows, int row) {
    static_assert(kKC == 2 * kAmxK);
    constexpr int kTile = kAmxRows * kAmxK;
    int8_t* tile = (int8_t*)rows + row * kAmxK;
    Block* block = (Block*)(rows + kAmxRows * bytes(K)) + (size_t)row * (bytes(K) / kKC);
    const int blocks = (int)(bytes(K) / kKC);
    for (int b = 0; b < blocks; b++) {
      alignas(64) int8_t q[kKC];
      const int k = b * kKC;
      block[b].scale = quantize_block(x + k, K - k < kKC ? K - k : kKC, q);
      int8_t* to = tile + 2 * b * kTile;
      memcpy(to, q, kAmxK);
      memcpy(to + kTile, q + kAmxK, kAmxK);
    }
    for (int b = 0; b < blocks; b++) {
      for (int g = 0; g < kBlockGroups; g++) {
        block[b].sums[g] = (int16_t)sum_group(tile + (2 * b + g / 2) * kTile + g % 2 * kGroup);
      }
    }
  }

  // A panel's block for tiles: quads times their group's scale, in two digits of eight bits, and the minima.
  struct alignas(64) Digits {
    uint8_t low[kKC * kLanes], high[kKC * kLanes];
    Pairs minima[kBlockGroups / 2];
  };

  // Fetches the same block of the panel `ahead` bytes further on: few rows wait for it.
  static void to_digits(const char* panel, int K, int k, int kc, Digits* to, size_t ahead) {
    const uint8_t* head = (const uint8_t*)panel + head_of(k);
    const uint8_t* from = (const uint8_t*)panel + bytes_of(K, k);
    uint8_t *low = to->low, *high = to->high;
    for (size_t i = 0; i < kBlockGroups * 2 * kLanes; i += 64) __builtin_prefetch(head + ahead + i, 0, 2);
    const __mmask64 odds = 0xaaaaaaaaaaaaaaaaull;
    for (int g = 0; g < kc / kGroup; g++) {
      for (size_t i = 0; i < kBytes; i += 64) __builtin_prefetch(from + ahead + i, 0, 2);
      const __m512i scales = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(head + g * 2 * kLanes)));
      const __m512i even_scales = _mm512_or_si512(scales, _mm512_slli_epi32(scales, 16));
      const __m512i odd_scales = _mm512_slli_epi16(even_scales, 8);
#pragma GCC unroll 4
      for (int q = 0; q < kGroupQuads; q += 2) {
        Quads two[2];
        load_two<kBits>(from, q, &two[0], &two[1]);
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++, low += 64, high += 64) {
          const __m512i even = _mm512_maddubs_epi16(even_scales, two[i].all);
          const __m512i odd = _mm512_maddubs_epi16(odd_scales, two[i].all);
          _mm512_store_si512(low, _mm512_mask_mov_epi8(even, odds, _mm512_slli_epi16(odd, 8)));
          _mm512_store_si512(high, _mm512_mask_mov_epi8(odd, ~odds, _mm512_srli_epi16(even, 8)));
        }
      }
      from += kBytes;
    }
    const size_t done = (size_t)kc * kLanes;
    if (kc < kKC) {
      memset(to->low + done, 0, sizeof to->low - done);
      memset(to->high + done, 0, sizeof to->high - done);
    }
    for (int g = 0; g < kc / kGroup; g += 2) to->minima[g / 2] = Groups::minima(head + g * 2 * kLanes);
  }

  // The products of a tile of rows and one block of NP panels. They are left in tiles 0 to 3, whose former sums go to
  // `before` first, [NP][digit]: each is stored just before its tile is needed again, while others are computed.
  template <int NP>
  static inline __attribute__((always_inline)) void multiply(const char* rows, int kc, const Digits (&digits)[NP],
                                                             int32_t* before) {
    _tile_loadd(4, rows, kAmxK);
    _tile_loadd(6, digits[0].low, 64);
    _tile_stored(0, before, 64);
    _tile_zero(0);
    _tile_dpbsud(0, 4, 6);
    _tile_loadd(7, digits[0].high, 64);
    _tile_stored(1, before + detail::kAmxSums, 64);
    _tile_zero(1);
    _tile_dpbsud(1, 4, 7);
    if (NP > 1) {
      _tile_loadd(6, digits[NP - 1].low, 64);
      _tile_stored(2, before + 2 * detail::kAmxSums, 64);
      _tile_zero(2);
      _tile_dpbsud(2, 4, 6);
      _tile_loadd(7, digits[NP - 1].high, 64);
      _tile_stored(3, before + 3 * detail::kAmxSums, 64);
      _tile_zero(3);
      _tile_dpbsud(3, 4, 7);
    }
    if (kc <= kAmxK) return;
    _tile_loadd(5, rows + kAmxK * kAmxRows, kAmxK);
    _tile_loadd(6, digits[0].low + kAmxK * kLanes, 64);
    _tile_dpbsud(0, 5, 6);
    _tile_loadd(7, digits[0].high + kAmxK * kLanes, 64);
    _tile_dpbsud(1, 5, 7);
    if (NP > 1) {
      _tile_loadd(6, digits[NP - 1].low + kAmxK * kLanes, 64);
      _tile_dpbsud(2, 5, 6);
      _tile_loadd(7, digits[NP - 1].high + kAmxK * kLanes, 64);
      _tile_dpbsud(3, 5, 7);
    }
  }

  // out[r][16 p ..] (+)= the scaled sums of one block, of `rows` rows of a tile.
  template <int NP>
  static inline __attribute__((always_inline)) void scale_tile(int rows, const Block* blocks, size_t next_row,
                                                               int kc, const char* const (&panels)[NP],
                                                               const Digits (&digits)[NP], const int32_t* sums,
                                                               bool first, float* out, size_t out_stride) {
    f16 scale[NP], less_unit[NP];
    Pairs lower[NP], upper[NP];
#pragma GCC unroll 2
    for (int p = 0; p < NP; p++) {
      scale[p] = load((const float*)panels[p]);
      less_unit[p] = -load((const float*)panels[p] + kLanes);
      lower[p] = digits[p].minima[0];
      upper[p] = digits[p].minima[kc > 2 * kGroup ? 1 : 0];  // where there are none, with sums of zeros
    }
    for (int r = 0; r < rows; r++) {
      const Block& block = blocks[(size_t)r * next_row];
      const f16 row_scale = splat(block.scale);
#pragma GCC unroll 2
      for (int p = 0; p < NP; p++) {
        const Sums all = detail::joined(sums + p * 2 * detail::kAmxSums, r);
        Sums less = no_sums();
        add_pairs(less, lower[p], block.sums);
        add_pairs(less, upper[p], block.sums + 2);
        const f16 sum = fma(to_float(less), less_unit[p], to_float(all) * scale[p]);
        float* to = out + r * out_stride + p * kLanes;
        store(to, first ? sum * row_scale : fma(sum, row_scale, load(to)));
      }
    }
  }

  // out[r][16 p ..] = the products of `rows` rows, in tiles, and NP panels side by side.
  template <int NP>
  static void amx_sums(int rows, const char* x, size_t row_bytes, int K, const char* const (&panels)[NP], float* out,
                       size_t out_stride) {
    alignas(64) int32_t sums[2][2 * NP * detail::kAmxSums];
    Digits digits[NP];
    const size_t blocks = bytes(K) / kKC;
    for (int k = 0; k < K; k += kKC) {
      const int kc = Groupwise::kc(K, k);
      for (int p = 0; p < NP; p++) to_digits(panels[p], K, k, kc, &digits[p], NP * panel_bytes(K));
      detail::stored_before_tiles(&digits);
      const auto scaled = [&](int row) {
        const Block* first = (const Block*)(x + row * row_bytes + kAmxRows * bytes(K)) + k / kKC;
        scale_tile<NP>(rows - row < kAmxRows ? rows - row : kAmxRows, first, blocks, kc, panels, digits,
                       sums[row / kAmxRows % 2], k == 0, out + row * out_stride, out_stride);
      };
      for (int row = 0; row < rows; row += kAmxRows) {
        multiply<NP>(x + row * row_bytes + (size_t)k * kAmxRows, kc, digits, sums[(row / kAmxRows + 1) % 2]);
        if (row > 0) scaled(row - kAmxRows);
      }
      detail::store_tiles<NP>(sums[(rows - 1) / kAmxRows % 2]);
      scaled((rows - 1) / kAmxRows * kAmxRows);
    }
  }
#endif
};

using Int4 = Groupwise<4>;
using Int6 = Groupwise<6>;

template <int kBits>
struct Packing<Groupwise<kBits>> {
  using Format = Groupwise<kBits>;
  static constexpr const char* kName = kBits == 4 ? "int4" : "int6";
  static constexpr float kLargest = detail::kLargest;
  static constexpr float kLevels = (float)Format::kMost;
  // Shares of a group's ends that its range is tried with, and how often scale and minimum are fitted after that.
  static constexpr float kShares[] = {1.0f, 0.93f, 0.86f};
  static constexpr int kFits = 2;

  static constexpr size_t panel_bytes(int K) { return Format::panel_bytes(K); }

  // The search for the scale and minimum of one group of 16 outputs, in their rows' units.
  struct Search {
    const float* x;  // [kc][16]
    int kc;
    f16 ratio;  // the unit of minima in units of the scale
    f16 best, scale, minimum;

    static f16 level(f16 shifted, f16 inverse) { return detail::within(round(shifted * inverse), 0.0f, kLevels); }

    // Takes these, rounded, where the sum of squared errors is less than the best so far.
    void attempt(f16 new_scale, f16 new_minimum) {
      new_scale = detail::within(round(new_scale), 1.0f, 255.0f);
      new_minimum = detail::within(round(new_minimum), 0.0f, 255.0f);
      const f16 shift = new_minimum * ratio, inverse = splat(1.0f) / new_scale;
      f16 error = splat(0.0f);
      for (int i = 0; i < kc; i++) {
        const f16 shifted = load(x + i * kLanes) + shift;
        const f16 miss = shifted - level(shifted, inverse) * new_scale;
        error = error + miss * miss;
      }
      const f16 better = lt(error, best);
      best = where(better, error, best);
      scale = where(better, new_scale, scale);
      minimum = where(better, new_minimum, minimum);
    }

    // Tries the least-squares scale and minimum for the levels as they are. per_unit: units of minima in a unit of scale.
    void fit(f16 per_unit) {
      const f16 shift = minimum * ratio, inverse = splat(1.0f) / scale, n = splat((float)kc);
      f16 su = splat(0.0f), suu = su, sx = su, sux = su;
      for (int i = 0; i < kc; i++) {
        const f16 value = load(x + i * kLanes), u = level(value + shift, inverse);
        su = su + u, suu = suu + u * u, sx = sx + value, sux = sux + u * value;
      }
      const f16 spread = n * suu - su * su, ok = gt(spread, splat(0.0f));
      const f16 slope = (n * sux - su * sx) / where(ok, spread, splat(1.0f));
      const f16 fitted = detail::within(round(where(ok, slope, scale)), 1.0f, 255.0f);
      attempt(fitted, (fitted * su - sx) / n * per_unit);
    }
  };

  static void put(const float* x, int K, f16, PanelLanes lanes, char* panel) {
    f16 widest = splat(0.0f), deepest = widest;
    for (int start = 0; start < K; start += kGroup) {
      f16 high = splat(0.0f), low = high;
      for (int k = start; k < start + kGroup && k < K; k++) {
        high = at_least(load(x + k * kLanes), high);
        low = at_most(load(x + k * kLanes), low);
      }
      widest = at_least((high - low) / splat(kLevels), widest);
      deepest = at_least(-low, deepest);
    }
    f16 inverse, inverse_unit;
    const f16 scale = detail::scale_of(widest, 255.0f, &inverse), used = gt(scale, splat(0.0f));
    const f16 unit = detail::scale_of(where(used, deepest, splat(0.0f)), 255.0f, &inverse_unit);
    detail::put_floats(lanes, panel, scale);
    detail::put_floats(lanes, panel + 64, unit);
    const f16 span = inverse / splat(kLevels), ratio = unit * inverse, per_unit = inverse_unit * scale;

    char* head = panel + 128;
    char* body = panel + Format::head_bytes(K);
    for (int start = 0; start < K; start += kGroup, head += 2 * kLanes, body += Format::kBytes) {
      float scaled[kGroup * kLanes];
      const int kc = K - start < kGroup ? K - start : kGroup;
      f16 high = splat(0.0f), low = high;
      for (int i = 0; i < kc; i++) {
        const f16 value = load(x + (start + i) * kLanes);
        high = at_least(value, high);
        low = at_most(value, low);
        store(scaled + i * kLanes, value * inverse);
      }
      Search search{scaled, kc, ratio, splat(__builtin_inff()), splat(1.0f), splat(0.0f)};
      const f16 top = high * span, bottom = low * span, depth = -low * inverse_unit;
      for (float a : kShares) {
        for (float b : kShares) search.attempt(splat(a) * top - splat(b) * bottom, splat(b) * depth);
      }
      for (int i = 0; i < kFits; i++) search.fit(per_unit);

      int8_t u[kGroup][kLanes] = {};
      const f16 shift = search.minimum * ratio, finer = splat(1.0f) / search.scale;
      for (int i = 0; i < kc; i++) {
        store_bytes(u[i], where(used, search.level(load(scaled + i * kLanes) + shift, finer), splat(0.0f)));
      }
      put_packed_numbers<kBits>(lanes, body, u);
      detail::put_unsigned(lanes, head, where(used, search.scale, splat(0.0f)));
      detail::put_unsigned(lanes, head + kLanes, where(used, search.minimum, splat(0.0f)));
    }
  }
};

}  // namespace bossa
