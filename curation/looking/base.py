"""What a looker is, and what all models share: batches, memory that runs out, answers that are no numbers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

FLAT_STD = 1.0  # grey levels: a picture below it is one colour, of which no model knows anything
HASHED_BYTES = 8 << 20  # of a file of weights: enough to tell two files apart without reading gigabytes


class ModelError(RuntimeError):
    """A model that cannot be used: one sentence that names the recipe key and the fix. The run stops."""


@dataclass
class Clip:
    """The stills of one clip, decoded: uint8 BGR [H, W, 3] in order of time, and their times in seconds.

    The pictures are what lies inside the clip's borders. `notes` collects what is worth saying of how it was looked at
    ("column: reason").
    """

    clip_id: str
    times: list[float]
    pictures: list[np.ndarray]
    notes: list[str] = field(default_factory=list)


class Looker(Protocol):
    """Looks at clips. `name` says which model it is, `columns` what it writes.

    Called with some clips (each with at least one still), it answers one dictionary per clip, in their order: a value,
    or `meter.Unmeasured` with a reason, for each column.
    """

    name: str
    columns: tuple[str, ...]

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]: ...


def is_flat(pictures: Sequence[np.ndarray]) -> bool:
    """Whether every picture is one flat colour."""
    return all(float(picture.reshape(-1, picture.shape[2]).std(axis=0).max()) < FLAT_STD for picture in pictures)


def file_name(path: str) -> str:
    """Name of a file of weights with a hash of its size and first 8 MiB: two files of one name stay apart."""
    digest = hashlib.blake2b(str(os.path.getsize(path)).encode(), digest_size=4)
    with open(path, "rb") as stream:
        digest.update(stream.read(HASHED_BYTES))
    return f"{Path(path).name}@{digest.hexdigest()}"


def in_batches(
    items: Sequence[Any], run: Callable[[Sequence[Any]], np.ndarray], batch: int, halved: Callable[[int], None]
) -> np.ndarray:
    """`run` over all items, `batch` at a time -> the rows of its answers, stacked.

    Where memory runs out the batch is halved, and `halved` is told the new size. Raises MemoryError where a single
    item does not fit.
    """
    rows: list[np.ndarray] = []
    start = 0
    while start < len(items):
        some = items[start : start + batch]
        try:
            rows.append(np.asarray(run(some)))
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if len(some) == 1:
                raise MemoryError("there is no memory for a single picture") from error
            batch = len(some) // 2
            _free()
            halved(batch)
            continue
        start += len(some)
    return np.concatenate(rows)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, torch or ONNX Runtime says that memory ran out."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in text for words in ("out of memory", "can't allocate memory", "failed to allocate"))
    )


def _free() -> None:
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
