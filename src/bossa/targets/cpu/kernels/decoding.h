// Steps of decoding that follow each other without the caller: the tokens of one are those that the step before it found.
#pragma once

#include <chrono>

#include "abi.h"

namespace bossa {

struct Decoding {
  const bossa_decoding& asked;
  bossa_step step;
  int32_t ran = 0;  // steps that found a token for every sequence

  explicit Decoding(const bossa_decoding& asked)
      : asked(asked), step(asked.step), until_(std::chrono::steady_clock::now() + std::chrono::nanoseconds(asked.nanoseconds)) {
    step.tokens = asked.tokens;
    step.positions = asked.positions;
    step.best = asked.best;
    step.logits = nullptr;
  }

  // After a step: moves on to the next one, if there is to be any.
  bool advance() {
    for (int i = 0; i < step.rows; i++) {
      if (step.best[i] < 0) return false;
    }
    ran++;
    for (int i = 0; i < step.rows; i++) {
      for (int e = 0; e < asked.end_count; e++) {
        if (step.best[i] == asked.ends[e]) return false;
      }
    }
    if (ran == asked.most_steps || std::chrono::steady_clock::now() >= until_) return false;
    for (int i = 0; i < step.rows; i++) {
      asked.tokens[i] = step.best[i];
      asked.positions[i]++;
    }
    step.best += step.rows;
    step.replays = nullptr;  // the first step has taken them in
    return true;
  }

 private:
  std::chrono::steady_clock::time_point until_;
};

}  // namespace bossa
