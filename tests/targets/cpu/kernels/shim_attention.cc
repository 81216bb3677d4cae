// Store a step's K and V, then attend, on a team of its own.
#include "attention.h"

using namespace bossa;

namespace {

// Of a row, in whole panels: as many as any test has.
constexpr int kMostValues = 8192;

struct Call {
  AttentionShape shape;
  void* kv;
  Batch batch;
  const float *q, *k, *v;
  float *out, *partials;
};

// q: [rows][heads][dim], k: [rows][kv_heads][dim], v: [rows][kv_heads][v_dim], out: [rows][heads][v_dim]
template <class W>
void run(Worker& worker, void* arg) {
  const Call& call = *(const Call*)arg;
  const AttentionShape& shape = call.shape;
  const Batch& batch = call.batch;
  if (worker.id == 0) {
    KvWriter<W, kMostValues> writer{shape, call.kv};
    for (int s = 0; s < batch.sequences; s++) {
      for (int row = batch.starts[s]; row < batch.starts[s + 1]; row++) {
        writer.put(batch.block_tables + s * batch.max_blocks, batch.positions[row],
                   call.k + (size_t)row * shape.kv_heads * shape.dim, shape.dim,
                   call.v + (size_t)row * shape.kv_heads * shape.v_dim, shape.v_dim);
      }
    }
  }
  worker.barrier();
  attention<W>(worker, shape, call.kv, batch, call.q, (size_t)shape.heads * shape.dim, shape.dim, call.out,
               (size_t)shape.heads * shape.v_dim, call.partials);
}

}  // namespace

// `bits`: how keys and values are stored, 32 (fp32), 16 (bf16) or 8 (int8).
extern "C" size_t layer_bytes(int bits, int kv_heads, int dim, int v_dim) {
  return bits == 8    ? kv_bytes<int8_t>(kv_heads, dim, v_dim)
         : bits == 16 ? kv_bytes<bf16>(kv_heads, dim, v_dim)
                      : kv_bytes<float>(kv_heads, dim, v_dim);
}

extern "C" void run_attention(int bits, int threads, int heads, int kv_heads, int dim, int v_dim, float scale,
                              int window, float softcap, const float* bias, int bias_stride, const float* sinks,
                              size_t page_bytes, size_t layer_offset, void* kv, int rows, int sequences,
                              int max_blocks, const int32_t* positions, const int32_t* starts,
                              const int32_t* block_tables, const float* q, const float* k, const float* v,
                              float* out) {
  Call call{{heads, kv_heads, dim, v_dim, scale, window, softcap, bias, bias_stride, sinks, page_bytes, layer_offset},
            kv,
            {rows, sequences, max_blocks, positions, starts, block_tables},
            q,
            k,
            v,
            out,
            (float*)malloc(sizeof(float) * kPartialFloats)};
  Team team(threads);
  team_run(&team, bits == 8 ? run<int8_t> : bits == 16 ? run<bf16> : run<float>, &call);
  free(call.partials);
}
