"""The C++ file of a plan: one function a section, and the step that runs them in order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from bossa.errors import ProgramError
from bossa.formats.format import Layout
from bossa.formats.registry import FORMATS
from bossa.ir.program import Loop, Program, row_ops, weights_of
from bossa.ir.text import show
from bossa.pef.signature import signature
from bossa.targets.cpu.emit.attention import KV_TYPES
from bossa.targets.cpu.emit.kinds import emitter_of
from bossa.targets.cpu.emit.names import Identifiers, Names, Weights, comment
from bossa.targets.cpu.emit.row_section import write_rows
from bossa.targets.cpu.layout import PAGE, Plan
from bossa.targets.cpu.sections import Repeat, Rows, Section, Single, Store, fusion_groups, ops_of

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
        for group in fusion_groups(sections, program.output):
            for section in group:
                if isinstance(section, Repeat):
                    functions.append(_slot_table(section, slot_index))
                    write(section.sections, section.loop)
                else:
                    functions.append(_function(section, Names(plan, identifiers, weights, section.selected)))
                    written += len(functions[-1])
                    if written > LARGEST:
                        raise ProgramError(f"{program.name}: its source would be longer than {LARGEST >> 20} MiB")
            if len(group) > 1:
                functions.append(_fusion_group(group, in_loop=loop is not None))

    write(plan.sections, None)
    layers = sum(spec.kind == "paged" for spec in plan.state_specs)
    return "\n".join([
        comment(f"{program.name}, compiled by Bossa: vocabulary {program.vocab_size}, {layers} attention layers,"),
        f"// sequences up to {program.max_seq_length} tokens. A step runs packed rows of any number of sequences.",
        '#include "abi.h"',
        '#include "attention.h"',
        *dict.fromkeys(f'#include "{FORMATS[name].header}"' for name in _stored(plan)),
        '#include "linear.h"',
        '#include "math.h"',
        '#include "pack.h"',
        '#include "program.h"',
        *(['#include "quantized.h"'] if plan.quantized else []),
        '#include "rows.h"',
        *(f'#include "{header}"' for header in _headers(program)),
        "",
        "namespace {",
        "",
        "using namespace bossa;",
        "",
        f"constexpr int kVocabulary = {program.vocab_size};",
        f'constexpr const char* kSignature = "{signature(plan.layout())}";  // of the memory layout in the manifest',
        f"using Kv = {KV_TYPES[plan.kv_precision]};  // keys and values as they are stored",
        f"constexpr size_t kPageBytes = {plan.page_bytes};  // of {PAGE} positions, all layers",
        *([f"constexpr size_t kStateBytes = {plan.state_bytes};  // of a sequence's slot"] if plan.state_bytes else []),
        *_sizes(plan),
        *functions,
        _run(plan),
        "}  // namespace",
        "",
        _EXPORTS.replace("PANELS", _types(plan, "panels")).replace("TABLES", _types(plan, "rows")),
        *([_ADAPT] if plan.takes_adapters else []),
    ])  # fmt: skip


def _headers(program: Program) -> list[str]:
    """Headers of kernels that only some programs need."""
    headers = (emitter_of(op).header(op) for op in row_ops(program))
    return sorted({header for header in headers if header is not None})


def _sizes(plan: Plan) -> list[str]:
    """The `Sizes` of `program.h`."""
    room, fused, floats = [], "0", "0"
    if plan.quantized:
        size = plan.quantized_bytes_per_row
        room = [f"constexpr size_t kQuantizedBytes = {size};  // a row as integers, for one linear"]
        fused, floats = "kFusedRoom * kQuantizedBytes", "kQuantizedBytes / 4 * (size_t)quantized_rows(rows, workers)"
    return [
        *room,
        *(f"static_assert({FORMATS[dtype].cpp}::row_bytes({k}) <= kQuantizedBytes);" for dtype, k in plan.quantized),
        "",
        "struct Sizes {",
        f"  static constexpr int slots = {len(plan.program.slots)};",
        f"  static constexpr size_t arena_floats = {plan.floats_per_row};  // activations of one row",
        f"  static constexpr bool finds_best = {str(plan.finds_best).lower()};",
        f"  static constexpr size_t fused_bytes = {fused};",
        "  static size_t quantized_floats([[maybe_unused]] int rows, [[maybe_unused]] int workers) {",
        f"    return {floats};",
        "  }",
        "};",
        "",
        "using Program = LoadedProgram<Sizes>;",
        "",
    ]


def _stored(plan: Plan, *layouts: Layout) -> list[str]:
    """The formats of the program's weights, or of those that have one of these layouts."""
    slots = plan.program.slots.values()
    stored = {slot.dtype for slot in slots if not layouts or slot.layout in layouts}
    return [name for name in FORMATS if name in stored]


def _types(plan: Plan, layout: Layout) -> str:
    """The types of the formats that have this layout in the program."""
    return ", ".join(FORMATS[name].cpp for name in _stored(plan, layout))


_EXPORTS = """extern "C" int32_t bossa_abi(void) { return BOSSA_ABI; }

extern "C" const char* bossa_signature(void) { return kSignature; }

extern "C" int32_t bossa_finds_best(void) { return Sizes::finds_best; }

extern "C" const char* bossa_pack(const void* source, const char* stored, int64_t row_stride, int64_t k_stride,
                                  int64_t rows, int64_t K, const char* format, int64_t first, int64_t panel_step,
                                  void* panels) {
  return pack<PANELS>(source, stored, row_stride, k_stride, rows, K, format, first, panel_step, panels);
}

extern "C" const char* bossa_pack_table(const void* source, const char* stored, int64_t row_stride, int64_t k_stride,
                                        int64_t rows, int64_t K, const char* format, int64_t first, int64_t height,
                                        void* table) {
  return pack_table<TABLES>(source, stored, row_stride, k_stride, rows, K, format, first, height, table);
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
"""

_ADAPT = """extern "C" void bossa_adapt(void* program, const bossa_adapters* adapters) {
  ((Program*)program)->adapters = adapters;
}
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


def _fusion_group(sections: Sequence[Section], *, in_loop: bool) -> str:
    """The function that runs the sections of a group, with a barrier after each."""
    more, arguments = (", const int* slots, int i", ", slots, i") if in_loop else ("", "")
    calls = [line for section in sections for line in (f"  {section.name}(p, w{arguments});", "  w.barrier();")]
    return "\n".join([f"void {_group_name(sections)}(Part& p, Worker& w{more}) {{", *calls, "}\n"])


def _group_name(sections: Sequence[Section]) -> str:
    return f"from_{sections[0].name}"


def _calls(plan: Plan, sections: Iterable[Section], arguments: str) -> Iterator[str]:
    """What runs sections in order, with a barrier after each or, where blocks of rows go through them, the last."""
    for group in fusion_groups(sections, plan.program.output):
        if len(group) == 1:
            yield from (f"{group[0].name}(p, w{arguments});", "w.barrier();")
        else:
            call = f"{_group_name(group)}(part, worker{arguments});"
            yield f"p.run_fused(w, [&](Part& part, Worker& worker) {{ {call} }});"


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
        "// One step, on every worker. A barrier follows each section, or each group of them.",
        "void run(Worker& w, void* arg) {",
        "  Program& p = *(Program*)arg;",
    ]
    selecting = False
    for group in fusion_groups(plan.sections, plan.program.output):
        section = group[0]
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
        lines += [f"  {line}" for line in _calls(plan, group, "")]
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
