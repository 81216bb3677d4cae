// A loaded program: the memory of a step, and how steps are run. The generated code has the sizes and the sections.
#pragma once

#include <new>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "argmax.h"
#include "attention.h"
#include "decoding.h"
#include "row_blocks.h"
#include "team.h"

namespace bossa {

// What a section needs, for all rows of a step or for some that lie side by side.
struct Part {
  int max_rows;
  const void** slots;      // packed weights, in the order of the manifest
  const float* constants;  // position tables
  void* kv;
  float* arena;            // [Sizes::arena_floats][max_rows], each value's rows together
  char* quantized;         // the activations that a linear reads, as integers
  float* partials;         // of attention
  int* sequence_of;        // [max_rows]
  Best* bests;             // [workers][max_rows]
  const bossa_step* step;
  const bossa_adapters* adapters;  // null where there are none
  int first;               // the row of the arena that is the first one of the step
};

// Row `t` of the arena value at `offset` with `stride` floats a row.
inline float* row(Part& p, size_t offset, size_t stride, int t) {
  return p.arena + offset * (size_t)p.max_rows + stride * (size_t)(p.first + t);
}

template <class T>
inline const T* slot(Part& p, int index) {
  return (const T*)p.slots[index];
}

inline const int32_t* block_table(Part& p, int t) {
  return p.step->block_tables + (size_t)p.sequence_of[t] * (size_t)p.step->max_blocks;
}

inline Batch batch_of(const bossa_step& s) {
  return {s.rows, s.sequences, s.max_blocks, s.positions, s.starts, s.block_tables};
}

// What all workers run for one step; its argument is the program.
using Run = void (*)(Worker&, void*);

// Sizes: of what the generated code was planned for,
//   slots, arena_floats        packed weights, and activations of a row
//   finds_best                 whether its head finds the likeliest token
//   fused_bytes                activations as integers that a worker of fused sections has to itself
//   quantized_floats(rows, workers)  memory for all activations as integers
template <class Sizes>
struct LoadedProgram : Part {
  Team team;
  Decoding* decoding = nullptr;  // steps that follow each other, each from the bests of the one before
  bool decodes = false;          // whether another one follows, from these bests
  Run run = nullptr;

  explicit LoadedProgram(int threads) : team(threads) {}

  // Null where memory or threads cannot be had.
  static LoadedProgram* open(int threads, int max_rows, const void* const* slots, const float* constants, void* kv,
                             Run run) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, sizeof(LoadedProgram)) != 0) return nullptr;
    LoadedProgram* p = new (memory) LoadedProgram(threads);
    const size_t rows = (size_t)max_rows, workers = (size_t)p->team.count;
    p->max_rows = max_rows;
    p->first = 0;
    p->constants = constants;
    p->kv = kv;
    p->run = run;
    p->adapters = nullptr;
    p->slots = (const void**)malloc(sizeof(void*) * (Sizes::slots + 1));
    p->sequence_of = (int*)malloc(sizeof(int) * rows);
    p->bests = (Best*)malloc(sizeof(Best) * workers * rows);
    p->arena = floats((Sizes::arena_floats + 16) * rows);
    p->partials = floats(kPartialFloats);
    p->quantized = (char*)floats(Sizes::quantized_floats(max_rows, p->team.count));
    if (!(p->team.whole && p->slots && p->sequence_of && p->bests && p->arena && p->partials && p->quantized)) {
      close(p);
      return nullptr;
    }
    for (int i = 0; i < Sizes::slots; i++) p->slots[i] = slots[i];
    return p;
  }

  static void close(LoadedProgram* p) {
    if (p == nullptr) return;
    free(p->slots);
    free(p->sequence_of);
    free(p->bests);
    free(p->arena);
    free(p->partials);
    free(p->quantized);
    p->~LoadedProgram();
    free(p);
  }

  int32_t run_step(const bossa_step* next) {
    if (!takes(next)) return 1;
    return team_run(&team, run, this) ? 0 : 2;
  }

  int32_t decode(const bossa_decoding* asked) {
    if (!Sizes::finds_best) return -1;
    Decoding steps(*asked);
    if (!takes(&steps.step)) return -1;
    decoding = &steps;
    return team_run(&team, run_decoding, this) ? steps.ran : -2;
  }

  // Sections that need nothing of other rows: run with all of them, or block by block.
  template <class Sections>
  void run_fused(Worker& w, Sections&& sections) {
    const int rows = step->rows;
    if (!fuses_rows(rows, w.count)) {
      sections(*this, w);
      return;
    }
    for_row_blocks(w, rows, [&](Worker& alone, Share of) {
      bossa_step mine = *step;
      mine.rows = of.end - of.begin;
      mine.tokens += of.begin;
      mine.positions += of.begin;
      Part block = *this;
      block.step = &mine;
      block.sequence_of += of.begin;
      block.quantized += (size_t)w.id * Sizes::fused_bytes;
      block.first = of.begin;
      sections(block, alone);
    });
    w.barrier();
  }

 private:
  // Whether a step fits; it is then the one that runs.
  bool takes(const bossa_step* next) {
    if (next->rows < 1 || next->rows > max_rows || next->logit_count > max_rows) return false;
    for (int s = 0; s < next->sequences; s++) {
      for (int t = next->starts[s]; t < next->starts[s + 1]; t++) sequence_of[t] = s;
    }
    step = next;
    return true;
  }

  // Steps of decoding, on every worker; the first one sees what they bring.
  static void run_decoding(Worker& w, void* arg) {
    LoadedProgram& p = *(LoadedProgram*)arg;
    do {
      p.run(w, arg);
      w.barrier();
      if (w.id == 0) p.decodes = p.decoding->advance();
      w.barrier();
    } while (p.decodes);
  }

  static float* floats(size_t count) {
    void* memory = nullptr;
    return posix_memalign(&memory, 64, sizeof(float) * (count > 0 ? count : 16)) == 0 ? (float*)memory : nullptr;
  }
};

}  // namespace bossa
