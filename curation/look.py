"""LOOK: models on a few stills of the clips that passed the decode's rules, some clips at a time (curation/looking)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation import signals
from rushes.curation.looking.base import Clip
from rushes.curation.looking.base import Looker as OneLooker
from rushes.curation.looking.registry import chosen, gpu_share
from rushes.curation.meter import Unmeasured
from rushes.curation.recipe import Recipe
from rushes.curation.visual.stills import decode

CLIPS_AT_ONCE = 4  # whose pictures are decoded together; 16 stills of 640 x 360 each are 44 MB
VECTORS = ("semantic", "copy")
BOXES = ("overlays", "heads", "panel")  # columns of boxes: found inside the borders, told of the whole frame
NO_STILL = "the clip is too short for a still"
OFF = {
    "visual.text is off": ("text_score", "overlays", "text_at_s"),
    "visual.people is off": ("human_score", "heads"),
    "no model measures it in this recipe": (
        "human_action",
        "nsfw_score",
        "watermark_score",
        "rendered_score",
    ),
}


class Looker:
    """All lookers of a recipe: `Looker(recipe)(clip_ids, stills)` answers one row per clip, of many sources at once.

    Models are loaded when it is built. At most CLIPS_AT_ONCE clips' pictures are decoded at a time, however many clips
    are given; on a GPU the next ones are decoded meanwhile. A clip's row depends on its own stills alone.
    Raises ModelError or ImportError with what is missing, in a sentence.
    """

    def __init__(self, recipe: Recipe) -> None:
        device = "cuda" if gpu_share(recipe) else "cpu"
        self._ahead = device != "cpu"
        self._lookers: list[OneLooker] = [entry.build(recipe, device) for entry in chosen(recipe)]
        self.made_by = {column: _made_by(looker, column) for looker in self._lookers for column in looker.columns}
        widths = {column: _width(self._lookers, column) for column in VECTORS}
        self.schema = pa.schema(
            [
                ("clip_id", pa.string()),
                *signals.schema("look"),
                ("look_notes", pa.list_(pa.string())),
                *((column, pa.list_(pa.float32(), width)) for column, width in widths.items()),
            ]
        )
        self._models = [f"{column}: {name}" for column, name in sorted(self.made_by.items())]
        missing = {why: [name for name in names if name not in self.made_by] for why, names in OFF.items()}
        self._off = [f"{', '.join(names)}: {why}" for why, names in missing.items() if names]

    def __call__(
        self, clip_ids: Sequence[str], stills: pa.Table, pictures: Mapping[str, Sequence[float]] | None = None
    ) -> pa.Table:
        """stills: the STILLS rows of these clips (others are passed over). Rows come in the order of clip_ids.

        pictures: of clips with borders, what lies inside them (column `picture`): models see nothing else.
        """
        inside = pictures or {}
        by_clip: dict[str, list[tuple[float, int]]] = {clip_id: [] for clip_id in clip_ids}
        for number, (clip_id, time_s) in enumerate(zip(stills["clip_id"].to_pylist(), stills["t_s"].to_pylist())):
            if clip_id in by_clip:
                by_clip[clip_id].append((time_s, number))
        rows: list[dict[str, Any]] = []
        for clips in self._decoded(by_clip, stills["jpeg"], inside):
            rows += self._look(clips)
        for row in rows:
            for column in BOXES:
                if row["clip_id"] in inside and row.get(column):
                    row[column] = _of_frame(row[column], inside[row["clip_id"]])
        return pa.Table.from_pylist(rows, self.schema)

    def _decoded(
        self, by_clip: dict[str, list[tuple[float, int]]], jpegs: pa.ChunkedArray, inside: Mapping[str, Sequence[float]]
    ) -> Iterator[list[Clip]]:
        """Clips with their pictures, some at a time; the next ones are decoded ahead where a GPU would wait."""

        def one(clip_id: str) -> Clip:
            found = sorted(by_clip[clip_id])
            pictures = [decode(jpegs[number].as_py()) for _, number in found]
            if clip_id in inside:
                pictures = [_cropped(picture, inside[clip_id]) for picture in pictures]
            return Clip(clip_id, [t for t, _ in found], pictures)

        names = list(by_clip)
        groups = [names[i : i + CLIPS_AT_ONCE] for i in range(0, len(names), CLIPS_AT_ONCE)]
        if not self._ahead:
            yield from ([one(name) for name in group] for group in groups)
            return
        with ThreadPoolExecutor(1) as pool:
            coming = None
            for group in [*groups, []]:
                ready, coming = coming, pool.submit(lambda names: [one(name) for name in names], group)
                if ready is not None:
                    yield ready.result()

    def _look(self, clips: list[Clip]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [
            {"clip_id": clip.clip_id, "look_models": self._models, "look_notes": list(self._off)} for clip in clips
        ]
        seen = [(clip, row) for clip, row in zip(clips, rows) if clip.pictures]
        for clip, row in zip(clips, rows):
            if not clip.pictures:
                row["look_models"] = []
                row["look_notes"].append(f"{', '.join(sorted(self.made_by))}: {NO_STILL}")
        if not seen:
            return rows
        for looker in self._lookers:
            for (_, row), answer in zip(seen, looker([clip for clip, _ in seen]), strict=True):
                for column, value in answer.items():
                    if isinstance(value, Unmeasured):
                        row["look_notes"].append(f"{column}: {value.reason}")
                    else:
                        row[column] = value
        for clip, row in seen:
            row["look_notes"] += clip.notes
        return rows


def _cropped(picture: np.ndarray, box: Sequence[float]) -> np.ndarray:
    height, width = picture.shape[:2]
    x0, x1 = (round(width * side) for side in (box[0], box[2]))
    y0, y1 = (round(height * side) for side in (box[1], box[3]))
    return np.ascontiguousarray(picture[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])


def _of_frame(boxes: Sequence[float], inside: Sequence[float]) -> list[float]:
    """Boxes inside a picture as boxes of the frame that it stands in."""
    low, size = np.array(inside[:2] * 2), np.array([inside[2] - inside[0], inside[3] - inside[1]] * 2)
    return (np.reshape(boxes, (-1, 4)) * size + low).ravel().tolist()


def _made_by(looker: OneLooker, column: str) -> str:
    told = getattr(looker, "made_by", None)
    return told(column) if told else looker.name


def _width(lookers: Sequence[OneLooker], column: str) -> int:
    looker = next(looker for looker in lookers if column in looker.columns)
    return looker.dim if hasattr(looker, "dim") else looker.tower.dim
