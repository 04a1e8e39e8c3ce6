"""What the decode measured along one clip, frame by frame: motion, change, brightness, and where its stills lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushes.curation import tracks
from rushes.curation.manifest import ManifestError, Run
from rushes.curation.recipe import Recipe
from rushes.curation.visual.stills import spread
from rushes.pipelines.stages.records import read_observed
from rushes.pipelines.view.stills import observed_of
from rushes.pipelines.view.tables import records

AROUND_S = 2.0  # shown before and after the clip, so that the cuts at its ends are seen
POINTS_MOST = 1_200
#: Tracks that are drawn and what they are; others of one number a frame follow under their own names.
NAMED = {
    "vmaf": "motion (VMAF)",
    "vector_length": "motion vectors",
    "content": "change from frame to frame",
    "blend_strength": "dissolve",
    "luma_mean": "brightness",
    "saturation": "saturation",
    "sharpness": "sharpness",
}


def tracks_of(run: Run, recipe: Recipe, clip_id: str, points: int = 600) -> dict[str, Any]:
    """The tracks of a clip with AROUND_S on both sides.

    {start_s, end_s, time_s, tracks: [{name, label, values}], stills: [seconds], clips: rows of the same source within
    it}; where there are more frames than `points`, a point is the largest of some. Raises
    ManifestError where the clip is not there or its tracks were cleared away.
    """
    sql = "SELECT source_id, start_s, end_s FROM {clips} WHERE clip_id = ? LIMIT 1"
    found = records(run, sql, [clip_id])
    if not found:
        raise ManifestError(f"The run has no clip '{clip_id}'.")
    row = found[0]
    try:
        table = read_observed(observed_of(run, recipe).get(row["source_id"], []), row["source_id"])
        whole = tracks.load(table, row["source_id"])
    except (FileNotFoundError, ValueError) as error:
        raise ManifestError("The clip's tracks are not there: the run's work folder was cleared.") from error
    if not whole.frames:
        raise ManifestError("The clip's source has no tracks.")
    low, high = row["start_s"] - AROUND_S, row["end_s"] + AROUND_S
    first, stop = np.searchsorted(whole.time_s, [low - 1e-6, high + 1e-6])
    times = whole.time_s[first:stop]
    every = max(1, -(-len(times) // points))
    near = """SELECT clip_id, start_s, end_s, kept, rejected_by FROM {clips}
              WHERE source_id = ? AND end_s > ? AND start_s < ? ORDER BY start_s, clip_id LIMIT 100"""
    inside = whole.stills.inside(row["start_s"], row["end_s"])
    shown = spread(inside, recipe.visual.stills_max)
    return {
        "start_s": row["start_s"], "end_s": row["end_s"], "time_s": times[::every].tolist(),
        "tracks": [
            {"name": name, "label": NAMED.get(name, name), "values": _thinned(values[first:stop], every)}
            for name, values in _drawn(whole)
        ],
        "stills": whole.stills.times_s[list(shown)].tolist(),
        "clips": records(run, near, [row["source_id"], low, high]),
    }  # fmt: skip


def _drawn(whole: tracks.Tracks) -> list[tuple[str, np.ndarray]]:
    found = {}
    for name, values in whole.items():
        if name == "blend_strength" and values.ndim == 2:
            values = values.max(axis=1)
        if values.ndim == 1 and np.issubdtype(values.dtype, np.floating) and name != tracks.TIME:
            found[name] = values
    order = list(NAMED)
    return sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))


def _thinned(values: np.ndarray, every: int) -> list[float]:
    if every == 1:
        return values.tolist()
    padded = np.append(values, np.full(-len(values) % every, np.nan, values.dtype)).reshape(-1, every)
    return np.where(np.isnan(padded).all(axis=1), np.nan, np.fmax.reduce(padded, axis=1)).tolist()
