"""The stills that the analysis kept of clips: pictures without opening a video."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from rushes.curation import manifest
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe

_SOURCE_ID = re.compile(r"[0-9A-Za-z_-]+")


def stills_of(run: Run, recipe: Recipe, clips: Iterable[tuple[str, str]]) -> dict[str, list[bytes]]:
    """JPEGs by clip id, in order of time. clips: (clip_id, source_id).

    A clip whose stills are gone (the work folder was cleared) is missing.
    """
    by_source: dict[str, list[str]] = defaultdict(list)
    for clip_id, source_id in clips:
        if source_id and _SOURCE_ID.fullmatch(source_id):
            by_source[source_id].append(clip_id)
    fs, work = manifest.resolve(manifest.join(run.root, "work", "stills"))
    part = recipe.analysis_hash()
    found: dict[str, list[bytes]] = {}
    for source_id, ids in by_source.items():
        path, columns = f"{work}/{source_id}-{part}.parquet", ["clip_id", "t_s", "jpeg"]
        try:
            table = pq.read_table(
                path, filesystem=fs, columns=columns, filters=[("clip_id", "in", ids)], partitioning=None
            )
        except (FileNotFoundError, pa.ArrowInvalid):
            continue
        for row in table.sort_by("t_s").to_pylist():
            found.setdefault(row["clip_id"], []).append(row["jpeg"])
    return found
