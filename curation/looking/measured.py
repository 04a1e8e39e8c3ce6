"""The lookers that need no weights of their own: text, people, aesthetics and embeddings, each named for what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rushes.curation.content.embed import MeasuredCopyEmbedder, MeasuredSemanticEmbedder
from rushes.curation.looking.base import Clip
from rushes.curation.memory import give_back
from rushes.curation.meter import Unmeasured
from rushes.curation.recipe import Recipe
from rushes.curation.visual import splits
from rushes.curation.visual.aesthetics import MeasuredAesthetics
from rushes.curation.visual.people import PeopleDetector
from rushes.curation.visual.text import TextMeter


class TextLooker:
    columns = ("text_score", "text", "overlays", "text_at_s")

    def __init__(self, recipe: Recipe) -> None:
        visual = recipe.visual
        self._meter = TextMeter(side=visual.text_side, max_frames=visual.text_frames, stop_at=visual.text_stop)
        self.name = self._meter.name

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        found = []
        for clip in clips:
            found.append(self._meter.measure(clip.pictures, clip.times))
            give_back()
        return [
            {
                "text_score": one.score, "text": one.text or None, "overlays": list(sum(one.overlays, ())) or None,
                "text_at_s": [float(clip.times[place]) for place in one.stands_in] or None,
            }
            for clip, one in zip(clips, found, strict=True)
        ]  # fmt: skip


class PeopleLooker:
    columns = ("human_score", "heads")

    def __init__(self) -> None:
        self._detector = PeopleDetector()
        self.name = self._detector.name

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        found = [self._detector.find(clip.pictures) for clip in clips]
        return [{"human_score": score, "heads": list(sum(heads, ())) or None} for score, heads in found]


class AestheticLooker:
    columns = ("aesthetic",)
    name = MeasuredAesthetics.name

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        measure = MeasuredAesthetics().measure
        return [{"aesthetic": measure(clip.pictures)} for clip in clips]


class SplitLooker:
    columns = ("split_score", "panel")
    name = splits.NAME

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        return [self._row(splits.split_screen(clip.pictures)) for clip in clips]

    @staticmethod
    def _row(found: splits.Split | Unmeasured) -> dict[str, Any]:
        if isinstance(found, Unmeasured):
            return {"split_score": found, "panel": None}
        return {"split_score": found.score, "panel": list(found.box) if found.score >= splits.SURE else None}


class CopyLooker:
    columns = ("copy",)
    name, dim = MeasuredCopyEmbedder.name, MeasuredCopyEmbedder.dim

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        rows = MeasuredCopyEmbedder()([clip.pictures for clip in clips])
        flat = Unmeasured("the picture is one flat colour")
        return [{"copy": row if row.any() else flat} for row in rows]


class SemanticLooker:
    columns = ("semantic",)
    name, dim = MeasuredSemanticEmbedder.name, MeasuredSemanticEmbedder.dim

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        return [{"semantic": row} for row in MeasuredSemanticEmbedder()([clip.pictures for clip in clips])]
