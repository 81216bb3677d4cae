// gpt2, compiled by Bossa: vocabulary 50257, 12 attention layers,
// sequences up to 1024 tokens. A step runs packed rows of any number of sequences.
#include "abi.h"
#include "attention.h"
#include "formats/fp32.h"
#include "linear.h"
#include "math.h"
#include "pack.h"
#include "program.h"
#include "rows.h"

namespace {

using namespace bossa;

constexpr int kVocabulary = 50257;
constexpr const char* kSignature = "8e7247d2ceb4a301c1f18e8249a9c58e";  // of the memory layout in the manifest
using Kv = float;  // keys and values as they are stored
constexpr size_t kPageBytes = 2359296;  // of 32 positions, all layers

struct Sizes {
  static constexpr int slots = 148;
  static constexpr size_t arena_floats = 4608;  // activations of one row
  static constexpr bool finds_best = true;
  static constexpr size_t fused_bytes = 0;
  static size_t quantized_floats([[maybe_unused]] int rows, [[maybe_unused]] int workers) {
    return 0;
  }
};

using Program = LoadedProgram<Sizes>;

// %v1[768] = embed $"lm_head.weight" tokens
// %v2[768] = embed $"transformer.wpe.weight" !t0
// %v3[768] = map add(%v1[768], %v2[768])
void rows_0(Part& p, Worker& w) {
  const float* w_lm_head_weight = slot<float>(p, 0);
  const float* w_transformer_wpe_weight = slot<float>(p, 1);
  const Share share = share_of(w, p.step->rows);
  for (int t = share.begin; t < share.end; t++) {
    alignas(64) float v1[768];
    embed_panels(w_lm_head_weight, 768, p.step->tokens[t], v1);
    alignas(64) float v2[768];
    embed_rows(w_transformer_wpe_weight, 768, *((const int32_t*)(p.constants + 0) + (size_t)p.step->positions[t] * 1), v2);
    float* v3 = row(p, 0, 768, t);
    for (int j = 0; j < 768; j += kLanes) {
      store(v3 + j, (load(v1 + j) + load(v2 + j)));
    }
  }
}

// slots[0]: transformer.h.*.ln_1.weight
// slots[1]: transformer.h.*.ln_1.bias
// slots[2]: transformer.h.*.attn.c_attn.weight
// slots[3]: transformer.h.*.attn.c_attn.bias
// slots[4]: transformer.h.*.attn.c_proj.weight
// slots[5]: transformer.h.*.attn.c_proj.bias
// slots[6]: transformer.h.*.ln_2.weight
// slots[7]: transformer.h.*.ln_2.bias
// slots[8]: transformer.h.*.mlp.c_fc.weight
// slots[9]: transformer.h.*.mlp.c_fc.bias
// slots[10]: transformer.h.*.mlp.c_proj.weight
// slots[11]: transformer.h.*.mlp.c_proj.bias
constexpr int kLoop1[12][12] = {
    {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13},
    {14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25},
    {26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37},
    {38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49},
    {50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61},
    {62, 63, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73},
    {74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85},
    {86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 96, 97},
    {98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109},
    {110, 111, 112, 113, 114, 115, 116, 117, 118, 119, 120, 121},
    {122, 123, 124, 125, 126, 127, 128, 129, 130, 131, 132, 133},
    {134, 135, 136, 137, 138, 139, 140, 141, 142, 143, 144, 145},
};

// %v4[] = reduce mean 1 [768] %v24_in[768]
// %v5[] = reduce mean 1 [768] mul(sub(%v24_in[768], %v4[768|0]), sub(%v24_in[768], %v4[768|0]))
// %v6[768] = map add(mul(mul(sub(%v24_in[768], %v4[768|0]), rsqrt(add(%v5[768|0], 1e-05))), $"transformer.h.*.ln_1.weight"[768]), $"transformer.h.*.ln_1.bias"[768])
void rows_2(Part& p, Worker& w, const int* slots, int i) {
  (void)i;
  const float* w_transformer_h___ln_1_weight = slot<float>(p, slots[0]);
  const float* w_transformer_h___ln_1_bias = slot<float>(p, slots[1]);
  const Share share = share_of(w, p.step->rows);
  for (int t = share.begin; t < share.end; t++) {
    const float* v24_in = row(p, 0, 768, t);
    alignas(64) float v4[16];
    f16 v4_lanes = splat(0.0f);
    for (int j = 0; j < 768; j += kLanes) {
      v4_lanes = v4_lanes + load(v24_in + j);
    }
    v4[0] = sum(v4_lanes) / 768.0f;
    alignas(64) float v5[16];
    f16 v5_lanes = splat(0.0f);
    {
      const f16 s0 = splat(*(v4));
      for (int j = 0; j < 768; j += kLanes) {
        const f16 x1 = (load(v24_in + j) - s0);
        v5_lanes = v5_lanes + (x1 * x1);
      }
    }
    v5[0] = sum(v5_lanes) / 768.0f;
    float* v6 = row(p, 768, 768, t);
    {
      const f16 s0 = splat(*(v4));
      const f16 s1 = rsqrt((splat(*(v5)) + splat(1e-05f)));
      for (int j = 0; j < 768; j += kLanes) {
        store(v6 + j, ((((load(v24_in + j) - s0) * s1) * load(w_transformer_h___ln_1_weight + j)) + load(w_transformer_h___ln_1_bias + j)));
      }
    }
  }
}

// %v7[2304] = linear %v6[768] $"transformer.h.*.attn.c_attn.weight" bias $"transformer.h.*.attn.c_attn.bias"
void linear_3(Part& p, Worker& w, const int* slots, int i) {
  (void)i;
  const float* w_transformer_h___attn_c_attn_bias = slot<float>(p, slots[3]);
  const float* x = row(p, 768, 768, 0);
  linear(w, p.step->rows, x, 768, slot<float>(p, slots[2]), 2304, 768, 1,
         [&](int t, int col, int n, const float* sums) {
    float* out = row(p, 1536, 2304, t) + col;
    for (int j = 0; j < n; j += kLanes) {
      store(out + j, (load(sums + j) + load(w_transformer_h___attn_c_attn_bias + col + j)));
    }
  });
}

// store %v7, %v7 in the KV pages
void rows_4(Part& p, Worker& w, const int* slots, int i) {
  (void)slots;
  KvWriter<Kv, 768> kv_0{AttentionShape{12, 12, 64, 64, 0.125f, 0, 0.0f, nullptr, 0, nullptr, kPageBytes, 0 + (size_t)i * 196608}, p.kv};
  const Share share = share_of(w, p.step->rows);
  for (int t = share.begin; t < share.end; t++) {
    const float* v7 = row(p, 1536, 2304, t);
    kv_0.put(block_table(p, t), p.step->positions[t], v7 + 768, 64,
             v7 + 1536, 64);
  }
}

void from_rows_2(Part& p, Worker& w, const int* slots, int i) {
  rows_2(p, w, slots, i);
  w.barrier();
  linear_3(p, w, slots, i);
  w.barrier();
  rows_4(p, w, slots, i);
  w.barrier();
}

// %v8[12,64] = attention %v7[12,64] %v7[12,64]+768 %v7[12,64]+1536 layer 0 scale 0.125 window 0 softcap 0.0
void attention_5(Part& p, Worker& w, const int* slots, int i) {
  (void)slots;
  attention<Kv>(w, AttentionShape{12, 12, 64, 64, 0.125f, 0, 0.0f, nullptr, 0, nullptr, kPageBytes, 0 + (size_t)i * 196608}, p.kv, batch_of(*p.step),
            row(p, 1536, 2304, 0), 2304, 64,
            row(p, 768, 768, 0), 768, p.partials);
}

// %v10[768] = linear %v8[768] $"transformer.h.*.attn.c_proj.weight" bias $"transformer.h.*.attn.c_proj.bias" then add(#0[768], %v24_in[768])
void linear_6(Part& p, Worker& w, const int* slots, int i) {
  (void)i;
  const float* w_transformer_h___attn_c_proj_bias = slot<float>(p, slots[5]);
  const float* x = row(p, 768, 768, 0);
  linear(w, p.step->rows, x, 768, slot<float>(p, slots[4]), 768, 768, 1,
         [&](int t, int col, int n, const float* sums) {
    const float* v24_in = row(p, 0, 768, t);
    float* out = row(p, 0, 768, t) + col;
    for (int j = 0; j < n; j += kLanes) {
      store(out + j, ((load(sums + j) + load(w_transformer_h___attn_c_proj_bias + col + j)) + load(v24_in + col + j)));
    }
  });
}

// %v11[] = reduce mean 1 [768] %v10[768]
// %v12[] = reduce mean 1 [768] mul(sub(%v10[768], %v11[768|0]), sub(%v10[768], %v11[768|0]))
// %v13[768] = map add(mul(mul(sub(%v10[768], %v11[768|0]), rsqrt(add(%v12[768|0], 1e-05))), $"transformer.h.*.ln_2.weight"[768]), $"transformer.h.*.ln_2.bias"[768])
void rows_7(Part& p, Worker& w, const int* slots, int i) {
  (void)i;
  const float* w_transformer_h___ln_2_weight = slot<float>(p, slots[6]);
  const float* w_transformer_h___ln_2_bias = slot<float>(p, slots[7]);
  const Share share = share_of(w, p.step->rows);
  for (int t = share.begin; t < share.end; t++) {
    const float* v10 = row(p, 0, 768, t);
    alignas(64) float v11[16];
    f16 v11_lanes = splat(0.0f);
    for (int j = 0; j < 768; j += kLanes) {
      v11_lanes = v11_lanes + load(v10 + j);
    }
    v11[0] = sum(v11_lanes) / 768.0f;
    alignas(64) float v12[16];
    f16 v12_lanes = splat(0.0f);
    {
      const f16 s0 = splat(*(v11));
      for (int j = 0; j < 768; j += kLanes) {
        const f16 x1 = (load(v10 + j) - s0);
        v12_lanes = v12_lanes + (x1 * x1);
      }
    }
    v12[0] = sum(v12_lanes) / 768.0f;
    float* v13 = row(p, 768, 768, t);
    {
      const f16 s0 = splat(*(v11));
      const f16 s1 = rsqrt((splat(*(v12)) + splat(1e-05f)));
      for (int j = 0; j < 768; j += kLanes) {
        store(v13 + j, ((((load(v10 + j) - s0) * s1) * load(w_transformer_h___ln_2_weight + j)) + load(w_transformer_h___ln_2_bias + j)));
      }
    }
  }
}

// %v22[3072] = linear %v13[768] $"transformer.h.*.mlp.c_fc.weight" bias $"transformer.h.*.mlp.c_fc.bias" then gelu_tanh(#0[3072])
void linear_8(Part& p, Worker& w, const int* slots, int i) {
  (void)i;
  const float* w_transformer_h___mlp_c_fc_bias = slot<float>(p, slots[9]);
  const float* x = row(p, 768, 768, 0);
  linear(w, p.step->rows, x, 768, slot<float>(p, slots[8]), 3072, 768, 1,
         [&](int t, int col, int n, const float* sums) {
    float* out = row(p, 1536, 3072, t) + col;
    for (int j = 0; j < n; j += kLanes) {
      store(out + j, gelu_tanh((load(sums + j) + load(w_transformer_h___mlp_c_fc_bias + col + j))));
    }
  });
}

// %v24[768] = linear %v22[3072] $"transformer.h.*.mlp.c_proj.weight" bias $"transformer.h.*.mlp.c_proj.bias" then add(%v10[768], #0[768])
void linear_9(Part& p, Worker& w, const int* slots, int i) {
  (void)i;
  const float* w_transformer_h___mlp_c_proj_bias = slot<float>(p, slots[11]);
  const float* x = row(p, 1536, 3072, 0);
  linear(w, p.step->rows, x, 3072, slot<float>(p, slots[10]), 768, 3072, 1,
         [&](int t, int col, int n, const float* sums) {
    const float* v10 = row(p, 0, 768, t);
    float* out = row(p, 0, 768, t) + col;
    for (int j = 0; j < n; j += kLanes) {
      store(out + j, (load(v10 + col + j) + (load(sums + j) + load(w_transformer_h___mlp_c_proj_bias + col + j))));
    }
  });
}

void from_linear_6(Part& p, Worker& w, const int* slots, int i) {
  linear_6(p, w, slots, i);
  w.barrier();
  rows_7(p, w, slots, i);
  w.barrier();
  linear_8(p, w, slots, i);
  w.barrier();
  linear_9(p, w, slots, i);
  w.barrier();
}

// %v255_selected[768] = select %v255[768]
// %v256[] = reduce mean 1 [768] %v255_selected[768]
// %v257[] = reduce mean 1 [768] mul(sub(%v255_selected[768], %v256[768|0]), sub(%v255_selected[768], %v256[768|0]))
// %v258[768] = map add(mul(mul(sub(%v255_selected[768], %v256[768|0]), rsqrt(add(%v257[768|0], 1e-05))), $"transformer.ln_f.weight"[768]), $"transformer.ln_f.bias"[768])
void rows_10(Part& p, Worker& w) {
  const float* w_transformer_ln_f_weight = slot<float>(p, 146);
  const float* w_transformer_ln_f_bias = slot<float>(p, 147);
  const Share share = share_of(w, p.step->logit_count);
  for (int t = share.begin; t < share.end; t++) {
    alignas(64) float v255_selected[768];
    memcpy(v255_selected, row(p, 0, 768, p.step->logit_rows[t]), 768 * sizeof(float));
    alignas(64) float v256[16];
    f16 v256_lanes = splat(0.0f);
    for (int j = 0; j < 768; j += kLanes) {
      v256_lanes = v256_lanes + load(v255_selected + j);
    }
    v256[0] = sum(v256_lanes) / 768.0f;
    alignas(64) float v257[16];
    f16 v257_lanes = splat(0.0f);
    {
      const f16 s0 = splat(*(v256));
      for (int j = 0; j < 768; j += kLanes) {
        const f16 x1 = (load(v255_selected + j) - s0);
        v257_lanes = v257_lanes + (x1 * x1);
      }
    }
    v257[0] = sum(v257_lanes) / 768.0f;
    float* v258 = row(p, 768, 768, t);
    {
      const f16 s0 = splat(*(v256));
      const f16 s1 = rsqrt((splat(*(v257)) + splat(1e-05f)));
      for (int j = 0; j < 768; j += kLanes) {
        store(v258 + j, ((((load(v255_selected + j) - s0) * s1) * load(w_transformer_ln_f_weight + j)) + load(w_transformer_ln_f_bias + j)));
      }
    }
  }
}

// %v260[50257] = linear %v258[768] $"lm_head.weight"
void linear_11(Part& p, Worker& w) {
  Best* bests = p.step->best ? p.bests + (size_t)w.id * (size_t)p.max_rows : nullptr;
  for (int t = 0; bests && t < p.step->logit_count; t++) bests[t].clear();
  const float* x = row(p, 768, 768, 0);
  linear(w, p.step->logit_count, x, 768, slot<float>(p, 0), 50257, 768, 1,
         [&](int t, int col, int n, const float* sums) {
    alignas(64) float piece[detail::kBlockPanels * kLanes];
    float* out = bests ? piece : p.step->logits + (size_t)t * kVocabulary + col;
    for (int j = 0; j < n; j += kLanes) {
      store_n(out + j, load(sums + j), 50257 - col - j);
    }
    if (bests) bests[t].see(piece, col, n < 50257 - col ? n : 50257 - col);
  });
}

// One step, on every worker. A barrier follows each section, or each group of them.
void run(Worker& w, void* arg) {
  Program& p = *(Program*)arg;
  rows_0(p, w);
  w.barrier();
  for (int i = 0; i < 12; i++) {
    p.run_fused(w, [&](Part& part, Worker& worker) { from_rows_2(part, worker, kLoop1[i], i); });
    attention_5(p, w, kLoop1[i], i);
    w.barrier();
    p.run_fused(w, [&](Part& part, Worker& worker) { from_linear_6(part, worker, kLoop1[i], i); });
  }
  if (p.step->logit_count == 0) return;
  rows_10(p, w);
  w.barrier();
  linear_11(p, w);
  w.barrier();
  if (p.step->best == nullptr) return;
  const Share share = share_of(w, p.step->logit_count);
  for (int t = share.begin; t < share.end; t++) {
    Best best = p.bests[t];
    for (int id = 1; id < w.count; id++) best.join(p.bests[(size_t)id * (size_t)p.max_rows + (size_t)t]);
    p.step->best[t] = best.result();
  }
}

}  // namespace

extern "C" int32_t bossa_abi(void) { return BOSSA_ABI; }

extern "C" const char* bossa_signature(void) { return kSignature; }

extern "C" int32_t bossa_finds_best(void) { return Sizes::finds_best; }

extern "C" const char* bossa_pack(const void* source, const char* stored, int64_t row_stride, int64_t k_stride,
                                  int64_t rows, int64_t K, const char* format, int64_t first, int64_t panel_step,
                                  void* panels) {
  return pack<float>(source, stored, row_stride, k_stride, rows, K, format, first, panel_step, panels);
}

extern "C" const char* bossa_pack_table(const void* source, const char* stored, int64_t row_stride, int64_t k_stride,
                                        int64_t rows, int64_t K, const char* format, int64_t first, int64_t height,
                                        void* table) {
  return pack_table<float>(source, stored, row_stride, k_stride, rows, K, format, first, height, table);
}

extern "C" void* bossa_open(int32_t threads, int32_t max_rows, const void* const* slots, const float* constants,
                            void* kv) {
  return Program::open(threads, max_rows, slots, constants, kv, run);
}

extern "C" int32_t bossa_pin(void* program, const int32_t* cpus, int32_t count) {
  return ((Program*)program)->team.pin(cpus, count) ? 0 : 1;
}

extern "C" int32_t bossa_step_run(void* program, const bossa_step* step) {
  return ((Program*)program)->run_step(step);
}

extern "C" int32_t bossa_decode(void* program, const bossa_decoding* asked) {
  return ((Program*)program)->decode(asked);
}

extern "C" void bossa_close(void* program) { Program::close((Program*)program); }
