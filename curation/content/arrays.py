"""Arrays as files of a work folder: written whole or not at all, read in slices, at any pyarrow.fs address."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from rushes.curation import storage

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""As the builtin map: a picklable function on items, results in the order of the items."""


def save(uri: str, array: np.ndarray) -> None:
    with storage.writing(uri) as stream:
        np.save(stream, np.ascontiguousarray(array), allow_pickle=False)


def load(uri: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows [start, stop) of a saved array; only their bytes are read."""
    fs, path = storage.resolve(uri)
    with fs.open_input_file(path) as stream:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        stop = shape[0] if stop is None else min(stop, shape[0])
        row = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        stream.seek(stream.tell() + start * row)
        data = stream.read(max(0, stop - start) * row)
    return np.frombuffer(data, dtype).reshape(-1, *shape[1:])


def key_of(*parts: Any) -> str:
    """16 hexadecimal digits that name what was made from `parts`."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def gathered(arrays: Iterable[np.ndarray], empty: np.ndarray) -> np.ndarray:
    """The arrays one after the other; `empty` where there are none."""
    return np.concatenate([empty, *arrays])


def find(values: np.ndarray, ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place of each value in a sorted array, and whether it is there."""
    if not len(ordered):
        return np.zeros(len(values), np.int64), np.zeros(len(values), bool)
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return place, ordered[place] == values


def slices(total: int, step: int) -> Iterator[slice]:
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))
