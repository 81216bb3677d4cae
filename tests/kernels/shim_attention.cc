// Store a step's K and V, then attend, on a team of its own.
#include "attention.h"

using namespace bossa;

namespace {

struct Call {
  AttentionShape shape;
  float* kv;
  Batch batch;
  const float *q, *k, *v;
  float* out;
};

// q: [rows][heads][dim], k: [rows][kv_heads][dim], v: [rows][kv_heads][v_dim], out: [rows][heads][v_dim]
void run(Worker& worker, void* arg) {
  const Call& call = *(const Call*)arg;
  const AttentionShape& shape = call.shape;
  const Batch& batch = call.batch;
  if (worker.id == 0) {
    for (int s = 0; s < batch.sequences; s++) {
      for (int row = batch.starts[s]; row < batch.starts[s + 1]; row++) {
        store_kv(shape, call.kv, batch.block_tables + s * batch.max_blocks, batch.positions[row],
                 call.k + (size_t)row * shape.kv_heads * shape.dim, shape.dim,
                 call.v + (size_t)row * shape.kv_heads * shape.v_dim, shape.v_dim);
      }
    }
  }
  worker.barrier();
  attention(worker, shape, call.kv, batch, call.q, (size_t)shape.heads * shape.dim, shape.dim, call.out,
            (size_t)shape.heads * shape.v_dim);
}

}  // namespace

extern "C" size_t layer_floats(int kv_heads, int dim, int v_dim) { return kv_floats(kv_heads, dim, v_dim); }

extern "C" void run_attention(int threads, int heads, int kv_heads, int dim, int v_dim, float scale, int window,
                              float softcap, const float* bias, int bias_stride, const float* sinks,
                              size_t page_floats, size_t layer_offset, float* kv, int rows,
                              int sequences, int max_blocks, const int32_t* positions, const int32_t* starts,
                              const int32_t* block_tables, const float* q, const float* k, const float* v,
                              float* out) {
  Call call{{heads, kv_heads, dim, v_dim, scale, window, softcap, bias, bias_stride, sinks, page_floats,
             layer_offset},
            kv,
            {rows, sequences, max_blocks, positions, starts, block_tables},
            q,
            k,
            v,
            out};
  Team team(threads);
  team_run(&team, run, &call);
}
