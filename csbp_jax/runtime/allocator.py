"""The C library's allocator: XLA on CPU takes fresh buffers for each step, and pages new to a process cost time."""

import contextlib
import ctypes
import os
from collections.abc import Iterator, Mapping

_SETTINGS = {
    "GLIBC_TUNABLES",
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
}
# From malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8

_COMPILATION = "/jax/core/compile/backend_compile_duration"  # JAX's name of the event
_LONG = 0.5
"""Seconds of a compilation from which on its gaps are filled, which takes less than 0.2 s."""
# Of what is asked for, in the order in which gaps are filled: powers of two, and then each size that glibc has.
_LARGEST = 1 << 26
_SIZES = [*(1 << power for power in range(26, 11, -1)), *(size - 8 for size in range(1 << 11, 16, -16))]


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Make glibc keep freed memory for later buffers, and return whether it does; call it before threads start.

    By default glibc maps a large buffer when it is allocated and unmaps it when it is freed, so that the kernel clears
    its pages at each step again. The process then holds the memory of its peak until it ends. Nothing is changed with
    another C library, or if a variable of ``environment`` has settings of glibc's allocator: the user's choice stands.
    """
    if _SETTINGS & set(environment) or not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    never = -1
    # One arena, because the heaps of further ones are unmapped as soon as nothing is in them.
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, never), mallopt(_ARENA_MAX, 1)])


@contextlib.contextmanager
def filled_gaps() -> Iterator[None]:
    """Fill the gaps of the heap after each long compilation for CPUs within this context, until its end.

    A compilation leaves tens of thousands of free pieces among what it keeps. glibc searches them for each large
    buffer, and hands out the small ones in turn, so that each lies in memory that no cache holds. With all of them
    taken, the buffers of a step lie together. A program that is read from JAX's cache leaves no such gaps. Does nothing
    where freed memory is not kept (:func:`keep_freed_memory`), and with a glibc before 2.33.
    """
    # Late: the command line calls this module before it imports JAX.
    import jax
    from jax import monitoring

    pieces: list[int] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILATION and duration_secs >= _LONG and jax.default_backend() == "cpu":
            pieces.extend(_take_gaps())

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        monitoring.unregister_event_duration_listener(listen)
        if pieces:
            free = _libc().free
            for piece in pieces:
                free(piece)


class _MallInfo(ctypes.Structure):
    """``struct mallinfo2``, without mapped blocks: bytes in use, free bytes, and those of them at the top."""

    _fields_ = [
        (name, ctypes.c_size_t) for name in (*(f"unused{number}" for number in range(7)), "in_use", "free", "top")
    ]


def _libc() -> ctypes.PyDLL:
    # Not CDLL, whose functions let another thread run at each of the many calls.
    libc = ctypes.PyDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    libc.malloc_trim.argtypes = [ctypes.c_size_t]
    libc.mallinfo2.restype = _MallInfo
    return libc


def _take_gaps() -> list[int]:
    """Allocate all free memory below the top of the heap, whose pages go back to the system, and return the addresses.

    Nothing is taken where large buffers are mapped, as by default, or where the allocator is another than glibc's.
    """
    if not _is_glibc() or not hasattr(ctypes.CDLL(None), "mallinfo2"):
        return []
    libc = _libc()
    before = libc.mallinfo2().in_use
    probe = libc.malloc(_LARGEST)
    in_heap = libc.mallinfo2().in_use - before > _LARGEST // 2  # other threads may free some at the same time
    libc.free(probe)
    if not in_heap:
        return []
    libc.malloc_trim(_LARGEST << 10)  # so much of the top stays
    heap = libc.mallinfo2()
    top, left = libc.sbrk(0) - heap.top, heap.free - heap.top
    pieces: list[int] = []
    for size in _SIZES:
        while left >= size and (address := libc.malloc(size)) is not None:
            if address >= top:  # no gap is as large
                libc.free(address)
                break
            pieces.append(address)
            left -= size
    return pieces


def _is_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError, OSError):  # Windows; macOS; musl
        return False
