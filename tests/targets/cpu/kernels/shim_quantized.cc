// Quantized linears on a team of their own, and the weights that they read.
#include "all_formats.h"
#include "counted.h"
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
  quantized_linear(worker, call.rows, call.x, call.ldx, (const Format*)call.weights, call.N, call.K, call.group,
                   call.scratch, call.max_rows, counted(call));
}

template <class Format>
void linear_of(int threads, Call call) {
  Team team(threads);
  call.scratch = (char*)aligned_alloc(64, (size_t)quantized_rows(call.max_rows, threads) * Format::row_bytes(call.K));
  team_run(&team, run<Format>, &call);
  free(call.scratch);
}

// Calls `with` with a null pointer to the format of a name.
template <class... Formats, class With>
void with_format(const char* name, With&& with) {
  (void)((strcmp(name, Packing<Formats>::kName) == 0 && (with((const Formats*)nullptr), true)) || ...);
}

template <class Format>
Format of(const Format*);

}  // namespace

extern "C" void run_quantized(const char* name, int threads, int rows, const float* x, size_t ldx, const void* weights, int N,
                              int K, int group, float* y, int* calls) {
  const Call call{rows, x, ldx, weights, N, K, group, rows + 3, nullptr, y, calls};
  with_format<QUANTIZED_FORMATS>(name, [&](auto* format) { linear_of<decltype(of(format))>(threads, call); });
}

// Bytes of a panel, and of a row of activations; 0 where there is no such format.
extern "C" size_t panel_bytes(const char* name, int K) {
  size_t bytes = 0;
  with_format<ALL_FORMATS>(name, [&](auto* format) { bytes = Packing<decltype(of(format))>::panel_bytes(K); });
  return bytes;
}

extern "C" size_t row_bytes(const char* name, int K) {
  size_t bytes = 0;
  with_format<QUANTIZED_FORMATS>(name, [&](auto* format) { bytes = format->row_bytes(K); });
  return bytes;
}

extern "C" void embed(const char* name, const void* weights, int K, int token, float* out) {
  with_format<ALL_FORMATS>(name, [&](auto* format) { embed_panels((decltype(format))weights, K, token, out); });
}

extern "C" void embed_row(const void* table, int V, int D, int token, float* out) {
  embed_rows((const Int8*)table, V, D, token, out);
}
