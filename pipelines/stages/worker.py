"""One process per core that hosts every CPU stage; a stage's models are loaded when its first task comes."""

from __future__ import annotations

import errno
import os
from functools import cached_property
from typing import Any

import pyarrow as pa

from rushes.curation import manifest
from rushes.curation.analyze import Analyzer
from rushes.curation.captioning import Caption, Servers, ServersDown
from rushes.curation.look import Looker
from rushes.curation.looking import ModelError
from rushes.curation.recipe import Recipe
from rushes.curation.video import containers, decode
from rushes.curation.video.cut import CutClip, Cutter
from rushes.curation.video.source import Source
from rushes.pipelines.stages.captioning import caption_rows
from rushes.pipelines.stages.records import WorkStore

CLIPS_PER_LOOK = 8  # clips whose stills are in memory at a time


class Worker:
    """Tasks of a run. Each first looks for its record in the work store, and leaves one there."""

    def __init__(self, recipe: Recipe, root: str) -> None:
        decode.quiet()
        containers.allow(recipe.formats)
        pa.set_cpu_count(1)
        self._recipe, self._root = recipe, root
        self._store = WorkStore(root, recipe)

    @cached_property
    def _analyzer(self) -> Analyzer:
        return Analyzer(self._recipe)

    @cached_property
    def _looker(self) -> Looker:
        return Looker(self._recipe)

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter(self._recipe.cut, self._store.cut_hash, self._root)

    def ready(self) -> int:
        return os.getpid()

    def probe(self, uri: str) -> Source:
        try:
            manifest.resolve(uri)
        except manifest.ManifestError as error:  # no address: this input's own fault, and no other's
            return Source(uri=uri).failed(str(error))
        source = self._store.probe(uri)
        if source is None:
            source = decode.probe(uri)
            self._store.put_probe(source)
        return source

    def analyze(self, source: Source) -> tuple[Source, pa.Table]:
        """The source as its decode left it, and its clips (ANALYZED and the recipe's own columns)."""
        found = self._store.analysis(source)
        if found is not None:
            return found
        analysis = self._analyzer(source)
        if not analysis.transient:
            self._store.put_analysis(analysis)
        return analysis.source, analysis.clips

    def look(self, source_id: str, clip_ids: list[str]) -> pa.Table:
        """Rows for these clips; those looked at before are taken from the record."""
        before = self._store.looks(source_id)
        known = set(before["clip_id"].to_pylist()) if before is not None else set()
        fresh = [clip_id for clip_id in clip_ids if clip_id not in known]
        if not fresh and before is not None:
            return before
        parts = [] if before is None else [before]
        for start in range(0, len(fresh), CLIPS_PER_LOOK):
            some = fresh[start : start + CLIPS_PER_LOOK]
            parts.append(self._looker(some, self._store.stills(source_id, some)))
        looks = pa.concat_tables(parts)
        self._store.put_looks(source_id, looks)
        return looks

    def cut(self, source: Source, clips: list[dict[str, Any]]) -> dict[str, CutClip | str]:
        return self._cutter(source, clips)

    def caption(self, rows: list[dict[str, Any]], servers: Servers, key: str | None, concurrency: int) -> list[Caption]:
        return caption_rows(self._recipe, self._store, rows, servers, key, concurrency)


def stop_reason(error: BaseException) -> str | None:
    """The sentence with which the whole run must stop, None where the error concerns one input only."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"No space is left on a disk this run needs ({error}); free some and start the same command again."
    if isinstance(error, manifest.ManifestError | ImportError | ModelError | ServersDown):
        return str(error)
    return None
