// Fetching the pages that attention reads next: they lie anywhere, and the hardware cannot tell where.
#pragma once

#include "kv.h"
#include "tile.h"

namespace bossa {
namespace detail {

// Positions between two looks at the largest score: it decides the bits.
constexpr int kScoreBlock = 128;
constexpr int kScoreBlockPages = kScoreBlock / kPage;

// Fetches the pages of the next block into the second-level cache, a few lines at a time, while few queries wait for
// those of this one. In fp32 a head's part of a page is long enough for the hardware to do that by itself, and better.
struct PagePrefetch {
  const uint8_t* pages[kScoreBlockPages];
  int count = 0;     // of pages
  size_t bytes = 0;  // of a head in a page
  int page = 0;      // the next line to fetch
  size_t at = 0;
  int lines = 0;     // to fetch at a time

  void fetch() {
    if (page >= count) return;
    const uint8_t *from = pages[page] + at, *end = pages[page] + bytes;
    if (at + (size_t)lines * 64 < bytes) {
      end = from + (size_t)lines * 64;
      at += (size_t)lines * 64;
    } else {
      at = 0;
      page++;
    }
    for (; from < end; from += 64) __builtin_prefetch(from, 0, 2);
  }
};

// Steps of a tile between two calls of fetch.
constexpr int kFetchSteps = 8;

// `tile`, fetching on the way where that pays.
template <int MR, int NP, class W>
inline __attribute__((always_inline)) void fetching_tile(f16 (&acc)[MR][NP], const float* a, size_t lda, const W* b,
                                                         size_t b_panel, int K, PagePrefetch& prefetch) {
  if constexpr (NP == 1 || sizeof(W) == sizeof(float)) {
    tile(acc, a, lda, b, kLanes, b_panel, K);
  } else {
    for (int k = 0; k < K; k += kFetchSteps) {
      prefetch.fetch();
      tile(acc, a + k, lda, b + k * kLanes, kLanes, b_panel, K - k < kFetchSteps ? K - k : kFetchSteps);
    }
  }
}

}  // namespace detail
}  // namespace bossa
