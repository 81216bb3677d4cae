"""A shared library from memory, with the C interface of `kernels/abi.h`."""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import errno
import hashlib
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

from bossa.errors import PefError, RuntimeFailure
from bossa.targets.cpu.elf import trouble

ABI = 5
ABI_WITHOUT_STATE = 4
"""The interface before there was recurrent state. Its programs run as they did."""


class StepWithoutState(ctypes.Structure):
    """`struct bossa_step` of `ABI_WITHOUT_STATE`, with which every later one begins."""

    _fields_ = [
        ("rows", ctypes.c_int32),
        ("sequences", ctypes.c_int32),
        ("max_blocks", ctypes.c_int32),
        ("logit_count", ctypes.c_int32),
        ("tokens", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("block_tables", ctypes.c_void_p),
        ("logit_rows", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
        ("best", ctypes.c_void_p),
    ]


class Step(ctypes.Structure):
    """`struct bossa_step`.

    Attributes:
        arrays: what its pointers point to, kept for as long as it is.
    """

    arrays: list[Any]

    _fields_ = [
        *StepWithoutState._fields_,
        ("states", ctypes.c_void_p),
        ("state_slots", ctypes.c_void_p),
        ("replays", ctypes.c_void_p),
        ("drafts", ctypes.c_void_p),
    ]


_BEHIND_THE_STEP: list[tuple[str, type]] = [
    ("tokens", ctypes.c_void_p),
    ("positions", ctypes.c_void_p),
    ("best", ctypes.c_void_p),
    ("ends", ctypes.c_void_p),
    ("end_count", ctypes.c_int32),
    ("most_steps", ctypes.c_int32),
    ("nanoseconds", ctypes.c_int64),
]


class Decoding(ctypes.Structure):
    """`struct bossa_decoding`."""

    _fields_ = [("step", Step), *_BEHIND_THE_STEP]


class DecodingWithoutState(ctypes.Structure):
    """`struct bossa_decoding` of `ABI_WITHOUT_STATE`."""

    _fields_ = [("step", StepWithoutState), *_BEHIND_THE_STEP]


def decoding(abi: int, step: Step, *others: int) -> Decoding | DecodingWithoutState:
    """Steps of decoding as programs of an interface take them: the first step, and the members behind it."""
    if abi == ABI_WITHOUT_STATE:
        return DecodingWithoutState(StepWithoutState.from_buffer_copy(step), *others)
    return Decoding(step, *others)


class LowRank(ctypes.Structure):
    """`struct bossa_low_rank`."""

    _fields_ = [
        ("blocks", ctypes.c_int32),
        ("starts", ctypes.c_void_p),
        ("down", ctypes.c_void_p),
        ("first", ctypes.c_void_p),
        ("last", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("up", ctypes.c_void_p),
    ]


class Adapters(ctypes.Structure):
    """`struct bossa_adapters`."""

    _fields_ = [
        ("count", ctypes.c_int32),
        ("pairs", ctypes.c_void_p),
        ("of_sequence", ctypes.c_void_p),
        ("products", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
    ]


class Library:
    """A loaded library, by the names of its functions. With the last reference to it, it is unloaded.

    Whoever holds one of its functions alone has to hold it too.
    """

    def __init__(self, native: ctypes.CDLL, descriptor: int | None, path: str) -> None:
        self._native = native
        unload = weakref.finalize(self, _unload, native._handle, descriptor, path)
        unload.atexit = False  # threads that nobody stopped may run in it until the end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)


def load_library(data: bytes | memoryview, where: str) -> Library:
    """Load a program's library, or find it loaded by the same bytes.

    Args:
        data: the bytes of the shared object, checked by the caller against the manifest.
        where: the PEF it came from, for messages.

    Raises:
        PefError: it cannot be loaded here, or has another interface.
        RuntimeFailure: there is no place to load it from.
    """
    key = hashlib.sha256(data).digest()
    loaded = _loaded.get(key)
    if loaded is not None:
        return loaded
    try:
        if (why := trouble(data)) is not None:
            raise OSError(None, why)
        library = _load(bytes(data), where)
    except OSError as error:
        why = error.strerror or str(error)
        raise PefError(
            f"{where}: its program does not load on this machine ({why}); --rebuild compiles it anew"
        ) from error
    try:
        _declare(library)
    except AttributeError as error:
        raise PefError(f"{where}: its program lacks a function of the interface ({error}); compile it again") from None
    if library.bossa_abi() not in (ABI_WITHOUT_STATE, ABI):
        raise PefError(f"{where}: its program has interface {library.bossa_abi()}, not {ABI}; compile the model again")
    _loaded[key] = library
    return library


def _declare(library: Library) -> None:
    """Tell ctypes the types of the interface."""
    library.bossa_abi.restype = ctypes.c_int32
    library.bossa_signature.restype = ctypes.c_char_p
    library.bossa_finds_best.restype = ctypes.c_int32
    library.bossa_open.restype = ctypes.c_void_p
    library.bossa_open.argtypes = [
        ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    library.bossa_pin.restype = ctypes.c_int32
    library.bossa_pin.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32]
    library.bossa_step_run.restype = ctypes.c_int32
    library.bossa_step_run.argtypes = [ctypes.c_void_p, ctypes.POINTER(Step)]
    library.bossa_decode.restype = ctypes.c_int32
    library.bossa_decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p]  # `decoding`, of either interface
    library.bossa_close.restype = None
    library.bossa_close.argtypes = [ctypes.c_void_p]
    if hasattr(library, "bossa_adapt"):  # of programs that take adapters alone
        library.bossa_adapt.restype = None
        library.bossa_adapt.argtypes = [ctypes.c_void_p, ctypes.POINTER(Adapters)]


_loaded: weakref.WeakValueDictionary[bytes, Library] = weakref.WeakValueDictionary()
"""Libraries by their SHA-256. They hold no state of their own, so that every program of one file shares them."""


def _load(data: bytes, where: str) -> Library:
    """From an anonymous memory file where there are such, else from a file in a private folder.

    The memory file stays open as long as the library is loaded: the dynamic loader knows libraries by path, and a later
    file under the same number would be taken for this one.

    Raises:
        OSError: the dynamic loader refuses it.
        RuntimeFailure: neither can be written.
    """
    if hasattr(os, "memfd_create"):
        try:
            descriptor = os.memfd_create("bossa-program")
        except OSError:
            descriptor = -1
        try:
            if descriptor >= 0:
                with os.fdopen(os.dup(descriptor), "wb") as file:
                    file.write(data)
                memory = f"/proc/self/fd/{descriptor}"
                return Library(ctypes.CDLL(memory), descriptor, memory)
        except OSError:
            os.close(descriptor)  # /proc or executable memory files may be forbidden: a plain file still works
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bossa-program-"))
            path = Path(folder) / f"{hashlib.sha256(data).hexdigest()[:16]}.so"
            path.write_bytes(data)
        except OSError as error:
            raise RuntimeFailure(f"{where}: its program, {len(data):,} bytes, {_no_place(error)}") from error
        return Library(ctypes.CDLL(str(path)), None, str(path))


def _no_place(error: OSError) -> str:
    """Why a library that is in memory cannot be put where the dynamic loader finds it, and what to do."""
    if error.errno == errno.EFBIG:
        return "cannot be put into a file to load it, since files may not be that large: raise the limit (ulimit -f)"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"cannot be put into a file to load it, since {tempfile.gettempdir()} is full: free space, or set TMPDIR"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "cannot be put into a file to load it, since too many files are open: raise the limit (ulimit -n)"
    return f"cannot be put into a file to load it ({error.strerror or error}): set TMPDIR to another folder"


def _unload(handle: int, descriptor: int | None, path: str) -> None:
    """Unload a library, and close its memory file unless the dynamic loader keeps the library all the same."""
    _ctypes.dlclose(handle)
    if descriptor is None:
        return
    try:
        _ctypes.dlopen(path, os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        os.close(descriptor)


def check(code: int) -> None:
    """Raise for a step that did not run."""
    if code == 2:
        raise RuntimeFailure(
            "this thread's stack is too small for a step, and the system starts no thread with 4 MiB: raise the limits"
            " (ulimit -s, ulimit -v), or give the thread more"
        )
    if code != 0:
        raise RuntimeFailure(f"the program refused a step (code {code}): more rows than it was opened for")
