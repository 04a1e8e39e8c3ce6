"""Memory that a worker no longer needs, given back: reading text and joining tracks take much of it for a while."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import pyarrow as pa


def give_back() -> None:
    """Free what the allocators of Arrow and of the C library hold and nobody uses; some milliseconds."""
    pa.default_memory_pool().release_unused()
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], int]:
    """The C library's malloc_trim; nothing where it has none (macOS, musl)."""
    return getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: 0)
