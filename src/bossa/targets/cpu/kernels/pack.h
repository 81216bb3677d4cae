// Packing: rows of a checkpoint's tensor into panels of 16 outputs, in any of the formats that weights are stored in. The
// bits are those of src/bossa/weights/, whose NumPy is the definition: one operation at a time, no FMA.
#pragma once

#include <stdlib.h>

#include "formats.h"

namespace bossa {

enum PackSource : int32_t { kSourceF32, kSourceBF16, kSourceF16 };
enum PackFormat : int32_t {
  kPackF32, kPackBF16, kPackInt8, kPackInt6, kPackInt4, kPackInt6A16, kPackInt4A16, kPackInt6A8, kPackInt4A8
};
enum PackResult : int32_t { kPacked, kNotFinite, kTooLarge, kNoMemory };

namespace detail {

// Rows with nothing larger than the first are zeros; what is larger than the second is refused by formats of integers.
constexpr float kSmallest = 1e-30f, kLargest = 1e37f;
// Shares of a group's ends that its range is tried with, and how often scale and minimum are fitted after that.
constexpr float kShrunk[] = {1.0f, 0.93f, 0.86f};
// Shares of a block's largest number that its greatest level is tried as, in 8 bits.
constexpr float kReaches[] = {1.0f, 0.985f, 0.97f, 0.955f, 0.94f};
constexpr int kFits = 2;
// What is tried for a ladder: how much more than the step that the group's whole range takes, and how far from the range's
// lower end to its upper one the ladder stands; how many minima, each fitted to what the one before gave; and the weight
// of a group's error as a whole beside those of its numbers.
constexpr float kTries[][2] = {{0.0f, 0.0f}, {0.0f, 0.5f}, {0.0f, 1.0f}, {-1.0f, 0.0f}, {-1.0f, 0.5f}, {-1.0f, 1.0f}};
constexpr int kMinima = 2;
constexpr float kBias = 2.0f / kGroup;

// The lanes of a panel that a tensor's rows go to; its other lanes belong to another tensor, or are padding.
struct PanelLanes {
  int first, count;

  // Writes the lanes of 16 items of `size` bytes.
  void put(void* to, const void* items, size_t size) const {
    memcpy((char*)to + (size_t)first * size, (const char*)items + (size_t)first * size, (size_t)count * size);
  }
};

inline float bits_to_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

inline uint32_t float_to_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

struct half {
  uint16_t bits;
};

inline float widen_stored(float x) { return x; }
inline float widen_stored(bf16 x) { return bits_to_float((uint32_t)x.bits << 16); }
inline float widen_stored(half x) {
  const uint32_t magnitude = (uint32_t)(x.bits & 0x7fff) << 13, sign = (uint32_t)(x.bits & 0x8000) << 16;
  const uint32_t special = magnitude >= 0x7c00u << 13 ? 0x7f800000u : 0;
  return bits_to_float(float_to_bits(bits_to_float(magnitude) * 0x1p112f) | special | sign);
}

// x[k][16]: the lanes of one panel, from rows `row_stride` and steps `step_stride` numbers apart; other lanes are zeros.
template <class T>
inline void load_panel(const T* source, ptrdiff_t row_stride, ptrdiff_t step_stride, PanelLanes lanes, int K, float* x) {
  if (lanes.count < kLanes) memset(x, 0, (size_t)K * kLanes * sizeof(float));
  constexpr int kTile = 16;
  if (step_stride == 1 && lanes.count == kLanes) {
    float tile[kLanes][kTile];
    for (int k = 0; k < K; k += kTile) {
      const int steps = K - k < kTile ? K - k : kTile;
      for (int o = 0; o < kLanes; o++) {
        for (int i = 0; i < steps; i++) tile[o][i] = widen_stored(source[o * row_stride + k + i]);
      }
      for (int i = 0; i < steps; i++) {
        for (int o = 0; o < kLanes; o++) x[(k + i) * kLanes + o] = tile[o][i];
      }
    }
    return;
  }
  for (int k = 0; k < K; k++) {
    for (int o = 0; o < lanes.count; o++) {
      x[k * kLanes + lanes.first + o] = widen_stored(source[o * row_stride + k * step_stride]);
    }
  }
}

// The largest |x| of each lane; NaN where there is one.
inline f16 largest(const float* x, int K) {
  f16 most = splat(0.0f);
  for (int k = 0; k < K; k++) most = max(most, abs(load(x + k * kLanes)));
  return most;
}

inline PackResult put_f32(const float* x, int K, PanelLanes lanes, char* panel) {
  for (int k = 0; k < K; k++) lanes.put(panel + (size_t)k * kLanes * 4, x + k * kLanes, 4);
  return kPacked;
}

inline PackResult put_bf16(const float* x, int K, PanelLanes lanes, char* panel) {
  uint16_t most = 0;
  for (int k = 0; k < K; k++) {
    uint16_t narrow[kLanes];
    for (int o = 0; o < kLanes; o++) {
      const uint32_t bits = float_to_bits(x[k * kLanes + o]);
      narrow[o] = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
      const uint16_t magnitude = narrow[o] & 0x7fff;
      most = most > magnitude ? most : magnitude;
    }
    lanes.put(panel + (size_t)k * kLanes * 2, narrow, 2);
  }
  return most >= 0x7f80 ? kTooLarge : kPacked;
}

// The step of which `count` make `most`, and its inverse; zeros where that is too small.
inline f16 step_of(f16 most, float count, f16* inverse) {
  const f16 some = ge(most, splat(kSmallest)), divisor = where(some, most, splat(1.0f));
  *inverse = where(some, splat(count) / divisor, splat(0.0f));
  return where(some, most / splat(count), splat(0.0f));
}

inline void put_floats(PanelLanes lanes, char* to, f16 x) {
  float items[kLanes];
  store(items, x);
  lanes.put(to, items, 4);
}

inline f16 within(f16 x, float least, float most) { return at_most(at_least(x, splat(least)), splat(most)); }

// Whole numbers 0..255, as bytes.
inline void put_unsigned(PanelLanes lanes, char* to, f16 x) {
  // Bytes are signed where they are stored, and 255 is not one: 128 less, then the highest bit turned.
  int8_t bytes[kLanes];
  store_bytes(bytes, x - splat(128.0f));
  for (int o = 0; o < kLanes; o++) bytes[o] = (int8_t)(bytes[o] ^ -128);
  lanes.put(to, bytes, 1);
}

// The levels of 16 numbers that are in units of their rows' scales; inverse: of the block scale.
inline f16 eight_bits(f16 scaled, f16 inverse) { return within(round(scaled * inverse), -127.0f, 127.0f); }

// The block scale of 16 outputs: the one of the least squared error of those that are tried. x: [steps][16].
inline f16 block_scale(const float* x, int steps, f16 inverse) {
  const f16 wanted = largest(x, steps) * inverse * splat(1.0f / 127.0f);
  f16 best = splat(__builtin_inff()), scale = splat(1.0f);
  for (const float reach : kReaches) {
    const f16 tried = within(-floor(-(wanted * splat(reach))), 1.0f, 255.0f), by = splat(1.0f) / tried;
    f16 error = splat(0.0f);
    for (int k = 0; k < steps; k++) {
      const f16 scaled = load(x + k * kLanes) * inverse, miss = scaled - eight_bits(scaled, by) * tried;
      error = error + miss * miss;
    }
    const f16 better = lt(error, best);
    best = where(better, error, best);
    scale = where(better, tried, scale);
  }
  return scale;
}

inline PackResult put_int8(const float* x, int K, f16 most, PanelLanes lanes, char* panel) {
  f16 inverse;
  const f16 scale = step_of(most, 127.0f * 255.0f, &inverse);
  put_floats(lanes, panel, scale);
  char* q = panel + Int8::head_bytes(K);
  for (int block = 0; block < K; block += Int8::kBlock) {
    const int end = block + Int8::kBlock < K ? block + Int8::kBlock : K;
    const f16 multiplier = block_scale(x + block * kLanes, end - block, inverse), by = splat(1.0f) / multiplier;
    put_unsigned(lanes, panel + 64 + block / Int8::kBlock * kLanes,
                 where(gt(scale, splat(0.0f)), multiplier, splat(0.0f)));
    for (int k = block; k < end; k += 2) {
      int8_t first[kLanes], second[kLanes] = {}, pairs[kLanes][2];
      store_bytes(first, eight_bits(load(x + k * kLanes) * inverse, by));
      if (k + 1 < end) store_bytes(second, eight_bits(load(x + (k + 1) * kLanes) * inverse, by));
      for (int o = 0; o < kLanes; o++) pairs[o][0] = first[o], pairs[o][1] = second[o];
      lanes.put(q + k * kLanes, pairs, 2);
    }
  }
  return kPacked;
}

template <class Format>
constexpr float kLevels = (float)Format::kMost;

// The numbers of a group, as integers.h has them.
template <class Format>
inline void put_numbers(PanelLanes lanes, char* group, const int8_t (&u)[kGroup][kLanes]) {
  int8_t packed[kLanes][4];
  for (int p = 0; p < kGroupQuads / 2; p++) {
    for (int o = 0; o < kLanes; o++) {
      for (int i = 0; i < 4; i++) packed[o][i] = (int8_t)((u[8 * p + i][o] & 15) | u[8 * p + 4 + i][o] << 4);
    }
    lanes.put(group + p * 64, packed, 4);
  }
  for (int p = 0; p < kGroupQuads / 4 && Format::kMost > 15; p++) {
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

// The search for the step and minimum of one group of 16 outputs, in units of their rows' scales.
template <class Format>
struct LadderSearch {
  const float* x;  // [steps][16]
  int steps;
  f16 best = splat(__builtin_inff()), step = splat(1.0f), minimum = splat(0.0f);

  // The number of 16 weights, such that its byte is one.
  static f16 level(f16 above, f16 inverse, f16 top) { return at_most(at_least(round(above * inverse), splat(0.0f)), top); }
  static f16 top_of(f16 step, f16 minimum) {
    return at_most(floor((splat(127.0f) - minimum) / step), splat(kLevels<Format>));
  }

  // Tries a step with the minimum that is wanted, and with those that fit best after it.
  void attempt(f16 new_step, f16 wanted) {
    const f16 inverse = splat(1.0f) / new_step;
    for (int i = 0; i < kMinima; i++) {
      const f16 low = within(round(wanted), -128.0f, 127.0f), top = top_of(new_step, low);
      f16 error = splat(0.0f), bias = error;
      for (int k = 0; k < steps; k++) {
        const f16 above = load(x + k * kLanes) - low, miss = above - level(above, inverse, top) * new_step;
        error = error + miss * miss;
        bias = bias + miss;
      }
      error = error + bias * bias * splat(kBias);
      const f16 better = lt(error, best);
      best = where(better, error, best);
      step = where(better, new_step, step);
      minimum = where(better, low, minimum);
      wanted = low + bias / splat((float)steps);
    }
  }
};

template <class Format>
inline PackResult put_ladders(const float* x, int K, f16 most, PanelLanes lanes, char* panel) {
  f16 inverse;
  const f16 scale = step_of(most, 127.0f, &inverse), used = gt(scale, splat(0.0f));
  put_floats(lanes, panel, scale);
  char* head = panel + 64;
  char* body = panel + Format::head_bytes(K);
  for (int start = 0; start < K; start += kGroup, head += 2 * kLanes, body += Format::kBytes) {
    float scaled[kGroup * kLanes];
    const int steps = K - start < kGroup ? K - start : kGroup;
    f16 high = splat(-128.0f), low = splat(128.0f);
    for (int i = 0; i < steps; i++) {
      const f16 value = load(x + (start + i) * kLanes) * inverse;
      high = at_least(value, high);
      low = at_most(value, low);
      store(scaled + i * kLanes, value);
    }
    LadderSearch<Format> search{scaled, steps};
    const f16 span = high - low, whole = -floor(-(span / splat(kLevels<Format>)));
    for (const auto& tried : kTries) {
      const f16 step = within(whole + splat(tried[0]), 1.0f, (float)Format::kMostStep);
      search.attempt(step, low + (span - step * splat(kLevels<Format>)) * splat(tried[1]));
    }
    int8_t u[kGroup][kLanes] = {};
    const f16 finer = splat(1.0f) / search.step, top = search.top_of(search.step, search.minimum);
    for (int i = 0; i < steps; i++) {
      store_bytes(u[i], where(used, search.level(load(scaled + i * kLanes) - search.minimum, finer, top), splat(0.0f)));
    }
    put_numbers<Format>(lanes, body, u);
    put_unsigned(lanes, head, where(used, search.step, splat(0.0f)));
    put_unsigned(lanes, head + kLanes, where(used, search.minimum, splat(0.0f)) + splat(128.0f));
  }
  return kPacked;
}

// The search for the scale and minimum of one group of 16 outputs, in units of their rows' scale and step.
template <class Format>
struct GroupSearch {
  const float* x;  // [steps][16]
  int steps;
  f16 ratio;  // the step in units of the scale
  f16 best, scale, minimum;

  static f16 level(f16 shifted, f16 inverse) { return within(round(shifted * inverse), 0.0f, kLevels<Format>); }

  // Takes these, rounded, where the sum of squared errors is less than the best so far.
  void attempt(f16 new_scale, f16 new_minimum) {
    new_scale = within(round(new_scale), 1.0f, 255.0f);
    new_minimum = within(round(new_minimum), 0.0f, 255.0f);
    const f16 shift = new_minimum * ratio, inverse = splat(1.0f) / new_scale;
    f16 error = splat(0.0f);
    for (int i = 0; i < steps; i++) {
      const f16 shifted = load(x + i * kLanes) + shift;
      const f16 miss = shifted - level(shifted, inverse) * new_scale;
      error = error + miss * miss;
    }
    const f16 better = lt(error, best);
    best = where(better, error, best);
    scale = where(better, new_scale, scale);
    minimum = where(better, new_minimum, minimum);
  }

  // Tries the least-squares scale and minimum for the numbers as they are. per_unit: steps in a unit of scale.
  void fit(f16 per_unit) {
    const f16 shift = minimum * ratio, inverse = splat(1.0f) / scale, n = splat((float)steps);
    f16 su = splat(0.0f), suu = su, sx = su, sux = su;
    for (int i = 0; i < steps; i++) {
      const f16 value = load(x + i * kLanes), u = level(value + shift, inverse);
      su = su + u, suu = suu + u * u, sx = sx + value, sux = sux + u * value;
    }
    const f16 spread = n * suu - su * su, ok = gt(spread, splat(0.0f));
    const f16 slope = (n * sux - su * sx) / where(ok, spread, splat(1.0f));
    const f16 fitted = within(round(where(ok, slope, scale)), 1.0f, 255.0f);
    attempt(fitted, (fitted * su - sx) / n * per_unit);
  }
};

template <class Format>
inline PackResult put_groups(const float* x, int K, PanelLanes lanes, char* panel) {
  f16 widest = splat(0.0f), deepest = widest;
  for (int start = 0; start < K; start += kGroup) {
    f16 high = splat(0.0f), low = high;
    for (int k = start; k < start + kGroup && k < K; k++) {
      high = at_least(load(x + k * kLanes), high);
      low = at_most(load(x + k * kLanes), low);
    }
    widest = at_least((high - low) / splat(kLevels<Format>), widest);
    deepest = at_least(-low, deepest);
  }
  f16 inverse, inverse_step;
  const f16 scale = step_of(widest, 255.0f, &inverse), used = gt(scale, splat(0.0f));
  const f16 step = step_of(where(used, deepest, splat(0.0f)), 255.0f, &inverse_step);
  put_floats(lanes, panel, scale);
  put_floats(lanes, panel + 64, step);
  const f16 span = inverse / splat(kLevels<Format>), ratio = step * inverse, per_unit = inverse_step * scale;

  char* head = panel + 128;
  char* body = panel + Format::head_bytes(K);
  for (int start = 0; start < K; start += kGroup, head += 2 * kLanes, body += Format::kBytes) {
    float scaled[kGroup * kLanes];
    const int steps = K - start < kGroup ? K - start : kGroup;
    f16 high = splat(0.0f), low = high;
    for (int i = 0; i < steps; i++) {
      const f16 value = load(x + (start + i) * kLanes);
      high = at_least(value, high);
      low = at_most(value, low);
      store(scaled + i * kLanes, value * inverse);
    }
    GroupSearch<Format> search{scaled, steps, ratio, splat(__builtin_inff()), splat(1.0f), splat(0.0f)};
    const f16 top = high * span, bottom = low * span, depth = -low * inverse_step;
    for (float a : kShrunk) {
      for (float b : kShrunk) search.attempt(splat(a) * top - splat(b) * bottom, splat(b) * depth);
    }
    for (int i = 0; i < kFits; i++) search.fit(per_unit);

    int8_t u[kGroup][kLanes] = {};
    const f16 shift = search.minimum * ratio, finer = splat(1.0f) / search.scale;
    for (int i = 0; i < steps; i++) {
      store_bytes(u[i], where(used, search.level(load(scaled + i * kLanes) + shift, finer), splat(0.0f)));
    }
    put_numbers<Format>(lanes, body, u);
    put_unsigned(lanes, head, where(used, search.scale, splat(0.0f)));
    put_unsigned(lanes, head + kLanes, where(used, search.minimum, splat(0.0f)));
  }
  return kPacked;
}

inline PackResult put_panel(const float* x, int K, int32_t format, PanelLanes lanes, char* panel) {
  const f16 most = largest(x, K);
  const float all = maximum(most);
  if (!(all <= __builtin_inff()) || all == __builtin_inff()) return kNotFinite;
  if (format == kPackF32) return put_f32(x, K, lanes, panel);
  if (format == kPackBF16) return put_bf16(x, K, lanes, panel);
  if (all > kLargest) return kTooLarge;
  if (format == kPackInt8) return put_int8(x, K, most, lanes, panel);
  if (format == kPackInt6) return put_groups<Int6>(x, K, lanes, panel);
  if (format == kPackInt4) return put_groups<Int4>(x, K, lanes, panel);
  if (format == kPackInt6A16 || format == kPackInt6A8) return put_ladders<Int6A16>(x, K, most, lanes, panel);
  return put_ladders<Int4A16>(x, K, most, lanes, panel);
}

inline size_t bytes_of_panel(int32_t format, int K) {
  if (format == kPackInt8) return Int8::panel_bytes(K);
  if (format == kPackInt6) return Int6::panel_bytes(K);
  if (format == kPackInt4) return Int4::panel_bytes(K);
  if (format == kPackInt6A16 || format == kPackInt6A8) return Int6A16::panel_bytes(K);
  if (format == kPackInt4A16 || format == kPackInt4A8) return Int4A16::panel_bytes(K);
  return (size_t)K * kLanes * (format == kPackF32 ? 4 : 2);
}

}  // namespace detail

// Packs `rows` rows of K steps, which lie `row_stride` and `step_stride` numbers apart in `source`, into panels that are
// zero where nothing was packed yet. The first row goes to packed row `first`; where a panel is full, the next is
// `panel_step` panels on. Calls may run at once on several threads if their rows differ.
inline PackResult pack(const void* source, int32_t stored, int64_t row_stride, int64_t step_stride, int64_t rows,
                       int64_t K, int32_t format, int64_t first, int64_t panel_step, void* panels) {
  float* x = (float*)malloc((size_t)(K ? K : 1) * kLanes * sizeof(float));
  if (!x) return kNoMemory;
  const size_t bytes = detail::bytes_of_panel(format, (int)K);
  char* panel = (char*)panels + (size_t)(first / kLanes) * bytes;
  PackResult result = kPacked;
  int lane = (int)(first % kLanes);
  for (int64_t row = 0; row < rows && result == kPacked; panel += (size_t)panel_step * bytes, lane = 0) {
    const int64_t left = rows - row;
    const detail::PanelLanes lanes{lane, left < kLanes - lane ? (int)left : kLanes - lane};
    const int64_t at = row * row_stride;
    if (stored == kSourceF32) {
      detail::load_panel((const float*)source + at, row_stride, step_stride, lanes, (int)K, x);
    } else if (stored == kSourceBF16) {
      detail::load_panel((const bf16*)source + at, row_stride, step_stride, lanes, (int)K, x);
    } else {
      detail::load_panel((const detail::half*)source + at, row_stride, step_stride, lanes, (int)K, x);
    }
    result = detail::put_panel(x, (int)K, format, lanes, panel);
    row += lanes.count;
  }
  free(x);
  return result;
}

}  // namespace bossa
