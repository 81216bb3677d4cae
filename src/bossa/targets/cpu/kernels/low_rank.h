// Adapters: y = x (W + B A)^T, where W is packed in whatever format and stays as it is. x A^T is computed ahead of the
// linear, for the rows of each adapter; its product with B is added to the linear's sums, piece by piece, before the
// epilogue sees them. So no more than the ranks of a row go through memory, and B is read by those who share the outputs.
//
// A rank's product is a chain of FMAs over k within the blocks of `linear`, added in order; what is added to an output is
// one chain over the ranks. Neither depends on the other rows of a step, nor on who computes it.
#pragma once

#include "linear.h"
#include "program.h"

namespace bossa {

class LowRank {
 public:
  // Computes x A^T for all rows whose adapter has a pair beside `slot`. Every worker calls it; where there is such a pair,
  // it ends with a barrier, and no tickets may have been drawn before.
  //   logit_rows: which rows of the step the rows are; null where they are all of them.
  //   x: [rows] rows ldx floats apart, K floats each.
  LowRank(Worker& worker, const Part& p, int slot, int slots, const int32_t* logit_rows, int rows, const float* x,
          size_t ldx, int K)
      : p_(p), logit_rows_(logit_rows) {
    const bossa_adapters* adapters = p.adapters;
    if (adapters == nullptr) return;
    pairs_ = adapters->pairs + slot;
    slots_ = slots;
    for (int s = 0; s < p.step->sequences && !used_; s++) used_ = has_pair(adapters->of_sequence[s]);
    if (!used_) return;
    const int most = detail::block_kc(K);
    pieces_ = detail::ceil_div(K, most);
    const int row_blocks = detail::ceil_div(rows, kRows);
    int ticket = worker.next(), base = 0;
    for (int a = 0; a < adapters->count; a++) {
      const bossa_low_rank& pair = pairs_[(size_t)a * slots_];
      const int tickets = pair.blocks * pieces_ * row_blocks;
      for (; ticket < base + tickets; ticket = worker.next()) {
        // Row blocks change fastest, so that a piece of A is still in a cache for the next one.
        const int row = (ticket - base) % row_blocks * kRows, part = (ticket - base) / row_blocks;
        const int k = part % pieces_ * most, kc = K - k < most ? K - k : most;
        const float* down = pair.down + ((size_t)(part / pieces_) * K + k) * kLanes;
        multiply(a, row, rows - row < kRows ? rows - row : kRows, x + k, ldx, down, kc, part);
      }
      base += tickets;
    }
    worker.barrier();
  }

  // The sums of outputs col .. col + n - 1 of row t, in the order in which they are packed, with the adapter's part: in
  // `with`, or where they are if there is none.
  const float* add(int t, int col, int n, const float* sums, float* with) const {
    if (!used_) return sums;
    const int adapter = adapter_of(t);
    if (!has_pair(adapter)) return sums;
    const bossa_low_rank& pair = pairs_[(size_t)adapter * slots_];
    const int panel = col / kLanes, panels = n / kLanes;
    int first = pair.blocks, last = 0;
    for (int j = 0; j < panels; j++) {
      if (pair.first[panel + j] < first) first = pair.first[panel + j];
      if (pair.last[panel + j] > last) last = pair.last[panel + j];
      store(with + j * kLanes, splat(0.0f));
    }
    if (first >= last) return sums;
    for (int b = first; b < last; b++) {
      const float* parts = products(t) + (size_t)b * pieces_ * kLanes;
      f16 product = load(parts);
      for (int i = 1; i < pieces_; i++) product = product + load(parts + i * kLanes);
      alignas(64) float ranks[kLanes];
      store(ranks, product);
      const int count = pair.starts[b + 1] - pair.starts[b];
      for (int j = 0; j < panels; j++) {
        const int from = pair.first[panel + j];
        if (b < from || b >= pair.last[panel + j]) continue;
        const float* up = pair.up + pair.offsets[panel + j] + (pair.starts[b] - pair.starts[from]) * kLanes;
        f16 term = load(with + j * kLanes);
        for (int r = 0; r < count; r++) term = fma(splat(ranks[r]), load(up + r * kLanes), term);
        store(with + j * kLanes, term);
      }
    }
    for (int j = 0; j < panels; j++) store(with + j * kLanes, load(sums + j * kLanes) + load(with + j * kLanes));
    return with;
  }

 private:
  static constexpr int kRows = 32;  // of a ticket

  // The products of one block of ranks and k, `part` of them all, for those of some rows that are of adapter `a`.
  void multiply(int a, int row, int rows, const float* x, size_t ldx, const float* down, int kc, int part) const {
    alignas(64) float sums[kRows * detail::kSumsStride];
    for (int t = row, end = row + rows; t < end;) {
      int next = t;
      while (next < end && adapter_of(next) == a) next++;
      if (next > t) detail::block_sums(next - t, x + (size_t)t * ldx, ldx, down, 1, kc, sums, down);
      for (int r = 0; r < next - t; r++) {
        store(products(t + r) + (size_t)part * kLanes, load(sums + r * detail::kSumsStride));
      }
      t = next > t ? next : t + 1;
    }
  }

  bool has_pair(int adapter) const { return adapter >= 0 && pairs_[(size_t)adapter * slots_].blocks > 0; }

  int adapter_of(int t) const {
    return p_.adapters->of_sequence[p_.sequence_of[logit_rows_ == nullptr ? t : logit_rows_[t]]];
  }

  float* products(int t) const { return p_.adapters->products + (size_t)(p_.first + t) * (size_t)p_.adapters->stride; }

  const Part& p_;
  const int32_t* logit_rows_;
  const bossa_low_rank* pairs_ = nullptr;  // of the slot, of the first adapter
  size_t slots_ = 0;
  bool used_ = false;  // whether any row of the step has a pair
  int pieces_ = 0;     // of K
};

}  // namespace bossa
