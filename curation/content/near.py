"""Neighbours: the clips of a run whose semantic vectors are nearest to a vector; files are read batch by batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rushes.curation import storage
from rushes.curation.content.grid import unit, vectors_of
from rushes.curation.content.shards import batches
from rushes.curation.manifest import ManifestError, Run


@dataclass(frozen=True)
class Neighbour:
    clip_id: str
    cosine: float


def neighbours(run: Run, query: np.ndarray, k: int, among: set[str] | None = None) -> list[Neighbour]:
    """The k clips nearest to `query` [D], nearest first, equals by id; `among` is who counts (None: all).

    Exact: every vector is compared (faiss). Raises ManifestError where the run has no vectors, or of another width.
    """
    import faiss

    query = unit(np.asarray(query, np.float32)[None])
    best: list[Neighbour] = []
    for ids, rows in semantic(run):
        if rows.shape[1] != query.shape[1]:
            raise ManifestError(
                f"{run.root} holds semantic vectors of {rows.shape[1]} numbers, and what is looked for has "
                f"{query.shape[1]}: they come from different models."
            )
        chosen = np.flatnonzero(np.isfinite(rows).all(axis=1))
        if among is not None:
            chosen = chosen[[ids[place] in among for place in chosen]] if len(chosen) else chosen
        if not len(chosen):
            continue
        cosine, place = faiss.knn(query, unit(rows[chosen]), min(k, len(chosen)), metric=faiss.METRIC_INNER_PRODUCT)
        best += [Neighbour(ids[chosen[j]], float(c)) for c, j in zip(cosine[0], place[0])]
        best = sorted(best, key=lambda one: (-one.cosine, one.clip_id))[:k]
    return best


def vector_of(run: Run, clip_id: str) -> np.ndarray:
    """The semantic vector of a clip. Raises ManifestError where there is no such clip or it was not looked at."""
    for ids, rows in semantic(run):
        if clip_id in ids:
            row = rows[ids.index(clip_id)]
            if np.isfinite(row).all():
                return row
            break
    raise ManifestError(f"{run.root} has no semantic vector of clip {clip_id}: it is not there, or was not looked at.")


def semantic(run: Run) -> Iterable[tuple[list[str], np.ndarray]]:
    """Clip ids and semantic vectors [n, D] of a run, some thousands at a time; NaN where there is none."""
    files = run.record["tables"].get("embeddings", {}).get("files", [])
    found = False
    for file in files:
        uri = storage.join(run.root, file)
        with storage.opened_table(uri) as table:
            rows = table.metadata.num_rows
        for batch in batches(uri, 0, rows, ["clip_id", "semantic"]):
            if "semantic" in batch.schema.names and pa.types.is_fixed_size_list(batch["semantic"].type):
                found = True
                yield batch["clip_id"].to_pylist(), vectors_of(batch["semantic"])
    if not found:
        raise ManifestError(f"{run.root} has no semantic vectors: no clip passed the rules of the decode.")
