// A short convolution of each channel along the rows of its sequence, and the state that it leaves for the next step.
#pragma once

#include "abi.h"
#include "lanes.h"
#include "team.h"

namespace bossa {

// Channels that one worker goes through a sequence with.
constexpr int kConvChannels = 64;

constexpr int kMostConvTaps = 64;

// out_t[c] = sum over j of weight[c, j] x_s[c] with s = t - delay - (taps - 1 - j) dilation.
struct CausalConvShape {
  int channels, taps, dilation, delay;
  const float* weight;                    // [channels][taps], with these strides
  size_t channel_stride, tap_stride;
  size_t slot_bytes, offset;              // of a sequence's state, and where this op's part starts in it

  // Rows before its own that a row sees.
  int reach() const { return delay + (taps - 1) * dilation; }

  // Floats of a row of state.
  size_t stride() const { return detail::round_up((size_t)channels, kLanes); }
};

namespace detail {

// The rows that one sequence has before a step and in it, for 16 channels. Its state holds the last `reach` rows, the
// oldest first, and behind them the inputs of guesses.
struct ConvRows {
  float* state;         // [reach + guesses][stride]
  const float* x;       // [rows][ldx], those of the step
  size_t stride, ldx;
  int reach, replayed;  // of the guesses, how many are taken for rows before the step
  bool fresh;           // nothing is before the step

  // Row i, counted from the first one of the step.
  f16 at(int i, int n) const {
    if (i >= 0) return load_n(x + (size_t)i * ldx, n);
    if (fresh) return splat(0.0f);
    return load_n(state + (size_t)(reach + replayed + i) * stride, n);
  }

  // Leaves the `reach` rows up to row `end` of the step in the state, and the rows from there on, the guesses, behind them.
  // What is moved lies at or behind where it goes, so that it is read before it is written over.
  void leave(int end, int rows, int n) {
    for (int k = 0; k < reach; k++) store_n(state + (size_t)k * stride, at(end - reach + k, n), n);
    for (int i = end; i < rows; i++) store_n(state + (size_t)(reach + i - end) * stride, at(i, n), n);
  }
};

inline void conv_lanes(const CausalConvShape& conv, ConvRows& all, int rows, int guesses, int c, float* out, size_t ldo) {
  const int n = conv.channels - c < kLanes ? conv.channels - c : kLanes;
  f16 weight[kMostConvTaps];
  for (int j = 0; j < conv.taps; j++) {
    const float* taps = conv.weight + (size_t)c * conv.channel_stride + (size_t)j * conv.tap_stride;
    weight[j] = load_strided(taps, (ptrdiff_t)conv.channel_stride, n);
  }
  for (int t = 0; t < rows; t++) {
    f16 sum = splat(0.0f);
    for (int j = 0; j < conv.taps; j++) {
      sum = fma(weight[j], all.at(t - conv.delay - (conv.taps - 1 - j) * conv.dilation, n), sum);
    }
    store_n(out + (size_t)t * ldo + c, sum, n);
  }
  all.leave(rows - guesses, rows, n);
}

}  // namespace detail

// x: [rows][ldx], out: [rows][ldo]. Workers share sequences and blocks of channels.
inline void causal_conv(Worker& worker, const CausalConvShape& conv, const bossa_step& step, const float* x, size_t ldx,
                        float* out, size_t ldo) {
  const int blocks = detail::ceil_div(conv.channels, kConvChannels);
  const int units = step.sequences * blocks;
  for (int unit = worker.next(); unit < units; unit = worker.next()) {
    const int s = unit / blocks, first = unit % blocks * kConvChannels;
    const int begin = step.starts[s], rows = step.starts[s + 1] - begin;
    const int last = conv.channels < first + kConvChannels ? conv.channels : first + kConvChannels;
    char* slot = (char*)step.states + (size_t)step.state_slots[s] * conv.slot_bytes + conv.offset;
    const bool fresh = step.positions[begin] == 0;
    const int replayed = fresh || step.replays == nullptr ? 0 : step.replays[s];
    const int guesses = step.drafts == nullptr ? 0 : step.drafts[s];
    for (int c = first; c < last; c += kLanes) {
      detail::ConvRows all{(float*)slot + c, x + (size_t)begin * ldx + c, conv.stride(), ldx, conv.reach(), replayed, fresh};
      detail::conv_lanes(conv, all, rows, guesses, c, out + (size_t)begin * ldo, ldo);
    }
  }
}

}  // namespace bossa
