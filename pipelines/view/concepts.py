"""Concepts of a run: their words, and how many of their clips were kept and dropped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rushes.curation.content.names import CAPTIONS_PER_CONCEPT, names
from rushes.curation.manifest import Run
from rushes.pipelines.view.tables import records


@dataclass(frozen=True)
class Concept:
    """clips: that passed the rules and are no copies (the size the sampling weighs by); sampled: those kept of them.

    example: the kept clip with the smallest id, of the source source_id.
    """

    cluster_id: int
    words: str
    measured: int
    clips: int
    sampled: int
    example: str | None
    source_id: str | None

    @property
    def dropped(self) -> int:
        return self.clips - self.sampled

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"dropped": self.dropped}


def concepts(run: Run, most: int | None = None) -> list[Concept]:
    """The concepts of a run by size, the largest first; at most `most` of them."""
    rows = records(
        run,
        f"""
        SELECT cluster_id, count(*) AS measured, coalesce(max(cluster_size), 0) AS clips,
               count(*) FILTER (kept) AS sampled, min(clip_id) FILTER (kept) AS example,
               arg_min(source_id, clip_id) FILTER (kept) AS source_id,
               (list(caption ORDER BY clip_id) FILTER (caption IS NOT NULL))[1:{CAPTIONS_PER_CONCEPT}] AS captions
        FROM {{clips}} WHERE cluster_id IS NOT NULL
        GROUP BY cluster_id ORDER BY clips DESC, measured DESC, cluster_id
        """,
    )
    words = names([row.pop("captions") or [] for row in rows])
    return [Concept(words=some, **row) for some, row in zip(words, rows, strict=True)][:most]
