"""The stills that the observation kept of clips: pictures without opening a video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from rushes.curation.manifest import ManifestError, Run
from rushes.curation.recipe import Recipe
from rushes.curation.tracks import stills_of as in_spans
from rushes.pipelines.stages.records import Ledger, by_source, read_observed
from rushes.pipelines.view.tables import records


def stills_of(run: Run, recipe: Recipe, clip_ids: Iterable[str]) -> dict[str, list[bytes]]:
    """JPEGs by clip id, in order of time. A clip whose stills are gone (the work folder was cleared) is missing."""
    sql = "SELECT clip_id, source_id, start_s, end_s FROM {clips} WHERE list_contains(?, clip_id)"
    return stills_of_rows(run, recipe, records(run, sql, [list(clip_ids)]))


def stills_of_rows(run: Run, recipe: Recipe, rows: Iterable[dict[str, Any]]) -> dict[str, list[bytes]]:
    """As `stills_of`, of clips whose clip_id, source_id, start_s and end_s are known."""
    wanted: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        wanted[row["source_id"]].append(row)
    observed = observed_of(run, recipe)
    found: dict[str, list[bytes]] = {}
    for source_id, some in wanted.items():
        try:
            table = read_observed(observed.get(source_id, []), source_id)
        except (FileNotFoundError, ManifestError):
            continue
        spans = in_spans(table, source_id, [(row["start_s"], row["end_s"]) for row in some], recipe.visual.stills_max)
        pictures = zip((row["clip_id"] for row in some), spans, strict=True)
        found |= {clip_id: [jpeg for _, jpeg in stills] for clip_id, stills in pictures if stills}
    return found


def observed_of(run: Run, recipe: Recipe) -> dict[str, list[str]]:
    """Addresses of the observation's records by source: tracks and stills, also of a run that an older release made."""
    parts = run.record["recipe"].get("parts", {})
    return _observed(run.root, parts.get("observe") or recipe.part_hash("observe"), run.snapshot)


@lru_cache(maxsize=8)
def _observed(root: str, key: str, snapshot: str) -> dict[str, list[str]]:
    """Records of every source of a run; snapshot: whose they are, so that a newer one is looked up anew."""
    return by_source(Ledger(root, "observe", key))
