// Weights of 6 and of 4 bits that are rungs between bytes, a ladder for each group of 32 steps of k; activations of 16 or of
// 8 bits, two digits or one, with a scale a row; and their products, which are exact integers over all of k.
//
// A packed panel, the same bytes for every target: [16] fp32 scales; [2 ceil(G / 2)][2][16] uint8, the steps and the
// minima of each group; then G = ceil(K / 32) groups, see integers.h. w = (byte - 128) * scale, where byte = u * step +
// minimum, at most 255. Outputs past N have scales of zero; steps past K meet activations that are zeros.
//
// Products are of bytes and digits, or, where dots are words and there is one digit, of the rungs u: step * (u . x) and
// minimum * (1 . x) of each group, which is the same integer.
#pragma once

#include <algorithm>
#include <type_traits>

#include "amx.h"
#include "group_sums.h"

namespace bossa {

template <int kBits, int kDigits>
struct Ladders {
  static constexpr int kBlock = 256;  // steps of k between two looks at the sums; no bits depend on it
  static constexpr int kMost = (1 << kBits) - 1;
  static constexpr int kZero = 128;  // the byte of a weight that is zero
  // The largest step of a group: `kMost` of them are a byte.
  static constexpr int kMostStep = 255 / kMost;
  // Whether rungs are multiplied, and not bytes.
#if defined(BOSSA_DOTS_OF_WORDS)
  static constexpr bool kOfRungs = kDigits == 1;
#else
  static constexpr bool kOfRungs = false;
#endif
  using Groups = GroupSums<kBits, kBlock>;
  // The most rows of a tile. With VNNI weights are unpacked while others multiply, which is cheap up to some tiles; AMX has
  // tiles of its own for so many rows.
#if defined(BOSSA_LANES_AVX512) && defined(__AVX512VNNI__) && !defined(BOSSA_AMX)
  static constexpr int kRows = 16 / kDigits;
  static constexpr int kPackedRows = 64;  // more are worth unpacking the weights for
#else
  static constexpr int kRows = kOfRungs ? Groups::kRows : kIntegerRows;
  static constexpr int kPackedRows = kRows + 1;
#endif
  static constexpr size_t kBytes = (size_t)kGroup * kLanes * kBits / 8;  // of a group
  static constexpr int kAmxSteps = 64;                                   // of k in a tile
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
  static constexpr int padded(int K) { return detail::ceil_div(K, kAmxSteps) * kAmxSteps; }
  static constexpr size_t head_bytes(int K) { return 64 + detail::round_up((size_t)groups(K), 2) * 2 * kLanes; }
  static constexpr size_t panel_bytes(int K) { return head_bytes(K) + (size_t)groups(K) * kBytes; }

  // What belongs to a row of activations beside its words.
  struct Row {
    float scale;
    int32_t zero;  // what all its products have too much, since bytes are `kZero` more than weights: less that
    int32_t dots;  // where rungs are multiplied, of so many quads fit words
  };
  // A row: its words; where rungs are multiplied the sums of its groups too, int16; then what belongs to it.
  static constexpr int kBytesOfWord = kOfRungs ? 1 : kWordBytes<kDigits>;
  static constexpr size_t totals_bytes(int K) { return kOfRungs ? (size_t)padded(K) / kGroup * sizeof(int16_t) : 0; }
  static constexpr size_t words_bytes(int K) {
    return detail::round_up((size_t)(kBytesOfWord * padded(K)) + totals_bytes(K), 64);
  }
  static constexpr size_t row_bytes(int K) { return words_bytes(K) + 64; }
  static const Row& of_row(const char* row, int K) { return *(const Row*)(row + words_bytes(K)); }

  // One weight of a packed matrix.
  static float weight(const char* panels, int K, int output, int k) {
    const uint8_t* panel = (const uint8_t*)panels + (size_t)(output / kLanes) * panel_bytes(K);
    const int lane = output % kLanes, group = k / kGroup, quad = k % kGroup / 4;
    const uint8_t* ladder = panel + 64 + group * 2 * kLanes + lane;
    const uint8_t* at = panel + head_bytes(K) + (size_t)group * kBytes + (size_t)(lane * 4 + k % 4);
    const int byte = packed_number<kBits>(at, quad) * ladder[0] + ladder[kLanes];
    return (float)(byte - kZero) * ((const float*)panel)[lane];
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
      if constexpr (kOfRungs) {
        store_bytes((int8_t*)row + k, numbers);
      } else {
        put_words<kDigits>(row + kBytesOfWord * k, numbers, total);
      }
    }
    if constexpr (kOfRungs) {
      put_totals(row, K, &of_row);
    } else {
      of_row.zero = -kZero * bossa::sum(total);
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
    of_row->zero = -kZero * all;
    of_row->dots = largest.of_eight() * kMost <= INT16_MAX ? 8 : largest.of_four() * kMost <= INT16_MAX ? 4 : Groups::kDots;
  }
#endif

  // Steps of k in the block from k on; the last one's are whole groups.
  static int steps(int K, int k) { return K - k < kBlock ? groups(K - k) * kGroup : kBlock; }

  static size_t numbers_of(int k) { return 64 + (size_t)k / kGroup * 2 * kLanes; }
  static size_t bytes_of(int K, int k) { return head_bytes(K) + (size_t)k / kGroup * kBytes; }

  // A panel's block as factors.
  struct UnpackedFactors {
    alignas(64) char factors[kBlock / 4 * sizeof(Factors)];
  };
  using Unpacked = std::conditional_t<kOfRungs, typename Groups::Unpacked, UnpackedFactors>;

  // put(quads) for all bytes of a panel's groups from step k on, in order. kFetch: and fetches what comes next.
  template <bool kFetch, class Put>
  static inline __attribute__((always_inline)) void each_quads(const char* panel, int K, int k, int groups, Put&& put) {
    const uint8_t* ladders = (const uint8_t*)panel + numbers_of(k);
    const uint8_t* from = (const uint8_t*)panel + bytes_of(K, k);
    for (int g = 0; g < groups; g++, from += kBytes) {
      for (size_t i = 0; i < kBytes && kFetch; i += 64) {
        __builtin_prefetch(from + kAmxAhead + i);
        __builtin_prefetch(from + kAmxFarAhead + i, 0, 2);
      }
      const Ladder ladder = load_ladder(ladders + g * 2 * kLanes);
#pragma GCC unroll 4
      for (int q = 0; q < kGroupQuads; q += 2) {
        Quads low, high;
        load_two<kBits>(from, q, &low, &high);
        put(climb(low, ladder));
        put(climb(high, ladder));
      }
    }
  }

  static void unpack(const char* panel, int K, int k, int steps, Unpacked* to) {
    if constexpr (kOfRungs) {
      const uint8_t* at = (const uint8_t*)panel;
      Groups::unpack(at + numbers_of(k), at + bytes_of(K, k), steps / kGroup, to);
    } else {
      char* at = to->factors;
      // What is unpacked next comes while the tiles compute.
      const char* next = panel + bytes_of(K, k + steps);
      for (size_t i = 0; i < (size_t)steps / kGroup * kBytes; i += 64) __builtin_prefetch(next + i);
      each_quads<false>(panel, K, k, steps / kGroup, [&](Quads quads) __attribute__((always_inline)) {
        store_factors(at, factors(quads));
        at += sizeof(Factors);
      });
    }
  }

  // out[r][16 p ..] (+)= the products of MR rows and NP panels over one block from k, `steps` of them; from the packed
  // weights, or from one panel's unpacked ones. Until the last block `out` holds integers.
  template <int MR, int NP, bool kUnpacked>
  static inline __attribute__((always_inline)) void add_block(const char* rows, size_t row_bytes, int K, int k,
                                                              int steps, const char* const (&panels)[NP],
                                                              const Unpacked* unpacked, float* out, size_t out_stride) {
    static_assert(NP == 1 || !kUnpacked);
    Sums sums[MR][NP];
    if constexpr (kOfRungs) {
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
#pragma GCC unroll 16
        for (int p = 0; p < NP; p++) sums[r][p] = no_sums();
      }
      const char* x = rows + k;
      const int groups = steps / kGroup;
      if constexpr (Groups::kDots == kGroupQuads) {
        Groups::template add<MR, NP, kUnpacked>(sums, x, row_bytes, groups, panels, numbers_of(k), bytes_of(K, k), unpacked);
      } else {
        int dots = kGroupQuads;
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++) dots = std::min(dots, of_row(rows + r * row_bytes, K).dots);
        if (dots == kGroupQuads) {
          Groups::template add<MR, NP, kUnpacked, kGroupQuads>(sums, x, row_bytes, groups, panels, numbers_of(k),
                                                               bytes_of(K, k), unpacked);
        } else if (dots == 4) {
          Groups::template add<MR, NP, kUnpacked, 4>(sums, x, row_bytes, groups, panels, numbers_of(k), bytes_of(K, k),
                                                     unpacked);
        } else {
          Groups::template add<MR, NP, kUnpacked>(sums, x, row_bytes, groups, panels, numbers_of(k), bytes_of(K, k), unpacked);
        }
      }
      const char* totals = rows + padded(K) + (size_t)k / kGroup * sizeof(int16_t);
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) {
        Groups::template add_minima<MR, NP, kUnpacked>(sums, p, totals, row_bytes, steps / kGroup,
                                                       (const uint8_t*)panels[p] + numbers_of(k), unpacked);
      }
    } else {
      sum_bytes<MR, NP, kUnpacked>(sums, rows + kBytesOfWord * k, row_bytes, K, k, steps, panels, unpacked);
    }
#pragma GCC unroll 16
    for (int p = 0; p < NP; p++) {
      const f16 scale = load((const float*)panels[p]);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) {
        float* to = out + r * out_stride + p * kLanes;
        Sums all = sums[r][p];
        if (k > 0) all = all + load_sums(to);
        if (k + kBlock < K) {
          store_sums(to, all);
        } else {
          store(to, finished(all, of_row(rows + r * row_bytes, K), scale));
        }
      }
    }
  }

  // all[r][p] = the products of the words at x + r * row_bytes and a block of panel p, as bytes.
  template <int MR, int NP, bool kUnpacked>
  static inline __attribute__((always_inline)) void sum_bytes(Sums (&all)[MR][NP], const char* x, size_t row_bytes, int K,
                                                              int k, int steps, const char* const (&panels)[NP],
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
      for (int i = 0; i < steps; i += 8, from += 2 * sizeof(Factors)) {
        add(0, load_factors(from), 0);
        add(0, load_factors(from + sizeof(Factors)), 4);
        advance(8);
      }
    } else {
      for (int g = 0; g < steps / kGroup; g++) {
#pragma GCC unroll 16
        for (int p = 0; p < NP; p++) {
          const uint8_t* from = (const uint8_t*)panels[p] + bytes_of(K, k) + (size_t)g * kBytes;
          for (size_t i = 0; i < kBytes; i += 64) detail::fetch_ahead<NP>(from + i);
          const Ladder ladder = load_ladder((const uint8_t*)panels[p] + numbers_of(k) + g * 2 * kLanes);
#pragma GCC unroll 4
          for (int q = 0; q < kGroupQuads; q += 2) {
            Quads low, high;
            load_two<kBits>(from, q, &low, &high);
            add(p, factors(climb(low, ladder)), 4 * q);
            add(p, factors(climb(high, ladder)), 4 * q + 4);
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
    return to_float(sums + all_of(row.zero)) * (scale * splat(row.scale));
  }

#if defined(BOSSA_AMX)
  // Steps of k whose weights are unpacked together, for few rows and for more.
  static constexpr int kFewChunk = kAmxSteps, kChunk = 768;

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
    char* to = rows + row / kAmxRows * kTile + row % kAmxRows * kAmxSteps;
    for (int k = 0; k < padded(K); k += kAmxSteps, to += 2 * kTile) {
      const __m512i a = words(k), b = words(k + kLanes), c = words(k + 2 * kLanes), d = words(k + 3 * kLanes);
      if constexpr (kDigits == 1) {
        _mm512_storeu_si512(to, detail::low_bytes(a, b, c, d));
      } else {
        const detail::Digits digits = detail::digits(a, b, c, d, true);
        _mm512_storeu_si512(to, digits.low);
        _mm512_storeu_si512(to + kTile, digits.high);
      }
    }
    of_row.zero = -kZero * bossa::sum(Sums{total});
  }

  // Of a panel's steps from k on: their bytes, zeros up to whole tiles. kFetch: and fetches what comes next.
  template <bool kFetch>
  static void to_bytes(const char* panel, int K, int k, int steps, uint8_t* to) {
    const int n = detail::ceil_div(steps, kGroup);
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

  static constexpr int kTile = kAmxRows * kAmxSteps;  // bytes

  // Adds the products of two tiles of rows, or of the first of them, and NP panels, over `tiles` tiles of 64 steps, to tiles
  // 0 to 3: of each panel those of the first tile of rows, then of the second.
  template <int NP, bool kBoth>
  static inline __attribute__((always_inline)) void multiply(const char* rows, int tiles,
                                                             const uint8_t* const (&weights)[NP], Next& next) {
    for (int i = 0; i < tiles; i++, rows += 2 * kTile) {
      for (int line = 0; line < next.lines; line++, next.at += 64) __builtin_prefetch(next.at, 0, 2);
      _tile_loadd(6, weights[0] + i * kTile, 64);
      _tile_loadd(4, rows, kAmxSteps);
      _tile_dpbsud(0, 4, 6);
      if constexpr (kBoth) {
        _tile_loadd(5, rows + kTile, kAmxSteps);
        _tile_dpbsud(1, 5, 6);
      }
      if constexpr (NP > 1) {
        _tile_loadd(7, weights[NP - 1] + i * kTile, 64);
        _tile_dpbsud(2, 4, 7);
        if constexpr (kBoth) _tile_dpbsud(3, 5, 7);
      }
    }
  }

  // The same of two pairs of tiles of rows, one panel, and 64 steps.
  static inline __attribute__((always_inline)) void multiply_two(const char* rows, const char* more,
                                                                 const uint8_t* weights) {
    _tile_loadd(6, weights, 64);
    _tile_loadd(4, rows, kAmxSteps);
    _tile_dpbsud(0, 4, 6);
    _tile_loadd(5, rows + kTile, kAmxSteps);
    _tile_dpbsud(1, 5, 6);
    _tile_loadd(7, more, kAmxSteps);
    _tile_dpbsud(2, 7, 6);
    _tile_loadd(4, more + kTile, kAmxSteps);
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
    const int tiles = detail::ceil_div(rows, kTogether) * detail::ceil_div(K, kAmxSteps);
    Next next{panels[0] + NP * panel_bytes(K), detail::ceil_div((int)(NP * panel_bytes(K) / 64), tiles)};
    for (int k = 0; k < K; k += kChunk) {
      const int steps = K - k < kChunk ? K - k : kChunk;
      for (int p = 0; p < NP; p++) to_bytes<false>(panels[p], K, k, steps, bytes[p]);
      detail::stored_before_tiles(bytes);
      for (int row = 0; row < rows; row += kTogether) {
        int32_t* here = sums[K <= kChunk ? 0 : row / kTogether];
        if (k == 0) {
          detail::clear_tiles<NP>();
        } else {
          load_tiles<NP>(here);
        }
        const char* from = x + row * row_bytes;
        multiply<NP, true>(from + 2 * (size_t)k * kAmxRows, detail::ceil_div(steps, kAmxSteps), weights, next);
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
        to_bytes<true>(panels[p], K, k, K - k < kFewChunk ? K - k : kFewChunk, bytes[k / kFewChunk % 2][p]);
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
      to_bytes<true>(panel, K, k, K - k < kFewChunk ? K - k : kFewChunk, weights);
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

using Int6A16 = Ladders<6, 2>;
using Int4A16 = Ladders<4, 2>;
using Int6A8 = Ladders<6, 1>;
using Int4A8 = Ladders<4, 1>;

}  // namespace bossa
