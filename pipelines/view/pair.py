"""Two clips of which one stays: what decided between them, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation.decide import quality
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe
from rushes.curation.signals import ALIKE, COPIES
from rushes.pipelines.view.tables import query
from rushes.pipelines.view.words import number, span

STANDS_FOR = 4  # clips named that one stands for


def pair_of(run: Run, clip: pa.Table, recipe: Recipe) -> dict[str, Any] | None:
    """A rejected copy (a table of one row) beside the clip that stays: {clip_id, uri, span, decided_by, rows}.

    rows: {name, this, other, decides} in the order of content.prefer; decided_by is the first in which they differ,
    or in words what else decided. None where the clip is no copy.
    """
    wanted = clip["duplicate_of"][0].as_py()
    if wanted is None:
        return None
    other = query(run, "SELECT * FROM {clips} WHERE clip_id = ? LIMIT 1", [wanted])
    return compared(clip, other, recipe) if other.num_rows else None


def compared(clip: pa.Table, other: pa.Table, recipe: Recipe) -> dict[str, Any]:
    """As `pair_of`, for two tables of one row and the same columns."""
    both = pa.concat_tables([clip.select(other.column_names), other])
    rank = quality(both, recipe.content.prefer)
    differs = np.flatnonzero(rank[0] != rank[1])
    decides = None
    if clip["rejected_by"][0].as_py() == COPIES.key and len(differs):
        decides = recipe.content.prefer[differs[0]]
    rows = [
        {"name": name, "this": said[0], "other": said[1], "decides": name == decides}
        for name, said in ((name, _said(both, name)) for name in recipe.content.prefer)
    ]
    row = other.to_pylist()[0]
    where = span(row["start_s"], row["end_s"])
    decided = decides or _otherwise(clip, row["clip_id"])
    return {"clip_id": row["clip_id"], "uri": row["uri"], "span": where, "decided_by": decided, "rows": rows}


def _otherwise(clip: pa.Table, stays: str) -> str:
    if clip["rejected_by"][0].as_py() == ALIKE.key and clip["semantic_group"][0].as_py() == stays:
        return "distance from the concept's centre"
    return "the order of the ids"


def _said(clips: pa.Table, name: str) -> list[str]:
    rows = clips.to_pylist()
    if name == "resolution":
        return [_resolution(row) for row in rows]
    column = "duration_s" if name == "duration" else name
    values = [row.get(column) for row in rows]
    units = {"fps": " fps", "duration": " s", "bits_per_pixel": ""}
    pairs = zip(values, reversed(values))
    return ["not known" if v is None else number(v, other) + units[name] for v, other in pairs]


def _resolution(row: dict[str, Any]) -> str:
    whole = f"{row['width']} × {row['height']}"
    if row.get("crop_width") is None or row.get("crop_height") is None:
        return whole
    clean = f"{row['crop_width']} × {row['crop_height']}"
    return whole if clean == whole else f"{clean} of {whole}"


def sentence(pair: dict[str, Any]) -> str:
    """What decided, in a few words; empty where no value did."""
    for row in pair["rows"]:
        if row["decides"]:
            return f"{row['name'].replace('_', ' ')}: {row['other']} against {row['this']}"
    return ""


def stands_for(run: Run, clip_id: str) -> str | None:
    """How many clips were dropped for this one, in words; None where none was."""
    found = query(
        run, "SELECT clip_id, count(*) OVER () AS n FROM {clips} WHERE duplicate_of = ? ORDER BY clip_id LIMIT ?",
        [clip_id, STANDS_FOR],
    ).to_pylist()  # fmt: skip
    if not found:
        return None
    more = found[0]["n"] - len(found)
    return ", ".join(row["clip_id"] for row in found) + (f" and {more:,} more" if more else "")
