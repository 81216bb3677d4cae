"""The C++ file of a plan: one function a section, and the step that runs them in order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from bossa.errors import ProgramError
from bossa.ir.program import Loop, Program, row_ops, weights_of
from bossa.ir.text import show
from bossa.pef.signature import signature
from bossa.targets.cpu.emit.attention import KV_TYPES
from bossa.targets.cpu.emit.kinds import emitter_of
from bossa.targets.cpu.emit.names import TYPES, Identifiers, Names, Weights, comment
from bossa.targets.cpu.emit.row_section import write_rows
from bossa.targets.cpu.layout import PAGE, Plan
from bossa.targets.cpu.sections import Repeat, Rows, Section, Single, Store, ops_of, stretches

LARGEST = 8 << 20
"""Letters of a program's source. That of GPT-2 small has 60,000; compilers take minutes for this much."""


def generate(plan: Plan) -> str:
    """The program's source. It needs only the kernel headers and a C++17 compiler.

    Nothing of the program's text is in it but numbers, and names in comments, made harmless (`names.comment`).

    Raises:
        ProgramError: it would be too long.
    """
    program = plan.program
    slot_index = {name: i for i, name in enumerate(program.slots)}
    identifiers = Identifiers(program)
    functions: list[str] = []
    written = 0

    def write(sections: tuple[Section, ...], loop: Loop | None) -> None:
        nonlocal written
        weights = Weights(program, loop)
        for stretch in stretches(sections, program.output):
            for section in stretch:
                if isinstance(section, Repeat):
                    functions.append(_slot_table(section, slot_index))
                    write(section.sections, section.loop)
                else:
                    functions.append(_function(section, Names(plan, identifiers, weights, section.selected)))
                    written += len(functions[-1])
                    if written > LARGEST:
                        raise ProgramError(f"{program.name}: its source would be longer than {LARGEST >> 20} MiB")
            if len(stretch) > 1:
                functions.append(_stretch(stretch, in_loop=loop is not None))

    write(plan.sections, None)
    layers = sum(spec.kind == "paged" for spec in plan.state_specs)
    return "\n".join([
        comment(f"{program.name}, compiled by Bossa: vocabulary {program.vocab_size}, {layers} attention layers,"),
        f"// sequences up to {program.max_seq_length} tokens. A step runs packed rows of any number of sequences.",
        "#include <new>",
        "#include <stdlib.h>",
        "",
        '#include "abi.h"',
        '#include "attention.h"',
        *(['#include "argmax.h"', '#include "decoding.h"'] if plan.finds_best else []),
        '#include "linear.h"',
        '#include "math.h"',
        '#include "pack.h"',
        *(['#include "quantized.h"'] if plan.quantized else []),
        '#include "rows.h"',
        *(f'#include "{header}"' for header in _headers(program)),
        '#include "team.h"',
        '#include "walk.h"',
        "",
        "namespace {",
        "",
        "using namespace bossa;",
        "",
        f"constexpr int kVocabulary = {program.vocab_size};",
        f'constexpr const char* kSignature = "{signature(plan.layout())}";  // of the memory layout in the manifest',
        f"using Kv = {KV_TYPES[plan.kv_precision]};  // keys and values as they are stored",
        f"constexpr size_t kPageBytes = {plan.page_bytes};  // of {PAGE} positions, all layers",
        f"constexpr size_t kArenaFloats = {plan.floats_per_row};  // activations of one row",
        *([f"constexpr size_t kStateBytes = {plan.state_bytes};  // of a sequence's slot"] if plan.state_bytes else []),
        *_quantized_sizes(plan),
        "",
        _used(_PROGRAM, plan),
        *functions,
        _run(plan),
        _DECODE if plan.finds_best else _DECODE_NONE,
        _used(_EXPORTS, plan),
    ])  # fmt: skip


def _headers(program: Program) -> list[str]:
    """Headers of kernels that only some programs need."""
    headers = (emitter_of(op).header for op in row_ops(program))
    return sorted({header for header in headers if header is not None})


def _quantized_sizes(plan: Plan) -> list[str]:
    if not plan.quantized:
        return []
    return [
        f"constexpr size_t kQuantizedBytes = {plan.quantized_bytes_per_row};  // a row as integers, for one linear",
        *(f"static_assert({TYPES[dtype]}::row_bytes({k}) <= kQuantizedBytes);" for dtype, k in plan.quantized),
    ]


def _used(text: str, plan: Plan) -> str:
    """The text without the lines about what the plan does not use."""
    unused = [word for word, used in (("quantized", plan.quantized), ("bests", plan.finds_best)) if not used]
    text = text.replace("kFindsBest", str(int(plan.finds_best)))
    return "\n".join(line for line in text.split("\n") if not any(word in line for word in unused))


_PROGRAM = """// What a section needs, for all rows of a step or for some that lie side by side.
struct Part {
  int max_rows;
  const void** slots;      // packed weights, in the order of the manifest
  const float* constants;  // position tables
  void* kv;
  float* arena;            // [kArenaFloats][max_rows], each value's rows together
  char* quantized;         // the activations that a linear reads, as integers
  float* partials;         // of attention
  int* sequence_of;        // [max_rows]
  Best* bests;             // [workers][max_rows]
  const bossa_step* step;
  int first;               // the row of the arena that is the first one of the step
};

struct Program : Part {
  Team team;
  Decoding* decoding;      // steps that follow each other, each from the bests of the one before
  bool decodes;            // whether another one follows, from these bests

  explicit Program(int threads) : team(threads) {}

  // Whether a step fits; it is then the one that runs.
  bool takes(const bossa_step* next) {
    if (next->rows < 1 || next->rows > max_rows || next->logit_count > max_rows) return false;
    for (int s = 0; s < next->sequences; s++) {
      for (int t = next->starts[s]; t < next->starts[s + 1]; t++) sequence_of[t] = s;
    }
    step = next;
    return true;
  }
};

// Row `t` of the arena value at `offset` with `stride` floats a row.
inline float* row(Part& p, size_t offset, size_t stride, int t) {
  return p.arena + offset * (size_t)p.max_rows + stride * (size_t)(p.first + t);
}

template <class T>
inline const T* slot(Part& p, int index) {
  return (const T*)p.slots[index];
}

inline float* floats(size_t count) {
  void* memory = nullptr;
  return posix_memalign(&memory, 64, sizeof(float) * count) == 0 ? (float*)memory : nullptr;
}

inline const int32_t* block_table(Part& p, int t) {
  return p.step->block_tables + (size_t)p.sequence_of[t] * (size_t)p.step->max_blocks;
}

inline Batch batch_of(const bossa_step& s) {
  return {s.rows, s.sequences, s.max_blocks, s.positions, s.starts, s.block_tables};
}

// Sections that need nothing of other rows: run with all of them, or block by block.
template <class Sections>
inline void run_stretch(Program& p, Worker& w, Sections&& sections) {
  const int rows = p.step->rows;
  if (!walks(rows, w.count)) {
    sections(p, w);
    return;
  }
  walk(w, rows, [&](Worker& alone, Share of) {
    bossa_step step = *p.step;
    step.rows = of.end - of.begin;
    step.tokens += of.begin;
    step.positions += of.begin;
    Part block = p;
    block.step = &step;
    block.sequence_of += of.begin;
    block.quantized += (size_t)w.id * kWalkedRoom * kQuantizedBytes;
    block.first = of.begin;
    sections(block, alone);
  });
  w.barrier();
}
"""

_EXPORTS = """extern "C" int32_t bossa_abi(void) { return BOSSA_ABI; }

extern "C" const char* bossa_signature(void) { return kSignature; }

extern "C" int32_t bossa_finds_best(void) { return kFindsBest; }

extern "C" int32_t bossa_pack(const void* source, int32_t stored, int64_t row_stride, int64_t step_stride, int64_t rows,
                              int64_t K, int32_t format, int64_t first, int64_t panel_step, void* panels) {
  return pack(source, stored, row_stride, step_stride, rows, K, format, first, panel_step, panels);
}

extern "C" int32_t bossa_pin(void* program, const int32_t* cpus, int32_t count) {
  return ((Program*)program)->team.pin(cpus, count) ? 0 : 1;
}

extern "C" void bossa_close(void* program) {
  Program* p = (Program*)program;
  if (p == nullptr) return;
  free(p->slots);
  free(p->arena);
  free(p->quantized);
  free(p->bests);
  free(p->partials);
  free(p->sequence_of);
  p->~Program();
  free(p);
}

extern "C" void* bossa_open(int32_t threads, int32_t max_rows, const void* const* slots, const float* constants,
                            void* kv) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, sizeof(Program)) != 0) return nullptr;
  Program* p = new (memory) Program(threads);
  p->max_rows = max_rows;
  p->first = 0;
  p->constants = constants;
  p->kv = kv;
  p->slots = (const void**)malloc(sizeof(void*) * (kSlots + 1));
  p->sequence_of = (int*)malloc(sizeof(int) * (size_t)max_rows);
  p->arena = floats((kArenaFloats + 16) * (size_t)max_rows);
  p->partials = floats(kPartialFloats);
  bool placed = p->team.whole && p->slots && p->sequence_of && p->arena && p->partials;
  p->quantized = (char*)floats(kQuantizedBytes / 4 * (size_t)quantized_rows(max_rows, p->team.count));
  placed = placed && p->quantized;
  p->bests = (Best*)malloc(sizeof(Best) * (size_t)p->team.count * (size_t)max_rows);
  placed = placed && p->bests;
  if (!placed) {
    bossa_close(p);
    return nullptr;
  }
  for (int i = 0; i < kSlots; i++) p->slots[i] = slots[i];
  return p;
}

extern "C" int32_t bossa_step_run(void* program, const bossa_step* step) {
  Program* p = (Program*)program;
  if (!p->takes(step)) return 1;
  return team_run(&p->team, run, p) ? 0 : 2;
}
"""

_DECODE = """// Steps of decoding, on every worker; the first one sees what they bring.
void run_decoding(Worker& w, void* arg) {
  Program& p = *(Program*)arg;
  do {
    run(w, arg);
    w.barrier();
    if (w.id == 0) p.decodes = p.decoding->advance();
    w.barrier();
  } while (p.decodes);
}

}  // namespace

extern "C" int32_t bossa_decode(void* program, const bossa_decoding* asked) {
  Program* p = (Program*)program;
  Decoding decoding(*asked);
  if (!p->takes(&decoding.step)) return -1;
  p->decoding = &decoding;
  return team_run(&p->team, run_decoding, p) ? decoding.ran : -2;
}
"""

_DECODE_NONE = """}  // namespace

extern "C" int32_t bossa_decode(void*, const bossa_decoding*) { return -1; }
"""


def _function(section: Rows | Single, names: Names) -> str:
    """The function of a section, its ops above it; in a loop it takes the iteration's slots and its number."""
    if isinstance(section, Rows):
        body = write_rows(names, section)
    else:
        body = emitter_of(section.op).write_section(names, section.op)
    ops = ops_of(section)
    comments = [comment(emitter_of(op.op).say_store(op.op) if isinstance(op, Store) else show(op)) for op in ops]
    extra = "" if names.loop is None else ", const int* slots, int i"
    unused = [name for name in ("slots", "i") if extra and not re.search(rf"\b{name}\b", "\n".join(body))]
    ignored = [f"  (void){name};" for name in unused]
    return "\n".join([*comments, f"void {section.name}(Part& p, Worker& w{extra}) {{", *ignored, *body, "}\n"])


def _stretch(sections: Sequence[Section], *, in_loop: bool) -> str:
    """The function that runs the sections of a stretch, with a barrier after each."""
    more, arguments = (", const int* slots, int i", ", slots, i") if in_loop else ("", "")
    calls = [line for section in sections for line in (f"  {section.name}(p, w{arguments});", "  w.barrier();")]
    return "\n".join([f"void {_stretch_name(sections)}(Part& p, Worker& w{more}) {{", *calls, "}\n"])


def _stretch_name(sections: Sequence[Section]) -> str:
    return f"from_{sections[0].name}"


def _calls(plan: Plan, sections: Iterable[Section], arguments: str) -> Iterator[str]:
    """What runs sections in order, with a barrier after each or, where blocks of rows walk through them, the last."""
    for stretch in stretches(sections, plan.program.output):
        if len(stretch) == 1:
            yield from (f"{stretch[0].name}(p, w{arguments});", "w.barrier();")
        else:
            call = f"{_stretch_name(stretch)}(part, worker{arguments});"
            yield f"run_stretch(p, w, [&](Part& part, Worker& worker) {{ {call} }});"


def _table_name(section: Repeat) -> str:
    return "k" + section.name.title().replace("_", "")


def _slot_table(section: Repeat, slot_index: dict[str, int]) -> str:
    """Which slot each weight of a loop's body is, iteration by iteration."""
    loop = section.loop
    formal = dict(loop.weights)
    names = weights_of(loop)
    lines = [
        *(comment(f"slots[{position}]: {name}") for position, name in enumerate(names)),
        f"constexpr int {_table_name(section)}[{loop.count}][{len(names) or 1}] = {{",
    ]
    for i in range(loop.count):
        slots = [slot_index[formal[name][i] if name in formal else name] for name in names]
        lines.append("    {" + ", ".join(str(slot) for slot in slots) + "},")
    return "\n".join([*lines, "};\n"])


def _copies(plan: Plan, loop: Loop, *, first: bool) -> list[str]:
    """What starts a loop (`first`) or ends an iteration: carried values that are not in place yet are copied."""
    lines: list[str] = []
    for carried in loop.carried:
        source = plan.places[carried.init if first else carried.step]
        target = plan.places[carried.inner.name]
        if source != target:
            lines += [
                "for (int t = share_of(w, p.step->rows).begin; t < share_of(w, p.step->rows).end; t++) {",
                f"  memcpy(row(p, {target.offset}, {target.stride}, t), row(p, {source.offset}, {source.stride}, t),",
                f"         {carried.inner.size} * sizeof(float));",
                "}",
                "w.barrier();",
            ]
    return lines


def _run(plan: Plan) -> str:
    lines = [
        f"constexpr int kSlots = {len(plan.program.slots)};",
        "",
        "// One step, on every worker. A barrier follows each section, or each stretch of them.",
        "void run(Worker& w, void* arg) {",
        "  Program& p = *(Program*)arg;",
    ]
    selecting = False
    for stretch in stretches(plan.sections, plan.program.output):
        section = stretch[0]
        if isinstance(section, Repeat):
            lines += [f"  {line}" for line in _copies(plan, section.loop, first=True)]
            lines.append(f"  for (int i = 0; i < {section.loop.count}; i++) {{")
            lines += [f"    {line}" for line in _calls(plan, section.sections, f", {_table_name(section)}[i], i")]
            lines += [f"    {line}" for line in _copies(plan, section.loop, first=False)]
            lines.append("  }")
            continue
        if section.selected and not selecting:
            selecting = True
            lines.append("  if (p.step->logit_count == 0) return;")
        lines += [f"  {line}" for line in _calls(plan, stretch, "")]
    if plan.finds_best:
        lines += [
            "  if (p.step->best == nullptr) return;",
            "  const Share share = share_of(w, p.step->logit_count);",
            "  for (int t = share.begin; t < share.end; t++) {",
            "    Best best = p.bests[t];",
            "    for (int id = 1; id < w.count; id++) best.join(p.bests[(size_t)id * (size_t)p.max_rows + (size_t)t]);",
            "    p.step->best[t] = best.result();",
            "  }",
        ]
    return "\n".join([*lines, "}\n"])
