// Quantized linears on a team of their own, and the weights that they read.
#include <type_traits>

#include "pack.h"
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

// Calls `with` with a null pointer to the format of a number of DTYPES.
template <class With>
auto with_format(int dtype, With&& with) {
  switch (dtype) {
    case kPackInt8:
      return with((const Int8*)nullptr);
    case kPackInt6:
      return with((const Int6*)nullptr);
    case kPackInt4:
      return with((const Int4*)nullptr);
    case kPackInt6A16:
      return with((const Int6A16*)nullptr);
    case kPackInt4A16:
      return with((const Int4A16*)nullptr);
    case kPackInt6A8:
      return with((const Int6A8*)nullptr);
    default:
      return with((const Int4A8*)nullptr);
  }
}

}  // namespace

extern "C" void run_quantized(int dtype, int threads, int rows, const float* x, size_t ldx, const void* weights, int N,
                              int K, int group, float* y, int* calls) {
  const Call call{rows, x, ldx, weights, N, K, group, rows + 3, nullptr, y, calls};
  with_format(dtype, [&](auto* format) {
    linear_of<std::remove_const_t<std::remove_pointer_t<decltype(format)>>>(threads, call);
  });
}

extern "C" size_t panel_bytes(int dtype, int K) {
  return with_format(dtype, [&](auto* format) { return format->panel_bytes(K); });
}

extern "C" void embed(int dtype, const void* weights, int K, int token, float* out) {
  with_format(dtype, [&](auto* format) { embed_panels((decltype(format))weights, K, token, out); });
}

extern "C" void embed_row(const void* table, int V, int D, int token, float* out) {
  embed_rows((const Int8*)table, V, D, token, out);
}
