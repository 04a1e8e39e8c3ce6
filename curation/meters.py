"""Which meters the decode feeds: the built-in ones that signals.py names, then the recipe's own, by their paths."""

from __future__ import annotations

import importlib
from typing import Any

import pyarrow as pa

from rushes.curation import scenes_learned, scenes_spikes, signals
from rushes.curation.gradual import finder
from rushes.curation.meter import Meter
from rushes.curation.recipe import Recipe, RecipeError
from rushes.curation.scenes import asked_within
from rushes.curation.video.batch import Ahead
from rushes.curation.video.frame import StreamInfo

LEARNED_SHOTS = "rushes.curation.scenes_learned:LearnedShotMeter"


def build_meters(recipe: Recipe, info: StreamInfo) -> list[Meter]:
    """Every meter of the one decode: the built-in ones that signals.py names, then the recipe's own.

    A built-in one is made with (info, recipe), one of a recipe's own with (info) alone.
    """
    built_in = [load(f"rushes.curation.{path}")(info, recipe) for path in signals.meters()]
    if recipe.scenes.detector == "transnetv2":
        built_in.append(load(LEARNED_SHOTS)(info, recipe))
    return built_in + [load(path)(info) for path in recipe.meters]


def looks_ahead(recipe: Recipe, info: StreamInfo) -> Ahead:
    """What a part must show after its end, for the meter that answers latest."""
    learned = scenes_learned.MARGIN if recipe.scenes.detector == "transnetv2" else 0
    return Ahead(max(learned, scenes_spikes.AROUND), asked_within(info.fps), finder.grid(info.fps)[0])


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
