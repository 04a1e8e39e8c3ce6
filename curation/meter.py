"""What a meter is: it sees batches of decoded frames, leaves tracks, and measures any span of them afterwards.

The one decode of a file feeds all meters. `observe` turns a batch of frames into a few numbers per frame: its tracks.
`measure` turns the tracks into values of a span of frames, and sees no picture: shots can change, or come later,
without another decode. Twenty lines make a meter; see "A meter of your own" in the README.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from rushes.curation import scenes_doubts, scenes_learned, signals
from rushes.curation.recipe import Recipe, RecipeError

if TYPE_CHECKING:
    from rushes.curation.tracks import Tracks
    from rushes.curation.video.batch import Batch
    from rushes.curation.video.decode import StreamInfo

LEARNED_SHOTS = "rushes.curation.scenes_learned:LearnedShotMeter"


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
    A meter that looks ahead (see `looks_ahead`) may return fewer values than the batch has frames, and the missing ones
    later, in order; its `finish() -> tracks` returns what it still owes after the last frame.
    """

    tracks: tuple[pa.Field, ...]
    columns: tuple[pa.Field, ...]

    def observe(self, batch: Batch) -> dict[str, np.ndarray]: ...

    def measure(self, tracks: Tracks, span: Span) -> dict[str, Any]: ...


def build(recipe: Recipe, info: StreamInfo) -> list[Meter]:
    """Every meter of the one decode: the built-in ones that signals.py names, then the recipe's own.

    A built-in one is made with (info, recipe), one of a recipe's own with (info) alone.
    """
    built_in = [load(f"rushes.curation.{path}")(info, recipe) for path in signals.meters()]
    if recipe.scenes.detector == "transnetv2":
        built_in.append(load(LEARNED_SHOTS)(info, recipe))
    return built_in + [load(path)(info) for path in recipe.meters]


def looks_ahead(recipe: Recipe) -> int:
    """Frames that a part must show after its end, for the meter that answers latest."""
    return scenes_learned.MARGIN if recipe.scenes.detector == "transnetv2" else scenes_doubts.AROUND


def custom_columns(paths: tuple[str, ...]) -> list[pa.Field]:
    """Columns that a recipe's own meters write. Raises RecipeError where one cannot be imported."""
    fields: list[pa.Field] = []
    for path in paths:
        meter = load(path)
        missing = [what for what in ("tracks", "columns", "observe", "measure") if not hasattr(meter, what)]
        if not isinstance(meter, type) or missing:
            raise RecipeError(
                f"Recipe key 'meters': '{path}' is no meter: that is a class with tracks, columns, observe and measure."
            )
        fields += meter.columns
    return fields


def load(path: str) -> Any:
    """The class at 'package.module:Class'. Raises RecipeError where there is none."""
    module, _, name = path.partition(":")
    try:
        meter = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(
            f"Recipe key 'meters': '{path}' cannot be imported ({error}); write it as 'package.module:Class'."
        ) from error
    return meter
