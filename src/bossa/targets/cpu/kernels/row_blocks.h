// Row-block fusion: blocks of rows that one worker each takes through several sections, where these need nothing of other
// rows. What a section leaves is still in that worker's second-level cache when the next one begins, and nobody waits
// between them.
#pragma once

#include "team.h"

namespace bossa {

// Rows of a block, at most. GPT-2 small leaves some 10 KB a row and section.
constexpr int kFusedRows = 128;

// With fewer rows for each worker they share the weights instead: with fusion each of them reads and unpacks all of these.
constexpr int kFewestFusedRows = 64;

constexpr bool fuses_rows(int rows, int workers) { return rows >= kFewestFusedRows * workers; }

// sections(alone, block) for all blocks, the rows of which `block` says, where `alone` is a team of one.
// Every worker calls it; a barrier before reading the results is the caller's.
template <class Sections>
inline void for_row_blocks(Worker& worker, int rows, Sections&& sections) {
  const int most = worker.count * kFusedRows;
  const int blocks = worker.count * ((rows + most - 1) / most);
  Worker alone{0, 1, worker.team};
  for (int block = worker.next(); block < blocks; block = worker.next()) {
    sections(alone, share_of(rows, block, blocks));
  }
}

}  // namespace bossa
