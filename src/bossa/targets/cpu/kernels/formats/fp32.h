// fp32: floats as they are. A panel is [K][16], a table its rows.
#pragma once

#include "packing.h"

namespace bossa {

template <>
struct Packing<float> {
  static constexpr const char* kName = "fp32";
  static constexpr float kLargest = __builtin_inff();

  static constexpr size_t panel_bytes(int K) { return (size_t)K * kLanes * sizeof(float); }

  static void put(const float* x, int K, f16, PanelLanes lanes, char* panel) {
    for (int k = 0; k < K; k++) lanes.put(panel + (size_t)k * kLanes * sizeof(float), x + k * kLanes, sizeof(float));
  }
};

template <>
struct TablePacking<float> {
  static void put(const float* x, int K, float, int64_t row, int64_t, char* table) {
    const size_t bytes = (size_t)K * sizeof(float);
    memcpy(table + (size_t)row * bytes, x, bytes);
  }
};

}  // namespace bossa
