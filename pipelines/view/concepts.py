"""Concepts of a run: their words, and how many of their clips were kept and dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation.content.concepts import CONCEPTS, Concepts
from rushes.curation.content.grid import vectors_of
from rushes.curation.content.names import CAPTIONS_PER_CONCEPT, names, seen
from rushes.curation.content.near import unit
from rushes.curation.content.shards import batches
from rushes.curation.looking.vocabulary import VOCABULARY
from rushes.curation.manifest import Run
from rushes.pipelines.view.tables import records

POINTS_MOST, PIECES = 4_000, 16  # clips that are drawn as points, and places of a file where they are read
EDGE = 1.15  # of the map, beyond the outermost centre


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


@dataclass(frozen=True)
class Flat:
    """A map of vectors on the two directions in which the concepts' centres differ most; -1 to 1 holds the centres."""

    middle: np.ndarray
    directions: np.ndarray
    scale: float

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Places [N, 2] of vectors [N, D]."""
        flat = (vectors - self.middle) @ self.directions.T
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1]))) / self.scale


def places(run: Run, wanted: Sequence[int]) -> tuple[dict[int, tuple[float, float]], Flat | None]:
    """Where concepts lie on a map, and the map; nothing where the run has no table of concepts, or one concept only."""
    if "concepts" not in run.tables or len(wanted) < 2:
        return {}, None
    table = run.table("concepts", ["cluster_id", "clips", "centre"])
    ids, sizes = table["cluster_id"].to_numpy(), table["clips"].to_numpy()
    largest = {int(ids[at]): int(at) for at in np.argsort(sizes, kind="stable")}  # the last one written is the largest
    known = [one for one in wanted if one in largest]
    if len(known) < 2:
        return {}, None
    centres = np.array([table["centre"][largest[one]].as_py() for one in known], np.float64)
    middle = centres.mean(axis=0)
    _, _, directions = np.linalg.svd(centres - middle, full_matrices=False)
    scale = float(np.abs((centres - middle) @ directions[:2].T).max()) or 1.0
    flat = Flat(middle, directions[:2], scale)
    at = flat(centres)
    return {one: (float(x), float(y)) for one, (x, y) in zip(known, at, strict=True)}, flat


def points(run: Run, flat: Flat, most: int = POINTS_MOST) -> list[dict[str, Any]]:
    """Some clips as points of the map, {clip_id, at, kept}: all of a small run, else those at PIECES places of it."""
    found: dict[str, tuple[float, float]] = {}
    if "embeddings" not in run.tables:
        return []
    for uri, rows in zip(run.files("embeddings"), run.entry("embeddings").rows, strict=True):
        share = max(1, round(most * rows / max(sum(run.entry("embeddings").rows), 1)))
        pieces = 1 if rows <= share else PIECES
        for piece in range(pieces):
            start = piece * rows // pieces
            for batch in batches(uri, start, min(rows, start + -(-share // pieces)), ["clip_id", "semantic"]):
                if "semantic" in batch.schema.names and pa.types.is_fixed_size_list(batch["semantic"].type):
                    vectors = unit(vectors_of(batch["semantic"])).astype(np.float64)
                    at = np.clip(flat(vectors), -EDGE, EDGE).round(3)
                    places_of = zip(batch["clip_id"].to_pylist(), at.tolist(), strict=True)
                    found |= {clip_id: (x, y) for clip_id, (x, y) in places_of if np.isfinite(x)}
    sql = "SELECT clip_id, kept FROM {clips} WHERE list_contains(?, clip_id) ORDER BY clip_id"
    return [row | {"at": found[row["clip_id"]]} for row in records(run, sql, [list(found)])]


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
