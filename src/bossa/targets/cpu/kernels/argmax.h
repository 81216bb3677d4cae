// The likeliest token of each row, found while the head computes the logits, which are then never stored.
#pragma once

#include <cstdint>

#include "lanes.h"

namespace bossa {

// The largest logit that one worker has seen of a row, and the lowest token that has it; -1 where one was NaN or infinity.
struct Best {
  static constexpr int32_t kNone = INT32_MAX;

  float value;
  int32_t token;

  void clear() { *this = {-__builtin_inff(), kNone}; }

  // n logits of the tokens from `first` on; later calls are about later tokens.
  void see(const float* logits, int first, int n) {
    f16 most = load_n(logits, n);
    if (n < kLanes) most = where(lane_mask_n(n), most, splat(logits[0]));
    int i = kLanes;
    for (; i + kLanes <= n; i += kLanes) most = max(most, load(logits + i));
    if (i < n) most = max(most, where(lane_mask_n(n - i), load_n(logits + i, n - i), splat(logits[0])));
    const float largest = maximum(most);
    if (largest != largest || largest == __builtin_inff()) *this = {largest, -1};
    if (token == -1 || largest <= value) return;
    for (i = 0; logits[i] != largest;) i++;
    *this = {largest, first + i};
  }

  // What another worker has seen of the same row.
  void join(const Best& other) {
    if (token == -1) return;
    const bool better = other.token == -1 || other.value > value;
    if (better || (other.value == value && other.token < token)) *this = other;
  }

  // The token, or -1 when there is none: every logit was minus infinity.
  int32_t result() const { return token == kNone ? -1 : token; }
};

}  // namespace bossa
