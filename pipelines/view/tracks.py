"""What the decode measured along one clip, frame by frame: motion, change, brightness, and where its stills lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushes.curation import tracks
from rushes.curation.manifest import ManifestError, Run
from rushes.curation.recipe import Recipe
from rushes.curation.tracks import spread
from rushes.curation.visual.borders import border_frac
from rushes.curation.visual.stills import decode_gray
from rushes.pipelines.stages.records import read_observed
from rushes.pipelines.view.stills import observed_of
from rushes.pipelines.view.tables import records

AROUND_S = 2.0  # shown before and after the clip, so that the cuts at its ends are seen
POINTS_MOST = 1_200
BORDERS_MOST = 60  # stills whose border is found when it is asked for
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

    {start_s, end_s, time_s, tracks: [{name, label, values}], lanes: [{name, label, marks: [{start_s, end_s, value}] or
    null}], stills: [seconds], clips: rows of the same source within it}; where there are more frames than `points`, a
    point is the largest of some. A lane is what was seen on stills, which stand for the time up to half way to the next
    one; marks null: not looked for. Raises ManifestError where the clip is not there or its tracks were cleared away.
    """
    sql = "SELECT * FROM {clips} WHERE clip_id = ? LIMIT 1"
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
        "lanes": [_text(row, whole.stills.times_s[inside]), _borders(row, whole.stills, inside)],
        "stills": whole.stills.times_s[list(shown)].tolist(),
        "clips": records(run, near, [row["source_id"], low, high]),
    }  # fmt: skip


def _text(row: dict[str, Any], times_s: np.ndarray) -> dict[str, Any]:
    """When text stands in the picture: 1 on the stills on which it was read."""
    found = {"name": "text", "label": "text in the picture", "marks": None}
    if row.get("text_score") is None:
        return found
    there = np.isin(np.round(times_s, 3), np.round(row.get("text_at_s") or [], 3))
    return found | {"marks": _marks(times_s, there.astype(float), row["start_s"], row["end_s"])}


def _borders(row: dict[str, Any], stills: tracks.Stills, inside: np.ndarray) -> dict[str, Any]:
    """The share of the picture that bars take on each still."""
    some = spread(inside, BORDERS_MOST)
    shares = [round(float(border_frac(decode_gray(stills.jpeg(number))).frac), 3) for number in some]
    marks = _marks(stills.times_s[some], np.array(shares), row["start_s"], row["end_s"])
    return {"name": "border", "label": "bars around the picture", "marks": marks}


def _marks(times_s: np.ndarray, values: np.ndarray, start_s: float, end_s: float) -> list[dict[str, float]]:
    """Spans of equal values above 0 within the clip."""
    if not len(times_s):
        return []
    edges = np.concatenate([[start_s], (times_s[1:] + times_s[:-1]) / 2, [end_s]])
    found: list[dict[str, float]] = []
    for begin, end, value in zip(edges[:-1].tolist(), edges[1:].tolist(), values.tolist(), strict=True):
        if found and found[-1]["end_s"] == begin and found[-1]["value"] == value:
            found[-1]["end_s"] = end
        elif value > 0:
            found.append({"start_s": begin, "end_s": end, "value": value})
    return found


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
