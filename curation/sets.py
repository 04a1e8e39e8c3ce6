"""CURRICULUM over shards: which clips are in which stage set, and the validation sources.

`solve` is two reductions: clips per source, then who could be in which set. In the calling process are 10 bytes for
each clip that is ready (its luck and its signature) and one count for each source; everything else is mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation import rescue, rules
from rushes.curation.content.arrays import Mapper, gathered
from rushes.curation.curriculum import Cuts, SetSpec, buckets, luck, nested_cuts, signatures, validation_sources
from rushes.curation.decide import Load
from rushes.curation.recipe import Recipe

VALIDATION = "validation"
VALIDATION_FAR = 2.0  # times the share asked for above which the share held out is said aloud


@dataclass(frozen=True)
class Sets:
    """What filling the sets from one shard has to know of all others, and what people should know."""

    held: frozenset[str]  # sources of the validation set
    cuts: Cuts
    notes: tuple[str, ...]


def solve(load: Load, shards: Sequence[Any], recipe: Recipe, mapper: Mapper = map) -> Sets:
    """Validation sources by hash, and the quotas of the nested sets met by leaving out as few clips as possible.

    load(shard) gives the shard's final rows, with `kept` and `media`: only clips that are kept and cut are in a set.
    """
    held, notes = _hold_out(mapper(partial(_sources, load=load), shards), recipe)
    found = list(mapper(partial(_candidates, load=load, recipe=recipe, held=held), shards))
    signature = gathered([s for s, _ in found], np.empty(0, np.uint16))
    draws = gathered([d for _, d in found], np.empty(0, np.uint64))
    cuts = nested_cuts(signature.astype(np.int64), draws, _specs(recipe))
    notes += [f"{name}: {note}." for name, note in cuts.notes.items()]
    return Sets(held, cuts, tuple(notes))


def members(clips: pa.Table, sets: Sets, recipe: Recipe) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Of a shard's final rows: set name -> bool [N], and the bucket of every kept clip (object [N])."""
    ready, ids, held = _ready(clips, sets.held)
    train = np.flatnonzero(ready & ~held)
    signature, draws = _signatures(clips.take(pa.array(train)), recipe), luck(ids[train], recipe.content.seed)
    masks = {}
    for name in recipe.curriculum.sets:
        masks[name] = np.zeros(clips.num_rows, bool)
        masks[name][train] = sets.cuts.members(name, signature, draws)
    masks[VALIDATION] = ready & held
    kept = rules.column(clips, "kept") == 1
    size = (*rescue.size(clips), rules.column(clips, "duration_s"))
    return masks, np.where(kept, buckets(*size), None)


def curriculum(clips: pa.Table, recipe: Recipe) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """`solve` and `members` for a table that is one shard: masks, buckets, and sentences."""
    sets = solve(_itself, [clips], recipe)
    return (*members(clips, sets, recipe), list(sets.notes))


def _itself(table: pa.Table) -> pa.Table:
    return table


def _specs(recipe: Recipe) -> list[SetSpec]:
    return [SetSpec(name, spec.landscape, spec.people) for name, spec in recipe.curriculum.sets.items()]


def _ready(clips: pa.Table, held: frozenset[str] = frozenset()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """bool [N] who is kept and cut, the ids, and bool [N] who is of a source held out."""
    ready = (rules.column(clips, "kept") == 1) & ~np.asarray(clips["media"].is_null())
    ids = clips["clip_id"].to_numpy(zero_copy_only=False).astype(str)
    sources = clips["source_id"].to_numpy(zero_copy_only=False).astype(str)
    return ready, ids, np.isin(sources, sorted(held)) if held else np.zeros(len(ids), bool)


def _signatures(clips: pa.Table, recipe: Recipe) -> np.ndarray:
    people = rules.column(clips, "human_score") >= recipe.content.people_min
    wide = np.greater_equal(*rescue.size(clips))
    return signatures(wide, people, [rules.passes_set(clips, recipe, name) for name in recipe.curriculum.sets])


def _sources(shard: Any, load: Load) -> tuple[np.ndarray, np.ndarray]:
    """Sources of the shard's ready clips, and how many clips each has."""
    clips = load(shard)
    ready, _, _ = _ready(clips)
    return np.unique(clips["source_id"].to_numpy(zero_copy_only=False).astype(str)[ready], return_counts=True)


def _candidates(shard: Any, load: Load, recipe: Recipe, held: frozenset[str]) -> tuple[np.ndarray, np.ndarray]:
    """Signature (uint16, or more where there are many sets) and luck of the shard's clips for training."""
    clips = load(shard)
    ready, ids, out = _ready(clips, held)
    train = np.flatnonzero(ready & ~out)
    kind = np.uint16 if len(recipe.curriculum.sets) <= 14 else np.int64
    return _signatures(clips.take(pa.array(train)), recipe).astype(kind), luck(ids[train], recipe.content.seed)


def _hold_out(found: Any, recipe: Recipe) -> tuple[frozenset[str], list[str]]:
    parts = list(found)
    names, inverse = np.unique(np.concatenate([n for n, _ in parts]) if parts else [], return_inverse=True)
    clips = np.bincount(inverse, np.concatenate([c for _, c in parts]) if parts else [], len(names)).astype(np.int64)
    if not len(names):
        return frozenset(), []
    asked = recipe.curriculum.validation
    held, sentence = validation_sources(names, clips, asked, recipe.content.seed)
    notes = [sentence] if sentence else []
    out, total = int(clips[np.isin(names, sorted(held))].sum()) if held else 0, int(clips.sum())
    if out > VALIDATION_FAR * asked * total:
        notes.append(
            f"validation holds {out} of {total} clips ({out / total:.0%}, {asked:.0%} asked for): whole sources are "
            f"held out, and there are few."
        )
    return frozenset(held), notes
