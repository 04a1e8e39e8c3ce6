"""LOOK: models on a few stills of the clips that passed the decode's rules: text, people, aesthetics, embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation import signals
from rushes.curation.content import MeasuredCopyEmbedder, MeasuredSemanticEmbedder
from rushes.curation.recipe import Recipe
from rushes.curation.visual.aesthetics import MeasuredAesthetics
from rushes.curation.visual.people import PeopleDetector
from rushes.curation.visual.stills import decode
from rushes.curation.visual.text import TextMeter


class Looker:
    """`Looker(recipe)(clip_ids, stills)`: one row per clip; models are loaded when it is built.

    Raises ImportError with what to install where a model's package is missing.
    """

    def __init__(self, recipe: Recipe) -> None:
        visual = recipe.visual
        self._text = (
            TextMeter(side=visual.text_side, max_frames=visual.text_frames, stop_at=visual.text_stop)
            if visual.text
            else None
        )
        self._people = PeopleDetector() if visual.people else None
        self._aesthetics = MeasuredAesthetics()
        self._copy, self._semantic = MeasuredCopyEmbedder(), MeasuredSemanticEmbedder()
        self.schema = pa.schema(
            [
                ("clip_id", pa.string()),
                *signals.schema("look"),
                ("look_notes", pa.list_(pa.string())),
                ("semantic", pa.list_(pa.float32(), self._semantic.dim)),
                ("copy", pa.list_(pa.float32(), self._copy.dim)),
            ]
        )

    def __call__(self, clip_ids: list[str], stills: pa.Table) -> pa.Table:
        """stills: the STILLS rows of these clips (others are passed over). Rows come in the order of clip_ids."""
        by_clip: dict[str, list[tuple[float, bytes]]] = {clip_id: [] for clip_id in clip_ids}
        for row in stills.to_pylist():
            if row["clip_id"] in by_clip:
                by_clip[row["clip_id"]].append((row["t_s"], row["jpeg"]))
        rows = [self._look(clip_id, sorted(by_clip[clip_id])) for clip_id in clip_ids]
        return pa.Table.from_pylist(rows, self.schema)

    def _look(self, clip_id: str, stills: list[tuple[float, bytes]]) -> dict[str, Any]:
        row: dict[str, Any] = {"clip_id": clip_id, "look_notes": ["quality: no model measures it in this recipe"]}
        if not stills:
            row["look_notes"].append("text_score, aesthetic, human_score: the clip is too short for a still")
            return row
        times, pictures = [t for t, _ in stills], [decode(jpeg) for _, jpeg in stills]
        if self._text is not None:
            result = self._text.measure(pictures, times)
            row["text_score"], row["text"] = result.score, result.text or None
        else:
            row["look_notes"].append("text_score: visual.text is off")
        if self._people is not None:
            row["human_score"] = self._people.measure(pictures)
        else:
            row["look_notes"].append("human_score: visual.people is off")
        row["aesthetic"] = self._aesthetics.measure(pictures)
        row["semantic"], row["copy"] = self._semantic([pictures])[0], self._copy([pictures])[0]
        return row


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """float32 [N, D] of a fixed-size list column; rows that are null become NaN."""
    combined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    width = combined.type.list_size
    out = np.full((len(combined), width), np.nan, np.float32)
    valid = ~np.asarray(combined.is_null())
    out[valid] = combined.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return out
