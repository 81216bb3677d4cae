"""Matching the tensors that a program asks for with the names that a checkpoint gives them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bossa.errors import WeightsError, shown
from bossa.ir.slot import Slot, Source
from bossa.weights.kinds import describe_names
from bossa.weights.source import MAX_TENSORS

WRAPPERS = (
    *("module", "_module", "_forward_module", "_orig_mod", "_dp_wrapped_module", "_fpw_module"),
    *("_fsdp_wrapped_module", "_checkpoint_wrapped_module"),
)
"""Components that a wrapper of a module puts into the names of what it wraps: those of data parallelism, torch.compile,
checkpointed activations and trainers."""
COMPONENT = re.compile(r"[A-Za-z0-9_-]+\Z")
LONGEST_SHOWN = 120
SHOWN = 8
"""Names that a message lists before it says how many more there are."""
CANDIDATES = 12
"""Prefixes that are tried on either side; the ones that the most names share."""
SAMPLE = 500
"""Names on which the prefixes are tried first; those that fit half as many as the best does are tried on all."""
NEARLY_ALL = 0.9
"""The share of the sources that each of two prefixes must find for the checkpoint to hold two models."""
DEPTH = 5
"""Components that a prefix may have."""
MOSTLY = 0.5
"""The share of the found names that a renaming must change: a few that it makes fit are others that look alike."""


@dataclass(frozen=True)
class Renaming:
    """One rule for every name: take ``strip`` off its front if it is there, then put ``add`` before it.

    The second half is skipped for names that are wanted without it, as a head beside a base model is.
    """

    strip: str = ""
    add: str = ""

    def __call__(self, name: str, wanted: Mapping[str, object]) -> str:
        bare = name.removeprefix(self.strip)
        return self.add + bare if self.add + bare in wanted else bare

    @property
    def length(self) -> int:
        return self.strip.count(".") + self.add.count(".")


@dataclass(frozen=True)
class Match:
    """The checkpoint's name for each source, by the source's first name; and its other names for tied weights."""

    names: dict[str, str]
    tied: dict[str, tuple[str, ...]]


def match(
    slots: Sequence[Slot],
    names: Sequence[str],
    shape: Callable[[str], tuple[int, ...]],
    where: str,
    ignored: Iterable[str] = (),
) -> Match:
    """Finds the tensor of every source of every slot.

    Args:
        names: what the checkpoint holds.
        shape: the shape of one of them.
        where: the checkpoint's path, for messages.
        ignored: regular expressions of tensors that may be there unused.

    Raises:
        WeightsError: tensors are missing or have another shape, the checkpoint holds others that are not ignored,
            or more than one renaming fits.
    """
    if len(names) > MAX_TENSORS:
        raise WeightsError(f"{where}: has {len(names):,} tensors, and no more than {MAX_TENSORS:,} are read")
    sources = {source.names[0]: source for slot in slots for source in slot.sources}
    wanted = {name: source for source in sources.values() for name in source.names}
    held = set(names)
    exact = all(any(name in held for name in source.names) for source in sources.values())
    bare = list(names) if exact else _unwrapped(names, wanted)
    renaming = Renaming() if exact else _choose(sources, wanted, bare, where)
    homes: dict[str, str] = {}
    for name, inner in zip(names, bare, strict=True):
        target = renaming(inner, wanted)
        if target in wanted:
            if target in homes:
                raise WeightsError(
                    f"{where}: both {homes[target]!r} and {name!r} could be {target!r}: remove one of them"
                )
            homes[target] = name
    found = {first: _found(source, homes) for first, source in sources.items()}
    missing = [first for first, held_names in found.items() if not held_names]
    misshaped = [
        f"{shown(held_names[0])} {list(shape(held_names[0]))} instead of {list(sources[first].shape)}"
        for first, held_names in found.items()
        if held_names and tuple(shape(held_names[0])) != sources[first].shape
    ]
    unexpected = _unexpected(names, bare, homes, renaming, wanted, list(ignored), where)
    if missing or misshaped or unexpected:
        used = set(homes.values())
        if (what := describe_names(name for name in names if name not in used)) is not None:
            raise WeightsError(f"{where}: {what}")
    _report(missing, misshaped, unexpected, len(sources), where)
    return Match(
        {first: held_names[0] for first, held_names in found.items()},
        {first: held_names[1:] for first, held_names in found.items()},
    )


def _unwrapped(names: Sequence[str], wanted: Iterable[str]) -> list[str]:
    """The names without the components that wrappers put there, but for those that the model itself has."""
    own = {part for name in wanted for part in name.split(".")}
    wrappers = "|".join(wrapper for wrapper in WRAPPERS if wrapper not in own)
    pattern = re.compile(rf"(?<![^.])(?:{wrappers})\.")
    return [pattern.sub("", name) for name in names] if wrappers else list(names)


def _found(source: Source, homes: Mapping[str, str]) -> tuple[str, ...]:
    """The checkpoint's tensors for a source: its own name first, then those it is tied to."""
    return tuple(dict.fromkeys(homes[name] for name in source.names if name in homes))


def _choose(sources: Mapping[str, Source], wanted: Mapping[str, Source], names: Sequence[str], where: str) -> Renaming:
    """The renaming under which the most sources are found; none where no prefix finds half of them.

    A change of prefix that finds only a few is a coincidence of last components, such as ``weight``.
    """
    plain = Renaming()
    rules = [Renaming(strip, add) for strip in _prefixes(names) for add in _prefixes(wanted)]
    sample = names[:: -(-len(names) // SAMPLE)] if names else []
    rough = [sum(rule(name, wanted) in wanted for name in sample) for rule in rules]
    likely = [rule for rule, count in zip(rules, rough, strict=True) if 2 * count >= max(rough, default=0)]
    likely = [rule for rule in likely if rule == plain or _changes_most(rule, wanted, names)]
    scored = [(_score(rule, sources, wanted, names), rule) for rule in likely]
    best = max((score for score, _ in scored), default=0)
    if 2 * best < len(sources) or best == _score(plain, sources, wanted, names):
        return plain
    top = sorted((rule for score, rule in scored if score == best), key=lambda rule: rule.length)
    if best < NEARLY_ALL * len(sources):
        return top[0]
    chosen = _mapping(top[0], wanted, names)
    for other in top[1:]:
        mapping = _mapping(other, wanted, names)
        for target in sorted(chosen.keys() & mapping.keys()):
            if chosen[target] != mapping[target]:
                raise WeightsError(
                    f"{where}: holds more than one model: both {chosen[target]!r} and {mapping[target]!r} could be"
                    f" {target!r}: save one of them alone"
                )
    return top[0]


def _changes_most(rule: Renaming, wanted: Mapping[str, Source], names: Sequence[str]) -> bool:
    pairs = [(name, target) for name in names if (target := rule(name, wanted)) in wanted]
    return sum(name != target for name, target in pairs) >= MOSTLY * len(pairs)


def _mapping(rule: Renaming, wanted: Mapping[str, Source], names: Sequence[str]) -> dict[str, str]:
    return {target: name for name in names if (target := rule(name, wanted)) in wanted}


def _score(rule: Renaming, sources: Mapping[str, Source], wanted: Mapping[str, Source], names: Sequence[str]) -> int:
    found = _mapping(rule, wanted, names)
    return sum(1 for source in sources.values() if any(name in found for name in source.names))


def _prefixes(names: Iterable[str]) -> list[str]:
    """The empty prefix, and the dotted prefixes that the most names share; none reaches into a numbered layer."""
    counts: Counter[str] = Counter()
    for name in names:
        prefix = ""
        for part in name.split(".")[:-1][:DEPTH]:
            if part.isdigit() or not COMPONENT.match(part):
                break
            prefix += part + "."
            counts[prefix] += 1
    return ["", *(prefix for prefix, _ in counts.most_common(CANDIDATES))]


def _unexpected(
    names: Sequence[str],
    bare: Sequence[str],
    homes: Mapping[str, str],
    renaming: Renaming,
    wanted: Mapping[str, Source],
    ignored: Sequence[str],
    where: str,
) -> list[str]:
    used = set(homes.values())
    if used.issuperset(names):
        return []
    from bossa.checks.patterns import PatternError, Patterns  # many checkpoints hold what is asked for and no more

    unexpected = []
    try:
        patterns = Patterns(ignored)
        for name, inner in zip(names, bare, strict=True):
            if name in used:
                continue
            renamed = renaming(inner, wanted)
            spellings = dict.fromkeys((name, inner, renamed, renaming.add + renamed))
            if not any(patterns.search(spelling) for spelling in spellings):
                unexpected.append(name)
    except PatternError as error:
        raise WeightsError(
            f"{where}: the program's expressions for tensors to ignore are not matched ({error}): compile the model"
            " again"
        ) from None
    return unexpected


def _report(
    missing: Sequence[str], misshaped: Sequence[str], unexpected: Sequence[str], total: int, where: str
) -> None:
    if not (missing or misshaped or unexpected):
        return
    if len(missing) * 2 > total:
        raise WeightsError(
            f"{where}: these look like the weights of another architecture: {len(missing)} of {total} tensors are"
            f" missing ({listed(missing)}): pass weights of the model that was compiled"
        )
    parts = []
    if missing:
        parts.append(f"missing: {listed(missing)}")
    if misshaped:
        parts.append(f"of another shape: {listed(misshaped)}")
    if unexpected:
        parts.append(f"not part of the program: {listed(unexpected)}")
    raise WeightsError(f"{where}: tensors {'; '.join(parts)}: pass weights of the model that was compiled")


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(_cut(shown(name)) for name in names[:SHOWN]) + more


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_SHOWN else name[: LONGEST_SHOWN - 1] + "…"
