"""What a meter is: a small streaming accumulator that shares the one decode of a file with all the others.

A meter is handed each decoded frame (`observe`), and at the end is asked for its values over any span (`measure`).
Twenty lines make one; see "A meter of your own" in the README.
"""

from __future__ import annotations

import importlib
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from rushes.curation.recipe import RecipeError

if TYPE_CHECKING:
    from rushes.curation.video.decode import Frame, StreamInfo


@dataclass(frozen=True)
class Unmeasured:
    """In place of a value that could not be measured: the column becomes null, the reason goes into `notes`."""

    reason: str


@dataclass(frozen=True)
class Span:
    """Frames [first, stop) of a file, shown from start_s to end_s (seconds from the first frame)."""

    first: int
    stop: int
    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


class Meter(Protocol):
    """One instance serves one file. `columns` are the Arrow fields that `measure` fills."""

    columns: tuple[pa.Field, ...]

    def observe(self, frame: Frame) -> None: ...

    def measure(self, span: Span) -> dict[str, Any]: ...


class Track:
    """A growing series with one float per frame, NaN where a frame has no value. Four bytes a frame."""

    def __init__(self) -> None:
        self._values = array("f")

    def add(self, value: float) -> None:
        self._values.append(value)

    def __len__(self) -> int:
        return len(self._values)

    def between(self, first: int, stop: int) -> np.ndarray:
        """float32 [stop - first], a copy."""
        return np.array(self._values[max(first, 0) : stop], dtype=np.float32)


def build_custom(paths: tuple[str, ...], info: StreamInfo) -> list[Meter]:
    """The meters a recipe names as 'package.module:Class', each built with the stream's facts."""
    return [_load(path)(info) for path in paths]


def custom_columns(paths: tuple[str, ...]) -> list[pa.Field]:
    return [field for path in paths for field in _load(path).columns]


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        meter = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(
            f"Recipe key 'meters': '{path}' cannot be imported ({error}); write it as 'package.module:Class'."
        ) from error
    missing = [what for what in ("columns", "observe", "measure") if not hasattr(meter, what)]
    if not isinstance(meter, type) or missing:
        raise RecipeError(
            f"Recipe key 'meters': '{path}' is no meter: it needs to be a class with columns, observe and measure."
        )
    return meter
