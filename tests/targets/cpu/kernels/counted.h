// The epilogue of the linears under test: stores what it is given, and counts how often each panel of a row comes.
#pragma once

#include "lanes.h"

// `call` has N, group, y [rows][N], and calls [rows][ceil(N / 16)]; a piece that is no whole group counts a thousand times.
template <class Call>
inline auto counted(const Call& call) {
  using namespace bossa;
  return [&call](int row, int col, int n, const float* sums) {
    const int panels = (call.N + kLanes - 1) / kLanes;
    for (int i = 0; i < n; i += kLanes) {
      __atomic_fetch_add(&call.calls[row * panels + (col + i) / kLanes], n % (kLanes * call.group) ? 1000 : 1,
                         __ATOMIC_RELAXED);
      store_n(call.y + (size_t)row * call.N + col + i, load(sums + i), call.N - col - i);
    }
  };
}
