"""The stills that the observation kept of clips: pictures without opening a video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

from rushes.curation.manifest import ManifestError, Run
from rushes.curation.recipe import Recipe
from rushes.curation.tracks import stills_of as in_spans
from rushes.pipelines.stages.records import Ledger, by_source, read_observed

Clip = tuple[str, str, float, float]  # clip_id, source_id, start_s, end_s


def stills_of(run: Run, recipe: Recipe, clips: Iterable[Clip]) -> dict[str, list[bytes]]:
    """JPEGs by clip id, in order of time. A clip whose stills are gone (the work folder was cleared) is missing."""
    wanted: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        wanted[clip[1]].append(clip)
    records = _records(run.root, recipe.part_hash("observe"), run.snapshot)
    found: dict[str, list[bytes]] = {}
    for source_id, some in wanted.items():
        try:
            table = read_observed(records.get(source_id, []), source_id)
        except (FileNotFoundError, ManifestError):
            continue
        spans = in_spans(table, source_id, [(start, end) for _, _, start, end in some], recipe.visual.stills_max)
        found |= {clip[0]: [jpeg for _, jpeg in stills] for clip, stills in zip(some, spans, strict=True) if stills}
    return found


@lru_cache(maxsize=8)
def _records(root: str, key: str, snapshot: str) -> dict[str, list[str]]:
    """Records of every source of a run; snapshot: whose they are, so that a newer one is looked up anew."""
    return by_source(Ledger(root, "observe", key))
