"""Clips near a clip, a picture or a text, with what their rows say."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushes.curation.content import published
from rushes.curation.content.embed import MeasuredSemanticEmbedder
from rushes.curation.content.near import neighbours, vector_of
from rushes.curation.looking.base import ModelError
from rushes.curation.manifest import ManifestError, Run
from rushes.pipelines.view.story import clip_named, nearest_name
from rushes.pipelines.view.tables import recipe_of, records

SHOWN = "clip_id, uri, start_s, end_s, kept, rejected_by, caption, media"


def near(
    run: Run, k: int, clip: str | None = None, image: str | None = None, text: str | None = None,
    among: str | None = None, weights: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The k clips nearest to one of `clip` (an id, itself left out), `image` (a file) and `text`: rows with a cosine.

    among: name of a set. weights: where the weights of the run's model lie, if not where its recipe says. Raises
    ManifestError where something is not there or cannot be compared.
    """
    inside = None
    if among is not None:
        inside = set(run.table(f"sets/{among}", ["clip_id"])["clip_id"].to_pylist())
    if clip is not None:
        clip = clip_named(run, clip)
        try:
            query = vector_of(run, clip)
        except ManifestError as error:
            if records(run, "SELECT 1 FROM {clips} WHERE clip_id = ? LIMIT 1", [clip]):
                raise
            raise ManifestError(f"{str(error).rstrip('.')}; {nearest_name(run, clip)}") from error
    else:
        query = _picture(run, image, weights) if image is not None else text_vector(run, text or "", weights)
    found = neighbours(run, query, k + (clip is not None), inside)
    found = [one for one in found if one.clip_id != clip][:k]
    marks = ", ".join("?" for _ in found) or "NULL"
    rows = records(run, f"SELECT {SHOWN} FROM {{clips}} WHERE clip_id IN ({marks})", [one.clip_id for one in found])
    by_id = {row["clip_id"]: row for row in rows}
    return [{"cosine": one.cosine, **by_id[one.clip_id]} for one in found if one.clip_id in by_id]


def made_by(run: Run) -> str:
    """The model that made the run's semantic vectors, as its rows name it. Raises ManifestError where none did."""
    found = published.made_by(run, "semantic")
    if found is None:
        raise ManifestError(f"{run.root} has no semantic vectors: no model looked at a clip of it.")
    return found


def tower(run: Run, weights: str | None = None) -> Any:
    """The model that made the run's semantic vectors, loaded on the CPU. Raises ManifestError where it is another."""
    from rushes.curation.looking.clip import Tower

    models, wanted = recipe_of(run).models, made_by(run)
    try:
        found = Tower(models.clip, weights or models.clip_weights)
    except ModelError as error:
        raise ManifestError(
            f"The semantic vectors of {run.root} come from {wanted}, which cannot be loaded here: {error} "
            "--weights FILE says where its weights lie on this machine."
        ) from error
    if found.name != wanted:
        raise ManifestError(
            f"The semantic vectors of {run.root} come from {wanted}, and {weights or models.clip_weights} holds "
            f"{found.name}: name the weights that the run was made with by --weights FILE."
        )
    return found


def _picture(run: Run, path: str, weights: str | None) -> np.ndarray:
    import cv2

    picture = cv2.imread(path, cv2.IMREAD_COLOR)
    if picture is None:
        raise ManifestError(f"{path} is no picture that can be read.")
    if made_by(run) == MeasuredSemanticEmbedder.name:
        return MeasuredSemanticEmbedder()([[picture]])[0]
    return tower(run, weights).pictures([picture])[0]


def text_vector(run: Run, text: str, weights: str | None = None) -> np.ndarray:
    """The text in the space of the run's semantic vectors, float [D]. Raises ManifestError where they know no words."""
    if not text.strip():
        raise ManifestError("--text is empty: say in a few words what the clips should show.")
    if made_by(run) == MeasuredSemanticEmbedder.name:
        raise ManifestError(
            f"The semantic vectors of {run.root} are {MeasuredSemanticEmbedder.name}: colours, edges and motion, which "
            "know no words. --text needs a run whose recipe has models.semantic=clip; use --clip or --image here."
        )
    return tower(run, weights).texts([text])[0]
