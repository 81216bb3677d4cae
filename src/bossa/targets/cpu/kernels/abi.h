// The C interface of a compiled program: what the loader calls, and nothing else is exported.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// One step over `rows` packed tokens of `sequences` sequences. Rows of one sequence are adjacent, at consecutive
// positions, and every sequence has at least one row.
struct bossa_step {
  int32_t rows, sequences, max_blocks, logit_count;
  const int32_t* tokens;        // [rows]
  const int32_t* positions;     // [rows]
  const int32_t* starts;        // [sequences + 1]: sequence s owns rows starts[s] .. starts[s + 1] - 1
  const int32_t* block_tables;  // [sequences][max_blocks]: the page that holds positions 32 b .. 32 b + 31
  const int32_t* logit_rows;    // [logit_count]: the rows whose logits are wanted
  float* logits;                // [logit_count][vocabulary]; null where `best` is wanted instead
  int32_t* best;                // [logit_count] the likeliest token of each, the lowest of equals, or -1; or null
  // Recurrent state; all four are null where the program keeps none.
  void* states;                 // [slots][state bytes], 64-byte aligned
  const int32_t* state_slots;   // [sequences]: the slot of each sequence, which no other sequence of the step has
  const int32_t* replays;       // [sequences]: how many of the guesses whose inputs the slot keeps turned out right
  const int32_t* drafts;        // [sequences]: how many of its last rows of this step are guesses
};

// A slot holds the state of a sequence after some position, and the inputs of guesses behind it. A sequence whose first
// row in a step is at position 0 starts from zero state, whatever its slot holds; `replays` is then ignored. Any other
// starts from its slot's state, moved on by the first `replays` inputs that are kept: its first row is at the position
// behind these. The step leaves the state after the row before the guesses in the slot, and the inputs of the guesses.
// There is at least one row that is no guess.

// Steps of decoding, one after the other: each sequence has one row, whose likeliest token is its next one. They end after
// one that brought a token of `ends`, after one that found none for some sequence, which counts as not run (though recurrent state has moved), and with the
// first that ends when the time is over.
struct bossa_decoding {
  struct bossa_step step;  // the first: `logit_rows` are all rows, and the block tables reach as far as the last step
                           // does; `tokens`, `positions` and `best` are those below, and `logits` null; there are no
                           // guesses, and inputs are replayed before the first step alone
  int32_t* tokens;         // [rows], moved on from step to step, as are
  int32_t* positions;      // [rows]
  int32_t* best;           // [most_steps][rows]: what the steps bring
  const int32_t* ends;     // [end_count]
  int32_t end_count, most_steps;
  int64_t nanoseconds;
};

// What an adapter has beside one packed weight W [N, K]: y = x (W + B A)^T. Its ranks are in blocks of 1 to 16.
struct bossa_low_rank {
  int32_t blocks;          // 0 where it has nothing there; all else is then null
  const int32_t* starts;   // [blocks + 1]: block b has ranks starts[b] .. starts[b + 1] - 1
  const float* down;       // A: [blocks][K][16], zeros past a block's ranks
  const int32_t* first;    // [panels of W]: the first block that has a part in a panel's outputs,
  const int32_t* last;     // [panels of W]: and the one behind the last
  const int64_t* offsets;  // [panels of W]: where in `up` these blocks' ranks begin
  const float* up;         // B, scaled: for each panel [ranks of its blocks][16], zeros where a rank has no part
};

struct bossa_adapters {
  int32_t count;                       // of adapters
  const struct bossa_low_rank* pairs;  // [count][slots]
  const int32_t* of_sequence;          // [sequences of a step]: the adapter of each, or -1; read anew at each step
  float* products;                     // [max_rows][stride]: room for x A^T of one linear, which is
  int64_t stride;                      // 16 floats for each block of ranks and each 320 of K, or part of them, at most
};

// 5 added recurrent state, and packs in a format by its name; in programs of 4 a step ends with `best`, the first of several steps too.
#define BOSSA_ABI 5

#if defined(__GNUC__)
#define BOSSA_EXPORT __attribute__((visibility("default")))
#else
#define BOSSA_EXPORT
#endif

BOSSA_EXPORT int32_t bossa_abi(void);

// Names the memory layout that the program was compiled for; the manifest's must have the same name.
BOSSA_EXPORT const char* bossa_signature(void);

// 1 when a step can give `best`.
BOSSA_EXPORT int32_t bossa_finds_best(void);

// Packs rows of a checkpoint's tensor into panels; see `pack` in pack.h.
BOSSA_EXPORT const char* bossa_pack(const void* source, const char* stored, int64_t row_stride, int64_t k_stride,
                                    int64_t rows, int64_t K, const char* format, int64_t first, int64_t panel_step,
                                    void* panels);

// The same into a table, or no function of this name in programs that were compiled before there was one.
BOSSA_EXPORT const char* bossa_pack_table(const void* source, const char* stored, int64_t row_stride, int64_t k_stride,
                                          int64_t rows, int64_t K, const char* format, int64_t first, int64_t height,
                                          void* table);

// `slots` are the packed weights in slot order, `constants` the program's tables, `kv` zeroed pages; all three belong
// to the caller and outlive the program. NULL when memory or threads cannot be had.
BOSSA_EXPORT void* bossa_open(int32_t threads, int32_t max_rows, const void* const* slots, const float* constants,
                              void* kv);

// Keeps each thread of the program's own on a CPU, the first being worker 1; the caller of a step is worker 0. 0 when the
// system did so for all.
BOSSA_EXPORT int32_t bossa_pin(void* program, const int32_t* cpus, int32_t count);

// 0 when the step ran; 1 where the program was not opened for so many rows, 2 where the caller has too little stack and no
// thread with more can be had. One step at a time: a program is not reentrant.
BOSSA_EXPORT int32_t bossa_step_run(void* program, const struct bossa_step* step);

// How many steps ran; -1 where the program does not find likeliest tokens, or was not opened for so many rows, -2 where
// there is too little stack.
BOSSA_EXPORT int32_t bossa_decode(void* program, const struct bossa_decoding* decoding);

BOSSA_EXPORT void bossa_close(void* program);

// Of programs that take adapters alone: from the next step on they are these. All of it belongs to the caller and
// outlives the program, or the next call; NULL takes them away.
BOSSA_EXPORT void bossa_adapt(void* program, const struct bossa_adapters* adapters);

#ifdef __cplusplus
}
#endif
