"""Clips near a clip, a picture or a text, with what their rows say."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushes.curation.content.embed import MeasuredSemanticEmbedder
from rushes.curation.content.near import neighbours, vector_of
from rushes.curation.manifest import ManifestError, Run
from rushes.pipelines.view.tables import records

SHOWN = "clip_id, uri, start_s, end_s, kept, rejected_by, caption, media"


def near(
    run: Run, k: int, clip: str | None = None, image: str | None = None, text: str | None = None,
    among: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The k clips nearest to one of `clip` (an id, itself left out), `image` (a file) and `text`: rows with a cosine.

    among: name of a set. Raises ManifestError where something is not there or cannot be compared.
    """
    inside = None
    if among is not None:
        inside = set(run.table(f"sets/{among}", ["clip_id"])["clip_id"].to_pylist())
    query = vector_of(run, clip) if clip is not None else _picture(image) if image is not None else _text(run)
    found = neighbours(run, query, k + (clip is not None), inside)
    found = [one for one in found if one.clip_id != clip][:k]
    marks = ", ".join("?" for _ in found) or "NULL"
    rows = records(run, f"SELECT {SHOWN} FROM {{clips}} WHERE clip_id IN ({marks})", [one.clip_id for one in found])
    by_id = {row["clip_id"]: row for row in rows}
    return [{"cosine": one.cosine, **by_id[one.clip_id]} for one in found if one.clip_id in by_id]


def _picture(path: str | None) -> np.ndarray:
    import cv2

    picture = cv2.imread(path or "", cv2.IMREAD_COLOR)
    if picture is None:
        raise ManifestError(f"{path} is no picture that can be read.")
    return MeasuredSemanticEmbedder()([[picture]])[0]


def _text(run: Run) -> np.ndarray:
    raise ManifestError(
        f"The semantic vectors of {run.root} are measured colours, edges and motion, which know no words: --text needs "
        f"a run whose vectors come from a model with a text tower; use --clip or --image."
    )
