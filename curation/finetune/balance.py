"""The same number of clips for each concept: neighbours of seeds that people picked. Pure functions.

A clip belongs to the concept whose seeds or words it is nearest to, and to no other; the nearest are taken first.
Nothing is drawn: the same candidates and seeds give the same choice, in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Concept:
    """name; seeds: clip ids that people picked; vectors: unit vectors [K, D] of the seeds and of the words, if any."""

    name: str
    seeds: tuple[str, ...]
    vectors: np.ndarray


@dataclass(frozen=True)
class Chosen:
    clip_id: str
    concept: str
    cosine: float


@dataclass(frozen=True)
class Balance:
    """chosen: by concept in the order given, the nearest first; missing: concept -> clips that it lacks."""

    chosen: tuple[Chosen, ...]
    missing: dict[str, int]


def balance(
    concepts: Sequence[Concept], vectors: Iterable[tuple[Sequence[str], np.ndarray]], each: int,
    least: float | None = None,
) -> Balance:  # fmt: skip
    """`each` clips for every concept, of candidates that come as (ids, unit vectors [N, D]) in pieces.

    least: cosine below which a clip is no neighbour. Holds one concept and one number per candidate.
    """
    seeds = {seed: number for number, concept in enumerate(concepts) for seed in concept.seeds}
    lists: list[list[Chosen]] = [[] for _ in concepts]
    queries = np.concatenate([concept.vectors for concept in concepts]).astype(np.float32)
    owner = np.repeat(np.arange(len(concepts)), [len(concept.vectors) for concept in concepts])
    for ids, rows in vectors:
        cosine = np.nan_to_num(rows @ queries.T, nan=-2.0)
        for clip_id, nearest, best in zip(ids, owner[cosine.argmax(axis=1)], cosine.max(axis=1), strict=True):
            own = seeds.get(clip_id)
            if own is not None:
                lists[own].append(Chosen(clip_id, concepts[own].name, 2.0))  # a seed comes before all its neighbours
            elif best > -2.0 and (least is None or best >= least):
                lists[nearest].append(Chosen(clip_id, concepts[nearest].name, float(best)))
    taken: list[Chosen] = []
    missing: dict[str, int] = {}
    for concept, some in zip(concepts, lists, strict=True):
        some.sort(key=lambda one: (-round(one.cosine, 5), one.clip_id))
        taken += [Chosen(one.clip_id, one.concept, min(one.cosine, 1.0)) for one in some[:each]]
        if len(some) < each:
            missing[concept.name] = each - len(some)
    return Balance(tuple(taken), missing)
