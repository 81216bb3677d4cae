// Every lane function by name, over arrays.
#include "math.h"
#include "rows.h"

#include <string.h>

using namespace bossa;

namespace {

struct Unary {
  const char* name;
  f16 (*apply)(f16);
};

const Unary kUnary[] = {
    {"exp", exp},         {"exp2_nonpositive", exp2_nonpositive},
    {"exp2", exp2},       {"log", log},
    {"log1p", log1p},     {"tanh", tanh},
    {"erf", erf},         {"sigmoid", sigmoid},
    {"silu", silu},       {"gelu", gelu},
    {"softplus", softplus}, {"gelu_tanh", gelu_tanh},
    {"relu", relu},       {"rsqrt", rsqrt},
    {"sin", sin},         {"reciprocal", reciprocal},
    {"cos", cos},         {"sqrt", sqrt},
    {"abs", abs},         {"floor", floor},
    {"round", round},     {"negate", [](f16 x) { return -x; }},
    {"pow2", pow2},
};

struct Binary {
  const char* name;
  f16 (*apply)(f16, f16);
};

const Binary kBinary[] = {
    {"max", max}, {"min", min}, {"lt", lt},   {"le", le},
    {"gt", gt},   {"ge", ge},   {"eq", eq},   {"ne", ne},
    {"pow", pow}, {"copysign", copysign},
    {"add", [](f16 a, f16 b) { return a + b; }}, {"sub", [](f16 a, f16 b) { return a - b; }},
    {"mul", [](f16 a, f16 b) { return a * b; }}, {"div", [](f16 a, f16 b) { return a / b; }},
    {"fma", [](f16 a, f16 b) { return fma(a, b, splat(0.75f)); }},
    {"where", [](f16 a, f16 b) { return where(a, b, splat(-7.0f)); }},
};

}  // namespace

extern "C" {

int unary(const char* name, const float* x, float* y, int n) {
  for (const Unary& op : kUnary) {
    if (strcmp(op.name, name) != 0) continue;
    for (int i = 0; i < n; i += kLanes) store_n(y + i, op.apply(load_n(x + i, n - i)), n - i);
    return 0;
  }
  return 1;
}

int binary(const char* name, const float* a, const float* b, float* y, int n) {
  for (const Binary& op : kBinary) {
    if (strcmp(op.name, name) != 0) continue;
    for (int i = 0; i < n; i += kLanes) store_n(y + i, op.apply(load_n(a + i, n - i), load_n(b + i, n - i)), n - i);
    return 0;
  }
  return 1;
}

float reduce_sum(const float* x) { return sum(load(x)); }
float reduce_max(const float* x) { return maximum(load(x)); }
float reduce_min(const float* x) { return minimum(load(x)); }

void mask(int n, float* y) { store(y, lane_mask_n(n)); }
void widen(const uint16_t* x, float* y, int n) { store(y, load_n((const bf16*)x, n)); }
void gather(const float* x, int stride, float* y, int n) { store(y, load_strided(x, stride, n)); }
void scatter(float* y, int stride, const float* x, int n) { store_strided(y, stride, load_n(x, n), n); }

void rows_f32(const float* table, int D, int token, float* out) { embed_rows(table, D, token, out); }
void panels_f32(const float* panels, int K, int token, float* out) { embed_panels(panels, K, token, out); }
}
