"""What a meter is: it sees batches of decoded frames, leaves tracks, and measures any span of them afterwards.

The one decode of a file feeds all meters. `observe` turns a batch of frames into a few numbers per frame: its tracks.
`measure` turns the tracks into values of a span of frames, and sees no picture: shots can change, or come later,
without another decode. Twenty lines make a meter; see "A meter of your own" in the README.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from rushes.curation.tracks import Tracks
    from rushes.curation.video.batch import Batch


@dataclass(frozen=True)
class Unmeasured:
    """In place of a value that could not be measured: the column becomes null, the reason goes into `notes`."""

    reason: str


@dataclass(frozen=True)
class Noted:
    """A value that was measured in a way worth a word: the remark goes into `notes`."""

    value: Any
    remark: str


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
    """One instance observes one part of a file, in order; another may measure.

    tracks: an Arrow field for each track, a number or a fixed-size list of numbers per frame.
    columns: an Arrow field for each column that `measure` fills (a built-in meter's stand in curation/signals.py).
    observe: track name -> array [frames of the batch, ...], NaN where a frame has no value. It may remember what it
    needs of the frames before; nothing that `measure` reads.
    measure: column -> value, Unmeasured or Noted, from the tracks alone.
    A meter that looks ahead (`meters.looks_ahead`) may return fewer values than the batch has frames, and the missing
    ones later, in order; its `finish() -> tracks` returns what it still owes after the last frame.
    """

    tracks: tuple[pa.Field, ...]
    columns: tuple[pa.Field, ...]

    def observe(self, batch: Batch) -> dict[str, np.ndarray]: ...

    def measure(self, tracks: Tracks, span: Span) -> dict[str, Any]: ...
