"""What an open program holds of the system's: its threads and memory, its weights and its library."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bossa.errors import RequestError, RuntimeFailure
from bossa.host.large_pages import anonymous
from bossa.host.process import Process
from bossa.runtime.threads import default_threads, listed
from bossa.targets.cpu.loader import Adapters, Library
from bossa.weights.bind import BoundWeights


class Held:
    """Held apart from the `Program`, so that it can be given back when nobody holds that any more.

    Attributes:
        handle: what the library knows the program by; None where it is not open.
    """

    def __init__(self, library: Library, weights: BoundWeights, kv_bytes: int, state_bytes: int = 0) -> None:
        self.library: Library | None = library
        self.handle: int | None = None
        self._weights = weights
        self._process = Process()
        self._kv = _zeroed(kv_bytes, "KV pages")
        self._states = _zeroed(state_bytes, "recurrent state") if state_bytes else None

    def open(self, threads: int | None, max_rows: int, constants: NDArray[np.uint8], where: str) -> None:
        """Start the program.

        Args:
            threads: to compute with; where nobody says, one a core, or as many as the system starts.
            constants: the program's tables; they outlive it.

        Raises:
            RequestError: the system does not start as many threads as were asked for.
            RuntimeFailure: there is no memory for the activations.
        """
        wanted = threads or default_threads()
        started = wanted
        while not self._start(started, max_rows, constants):
            if started == 1:
                raise RuntimeFailure(
                    f"{where}: not enough memory for the activations of {max_rows} rows: allow less memory (--memory,"
                    " in Python memory), or run fewer sequences at once"
                )
            started = 1 if threads else started // 2
        if started < wanted and threads:
            raise RequestError(
                f"threads is {threads}, and the system cannot start that many: ask for fewer, or raise its limits on"
                " threads and memory"
            )
        if started < wanted:
            warnings.warn(f"the system cannot start {wanted} threads: running with {started}", stacklevel=4)

    def _start(self, threads: int, max_rows: int, constants: NDArray[np.uint8]) -> bool:
        assert self.library is not None
        addresses = self._weights.addresses()
        slots = (ctypes.c_void_p * max(len(addresses), 1))(*addresses)
        kv = np.frombuffer(self._kv, np.uint8).ctypes.data
        self.handle = self.library.bossa_open(threads, max_rows, ctypes.addressof(slots), constants.ctypes.data, kv)
        return self.handle is not None

    @property
    def takes_adapters(self) -> bool:
        """Whether the library does."""
        return self.library is not None and hasattr(self.library, "bossa_adapt")

    def adapt(self, adapters: Adapters) -> None:
        """Let the program run with these, which are kept as long as it is open."""
        assert self.library is not None
        self._adapters = adapters
        self.library.bossa_adapt(self.handle, ctypes.byref(adapters))

    def states_address(self) -> int:
        """Where the slots of recurrent state begin; 0 where there are none."""
        return 0 if self._states is None else np.frombuffer(self._states, np.uint8).ctypes.data

    def copy_state(self, source: int, target: int, size: int) -> None:
        """Copy one slot of recurrent state of so many bytes into another."""
        if self._states is not None:
            with memoryview(self._states) as memory:
                memory[target * size : (target + 1) * size] = memory[source * size : (source + 1) * size]

    def pin(self, cpus: Sequence[int]) -> None:
        """Keep the threads besides the caller's on all of these CPUs but the first.

        Raises:
            RequestError: the system does not.
        """
        assert self.library is not None
        others = np.array(cpus[1:], np.int32)
        if len(others) and self.library.bossa_pin(self.handle, others.ctypes.data, len(others)):
            raise RequestError(f"the system cannot pin threads to CPUs {listed(cpus)}: leave cpus out")

    def release(self) -> None:
        """Give everything back; again does nothing. In a forked child the threads and what they use are left alone."""
        handle, self.handle = self.handle, None
        if handle and self.library is not None and not self._process.is_another:
            self.library.bossa_close(handle)
        self.library = None
        with contextlib.suppress(BufferError):  # somebody looks at it still, and the memory goes with him
            self._kv.close()
        if self._states is not None:
            with contextlib.suppress(BufferError):
                self._states.close()
        self._weights.close()

    def drop(self, where: str) -> None:
        """Give everything back in place of somebody who should have."""
        forgotten = self.handle is not None and not self._process.is_another
        self.release()
        if forgotten:
            warnings.warn(
                f"{where}: a loaded model was dropped without close(): close it, or use it in a with statement",
                ResourceWarning,
                stacklevel=2,
            )


def _zeroed(size: int, what: str) -> mmap.mmap:
    """So many bytes, zeroed when they are touched.

    Raises:
        RequestError: there is not as much memory.
    """
    try:
        return anonymous(size)
    except (OSError, OverflowError, ValueError) as error:
        raise RequestError(
            f"not enough memory for {size:,} bytes of {what}: allow less (--memory, in Python memory), fewer"
            " sequences at once or shorter ones"
        ) from error
