"""``bossa.load``: a program file and weights into a language model that runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bossa.errors import RequestError, TokenizerError, WeightsError
from bossa.language_model import LanguageModel
from bossa.pef import Pef
from bossa.runtime.program import Program
from bossa.weights.bind import BoundWeights, Progress, bind, bind_blob
from bossa.weights.cache import WeightCache
from bossa.weights.slot import Slot
from bossa.weights.source import open_weights

if TYPE_CHECKING:
    from bossa.tokenizer import Tokenizer

ROWS_OF_A_STEP = 512
"""Packed rows of a step at most: long enough for full tiles, short enough that others need not wait."""


def load(
    pef: str | PathLike[str] | Pef,
    *,
    weights: str | PathLike[str] | None = None,
    checkpoint: str | PathLike[str] | None = None,
    threads: int | None = None,
    memory: int | None = None,
    max_seq_length: int | None = None,
    batch_size: int | None = None,
    tokenizer: str | PathLike[str] | None = None,
    cache_dir: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> LanguageModel:
    """Load a program file and bind weights to it.

    Args:
        pef: the file's path, or a `Pef`.
        weights: a model directory, a weights file or a name on the hub, for a file that has no weights in it; its
            tokenizer is used where the file has none.
        checkpoint: weights to use instead: safetensors, single or sharded, or a torch state dict.
        threads: to compute with; one a core by default.
        memory: bytes that keys and values may take; by default enough for `batch_size` sequences of the full
            length, or half of the memory that is free if that is less.
        max_seq_length: the longest sequence, at most what the file was compiled for.
        batch_size: the most sequences at once; the file's own by default.
        tokenizer: a directory with a tokenizer, instead of the file's.
        cache_dir: where models from the hub are kept.
        progress: called as weights are packed.

    Raises:
        PefError: the file is damaged, missing or for another machine.
        WeightsError: there are no weights, or they do not fit the program.
        RequestError: a setting is out of range.
    """
    program_file = pef if isinstance(pef, Pef) else Pef.open(pef)
    manifest = program_file.manifest
    sequences = manifest.batch_size if batch_size is None else batch_size
    if sequences < 1:
        raise RequestError(f"batch_size is {sequences}; it must be 1 or more")
    length = manifest.max_seq_length
    if max_seq_length not in (None, -1):
        assert max_seq_length is not None
        if not 1 <= max_seq_length <= length:
            raise RequestError(f"max_seq_length is {max_seq_length}; this program runs 1 to {length} tokens")
        length = max_seq_length
    chosen = _tokenizer(program_file, tokenizer, weights, cache_dir)
    bound = _bind(program_file, weights, checkpoint, cache_dir, progress)
    try:
        program = Program(
            program_file,
            bound,
            threads=threads,
            pages=_pages(manifest.page_bytes, manifest.page_size, sequences, length, memory),
            max_rows=max(ROWS_OF_A_STEP, sequences),
        )
    except BaseException:
        bound.close()
        raise
    config, generation = program_file.config(), program_file.generation_config()
    return LanguageModel(
        program,
        chosen,
        config=config,
        generation_config=generation,
        eos_token_ids=_eos(generation, config, chosen),
        batch_size=sequences,
        max_seq_length=length,
    )


def _bind(
    pef: Pef,
    weights: str | PathLike[str] | None,
    checkpoint: str | PathLike[str] | None,
    cache_dir: str | PathLike[str] | None,
    progress: Progress | None,
) -> BoundWeights:
    slots = [Slot.from_json(dict(slot)) for slot in pef.manifest.slots]
    bundled = pef.weights()
    given = checkpoint or weights
    if given is None:
        if bundled is None:
            raise WeightsError(
                f"{pef.where}: has no weights in it: pass --model_name_or_path or --checkpoint_name (in Python weights"
                " or checkpoint), or compile with --bundle"
            )
        return bind_blob(slots, bundled)
    source = open_weights(given, cache_dir=cache_dir)
    return bind(slots, source, ignored=pef.manifest.ignored_tensors, cache=WeightCache(), progress=progress)


def _tokenizer(
    pef: Pef,
    tokenizer: str | PathLike[str] | None,
    weights: str | PathLike[str] | None,
    cache_dir: str | PathLike[str] | None,
) -> Tokenizer | None:
    """The one that is named, the file's own, or the one beside the weights; None where there is none."""
    from bossa.tokenizer import Tokenizer

    if tokenizer is not None:
        return Tokenizer.from_directory(Path(tokenizer))
    files = pef.tokenizer_files()
    if files:
        return Tokenizer.from_files(files)
    if weights is not None:
        folder = Path(weights)
        if not folder.exists():
            from bossa.weights.hub import find_model

            folder = find_model(str(weights), cache_dir)
        try:
            return Tokenizer.from_directory(folder if folder.is_dir() else folder.parent)
        except TokenizerError:
            return None
    return None


def _pages(page_bytes: int, page_size: int, sequences: int, length: int, memory: int | None) -> int:
    """KV pages for the memory there is.

    Raises:
        RequestError: not even one page fits.
    """
    wanted = sequences * -(-length // page_size)
    if not page_bytes:
        return wanted
    budget = memory if memory is not None else _free_memory() // 2
    pages = min(wanted, budget // page_bytes)
    if pages < 1:
        raise RequestError(f"{budget:,} bytes do not hold one page of keys and values ({page_bytes:,} bytes): allow more")
    return int(pages)


def _free_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 4 << 30


def _eos(generation: dict[str, Any], config: dict[str, Any], tokenizer: Tokenizer | None) -> Iterable[int]:
    """The tokens that end a sequence: as generation is configured, else the model, else the tokenizer."""
    for value in (
        generation.get("eos_token_id"),
        config.get("eos_token_id"),
        None if tokenizer is None else tokenizer.eos_token_id,
    ):
        if value is not None:
            return tuple(value) if isinstance(value, (list, tuple)) else (int(value),)
    return ()
