"""Concepts of a run: their words, and how many of their clips were kept and dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rushes.curation.content.concepts import CONCEPTS, Concepts
from rushes.curation.content.grid import vectors_of
from rushes.curation.content.names import CAPTIONS_PER_CONCEPT, names, seen
from rushes.curation.looking.vocabulary import VOCABULARY
from rushes.curation.manifest import Run
from rushes.pipelines.view.tables import records


@dataclass(frozen=True)
class Concept:
    """words: of its captions; seen: what the text tower of the run's model says, empty where it has none.

    clips: that passed the rules and are no copies (the size the sampling weighs by); sampled: those kept of them.
    example: the kept clip with the smallest id, of the source source_id.
    """

    cluster_id: int
    words: str
    seen: str
    measured: int
    clips: int
    sampled: int
    example: str | None
    source_id: str | None

    @property
    def dropped(self) -> int:
        return self.clips - self.sampled

    @property
    def title(self) -> str:
        """Words for people: what is seen, else what captions say, else its number."""
        return self.seen or self.words or f"concept {self.cluster_id}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"dropped": self.dropped}


def places(run: Run, wanted: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Where concepts lie on a map, -1 to 1: their centres on the two directions in which these differ most.

    Empty where the run has no table of concepts, or one concept only.
    """
    if "concepts" not in run.tables or len(wanted) < 2:
        return {}
    table = run.table("concepts", ["cluster_id", "clips", "centre"])
    ids, sizes = table["cluster_id"].to_numpy(), table["clips"].to_numpy()
    largest = {int(ids[at]): int(at) for at in np.argsort(sizes, kind="stable")}  # the last one written is the largest
    known = [one for one in wanted if one in largest]
    centres = np.array([table["centre"][largest[one]].as_py() for one in known], np.float64)
    if len(known) < 2:
        return {}
    away = centres - centres.mean(axis=0)
    _, _, directions = np.linalg.svd(away, full_matrices=False)
    flat = away @ directions[:2].T
    flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    flat /= np.abs(flat).max() or 1.0
    return {one: (float(x), float(y)) for one, (x, y) in zip(known, flat, strict=True)}


def concepts(run: Run, most: int | None = None) -> list[Concept]:
    """The concepts of a run by size, the largest first; at most `most` of them."""
    rows = records(
        run,
        f"""
        SELECT cluster_id, count(*) AS measured, coalesce(max(cluster_size), 0) AS clips,
               count(*) FILTER (kept) AS sampled, min(clip_id) FILTER (kept) AS example,
               arg_min(source_id, clip_id) FILTER (kept) AS source_id,
               arg_min(caption, clip_id, {CAPTIONS_PER_CONCEPT}) FILTER (caption IS NOT NULL) AS captions
        FROM {{clips}} WHERE cluster_id IS NOT NULL
        GROUP BY cluster_id ORDER BY clips DESC, measured DESC, cluster_id
        """,
    )
    words, seen = names([row.pop("captions") or [] for row in rows]), _seen(run)
    return [
        Concept(words=some, seen=seen.get(row["cluster_id"], ""), **row) for some, row in zip(words, rows, strict=True)
    ][:most]


def _seen(run: Run) -> dict[int, str]:
    """What the run's text tower says of each concept, by its number; nothing where there is none."""
    if VOCABULARY not in run.tables or CONCEPTS not in run.tables:
        return {}
    found, words = Concepts.of(run.table(CONCEPTS)), run.table(VOCABULARY)
    named, place = np.unique(found.cluster_id, return_inverse=True)
    centres = np.zeros((len(named), found.centres.shape[1]))
    np.add.at(centres, place, found.centres * found.clips[:, None].astype(float))  # of clusters that were merged
    return dict(zip(named.tolist(), seen(centres, words["word"].to_pylist(), vectors_of(words["vector"])), strict=True))
