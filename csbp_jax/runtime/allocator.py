"""The C library's allocator: XLA on CPU takes fresh buffers for each step, and pages new to a process cost time."""

import ctypes
import os
from collections.abc import Mapping

_SETTINGS = {
    "GLIBC_TUNABLES",
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
}
# From malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


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


def _is_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError, OSError):  # Windows; macOS; musl
        return False
