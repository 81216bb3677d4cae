"""``bossa.load``: a program file and weights into a language model that runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from bossa.checks.arguments import boolean, choice, described, function, path, refuse, whole
from bossa.errors import AdapterError, RequestError, TokenizerError, WeightsError
from bossa.generation_config import read_token_ids
from bossa.pef import Manifest, Pef
from bossa.pef.manifest import MOST_SEQUENCES
from bossa.runtime.threads import chosen_threads

if TYPE_CHECKING:
    from bossa.adapters import MatchedAdapter
    from bossa.ir.slot import Slot
    from bossa.language_model import LanguageModel
    from bossa.targets.cpu.loader import Library
    from bossa.tokenizer import Tokenizer
    from bossa.weights.bind import BoundWeights, Progress
    from bossa.weights.source import WeightSource

T = TypeVar("T")
Location = str | PathLike[str]


def load(
    pef: Location | Pef,
    *,
    weights: Location | None = None,
    checkpoint: Location | WeightSource | None = None,
    adapter: Location | None = None,
    threads: int | None = None,
    cpus: Sequence[int] | None = None,
    memory: int | None = None,
    max_seq_length: int | None = None,
    batch_size: int | None = None,
    tokenizer: Location | None = None,
    cache_dir: Location | None = None,
    rebuild: bool = False,
    generation_config: Literal["model", "none"] = "model",
    progress: Progress | None = None,
) -> LanguageModel:
    """Load a program file and bind weights to it.

    Args:
        pef: the file's path, or a `Pef`.
        weights: a model directory, a weights file or a name on the hub, for a file that has no weights in it; its
            tokenizer is used where the file has none.
        checkpoint: weights to use instead: safetensors, single or sharded, or a torch state dict; or a source of
            tensors, which is packed anew each time.
        adapter: the folder of a LoRA adapter in PEFT's format, which runs beside the weights as they are; for a file
            that was compiled to take adapters.
        threads: to compute with; by default one for each core that this process may use, its container's quota
            included, or fewer where `OMP_NUM_THREADS` says so.
        cpus: numbers of CPUs to keep one thread on each, instead of as many threads as the system likes to move about.
        memory: bytes that loading may add to the packed weights, for keys and values, activations and logits; by
            default enough for `batch_size` sequences of the full length, or half of the memory that is free to this
            process, its container's limit included, if that is less.
        max_seq_length: the longest sequence, at most what the file was compiled for.
        batch_size: the most sequences at once; the file's own by default.
        tokenizer: a directory with a tokenizer, instead of the file's.
        cache_dir: where models from the hub are kept.
        rebuild: compile the native code anew from the row program in the file, and leave the libraries in it alone.
        generation_config: "model" follows the model's own `generation_config.json` as transformers does, wherever a
            call does not say otherwise; "none" does not. End tokens are taken from it in any case.
        progress: called as weights are packed.

    Raises:
        PefError: the file is damaged, missing or for another machine.
        ModelError: there are no such weights, or the file's token ids are none.
        WeightsError: there are no weights, or they do not fit the program.
        AdapterError: the adapter cannot be read, is of a kind that is not supported, or does not fit the program.
        TokenizerError: the tokenizer cannot be read.
        RequestError: a setting is out of range.
        ToolchainError: `rebuild` found no C++ compiler, or it failed.
    """
    given = (("weights", weights), ("adapter", adapter), ("tokenizer", tokenizer), ("cache_dir", cache_dir))
    weights, adapter, tokenizer, cache_dir = (None if value is None else path(name, value) for name, value in given)
    checkpoint = _checkpoint(checkpoint)
    threads, chosen_cpus = chosen_threads(threads, cpus)
    memory = None if memory is None else whole("memory", memory, 0, expected="a whole number of bytes")
    batch_size = None if batch_size is None else whole("batch_size", batch_size, 1, MOST_SEQUENCES)
    if max_seq_length is not None:
        max_seq_length = whole("max_seq_length", max_seq_length)
    boolean("rebuild", rebuild)
    choice("generation_config", generation_config, ("model", "none"), expected='"model" or "none"')
    function("progress", progress)
    program_file = pef if isinstance(pef, Pef) else Pef.open(path("pef", pef))
    if adapter is not None and not program_file.manifest.adapters:
        raise AdapterError(
            f"{program_file.where}: takes no adapters: compile the model again with --adapters (in Python"
            " adapters=True)"
        )
    sequences, length = _limits(program_file.manifest, batch_size, max_seq_length)
    if rebuild:
        from bossa.targets.cpu.assemble import rebuild as build_anew

        program_file = build_anew(program_file)
    from bossa.runtime.program import LoadedProgram, open_library

    _, library = open_library(program_file)  # before weights are read, in case the file is not for this CPU
    place = (
        _find(weights, cache_dir) if weights is not None and _is_needed(program_file, checkpoint, tokenizer) else None
    )
    # Built beside the rest, most of whose time is spent outside the interpreter.
    chosen = _Later(lambda: _tokenizer(program_file, tokenizer, place))
    try:
        from bossa.ir.slot import Slot
        from bossa.language_model import LanguageModel
        from bossa.runtime.memory import fit
        from bossa.weights.bind import blob_layout

        slots = [Slot.from_json(dict(slot)) for slot in program_file.manifest.slots]
        adapted = None if adapter is None else _adapter(adapter, slots)
        beside = blob_layout(slots)[1] + (0 if adapted is None else adapted.nbytes)
        room = fit(program_file.manifest, sequences, length, memory, beside)
        bound = _bind(program_file, slots, library, place, checkpoint, cache_dir, progress)
        try:
            program = LoadedProgram(
                program_file,
                bound,
                threads=threads,
                cpus=chosen_cpus or None,
                pages=room.pages,
                max_rows=room.max_rows,
                state_slots=room.state_slots,
                adapter=adapted,
            )
        except BaseException:
            bound.close()
            raise
    except BaseException:
        chosen.forget()
        raise
    try:
        config, generation = program_file.config(), program_file.generation_config()
        return LanguageModel(
            program,
            chosen.get(),
            config=config,
            generation_config=generation,
            follow_generation_config=generation_config == "model",
            eos_token_ids=_eos(generation, config, chosen.get(), program_file.where),
            batch_size=sequences,
            max_seq_length=length,
        )
    except BaseException:
        program.close()
        raise


def _limits(manifest: Manifest, batch_size: int | None, max_seq_length: int | None) -> tuple[int, int]:
    """Sequences at once and the longest sequence: what is asked, else the file's own."""
    sequences = manifest.batch_size if batch_size is None else batch_size
    length = manifest.max_seq_length
    if max_seq_length is None or max_seq_length == -1:
        return sequences, length
    if not 1 <= max_seq_length <= length:
        raise RequestError(f"max_seq_length is {described(max_seq_length)}; this program runs 1 to {length} tokens")
    return sequences, max_seq_length


def _checkpoint(given: object) -> str | WeightSource | None:
    """The argument of that name, checked."""
    if given is None or not isinstance(given, str | bytes | PathLike):
        missing = [name for name in ("names", "shape", "dtype", "read", "identity") if not hasattr(given, name)]
        if given is not None and missing:
            refuse("checkpoint", "a path or a source of tensors", given)
        return cast("WeightSource | None", given)
    return path("checkpoint", given)


def _is_needed(pef: Pef, checkpoint: Location | WeightSource | None, tokenizer: Location | None) -> bool:
    """Whether anything is to come from the model: its weights, or its tokenizer."""
    has_tokenizer = tokenizer is not None or any(name.startswith("tokenizer/") for name in pef.names())
    return not has_tokenizer or (checkpoint is None and pef.weights() is None)


def _find(weights: Location, cache_dir: Location | None) -> Path:
    """Where the weights lie on this machine, fetched from the hub if they are nowhere else."""
    place = Path(weights)
    if os.path.exists(place):  # False too for what cannot be a path, where Path.exists raises
        return place
    from bossa.weights.hub import find_model

    return find_model(str(weights), cache_dir)


def _bind(
    pef: Pef,
    slots: Sequence[Slot],
    library: Library,
    weights: Path | None,
    checkpoint: Location | WeightSource | None,
    cache_dir: Location | None,
    progress: Progress | None,
) -> BoundWeights:
    from bossa.weights.bind import bind, bind_blob

    bundled = pef.weights()
    given = checkpoint or weights
    if checkpoint is None and bundled is not None:
        return bind_blob(slots, bundled)
    if given is None:
        raise WeightsError(
            f"{pef.where}: has no weights in it: pass --model_name_or_path or --checkpoint_name (in Python weights"
            " or checkpoint), or compile with --bundle"
        )
    from bossa.targets.cpu.packing import packer_of
    from bossa.weights.cache import WeightCache
    from bossa.weights.open import open_weights

    if isinstance(given, (str, PathLike)):
        source, cache = open_weights(given, cache_dir=cache_dir), WeightCache()
    else:  # a source of tensors that nothing tells from another
        source, cache = given, None
    return bind(
        slots,
        source,
        ignored=pef.manifest.ignored_tensors,
        cache=cache,
        progress=progress,
        packer=packer_of(library),
    )


def _adapter(folder: Location, slots: Sequence[Slot]) -> MatchedAdapter:
    """What the adapter in a folder has beside the program's weights."""
    from bossa.adapters import match, read

    return match(read(folder), slots)


def _tokenizer(pef: Pef, tokenizer: Location | None, weights: Path | None) -> Tokenizer | None:
    """The one that is named, the file's own, or the one beside the weights; None where there is none."""
    from bossa.tokenizer import Tokenizer

    if tokenizer is not None:
        return Tokenizer.from_directory(Path(tokenizer))
    files = pef.tokenizer_files()
    if files:
        return Tokenizer.from_files(files, pef.where)
    if weights is not None:
        try:
            return Tokenizer.from_directory(weights if os.path.isdir(weights) else weights.parent)
        except TokenizerError:
            return None
    return None


class _Later(Generic[T]):
    """What a thread of its own makes."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="bossa-tokenizer")
        try:
            self._thread.start()
        except RuntimeError:  # the system starts no more threads
            self._thread = None
            self._run()

    def _run(self) -> None:
        try:
            self._made.append(self._make())
        except BaseException as error:
            self._error = error

    def get(self) -> T:
        """It, or the error that it ended with."""
        self.forget()
        if self._error is not None:
            raise self._error
        return self._made[0]

    def forget(self) -> None:
        """Wait until it is made, and let go of it."""
        if self._thread is not None:
            self._thread.join()


def _eos(generation: dict[str, Any], config: dict[str, Any], tokenizer: Tokenizer | None, where: str) -> Iterable[int]:
    """The tokens that end a sequence: as generation is configured, else the model, else the tokenizer."""
    for settings, name in ((generation, "generation_config.json"), (config, "config.json")):
        if settings.get("eos_token_id") is not None:
            return read_token_ids(settings, "eos_token_id", f"{where}: {name}")
    last = None if tokenizer is None else tokenizer.eos_token_id
    return () if last is None else (last,)
