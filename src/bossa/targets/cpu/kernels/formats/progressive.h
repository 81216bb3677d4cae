// int4-a8, int6-a8 and int4-a16, int6-a16: progressive (two-level) group quantization, as in QServe (arXiv 2405.04532). On the
// first level an output is 8-bit numbers with one float scale; on the second each group of 32 of k is 4-bit or 6-bit numbers
// with an integer scale and minimum. Activations have 8 or 16 bits, one digit or two, and a scale a row; their products with
// the first level are exact integers over all of k.
//
// A packed panel, the same bytes for every target: [16] fp32 scales; [2 ceil(G / 2)][2][16] uint8, the scales and the
// minima of each group; then G = ceil(K / 32) groups, see integers.h. w = (q - 128) * scale, where q = u * group scale +
// minimum, at most 255. Outputs past N have scales of zero; k past K meets activations that are zeros.
//
// Products are of first-level numbers q and digits. Where dots are words and there is one digit they are of second-level
// numbers u instead: scale * (u . x) + minimum * (1 . x) of a group is the same integer as q . x.
#pragma once

#include <algorithm>
#include <type_traits>

#include "amx.h"
#include "groups.h"
#include "packing.h"

namespace bossa {

template <int kBits, int kDigits>
struct Progressive {
  static constexpr int kKC = 256;  // k between two looks at the sums; no bits depend on it
  static constexpr int kMost = (1 << kBits) - 1;
  static constexpr int kZeroPoint = 128;  // of the first level: what a weight of zero is
  static constexpr int kMostScale = 255 / kMost;  // of a group, with which its levels stay below 256
  // Whether numbers of the second level are multiplied, and not those of the first.
#if defined(BOSSA_DOTS_OF_WORDS)
  static constexpr bool kSecondLevel = kDigits == 1;
#else
  static constexpr bool kSecondLevel = false;
#endif
  using Groups = GroupSums<kBits, kKC>;
  // The most rows of a tile. With VNNI weights are unpacked while others multiply, which is cheap up to some tiles; AMX has
  // tiles of its own for so many rows.
#if defined(BOSSA_LANES_AVX512) && defined(__AVX512VNNI__) && !defined(BOSSA_AMX)
  static constexpr int kRows = 16 / kDigits;
  static constexpr int kPackedRows = 64;  // more are worth unpacking the weights for
#else
  static constexpr int kRows = kSecondLevel ? Groups::kRows : kIntegerRows;
  static constexpr int kPackedRows = kRows + 1;
#endif
  static constexpr size_t kBytes = (size_t)kGroup * kLanes * kBits / 8;  // of a group
  static constexpr int kAmxK = 64;                                       // of a tile
  static constexpr bool kCutsTiles = true;                               // fewer than 16 rows take tiles that are no taller
  static constexpr int kTiledRows = kFewestAmxRows < INT32_MAX ? 3 : INT32_MAX;

  // Rows that lie in two tiles together: 16 of two digits, or 32.
  static constexpr int kTogether = 2 * kAmxRows / kDigits;

  // How many bytes ahead tiles of few rows fetch, into the first cache and into the second.
  static constexpr int kAmxAhead = 1024, kAmxFarAhead = 8192;

  // What activations are scaled to: 127 at most, or 127 * 256, so that they are two digits of eight bits, and with
  // magnitudes that sum up to less than 2^24, so that 128 times as much fits an integer.
  static constexpr float kMostWord = kDigits == 1 ? 127.0f : 32512.0f;
  static constexpr int kMostTotal = 16600000;

  static constexpr int groups(int K) { return detail::ceil_div(K, kGroup); }
  static constexpr int padded(int K) { return detail::ceil_div(K, kAmxK) * kAmxK; }
  static constexpr size_t head_bytes(int K) { return 64 + detail::round_up((size_t)groups(K), 2) * 2 * kLanes; }
  static constexpr size_t panel_bytes(int K) { return head_bytes(K) + (size_t)groups(K) * kBytes; }

  // What belongs to a row of activations beside its words.
  struct Row {
    float scale;
    int32_t correction;  // -kZeroPoint times the sum of its words, which takes the zero point out of every product
    int32_t dots;        // quads whose dots with it fit words, where those are of the second level
  };
  // A row: its words; the sums of its groups, int16, where the second level is multiplied; then what belongs to it.
  static constexpr int kBytesOfWord = kSecondLevel ? 1 : kWordBytes<kDigits>;
  static constexpr size_t totals_bytes(int K) { return kSecondLevel ? (size_t)padded(K) / kGroup * sizeof(int16_t) : 0; }
  static constexpr size_t words_bytes(int K) {
    return detail::round_up((size_t)(kBytesOfWord * padded(K)) + totals_bytes(K), 64);
  }
  static constexpr size_t row_bytes(int K) { return words_bytes(K) + 64; }
  static const Row& of_row(const char* row, int K) { return *(const Row*)(row + words_bytes(K)); }

  // One weight of a packed matrix.
  static float weight(const char* panels, int K, int output, int k) {
    const uint8_t* panel = (const uint8_t*)panels + (size_t)(output / kLanes) * panel_bytes(K);
    const int lane = output % kLanes, group = k / kGroup, quad = k % kGroup / 4;
    const uint8_t* of_group = panel + 64 + group * 2 * kLanes + lane;
    const uint8_t* at = panel + head_bytes(K) + (size_t)group * kBytes + (size_t)(lane * 4 + k % 4);
    const int q = packed_number<kBits>(at, quad) * of_group[0] + of_group[kLanes];
    return (float)(q - kZeroPoint) * ((const float*)panel)[lane];
  }

  // The inverse of a row's scale, such that its words are as large as may be; 0 and NaN where there is none.
  static float inverse_scale(const float* x, int K, float* scale) {
    const float top = detail::magnitude(x, K);
    *scale = top;
    if (!(top > 0.0f)) return top;
    float inverse = kMostWord / top;
    if (kDigits > 1 || K > kMostTotal / 128) {
      const float of_total = (float)(kMostTotal - K / 2) / total_magnitude(x, K);
      inverse = inverse < of_total ? inverse : of_total;
    }
    if (inverse > 0.0f) *scale = 1.0f / inverse;
    return inverse;
  }

  static float total_magnitude(const float* x, int K) {
    f16 total[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
    for (int k = 0; k < K; k += 4 * kLanes) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) total[i] = total[i] + abs(load_n(x + k + i * kLanes, K - k - i * kLanes));
    }
    return bossa::sum((total[0] + total[1]) + (total[2] + total[3]));
  }

  static void quantize(const float* x, int K, char* row) {
    Row& of_row = *(Row*)(row + words_bytes(K));
    const f16 inverse = splat(inverse_scale(x, K, &of_row.scale));
    Sums total = no_sums();
    for (int k = 0; k < padded(K); k += kLanes) {
      const f16 numbers = (k + kLanes <= K ? load(x + k) : load_n(x + k, K - k)) * inverse;
      if constexpr (kSecondLevel) {
        store_bytes((int8_t*)row + k, numbers);
      } else {
        put_words<kDigits>(row + kBytesOfWord * k, numbers, total);
      }
    }
    if constexpr (kSecondLevel) {
      put_totals(row, K, &of_row);
    } else {
      of_row.correction = -kZeroPoint * bossa::sum(total);
    }
  }

#if defined(BOSSA_DOTS_OF_WORDS)
  // The sums of a row's groups, and what depends on its bytes.
  static void put_totals(char* row, int K, Row* of_row) {
    int16_t* totals = (int16_t*)(row + padded(K));
    int32_t all = 0;
    LargestDots largest;
    for (int k = 0; k < padded(K); k += kGroup) {
      const int8_t* group = (const int8_t*)row + k;
      const int total = sum_group(group);
      totals[k / kGroup] = (int16_t)total;
      all += total;
      if (Groups::kDots < kGroupQuads) largest.look(group);
    }
    of_row->correction = -kZeroPoint * all;
    of_row->dots = largest.of_eight() * kMost <= INT16_MAX ? 8 : largest.of_four() * kMost <= INT16_MAX ? 4 : Groups::kDots;
  }
#endif

  // k of the block from k on; the last one's are whole groups.
  static int kc(int K, int k) { return K - k < kKC ? groups(K - k) * kGroup : kKC; }

  static size_t head_of(int k) { return 64 + (size_t)k / kGroup * 2 * kLanes; }
  static size_t bytes_of(int K, int k) { return head_bytes(K) + (size_t)k / kGroup * kBytes; }

  // A panel's block as factors.
  struct UnpackedFactors {
    alignas(64) char factors[kKC / 4 * sizeof(Factors)];
  };
  using Unpacked = std::conditional_t<kSecondLevel, typename Groups::Unpacked, UnpackedFactors>;

  // put(quads) for the first-level numbers of a panel's groups from k on, in order. kFetch: and fetches what comes next.
  template <bool kFetch, class Put>
  static inline __attribute__((always_inline)) void each_quads(const char* panel, int K, int k, int groups, Put&& put) {
    const uint8_t* heads = (const uint8_t*)panel + head_of(k);
    const uint8_t* from = (const uint8_t*)panel + bytes_of(K, k);
    for (int g = 0; g < groups; g++, from += kBytes) {
      for (size_t i = 0; i < kBytes && kFetch; i += 64) {
        __builtin_prefetch(from + kAmxAhead + i);
        __builtin_prefetch(from + kAmxFarAhead + i, 0, 2);
      }
      const GroupHead head = load_head(heads + g * 2 * kLanes);
#pragma GCC unroll 4
      for (int q = 0; q < kGroupQuads; q += 2) {
        Quads low, high;
        load_two<kBits>(from, q, &low, &high);
        put(to_first_level(low, head));
        put(to_first_level(high, head));
      }
    }
  }

  static void unpack(const char* panel, int K, int k, int kc, Unpacked* to) {
    if constexpr (kSecondLevel) {
      const uint8_t* at = (const uint8_t*)panel;
      Groups::unpack(at + head_of(k), at + bytes_of(K, k), kc / kGroup, to);
    } else {
      char* at = to->factors;
      // What is unpacked next comes while the tiles compute.
      const char* next = panel + bytes_of(K, k + kc);
      for (size_t i = 0; i < (size_t)kc / kGroup * kBytes; i += 64) __builtin_prefetch(next + i);
      each_quads<false>(panel, K, k, kc / kGroup, [&](Quads quads) __attribute__((always_inline)) {
        store_factors(at, factors(quads));
        at += sizeof(Factors);
      });
    }
  }

  // out[r][16 p ..] (+)= the products of MR rows and NP panels over the block of `kc` from k on; from the packed
  // weights, or from one panel's unpacked ones. Until the last block `out` holds integers.
  template <int MR, int NP, bool kUnpacked>
  static inline __attribute__((always_inline)) void add_block(const char* rows, size_t row_bytes, int K, int k,
                                                              int kc, const char* const (&panels)[NP],
                                                              const Unpacked* unpacked, float* out, size_t out_stride) {
    static_assert(NP == 1 || !kUnpacked);
    Sums sums[MR][NP];
    if constexpr (kSecondLevel) {
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
        for (int p = 0; p < NP; p++) sums[r][p] = no_sums();
      }
      const char* x = rows + k;
      const int groups = kc / kGroup;
      if constexpr (Groups::kDots == kGroupQuads) {
        Groups::template add<MR, NP, kUnpacked>(sums, x, row_bytes, groups, panels, head_of(k), bytes_of(K, k), unpacked);
      } else {
        int dots = kGroupQuads;
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++) dots = std::min(dots, of_row(rows + r * row_bytes, K).dots);
        if (dots == kGroupQuads) {
          Groups::template add<MR, NP, kUnpacked, kGroupQuads>(sums, x, row_bytes, groups, panels, head_of(k),
                                                               bytes_of(K, k), unpacked);
        } else if (dots == 4) {
          Groups::template add<MR, NP, kUnpacked, 4>(sums, x, row_bytes, groups, panels, head_of(k), bytes_of(K, k),
                                                     unpacked);
        } else {
          Groups::template add<MR, NP, kUnpacked>(sums, x, row_bytes, groups, panels, head_of(k), bytes_of(K, k), unpacked);
        }
      }
      const char* totals = rows + padded(K) + (size_t)k / kGroup * sizeof(int16_t);
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) {
        Groups::template add_minima<MR, NP, kUnpacked>(sums, p, totals, row_bytes, kc / kGroup,
                                                       (const uint8_t*)panels[p] + head_of(k), unpacked);
      }
    } else {
      sum_first_level<MR, NP, kUnpacked>(sums, rows + kBytesOfWord * k, row_bytes, K, k, kc, panels, unpacked);
    }
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) {
      const f16 scale = load((const float*)panels[p]);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
        float* to = out + r * out_stride + p * kLanes;
        Sums all = sums[r][p];
        if (k > 0) all = all + load_sums(to);
        if (k + kKC < K) {
          store_sums(to, all);
        } else {
          store(to, finished(all, of_row(rows + r * row_bytes, K), scale));
        }
      }
    }
  }

  // all[r][p] = the products of the words at x + r * row_bytes and a block of panel p, on the first level.
  template <int MR, int NP, bool kUnpacked>
  static inline __attribute__((always_inline)) void sum_first_level(Sums (&all)[MR][NP], const char* x, size_t row_bytes, int K,
                                                              int k, int kc, const char* const (&panels)[NP],
                                                              const Unpacked* unpacked) {
    WordSums<kDigits> sums[MR][NP];
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) sums[r][p] = WordSums<kDigits>();
    }
    // A pointer to every third row, as in `tile`: with one to each, some of them would be kept in memory.
    const char* at[(MR + 2) / 3];
#pragma GCC unroll 16
    for (int i = 0; i < (MR + 2) / 3; i++) at[i] = x + (size_t)(3 * i) * row_bytes;
    const auto add = [&](int p, Factors w, int i) __attribute__((always_inline)) {
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
        add_words(sums[r][p], w, at[r / 3] + (size_t)(r % 3) * row_bytes + kBytesOfWord * i);
      }
    };
    const auto advance = [&](int by) __attribute__((always_inline)) {
#pragma GCC unroll 16
      for (int i = 0; i < (MR + 2) / 3; i++) {
        at[i] += kBytesOfWord * by;
        asm("" : "+r"(at[i]));
      }
    };
    if constexpr (kUnpacked) {
      const char* from = unpacked->factors;
      for (int i = 0; i < kc; i += 8, from += 2 * sizeof(Factors)) {
        add(0, load_factors(from), 0);
        add(0, load_factors(from + sizeof(Factors)), 4);
        advance(8);
      }
    } else {
      for (int g = 0; g < kc / kGroup; g++) {
#pragma GCC unroll 16
        for (int p = 0; p < NP; p++) {
          const uint8_t* from = (const uint8_t*)panels[p] + bytes_of(K, k) + (size_t)g * kBytes;
          for (size_t i = 0; i < kBytes; i += 64) detail::fetch_ahead<NP>(from + i);
          const GroupHead head = load_head((const uint8_t*)panels[p] + head_of(k) + g * 2 * kLanes);
#pragma GCC unroll 4
          for (int q = 0; q < kGroupQuads; q += 2) {
            Quads low, high;
            load_two<kBits>(from, q, &low, &high);
            add(p, factors(to_first_level(low, head)), 4 * q);
            add(p, factors(to_first_level(high, head)), 4 * q + 4);
          }
        }
        advance(kGroup);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) all[r][p] = joined(sums[r][p]);
    }
  }

  static inline __attribute__((always_inline)) f16 finished(Sums sums, const Row& row, f16 scale) {
    return to_float(sums + all_of(row.correction)) * (scale * splat(row.scale));
  }

#if defined(BOSSA_AMX)
  // k whose weights are unpacked together, for few rows and for more.
  static constexpr int kFewChunk = kAmxK, kChunk = 768;

  // What belongs to each of rows in tiles.
  static const Row* of_tiles(const char* rows, int K) { return (const Row*)(rows + 2 * kAmxRows * (size_t)padded(K)); }

  // Rows for tiles, kTogether at a time: [padded(K) / 64][2][16][64] bytes, then what belongs to each row. `rows`: where the
  // first of them would lie alone.
  static void quantize_for_amx(const float* x, int K, char* rows, int row) {
    Row& of_row = *(Row*)(of_tiles(rows, K) + row);
    const f16 inverse = splat(inverse_scale(x, K, &of_row.scale));
    __m512i total = _mm512_setzero_si512();
    const auto words = [&](int k) __attribute__((always_inline)) {
      const __m512i q = _mm512_cvtps_epi32(((k + kLanes <= K ? load(x + k) : load_n(x + k, K - k)) * inverse).v);
      total = _mm512_add_epi32(total, q);
      return q;
    };
    char* to = rows + row / kAmxRows * kTile + row % kAmxRows * kAmxK;
    for (int k = 0; k < padded(K); k += kAmxK, to += 2 * kTile) {
      const __m512i a = words(k), b = words(k + kLanes), c = words(k + 2 * kLanes), d = words(k + 3 * kLanes);
      if constexpr (kDigits == 1) {
        _mm512_storeu_si512(to, detail::low_bytes(a, b, c, d));
      } else {
        const detail::Digits digits = detail::digits(a, b, c, d, true);
        _mm512_storeu_si512(to, digits.low);
        _mm512_storeu_si512(to + kTile, digits.high);
      }
    }
    of_row.correction = -kZeroPoint * bossa::sum(Sums{total});
  }

  // Of `kc` of a panel from k on: the first level, zeros up to whole tiles. kFetch: and fetches what comes next.
  template <bool kFetch>
  static void to_first_level_bytes(const char* panel, int K, int k, int kc, uint8_t* to) {
    const int n = detail::ceil_div(kc, kGroup);
    each_quads<kFetch>(panel, K, k, n, [&](Quads quads) __attribute__((always_inline)) {
      store_quads(to, quads);
      to += 64;
    });
    if (n % 2) memset(to, 0, kGroup * kLanes);
  }

  // The panels that are next, to be fetched while tiles compute: so many lines with each.
  struct Next {
    const char* at;
    int lines;
  };

  static constexpr int kTile = kAmxRows * kAmxK;  // bytes

  // Adds the products of two tiles of rows, or of the first of them, and NP panels, over `tiles` tiles of 64 of k, to tiles
  // 0 to 3: of each panel those of the first tile of rows, then of the second.
  template <int NP, bool kBoth>
  static inline __attribute__((always_inline)) void multiply(const char* rows, int tiles,
                                                             const uint8_t* const (&weights)[NP], Next& next) {
    for (int i = 0; i < tiles; i++, rows += 2 * kTile) {
      for (int line = 0; line < next.lines; line++, next.at += 64) __builtin_prefetch(next.at, 0, 2);
      _tile_loadd(6, weights[0] + i * kTile, 64);
      _tile_loadd(4, rows, kAmxK);
      _tile_dpbsud(0, 4, 6);
      if constexpr (kBoth) {
        _tile_loadd(5, rows + kTile, kAmxK);
        _tile_dpbsud(1, 5, 6);
      }
      if constexpr (NP > 1) {
        _tile_loadd(7, weights[NP - 1] + i * kTile, 64);
        _tile_dpbsud(2, 4, 7);
        if constexpr (kBoth) _tile_dpbsud(3, 5, 7);
      }
    }
  }

  // The same of two pairs of tiles of rows, one panel, and 64 of k.
  static inline __attribute__((always_inline)) void multiply_two(const char* rows, const char* more,
                                                                 const uint8_t* weights) {
    _tile_loadd(6, weights, 64);
    _tile_loadd(4, rows, kAmxK);
    _tile_dpbsud(0, 4, 6);
    _tile_loadd(5, rows + kTile, kAmxK);
    _tile_dpbsud(1, 5, 6);
    _tile_loadd(7, more, kAmxK);
    _tile_dpbsud(2, 7, 6);
    _tile_loadd(4, more + kTile, kAmxK);
    _tile_dpbsud(3, 4, 6);
  }

  template <int NP>
  static void load_tiles(const int32_t* sums) {
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, sums + detail::kAmxSums, 64);
    if constexpr (NP > 1) {
      _tile_loadd(2, sums + 2 * detail::kAmxSums, 64);
      _tile_loadd(3, sums + 3 * detail::kAmxSums, 64);
    }
  }

  // out[r] = the sums of `n` rows and one panel, finished.
  static void finish(const int32_t* sums, const Row* of_rows, int n, f16 scale, float* out, size_t out_stride) {
    for (int r = 0; r < n; r++) {
      const Sums all = kDigits == 1 ? load_sums(sums + r * kLanes) : detail::joined(sums, r);
      store(out + r * out_stride, finished(all, of_rows[r], scale));
    }
  }

  // out[r][16 p ..] = the products of `rows` rows, in tiles, and NP panels side by side.
  template <int NP>
  static void amx_sums(int rows, const char* x, size_t row_bytes, int K, const char* const (&panels)[NP], float* out,
                       size_t out_stride) {
    if (rows <= kAmxRows) return few_sums<NP, kDigits == 2>(rows, x, K, panels, out, out_stride);
    if (rows <= kTogether) return few_sums<NP, true>(rows, x, K, panels, out, out_stride);
    if (rows <= 2 * kTogether) {
      for (int p = 0; p < NP; p++) two_sums(rows, x, row_bytes, K, panels[p], out + p * kLanes, out_stride);
      return;
    }
    alignas(64) uint8_t bytes[NP][kChunk * kLanes];
    alignas(64) int32_t sums[detail::kAmxBlockRows / kTogether][2 * NP * detail::kAmxSums];
    const uint8_t* weights[NP];
    for (int p = 0; p < NP; p++) weights[p] = bytes[p];
    const int tiles = detail::ceil_div(rows, kTogether) * detail::ceil_div(K, kAmxK);
    Next next{panels[0] + NP * panel_bytes(K), detail::ceil_div((int)(NP * panel_bytes(K) / 64), tiles)};
    for (int k = 0; k < K; k += kChunk) {
      const int kc = K - k < kChunk ? K - k : kChunk;
      for (int p = 0; p < NP; p++) to_first_level_bytes<false>(panels[p], K, k, kc, bytes[p]);
      detail::stored_before_tiles(bytes);
      for (int row = 0; row < rows; row += kTogether) {
        int32_t* here = sums[K <= kChunk ? 0 : row / kTogether];
        if (k == 0) {
          detail::clear_tiles<NP>();
        } else {
          load_tiles<NP>(here);
        }
        const char* from = x + row * row_bytes;
        multiply<NP, true>(from + 2 * (size_t)k * kAmxRows, detail::ceil_div(kc, kAmxK), weights, next);
        detail::store_tiles<NP>(here);
        if (k + kChunk < K) continue;
        for (int p = 0; p < NP; p++) {
          finish(here + 2 * p * detail::kAmxSums, of_tiles(from, K), rows - row < kTogether ? rows - row : kTogether,
                 load((const float*)panels[p]), out + row * out_stride + p * kLanes, out_stride);
        }
      }
    }
  }

  // The same for two tiles, or for one: these wait for the weights, which are unpacked a tile at a time, so that they come
  // all the time.
  template <int NP, bool kBoth>
  static void few_sums(int rows, const char* x, int K, const char* const (&panels)[NP], float* out, size_t out_stride) {
    alignas(64) uint8_t bytes[2][NP][kFewChunk * kLanes];
    alignas(64) int32_t sums[2 * NP * detail::kAmxSums];
    const uint8_t* weights[NP];
    Next next{nullptr, 0};  // unpacking fetches
    detail::clear_tiles<NP>();
    for (int k = 0; k < K; k += kFewChunk) {
      for (int p = 0; p < NP; p++) {
        weights[p] = bytes[k / kFewChunk % 2][p];
        to_first_level_bytes<true>(panels[p], K, k, K - k < kFewChunk ? K - k : kFewChunk, bytes[k / kFewChunk % 2][p]);
      }
      detail::stored_before_tiles(bytes);
      multiply<NP, kBoth>(x + 2 * (size_t)k * kAmxRows, 1, weights, next);
    }
    detail::store_tiles<NP>(sums);
    for (int p = 0; p < NP; p++) {
      finish(sums + 2 * p * detail::kAmxSums, of_tiles(x, K), rows, load((const float*)panels[p]), out + p * kLanes,
             out_stride);
    }
  }

  // The same for rows that lie together and more of them, and one panel.
  static void two_sums(int rows, const char* x, size_t row_bytes, int K, const char* panel, float* out,
                       size_t out_stride) {
    alignas(64) uint8_t bytes[2][kFewChunk * kLanes];
    alignas(64) int32_t sums[4 * detail::kAmxSums];
    const char* more = x + kTogether * row_bytes;
    detail::clear_tiles<2>();
    for (int k = 0; k < K; k += kFewChunk) {
      uint8_t* weights = bytes[k / kFewChunk % 2];
      to_first_level_bytes<true>(panel, K, k, K - k < kFewChunk ? K - k : kFewChunk, weights);
      detail::stored_before_tiles(bytes);
      const size_t at = 2 * (size_t)k * kAmxRows;
      multiply_two(x + at, more + at, weights);
    }
    detail::store_tiles<2>(sums);
    const f16 scale = load((const float*)panel);
    finish(sums, of_tiles(x, K), kTogether, scale, out, out_stride);
    finish(sums + 2 * detail::kAmxSums, of_tiles(more, K), rows - kTogether, scale, out + kTogether * out_stride, out_stride);
  }
#endif
};

using Int6A16 = Progressive<6, 2>;
using Int4A16 = Progressive<4, 2>;
using Int6A8 = Progressive<6, 1>;
using Int4A8 = Progressive<4, 1>;

template <int kBits, int kDigits>
struct Packing<Progressive<kBits, kDigits>> {
  using Format = Progressive<kBits, kDigits>;
  static constexpr const char* kName =
      kBits == 4 ? kDigits == 1 ? "int4-a8" : "int4-a16" : kDigits == 1 ? "int6-a8" : "int6-a16";
  static constexpr float kLargest = detail::kLargest;
  static constexpr float kLevels = (float)Format::kMost;
  // What is tried for a group: how much more than the smallest scale whose levels span its range, and where the levels are,
  // from the lower end of the range to the upper one; how many minima, each fitted to what the one before gave; and the
  // weight of a group's error as a whole beside those of its numbers.
  static constexpr float kTries[][2] = {{0.0f, 0.0f}, {0.0f, 0.5f}, {0.0f, 1.0f}, {-1.0f, 0.0f}, {-1.0f, 0.5f}, {-1.0f, 1.0f}};
  static constexpr int kMinima = 2;
  static constexpr float kBias = 2.0f / kGroup;

  static constexpr size_t panel_bytes(int K) { return Format::panel_bytes(K); }

  // The search for the scale and minimum of one group of 16 outputs on the 8-bit grid, zero being the level 0 here.
  struct Search {
    const float* x;  // [kc][16]
    int kc;
    f16 best = splat(__builtin_inff()), scale = splat(1.0f), minimum = splat(0.0f);

    // The levels of 16 weights, and the greatest that is on the 8-bit grid.
    static f16 level(f16 above, f16 inverse, f16 top) { return at_most(at_least(round(above * inverse), splat(0.0f)), top); }
    static f16 top_of(f16 scale, f16 minimum) {
      return at_most(floor((splat(127.0f) - minimum) / scale), splat(kLevels));
    }

    // Tries a scale with the minimum that is wanted, and with those that fit best after it.
    void attempt(f16 new_scale, f16 wanted) {
      const f16 inverse = splat(1.0f) / new_scale;
      for (int i = 0; i < kMinima; i++) {
        const f16 low = detail::within(round(wanted), -128.0f, 127.0f), top = top_of(new_scale, low);
        f16 error = splat(0.0f), bias = error;
        for (int k = 0; k < kc; k++) {
          const f16 above = load(x + k * kLanes) - low, miss = above - level(above, inverse, top) * new_scale;
          error = error + miss * miss;
          bias = bias + miss;
        }
        error = error + bias * bias * splat(kBias);
        const f16 better = lt(error, best);
        best = where(better, error, best);
        scale = where(better, new_scale, scale);
        minimum = where(better, low, minimum);
        wanted = low + bias / splat((float)kc);
      }
    }
  };

  static void put(const float* x, int K, f16 most, PanelLanes lanes, char* panel) {
    f16 inverse;
    const f16 scale = detail::scale_of(most, 127.0f, &inverse), used = gt(scale, splat(0.0f));
    detail::put_floats(lanes, panel, scale);
    char* head = panel + 64;
    char* body = panel + Format::head_bytes(K);
    for (int start = 0; start < K; start += kGroup, head += 2 * kLanes, body += Format::kBytes) {
      float scaled[kGroup * kLanes];
      const int kc = K - start < kGroup ? K - start : kGroup;
      f16 high = splat(-128.0f), low = splat(128.0f);
      for (int i = 0; i < kc; i++) {
        const f16 value = load(x + (start + i) * kLanes) * inverse;
        high = at_least(value, high);
        low = at_most(value, low);
        store(scaled + i * kLanes, value);
      }
      Search search{scaled, kc};
      const f16 span = high - low, whole = -floor(-(span / splat(kLevels)));
      for (const auto& tried : kTries) {
        const f16 second = detail::within(whole + splat(tried[0]), 1.0f, (float)Format::kMostScale);
        search.attempt(second, low + (span - second * splat(kLevels)) * splat(tried[1]));
      }
      int8_t u[kGroup][kLanes] = {};
      const f16 finer = splat(1.0f) / search.scale, top = search.top_of(search.scale, search.minimum);
      for (int i = 0; i < kc; i++) {
        store_bytes(u[i], where(used, search.level(load(scaled + i * kLanes) - search.minimum, finer, top), splat(0.0f)));
      }
      put_packed_numbers<kBits>(lanes, body, u);
      detail::put_unsigned(lanes, head, where(used, search.scale, splat(0.0f)));
      detail::put_unsigned(lanes, head + kLanes, where(used, search.minimum, splat(0.0f)) + splat(128.0f));
    }
  }
};

}  // namespace bossa
