// Causal attention over paged K and V, with a softmax that goes block by block. What a row gets depends on its own
// query and on the stored K and V alone: blocks and spans of absolute positions are gone through in order, and positions that
// a row may not see take no part, not even as zeros.
#pragma once

#include "attention_amx.h"
#include "team.h"

namespace bossa {

// The rows of a step; see abi.h.
struct Batch {
  int rows, sequences, max_blocks;
  const int32_t *positions, *starts, *block_tables;
};

// Floats of memory that the workers share, for the sums of spans that they computed apart.
constexpr size_t kPartialFloats = (size_t)1 << 18;

namespace detail {

// Positions whose sums are added up on their own before they meet those of earlier spans: it decides the bits.
constexpr int kSpan = 1024;

inline void clear(const QueryTile& tile, const SoftmaxSums& sums) {
  const int queries = tile.rows * tile.heads;
  for (int i = 0; i < queries; i++) {
    sums.top[i] = -kInfinity;
    sums.total[i] = 0.0f;
  }
  memset(sums.output, 0, sizeof(float) * (size_t)(queries * tile.v_floats));
}

// The sums of one span, from nothing: from the sink, in the first span that a query sees.
template <class W>
inline void attend_span(const AttentionShape& shape, QueryTile& tile, void* kv, int span) {
  clear(tile, tile.span);
  for (int i = 0; shape.sinks && i < tile.rows * tile.heads; i++) {
    if (span != oldest_position(shape, tile.positions[i / tile.heads]) / kSpan) continue;
    tile.span.top[i] = shape.sinks[tile.first_head + i % tile.heads] * kLog2E;
    tile.span.total[i] = 1.0f;
  }
  const int oldest = oldest_position(shape, tile.positions[0]), newest = tile.positions[tile.rows - 1];
  for (int start = span * kSpan; start < (span + 1) * kSpan && start <= newest; start += kScoreBlock) {
    if (start + kScoreBlock > oldest) attend_block<W>(shape, tile, kv, start);
  }
}

// Adds the sums of one span to those of the spans before it. A span without weight leaves no trace.
inline void add_span(const QueryTile& tile, const SoftmaxSums& span) {
  const SoftmaxSums& all = tile.all;
  for (int i = 0; i < tile.rows * tile.heads; i++) {
    if (span.total[i] == 0.0f) continue;
    float* output = all.output + (size_t)i * (size_t)tile.v_floats;
    const float* more = span.output + (size_t)i * (size_t)tile.v_floats;
    if (all.total[i] == 0.0f) {
      all.top[i] = span.top[i];
      all.total[i] = span.total[i];
      memcpy(output, more, sizeof(float) * (size_t)tile.v_floats);
      continue;
    }
    const float top = span.top[i] > all.top[i] ? span.top[i] : all.top[i];
    const float base = top == -kInfinity ? 0.0f : top;
    float decay[kLanes] = {all.top[i] - base, span.top[i] - base};
    store(decay, exp2_nonpositive(load(decay)));
    all.top[i] = top;
    all.total[i] = __builtin_fmaf(all.total[i], decay[0], span.total[i] * decay[1]);
    for (int v = 0; v < tile.v_floats; v += kLanes) {
      store(output + v, fma(load(output + v), splat(decay[0]), load(more + v) * splat(decay[1])));
    }
  }
}

// Sums in the partials: [queries] of each of top and total, and the outputs.
inline SoftmaxSums saved(const QueryTile& tile, float* partial) {
  const int queries = tile.rows * tile.heads;
  return {partial, partial + queries, partial + 2 * queries};
}

inline void save(const QueryTile& tile, float* partial) {
  const size_t queries = (size_t)(tile.rows * tile.heads);
  const SoftmaxSums to = saved(tile, partial);
  memcpy(to.top, tile.span.top, sizeof(float) * queries);
  memcpy(to.total, tile.span.total, sizeof(float) * queries);
  memcpy(to.output, tile.span.output, sizeof(float) * queries * (size_t)tile.v_floats);
}

// Where a unit of work finds its queries and leaves its results: rows ldq and ldo floats apart.
struct Rows {
  const float* q;
  size_t ldq;
  ptrdiff_t q_head_stride;
  float* out;
  size_t ldo;
};

// Cuts the tile's memory up for its queries.
inline void place(QueryTile& tile) {
  const int outputs = tile.rows * tile.heads * tile.v_floats;
  tile.span = {tile.tops, tile.totals, tile.floats};
  tile.all = {tile.tops + kMaxQueries, tile.totals + kMaxQueries, tile.floats + outputs};
  tile.q = tile.floats + 2 * outputs;
}

inline const float* query_of(const QueryTile& tile, const Rows& rows, int i) {
  return rows.q + (size_t)(i / tile.heads) * rows.ldq + (tile.first_head + i % tile.heads) * rows.q_head_stride;
}

template <class W>
inline void load_queries(const AttentionShape& shape, QueryTile& tile, const Rows& rows) {
  const f16 scale = splat(is_curved(shape) ? shape.scale : shape.scale * kLog2E);
  const int queries = tile.rows * tile.heads;
#if defined(BOSSA_AMX)
  tile.tiled = kScaled<W> && tiles_pay(shape, queries);
  for (int first = 0; tile.tiled && first < queries; first += kQueryRows) {
    const int last = first + kQueryRows < queries ? first + kQueryRows : queries;
    // The next lie too far apart for a cache to foresee them.
    for (int i = last; i < last + kQueryRows && i < queries; i++) {
      for (int d = 0; d < shape.dim; d += kLanes) __builtin_prefetch(query_of(tile, rows, i) + d);
    }
    load_queries_in_tiles(shape, tile, first, last, scale, [&](int i) { return query_of(tile, rows, i); });
  }
  stored_before_tiles(tile.q_digits);
  if (tile.tiled) return;
#endif
  for (int i = 0; i < queries; i++) {
    const float* from = query_of(tile, rows, i);
    if constexpr (kScaled<W>) {
      quantize_query(shape, tile, i, from, scale);
    } else {
      float* to = tile.q + (size_t)i * (size_t)shape.dim;
      for (int d = 0; d < shape.dim; d += kLanes) {
        store_n(to + d, load_n(from + d, shape.dim - d) * scale, shape.dim - d);
      }
    }
  }
}

inline void write_out(const AttentionShape& shape, const QueryTile& tile, const SoftmaxSums& sums, const Rows& rows) {
  for (int i = 0; i < tile.rows * tile.heads; i++) {
    const f16 share = splat(1.0f / sums.total[i]);
    float* to = rows.out + (size_t)(i / tile.heads) * rows.ldo +
                (size_t)(tile.first_head + i % tile.heads) * (size_t)shape.v_dim;
    const float* from = sums.output + (size_t)i * (size_t)tile.v_floats;
    for (int v = 0; v < shape.v_dim; v += kLanes) store_n(to + v, load(from + v) * share, shape.v_dim - v);
  }
}

// The spans that any of a unit's queries sees.
struct SpanRange {
  int first, last;
};

inline SpanRange spans_of(const AttentionShape& shape, const QueryTile& tile) {
  return {oldest_position(shape, tile.positions[0]) / kSpan, tile.positions[tile.rows - 1] / kSpan};
}

// All spans of a unit of work, one after the other.
template <class W>
inline void attend(const AttentionShape& shape, QueryTile& tile, void* kv, const Rows& rows) {
  load_queries<W>(shape, tile, rows);
  const SpanRange spans = spans_of(shape, tile);
  if (spans.first < spans.last) clear(tile, tile.all);
  for (int span = spans.first; span <= spans.last; span++) {
    attend_span<W>(shape, tile, kv, span);
    if (spans.first < spans.last) add_span(tile, tile.span);
  }
  write_out(shape, tile, spans.first < spans.last ? tile.all : tile.span, rows);
}

// How the queries are cut into units of work: a tile of rows, and the query heads of one kv head (or a part of them).
struct AttentionPlan {
  int heads, parts;  // query heads of a unit, parts that a kv head's query heads are cut into
  int rows;          // of a unit, at most
  // Whether each span of a unit is a ticket of its own, whose sums go to the partials, `stride` floats for a ticket.
  bool split;
  size_t stride;
  int chunk;  // units of a sequence with a single tile that one ticket is for: each fetches what the next one reads
};

inline int spans_of(const Batch& batch, int sequence) {
  return batch.positions[batch.starts[sequence + 1] - 1] / kSpan + 1;
}

inline AttentionPlan plan_attention(const AttentionShape& shape, const Batch& batch, int workers) {
  const int group = shape.heads / shape.kv_heads, v_floats = (int)panels_of(shape.v_dim) * kLanes;
  const int fits = kQueryFloats / (shape.dim + 2 * v_floats);
  const int queries = fits < 1 ? 1 : fits < kMaxQueries ? fits : kMaxQueries;
  AttentionPlan plan;
  plan.parts = (group + queries - 1) / queries;
  plan.heads = (group + plan.parts - 1) / plan.parts;
  plan.parts = (group + plan.heads - 1) / plan.heads;
  plan.rows = queries / plan.heads;

  // A few long sequences with few heads: their spans are shared out, so that every worker has some.
  int most_rows = 0, longest = 0;
  int64_t units = 0, tickets = 0;
  for (int s = 0; s < batch.sequences; s++) {
    const int rows = batch.starts[s + 1] - batch.starts[s], spans = spans_of(batch, s);
    const int own = (rows + plan.rows - 1) / plan.rows * shape.kv_heads * plan.parts;
    most_rows = rows > most_rows ? rows : most_rows;
    longest = spans > longest ? spans : longest;
    units += own;
    tickets += (int64_t)own * spans;
  }
  most_rows = most_rows < plan.rows ? most_rows : plan.rows;
  plan.stride = (size_t)(most_rows * plan.heads) * (size_t)(v_floats + 2);
  plan.chunk = units < 2 * workers ? 1 : (int)(units / (2 * workers));
  plan.split = workers > 1 && units < 4 * workers && longest > 1 && (size_t)tickets * plan.stride <= kPartialFloats;
  return plan;
}

// The units of a step, sequence after sequence.
struct Units {
  const AttentionShape& shape;
  const Batch& batch;
  const AttentionPlan& plan;
  int sequence = -1, tiles = 0, spans = 1, chunk = 1;
  int first = 0, end = 0;                // units of this sequence
  int first_ticket = 0, end_ticket = 0;  // and tickets, where spans have their own

  bool next() {
    if (++sequence == batch.sequences) return false;
    const int rows = batch.starts[sequence + 1] - batch.starts[sequence];
    tiles = (rows + plan.rows - 1) / plan.rows;
    spans = plan.split ? spans_of(batch, sequence) : 1;
    first = end;
    first_ticket = end_ticket;
    end += tiles * shape.kv_heads * plan.parts;
    const bool chunked = tiles == 1 && spans == 1;
    chunk = !chunked ? 1 : plan.chunk < end - first ? plan.chunk : end - first;
    end_ticket += chunked ? (end - first + chunk - 1) / chunk : (end - first) * spans;
    return true;
  }

  // Sets up the tile of a unit of this sequence, and returns its first row.
  int set(int unit, QueryTile& tile) const {
    // A head's tiles follow each other, the longest first: its K and V stay in a cache, and the last units are short.
    const int number = tiles - 1 - unit % tiles, group = shape.heads / shape.kv_heads;
    const int row = batch.starts[sequence] + number * plan.rows, past = batch.starts[sequence + 1];
    const int part = unit / tiles % plan.parts;
    tile.rows = past - row < plan.rows ? past - row : plan.rows;
    tile.heads = group - part * plan.heads < plan.heads ? group - part * plan.heads : plan.heads;
    tile.kv_head = unit / tiles / plan.parts;
    tile.first_head = tile.kv_head * group + part * plan.heads;
    tile.next_head = -1;
    tile.v_floats = (int)panels_of(shape.v_dim) * kLanes;
    tile.positions = batch.positions + row;
    tile.block_table = batch.block_tables + (size_t)sequence * (size_t)batch.max_blocks;
    place(tile);
    return row;
  }
};

}  // namespace detail

// Attention of every row over positions 0 .. its own, all of which a KvWriter has stored.
//   q: row t's head h at q + t * ldq + h * q_head_stride; out: row t at out + t * ldo as [heads][v_dim].
//   partials: kPartialFloats that the team shares.
// dim + 2 v_dim <= 32,000. Every worker calls it; a barrier before it and one before reading `out` are the caller's.
template <class W>
inline void attention(Worker& worker, const AttentionShape& shape, void* kv, const Batch& batch, const float* q,
                      size_t ldq, ptrdiff_t q_head_stride, float* out, size_t ldo, float* partials) {
  const detail::AttentionPlan plan = detail::plan_attention(shape, batch, worker.count);
  detail::QueryTile tile;
  const detail::TilesOf<W> tiles(shape);
  (void)tiles;
  const auto rows_from = [&](int row) {
    return detail::Rows{q + (size_t)row * ldq, ldq, q_head_stride, out + (size_t)row * ldo, ldo};
  };
  detail::Units units{shape, batch, plan};
  for (int ticket = worker.next();; ticket = worker.next()) {
    while (ticket >= units.end_ticket && units.next()) continue;
    if (units.sequence == batch.sequences) break;
    const int number = ticket - units.first_ticket;
    if (units.chunk > 1) {
      const int all = units.end - units.first, past = (number + 1) * units.chunk, last = past < all ? past : all;
      for (int unit = number * units.chunk; unit < last; unit++) {
        const detail::Rows rows = rows_from(units.set(unit, tile));
        if (unit + 1 < last) tile.next_head = (unit + 1) / plan.parts;
        detail::attend<W>(shape, tile, kv, rows);
      }
      continue;
    }
    const detail::Rows rows = rows_from(units.set(number / units.spans, tile));
    const detail::SpanRange spans = detail::spans_of(shape, tile);
    if (units.spans == 1 || spans.first == spans.last) {
      if (number % units.spans == 0) detail::attend<W>(shape, tile, kv, rows);
    } else if (number % units.spans >= spans.first && number % units.spans <= spans.last) {
      detail::load_queries<W>(shape, tile, rows);
      detail::attend_span<W>(shape, tile, kv, number % units.spans);
      detail::save(tile, partials + (size_t)ticket * plan.stride);
    }
  }
  if (!plan.split) return;

  worker.barrier();
  detail::Units joined{shape, batch, plan};
  for (int unit = worker.next();; unit = worker.next()) {
    while (unit >= joined.end && joined.next()) continue;
    if (joined.sequence == batch.sequences) break;
    const detail::Rows rows = rows_from(joined.set(unit - joined.first, tile));
    const detail::SpanRange spans = detail::spans_of(shape, tile);
    if (spans.first == spans.last) continue;
    const int ticket = joined.first_ticket + (unit - joined.first) * joined.spans;
    detail::clear(tile, tile.all);
    for (int span = spans.first; span <= spans.last; span++) {
      detail::add_span(tile, detail::saved(tile, partials + (size_t)(ticket + span) * plan.stride));
    }
    detail::write_out(shape, tile, tile.all, rows);
  }
}

}  // namespace bossa
