"""Binding: a program's slots filled from a checkpoint, packed in one blob that is mapped and shared."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import prod
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bossa.errors import WeightsError
from bossa.formats.geometry import ALIGNMENT, PANEL
from bossa.formats.registry import FORMATS
from bossa.host.resources import cores
from bossa.ir.slot import Slot
from bossa.weights.cache import WeightCache, anonymous
from bossa.weights.names import Match, match
from bossa.weights.packer import Packer
from bossa.weights.source import WeightSource, check_stored

if TYPE_CHECKING:
    from concurrent.futures import Future

Progress = Callable[[int, int], None]
"""Called with the bytes packed so far and all of them; from the caller's thread."""


def blob_layout(slots: Sequence[Slot]) -> tuple[list[int], int]:
    """The byte offset of each slot in the blob, and the bytes of the blob."""
    offsets = []
    position = 0
    for slot in slots:
        offsets.append(position)
        position += -(-slot.nbytes // ALIGNMENT) * ALIGNMENT
    return offsets, position


class BoundWeights:
    """The packed weights of a program, read-only. ``close`` lets go of them; use it or ``with``.

    Attributes:
        slots: what the blob holds, in order.
        cached: whether they were found packed in the cache.
    """

    def __init__(self, slots: Sequence[Slot], memory: Any, offset: int = 0, *, cached: bool = False) -> None:
        """Takes the blob that starts at byte ``offset`` of ``memory``, a map or other bytes-like object."""
        self.slots = tuple(slots)
        self.cached = cached
        self._offsets, total = blob_layout(slots)
        self._numbers = {slot.name: number for number, slot in enumerate(slots)}
        self._bytes: NDArray[np.uint8] | None = (
            np.frombuffer(memory, np.uint8, total, offset) if total else np.empty(0, np.uint8)
        )
        self._bytes.flags.writeable = False

    def _held(self) -> NDArray[np.uint8]:
        if self._bytes is None:
            raise WeightsError("these weights are closed: bind them again")
        return self._bytes

    @property
    def blob(self) -> memoryview:
        """All slots, each at its offset in ``blob_layout``."""
        return memoryview(self._held())  # type: ignore[arg-type]

    @property
    def nbytes(self) -> int:
        return self._held().nbytes

    def addresses(self) -> list[int]:
        """The address of each slot in memory; valid until ``close``."""
        base = int(self._held().ctypes.data)
        return [base + offset for offset in self._offsets]

    def view(self, name: str) -> NDArray[Any]:
        """One slot as it is packed: ``panels`` as ``[ceil(N/16), K, 16]``, others in their shape.

        Quantized slots come as their bytes.
        """
        number = self._numbers[name]
        slot = self.slots[number]
        start = self._offsets[number]
        packed = self._held()[start : start + slot.nbytes]
        if FORMATS[slot.dtype].quantized:
            return packed
        flat = packed.view(np.float32)
        if slot.layout == "panels":
            return flat.reshape(-(-slot.shape[0] // 16), slot.shape[1], 16)
        return flat.reshape(slot.shape)

    def close(self) -> None:
        """Lets go of the blob; the memory goes when the last view of it does."""
        self._bytes = None

    def __enter__(self) -> BoundWeights:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def bind(
    slots: Sequence[Slot],
    source: WeightSource,
    *,
    ignored: Iterable[str] = (),
    cache: WeightCache | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
    packer: Packer | None = None,
) -> BoundWeights:
    """Fills the slots from a checkpoint, or finds them packed in the cache, without reading the checkpoint then.

    Args:
        slots: what the program wants, in the order of the blob.
        source: the checkpoint.
        ignored: regular expressions of tensors that it may hold unused.
        cache: where packed weights are kept; None packs into memory.
        progress: see ``Progress``; not called when the weights are in the cache.
        threads: that pack at the same time; as many as the process has cores when None.
        packer: packs matrices in native code; NumPy does when None, to the same bytes, in many times the time.

    Raises:
        WeightsError: tensors are missing, misshapen or unexpected, hold NaN or infinite numbers, or cannot be read;
            or a slot has another size than its tensors.
    """
    for slot in slots:
        _check_size(slot)
    _, total = blob_layout(slots)
    identity = "" if cache is None else source.identity()
    key = "" if cache is None else cache.key([slot.to_json() for slot in slots], identity)
    if cache is not None and (kept := cache.find(key, total)) is not None:
        return BoundWeights(slots, *kept, cached=True)
    # Before any file or memory is made, so that what does not fit is refused whatever size it claims.
    found = match(slots, source.names(), source.shape, source.describe(), list(ignored))
    for name in found.names.values():
        check_stored(source.dtype(name), name, source.describe())

    def fill(memory: Any, offset: int) -> None:
        out = np.frombuffer(memory, np.uint8, total, offset) if total else np.empty(0, np.uint8)
        _pack_all(slots, source, found, out, progress, threads or cores(), packer)
        _check_tied(source, found)
        if cache is not None and source.identity() != identity:
            raise WeightsError(
                f"{source.describe()}: changed while it was read: wait until it is written, and run again"
            )

    if cache is not None:
        memory, offset, hit = cache.open_or_build(key, source.describe(), total, fill)
        return BoundWeights(slots, memory, offset, cached=hit)
    memory = anonymous(total, source.describe())
    fill(memory, 0)
    return BoundWeights(slots, memory)


def bind_blob(slots: Sequence[Slot], blob: memoryview) -> BoundWeights:
    """Takes slots that are packed already, as in the ``weights.bin`` of a bundled PEF.

    Raises:
        WeightsError: the blob has another size than the slots.
    """
    _, total = blob_layout(slots)
    data = memoryview(blob).cast("B")
    if data.nbytes != total:
        raise WeightsError(
            f"the packed weights are {data.nbytes} bytes, but the program's slots take {total}: compile the model again"
        )
    if total and int(np.frombuffer(data, np.uint8).ctypes.data) % ALIGNMENT:
        aligned = anonymous(total, "the packed weights")
        aligned[:] = data
        return BoundWeights(slots, aligned)
    return BoundWeights(slots, data)


def _check_size(slot: Slot) -> None:
    """Refuses a slot that is not what its tensors make when they are joined."""
    parts = [(source.shape[::-1] if source.transpose else source.shape) or (1,) for source in slot.sources]
    height, *width = slot.shape or (1,)
    fits = sum(part[0] for part in parts) == height
    if slot.layout == "panels":
        fits = fits and len(slot.shape) == 2 and all(list(part[1:]) == width for part in parts)
    else:
        fits = fits and all(prod(part[1:]) == prod(width) for part in parts)
    if slot.interleave:
        fits = fits and len(set(parts)) == 1 and parts[0][0] % PANEL == 0
    if not fits or any(size < 0 for shape in (slot.shape, *parts) for size in shape):
        raise WeightsError(
            f"slot {slot.name!r} has the shape {list(slot.shape)}, which its tensors do not make"
            f" ({', '.join(str(list(part)) for part in parts[:4])}): compile the model again"
        )


def _pack_all(
    slots: Sequence[Slot],
    source: WeightSource,
    found: Match,
    out: NDArray[np.uint8],
    progress: Progress | None,
    threads: int,
    packer: Packer | None,
) -> None:
    # Slow to import, and packed weights are mapped without them.
    from concurrent.futures import ThreadPoolExecutor

    from bossa.weights.pack import Tensor, pack

    offsets, total = blob_layout(slots)
    where = source.describe()
    stop = threading.Event()
    waiting: deque[tuple[Future[None], int, list[str]]] = deque()

    def run(piece: Callable[[], None]) -> None:
        if not stop.is_set():
            piece()

    def drain(most: int) -> None:
        while len(waiting) > most:
            future, done, read = waiting.popleft()
            future.result()
            for name in read:
                source.release(name)
            if progress is not None and done:
                progress(done, total)

    with ThreadPoolExecutor(threads) as pool:
        try:
            for slot, offset in zip(slots, offsets, strict=True):
                names = [found.names[wanted.names[0]] for wanted in slot.sources]
                tensors = []
                for wanted, name in zip(slot.sources, names, strict=True):
                    tensors.append(Tensor(wanted, source.read(name), source.dtype(name), name, where))
                for piece in pack(slot, tensors, out[offset : offset + slot.nbytes], packer):
                    waiting.append((pool.submit(run, piece), 0, []))
                    drain(4 * threads)
                if waiting:
                    waiting[-1] = (waiting[-1][0], offset + slot.nbytes, names)
            drain(0)
        except BaseException:
            stop.set()
            raise


def _check_tied(source: WeightSource, found: Match) -> None:
    """Refuses a checkpoint whose copies of one tied tensor differ: the program has room for one."""
    for first, others in found.tied.items():
        name = found.names[first]
        for other in others:
            ours, theirs = source.read(name), source.read(other)
            if ours.ctypes.data == theirs.ctypes.data and ours.shape == theirs.shape:
                continue
            if ours.shape != theirs.shape or not _equal(ours, theirs):
                raise WeightsError(
                    f"{source.describe()}: tensors {name!r} and {other!r} differ, but the model's config ties them:"
                    " compile with tie_word_embeddings false in the config, or pass weights with them tied"
                )


def _equal(ours: NDArray[Any], theirs: NDArray[Any]) -> bool:
    step = max(1, (1 << 20) // max(1, ours[:1].size)) if ours.ndim else 1
    if not ours.ndim:
        return bool(ours == theirs)
    return all(
        np.array_equal(ours[start : start + step], theirs[start : start + step])
        for start in range(0, ours.shape[0], step)
    )
