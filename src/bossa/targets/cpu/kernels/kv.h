// Keys and values in pages of 32 positions: how a page lies in memory, and how a token is stored in it.
#pragma once

#include "integers.h"

namespace bossa {

// Positions of one page.
constexpr int kPage = 32;

struct AttentionShape {
  int heads, kv_heads;  // query heads; heads is a multiple of kv_heads
  int dim, v_dim;       // of a head's queries and keys, and of its values
  float scale;
  int window;           // row i sees j in (i - window, i]; 0: all j <= i
  float softcap;        // scores become softcap * tanh(score / softcap); 0: none
  const float* bias;    // [heads][bias_stride], added to the scores of key position j (ALiBi is one); null: none
  int bias_stride;
  const float* sinks;   // [heads] one more logit in the softmax's denominator; null: none
  size_t page_bytes;    // from one page to the next
  size_t layer_offset;  // of this layer's keys and values in a page, in bytes
};

// Whether a stored key or value is to be multiplied by a scale of its token and head.
template <class W>
constexpr bool kScaled = false;
template <>
constexpr bool kScaled<int8_t> = true;

namespace detail {

constexpr int kPagePanels = kPage / kLanes;

constexpr size_t panels_of(int n) { return (size_t)(n + kLanes - 1) / kLanes; }
constexpr size_t whole_lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Steps of an integer product that lie side by side for each lane, and their places: first, third, second, fourth, so that
// the even and the odd bytes are two steps each that follow one another.
constexpr int kQuad = 4;
constexpr int kQuadPlace[kQuad] = {0, 2, 1, 3};

// A head's dimensions as they are stored: int8 has whole quads.
template <class W>
constexpr size_t stored_dim(int dim) {
  return sizeof(W) == 1 ? round_up((size_t)dim, kQuad) : (size_t)dim;
}

// A head's part of a page, in bytes from its start. Keys are [kPagePanels][dim][16], lanes over positions; values are
// [panels of v_dim][kPage][16], lanes over features. In int8 four steps lie side by side for each lane: keys are
// [kPagePanels][dim / 4][16][4], values [panels of v_dim][kPage / 4][16][4]; their scales are [kPage] each.
template <class W>
struct HeadLayout {
  size_t key_scales, values, value_scales, bytes;

  constexpr HeadLayout(int dim, int v_dim)
      : key_scales(whole_lines(sizeof(W) * kPage * stored_dim<W>(dim))),
        values(key_scales + (kScaled<W> ? sizeof(float) * kPage : 0)),
        value_scales(values + sizeof(W) * kPage * kLanes * panels_of(v_dim)),
        bytes(value_scales + (kScaled<W> ? sizeof(float) * kPage : 0)) {}
};

template <class W>
struct HeadPage {
  W *keys, *values;
  float *key_scales, *value_scales;
};

template <class W>
inline HeadPage<W> head_page(const AttentionShape& shape, void* kv, int32_t page, int kv_head) {
  const HeadLayout<W> layout(shape.dim, shape.v_dim);
  uint8_t* start = (uint8_t*)kv + (size_t)page * shape.page_bytes + shape.layer_offset + (size_t)kv_head * layout.bytes;
  return {(W*)start, (W*)(start + layout.values), (float*)(start + layout.key_scales),
          (float*)(start + layout.value_scales)};
}

// 16 floats as they are stored; `inverse` is that of the scale, where there is one.
inline void narrow(f16 x, float* to) { store(to, x); }

inline void narrow(f16 x, bf16* to) {
  float lanes[kLanes];
  uint32_t bits[kLanes];
  store(lanes, x);
  memcpy(bits, lanes, sizeof bits);
  for (int i = 0; i < kLanes; i++) {
    const uint32_t nan = bits[i] >> 16 | 0x40, rounded = (bits[i] + 0x7fff + (bits[i] >> 16 & 1)) >> 16;
    bits[i] = lanes[i] != lanes[i] ? nan : rounded;
  }
  for (int i = 0; i < kLanes; i++) to[i].bits = (uint16_t)bits[i];
}

inline void narrow(f16 x, float inverse, int8_t* to) {
  // A NaN becomes -127, and is one again when it meets its scale.
  store_bytes(to, at_most(at_least(splat(-127.0f), x * splat(inverse)), splat(127.0f)));
}

// The scale that makes the largest of n floats 127, and what to multiply by instead of dividing by it.
struct Scale {
  float value, inverse;
};

inline Scale scale_of(const float* x, int n) {
  f16 largest = splat(0.0f);
  for (int i = 0; i < n; i += kLanes) largest = max(largest, abs(load_n(x + i, n - i)));
  const float top = maximum(largest);
  return {top / 127.0f, top > 0.0f ? 127.0f / top : 0.0f};
}

// A token's keys and values to their places in a page.
template <class W>
inline void put_keys(const float* k, int dim, int slot, W* keys) {
  keys += (size_t)(slot / kLanes) * (size_t)dim * kLanes + slot % kLanes;
  for (int d = 0; d < dim; d += kLanes) {
    W lanes[kLanes];
    narrow(load_n(k + d, dim - d), lanes);
    const int n = dim - d < kLanes ? dim - d : kLanes;
    for (int i = 0; i < n; i++) keys[(size_t)(d + i) * kLanes] = lanes[i];
  }
}

template <class W>
inline void put_values(const float* v, int dim, int slot, W* values) {
  for (int d = 0; d < dim; d += kLanes) narrow(load_n(v + d, dim - d), values + (size_t)d * kPage + slot * kLanes);
}

// Four bytes in the places of a quad, or from there.
inline uint32_t in_quad_places(uint32_t steps) {
  static_assert(kQuadPlace[1] == 2 && kQuadPlace[2] == 1);
  return (steps & 0xff0000ff) | (steps << 8 & 0xff0000) | (steps >> 8 & 0xff00);
}

inline void put_keys(const float* k, int dim, float inverse, int slot, int8_t* keys) {
  const size_t stored = stored_dim<int8_t>(dim);
  keys += (size_t)(slot / kLanes) * stored * kLanes + slot % kLanes * kQuad;
  for (int d = 0; d < dim; d += kLanes) {
    int8_t lanes[kLanes];
    narrow(load_n(k + d, dim - d), inverse, lanes);
    for (int i = 0; i < kLanes && d + i < dim; i += kQuad) {
      uint32_t quad;
      memcpy(&quad, lanes + i, kQuad);
      quad = in_quad_places(quad);
      memcpy(keys + (size_t)(d + i) * kLanes, &quad, kQuad);
    }
  }
}

}  // namespace detail

// Bytes that a layer takes in a page.
template <class W>
constexpr size_t kv_bytes(int kv_heads, int dim, int v_dim) {
  return (size_t)kv_heads * detail::HeadLayout<W>(dim, v_dim).bytes;
}

// Stores K and V of rows, one after the other, at their positions. kValues: of a row, heads and whole panels of v_dim.
template <class W, int kValues>
struct KvWriter {
  AttentionShape shape;
  void* kv;

  // k: [kv_heads] heads k_head_stride apart, dim floats each; v likewise.
  void put(const int32_t* block_table, int position, const float* k, ptrdiff_t k_head_stride, const float* v,
           ptrdiff_t v_head_stride) {
    const int32_t page = block_table[position / kPage];
    for (int head = 0; head < shape.kv_heads; head++, k += k_head_stride, v += v_head_stride) {
      const detail::HeadPage<W> to = detail::head_page<W>(shape, kv, page, head);
      detail::put_keys(k, shape.dim, position % kPage, to.keys);
      detail::put_values(v, shape.v_dim, position % kPage, to.values);
    }
  }
};

// In int8 the values of four positions lie side by side: they are kept until all of them have come, or others do.
template <int kValues>
struct KvWriter<int8_t, kValues> {
  AttentionShape shape;
  void* kv;
  int32_t page = 0;
  int slot = 0, count = 0;  // of the first position that is kept
  alignas(64) int8_t kept[detail::kQuad][kValues];

  KvWriter(const AttentionShape& shape, void* kv) : shape(shape), kv(kv) {}
  KvWriter(const KvWriter&) = delete;
  KvWriter& operator=(const KvWriter&) = delete;
  ~KvWriter() { flush(); }

  void put(const int32_t* block_table, int position, const float* k, ptrdiff_t k_head_stride, const float* v,
           ptrdiff_t v_head_stride) {
    const int32_t its_page = block_table[position / kPage];
    const int its_slot = position % kPage;
    if (count > 0 && (its_page != page || its_slot != slot + count)) flush();
    if (count == 0) page = its_page, slot = its_slot;
    int8_t* values = kept[count++];
    for (int head = 0; head < shape.kv_heads; head++, k += k_head_stride, v += v_head_stride) {
      const detail::HeadPage<int8_t> to = detail::head_page<int8_t>(shape, kv, page, head);
      const detail::Scale key_scale = detail::scale_of(k, shape.dim), value_scale = detail::scale_of(v, shape.v_dim);
      to.key_scales[its_slot] = key_scale.value;
      to.value_scales[its_slot] = value_scale.value;
      detail::put_keys(k, shape.dim, key_scale.inverse, its_slot, to.keys);
      for (int d = 0; d < shape.v_dim; d += kLanes, values += kLanes) {
        detail::narrow(load_n(v + d, shape.v_dim - d), value_scale.inverse, values);
      }
    }
    if ((its_slot + 1) % detail::kQuad == 0) flush();
  }

 private:
  void flush() {
    const int panels = (int)detail::panels_of(shape.v_dim);
    const int8_t* from = kept[0];
    for (int head = 0; head < shape.kv_heads && count > 0; head++) {
      int8_t* to = detail::head_page<int8_t>(shape, kv, page, head).values;
      to += slot / detail::kQuad * detail::kQuad * kLanes;
      for (int p = 0; p < panels; p++, from += kLanes, to += kPage * kLanes) {
        if (count == detail::kQuad) {
          put_quads(from, to);
          continue;
        }
        for (int i = 0; i < count; i++) {
          const int place = detail::kQuadPlace[slot % detail::kQuad + i];
          for (int lane = 0; lane < kLanes; lane++) to[lane * detail::kQuad + place] = from[i * kValues + lane];
        }
      }
    }
    count = 0;
  }

  // One panel of four positions.
  static void put_quads(const int8_t* from, int8_t* to) {
    uint32_t quads[kLanes];
    for (int lane = 0; lane < kLanes; lane++) {
      const auto step = [&](int i) { return (uint32_t)(uint8_t)from[i * kValues + lane]; };
      quads[lane] = step(0) | step(2) << 8 | step(1) << 16 | step(3) << 24;
    }
    memcpy(to, quads, sizeof quads);
  }
};

}  // namespace bossa
