// Quantized linears on a team of their own, and the weights that they read.
#include "quantized.h"
#include "rows.h"

using namespace bossa;

namespace {

struct Call {
  int rows;
  const float* x;
  size_t ldx;
  const void* weights;
  int N, K, group, max_rows;
  char* scratch;
  float* y;
  int* calls;  // [rows][ceil(N / 16)] times that each panel of a row was delivered
};

template <class Format>
void run(Worker& worker, void* arg) {
  const Call& call = *(const Call*)arg;
  const int panels = (call.N + kLanes - 1) / kLanes;
  auto epilogue = [&](int row, int col, int n, const float* sums) {
    for (int i = 0; i < n; i += kLanes) {
      __atomic_fetch_add(&call.calls[row * panels + (col + i) / kLanes], n % (kLanes * call.group) ? 1000 : 1,
                         __ATOMIC_RELAXED);
      store_n(call.y + (size_t)row * call.N + col + i, load(sums + i), call.N - col - i);
    }
  };
  quantized_linear(worker, call.rows, call.x, call.ldx, (const Format*)call.weights, call.N, call.K, call.group,
                   call.scratch, call.max_rows, epilogue);
}

template <class Format>
void linear_of(int threads, Call call) {
  Team team(threads);
  call.scratch = (char*)aligned_alloc(64, (size_t)quantized_rows(call.max_rows, threads) * Format::row_bytes(call.K));
  team_run(&team, run<Format>, &call);
  free(call.scratch);
}

}  // namespace

extern "C" void run_quantized(int bits, int threads, int rows, const float* x, size_t ldx, const void* weights, int N,
                              int K, int group, float* y, int* calls) {
  const Call call{rows, x, ldx, weights, N, K, group, rows + 3, nullptr, y, calls};
  (bits == 8 ? linear_of<Int8> : bits == 6 ? linear_of<Int6> : linear_of<Int4>)(threads, call);
}

extern "C" size_t panel_bytes(int bits, int K) {
  return (bits == 8 ? Int8::panel_bytes : bits == 6 ? Int6::panel_bytes : Int4::panel_bytes)(K);
}

extern "C" void embed(int bits, const void* weights, int K, int token, float* out) {
  if (bits == 8) return embed_panels((const Int8*)weights, K, token, out);
  bits == 6 ? embed_panels((const Int6*)weights, K, token, out) : embed_panels((const Int4*)weights, K, token, out);
}

extern "C" void embed_row(const void* table, int V, int D, int token, float* out) {
  embed_rows((const Int8*)table, V, D, token, out);
}
