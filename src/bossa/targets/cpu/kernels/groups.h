// Weights of 4 and 6 bits in groups of 32 of k: their products with activations of signed bytes over blocks of k, and the
// packing of their numbers. A group's dots stay in words until they are multiplied by the group's scale, which widens them
// too.
#pragma once

#include "integers.h"
#include "packing.h"

namespace bossa {

// A packed panel has [2 ceil(G / 2)][2][16] uint8, the scales and the minima of each group, its head here, and G
// groups of kBytes, see integers.h.
template <int kBits, int kKC>
struct GroupSums {
  static constexpr int kGroups = kKC / kGroup;  // of a block
  static constexpr size_t kBytes = (size_t)kGroup * kLanes * kBits / 8;
  static constexpr size_t kHead = 2 * kLanes;
  // Quads whose dots fit the words that they are summed in, before those are multiplied by the group's scale, whatever the
  // activations are.
  static constexpr int kDots = kBits == 4 ? kGroupQuads : 2;
  // The most rows of a tile. Sums that are added to so often stay in registers, and leave room for fewer.
  static constexpr int kRows = kBits == 4 || kIntegerRows != 5 ? kIntegerRows : 4;

  // A panel's block, unpacked: of each group the scales as words and the quads as bytes; the minima in pairs of groups.
  struct Unpacked {
    int16_t scales[kGroups][2 * kLanes];
    uint8_t quads[kGroups][kGroup * kLanes];
    int16_t minima[kGroups / 2][2 * kLanes];
  };

  // Of groups whose heads and bytes are at `heads` and `from`.
  static void unpack(const uint8_t* heads, const uint8_t* from, int groups, Unpacked* to) {
    for (int g = 0; g < groups; g++, from += kBytes) {
      // What is unpacked next comes while the tiles compute.
      for (size_t i = 0; i < kBytes; i += 64) __builtin_prefetch(from + (size_t)groups * kBytes + i);
      store_scales(to->scales[g], load_scales(heads + g * kHead));
#pragma GCC unroll 4
      for (int q = 0; q < kGroupQuads; q += 2) {
        Quads low, high;
        load_two<kBits>(from, q, &low, &high);
        store_quads(to->quads[g] + 64 * q, low);
        store_quads(to->quads[g] + 64 * q + 64, high);
      }
    }
    for (int g = 0; g < groups; g += 2) store_pairs(to->minima[g / 2], minima(heads + g * kHead));
  }

  // Those of two groups.
  static Pairs minima(const uint8_t* heads) { return load_pairs(heads + kLanes, heads + 3 * kLanes); }

  // sums[r][p] += scale * w . x over `groups` groups, for the bytes at rows + r * row_bytes and panel p, whose heads and
  // bytes are `heads` and `start` bytes after panels[p]; or for one panel's unpacked weights. kDots: so many quads' dots fit
  // words.
  template <int MR, int NP, bool kUnpacked, int kDots = GroupSums::kDots>
  static inline __attribute__((always_inline)) void add(Sums (&sums)[MR][NP], const char* rows, size_t row_bytes, int groups,
                                                        const char* const (&panels)[NP], size_t heads, size_t start,
                                                        const Unpacked* unpacked) {
    static_assert(NP == 1 || !kUnpacked);
    for (int g = 0; g < groups; g++) {
      const int8_t* x = (const int8_t*)rows + g * kGroup;
#pragma GCC unroll 16
      for (int p = 0; p < NP; p++) {
        const uint8_t* at = (const uint8_t*)panels[p] + start + (size_t)g * kBytes;
        if (MR < detail::kComputing) {
          for (size_t i = 0; i < kBytes; i += 64) detail::fetch_ahead<NP>(at + i);
        }
        Dots dots[MR];
#pragma GCC unroll 8
        for (int q = 0; q < kGroupQuads; q += 2) {
          Quads low, high;
          if constexpr (kUnpacked) {
            low = load_quads(unpacked->quads[g] + 64 * q);
            high = load_quads(unpacked->quads[g] + 64 * q + 64);
          } else {
            load_two<kBits>(at, q, &low, &high);
          }
          const Scales scales = kUnpacked ? load_scales(unpacked->scales[g])
                                          : load_scales((const uint8_t*)panels[p] + heads + g * kHead);
          if constexpr (kDots == 2) {
            // A row after the other: its dots are wanted once, and the sums need the registers.
#pragma GCC unroll 16
            for (int r = 0; r < MR; r++) {
              Dots both = dot(low, x + r * row_bytes + 4 * q);
              add_dots(both, high, x + r * row_bytes + 4 * q + 4);
              add_scaled(sums[r][p], both, scales);
            }
            continue;
          }
#pragma GCC unroll 16
          for (int r = 0; r < MR; r++) {
            if (q % kDots == 0) {
              dots[r] = dot(low, x + r * row_bytes + 4 * q);
            } else {
              add_dots(dots[r], low, x + r * row_bytes + 4 * q);
            }
          }
#pragma GCC unroll 16
          for (int r = 0; r < MR; r++) add_dots(dots[r], high, x + r * row_bytes + 4 * q + 4);
          if ((q + 2) % kDots != 0) continue;
#pragma GCC unroll 16
          for (int r = 0; r < MR; r++) add_scaled(sums[r][p], dots[r], scales);
        }
      }
    }
  }

  // sums[r][p] += minimum * total over the groups, where totals + r * row_bytes are those of a row's groups, int16, zero
  // after the last one; for the heads of one panel, or for unpacked ones.
  template <int MR, int NP, bool kUnpacked>
  static inline __attribute__((always_inline)) void add_minima(Sums (&sums)[MR][NP], int p, const char* totals,
                                                               size_t row_bytes, int groups, const uint8_t* heads,
                                                               const Unpacked* unpacked) {
    for (int g = 0; g < groups; g += 2) {
      const Pairs pairs = kUnpacked ? load_pairs(unpacked->minima[g / 2]) : minima(heads + g * kHead);
#pragma GCC unroll 16
      for (int r = 0; r < MR; r++) add_pairs(sums[r][p], pairs, (const int16_t*)(totals + r * row_bytes) + g);
    }
  }
};

// Packs the numbers of a group, as integers.h has them.
template <int kBits>
inline void put_packed_numbers(PanelLanes lanes, char* group, const int8_t (&u)[kGroup][kLanes]) {
  int8_t packed[kLanes][4];
  for (int p = 0; p < kGroupQuads / 2; p++) {
    for (int o = 0; o < kLanes; o++) {
      for (int i = 0; i < 4; i++) packed[o][i] = (int8_t)((u[8 * p + i][o] & 15) | u[8 * p + 4 + i][o] << 4);
    }
    lanes.put(group + p * 64, packed, 4);
  }
  for (int p = 0; p < kGroupQuads / 4 && kBits == 6; p++) {
    for (int o = 0; o < kLanes; o++) {
      for (int i = 0; i < 4; i++) {
        int top = 0;
        for (int q = 0; q < 4; q++) top |= u[16 * p + 4 * q + i][o] >> 4 << 2 * q;
        packed[o][i] = (int8_t)top;
      }
    }
    lanes.put(group + kNibbleBytes + p * 64, packed, 4);
  }
}

}  // namespace bossa
