"""What a worker does: one process per core that hosts every CPU stage; models are loaded when they are first needed."""

from __future__ import annotations

import contextlib
import errno
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation import rules, storage
from rushes.curation.captioning import Servers, ServersDown
from rushes.curation.look import Looker
from rushes.curation.recipe import Recipe
from rushes.curation.signals import LOOK_FAILED
from rushes.curation.storage import DamagedFile, StorageError
from rushes.curation.table import left_join, noted, with_column
from rushes.curation.tracks import OBSERVED, Observation, Observer, load, measure, stills_of
from rushes.curation.video import decode
from rushes.curation.video.source import Source, stamp
from rushes.pipelines.stages.captioning import caption_lease
from rushes.pipelines.stages.items import PROBED, CaptionLease, CutLease, Item, Looked, Probed, Seen, ToLook
from rushes.pipelines.stages.keys import Keys
from rushes.pipelines.stages.making import cut_lease
from rushes.pipelines.stages.records import Ledger, number_of

CLIPS_PER_LOOK = 8  # clips whose stills are in memory at a time


class Worker:
    """Leases of a run. root: the run's folder, as every node names it."""

    def __init__(self, recipe: Recipe, root: str) -> None:
        decode.quiet()
        pa.set_cpu_count(1)
        self._recipe, self._root, self._keys = recipe, root, Keys.of(recipe)

    @cached_property
    def _observer(self) -> Observer:
        return Observer(self._recipe)

    @cached_property
    def _looker(self) -> Looker:
        return Looker(self._recipe)

    # ---- probe -------------------------------------------------------------------------------------------------------

    def probe(self, uris: list[str], record: str) -> Probed:
        """Rows of `sources` for these inputs: from the record, where a file's size and time are as they were."""
        before = self._probed(record)
        rows, missing = [], []
        for place, uri in enumerate(uris):
            now = stamp(uri)
            known = before.get(uri)
            if known is None or known["stamp"] != now or now is None:
                source = decode.probe(uri)
                lasting = now is not None and source.status != "failed" and stamp(uri) == now
                known = {**source.row(), "stamp": now if lasting else None}
            if known["status"] == "failed" and now is None:
                missing.append(place)
            rows.append(known)
        if rows != list(before.values()):
            storage.write_table(record, pa.Table.from_pylist(rows, PROBED))
        ok = [row["status"] == "ok" and row["source_id"] is not None for row in rows]
        numbers = [number_of(row["source_id"]) if good else 0 for row, good in zip(rows, ok, strict=True)]
        return Probed(record, numbers, [row["duration_s"] or 0.0 for row in rows], ok, missing)

    def _probed(self, record: str) -> dict[str, dict[str, Any]]:
        try:
            return {row["uri"]: row for row in storage.read_table(record).to_pylist()}
        except FileNotFoundError:
            return {}
        except DamagedFile:
            storage.delete(record)
            return {}

    # ---- observe -----------------------------------------------------------------------------------------------------

    def observe(self, items: list[Item]) -> list[Seen]:
        """One decode of each item; its tracks and stills go into one record."""
        done: list[tuple[Item, Observation]] = []
        lasting: dict[str, None] = {}
        passing: dict[str, None] = {}

        def batches() -> Iterator[pa.RecordBatch]:
            for item in items:
                observation = self._observer(item.source, *item.span, part=item.part)
                yield from observation.batches()
                (passing if observation.passing else lasting)[item.key] = None
                done.append((item, observation))

        record = Ledger(self._root, "observe", self._keys.observe).write(lasting, OBSERVED, batches(), passing)
        return [Seen(item.key, record, seen.seconds, seen.source.error, seen.passing) for item, seen in done]

    # ---- look --------------------------------------------------------------------------------------------------------

    def look(self, items: list[ToLook]) -> list[Looked]:
        """Clips of each item from its tracks, a row each; models look at those that pass the decode's rules."""
        told, measured = [], []
        for todo in items:
            try:
                measured.append(self._measured(todo))
            except (DamagedFile, FileNotFoundError) as error:
                damaged = tuple(todo.observed) if isinstance(error, FileNotFoundError) else (error.uri,)
                for uri in damaged:
                    storage.delete(uri)
                told.append(Looked(todo.item.key, "", 0, 0, 0.0, damaged=damaged))
        if not measured:
            return told
        looks = self._looks(measured)
        tables = [_with_looks(one, looks) for one in measured]
        lasting = {one.todo.item.key: asdict(one.source) for one in measured if not one.todo.unlooked}
        passing = {one.todo.item.key: asdict(one.source) for one in measured if one.todo.unlooked}
        ledger = Ledger(self._root, "look", self._keys.looked)
        record = ledger.write(lasting, tables[0].schema, tables, passing)
        return told + [one.told(record) for one in measured]

    def _measured(self, todo: ToLook) -> _Measured:
        """Rows of the item's clips, and which of them are looked at. Raises DamagedFile, FileNotFoundError."""
        tracks = load([storage.read_table(uri) for uri in dict.fromkeys(todo.observed)], todo.item.source.source_id)
        table = measure(replace(tracks.source, uri=todo.item.source.uri), tracks, self._recipe)
        begin, end = todo.item.span
        begins = table["start_s"].to_numpy()
        mine = (begins >= begin) & (begins < (np.inf if end is None else end))
        table = table.filter(pa.array(mine))
        rejected = rules.judge(table, self._recipe, "analyze")
        return _Measured(todo, tracks.source, tracks.seconds / todo.item.parts, table, rejected)

    def _looks(self, measured: list[_Measured]) -> pa.Table:
        """Rows of what the models see in all survivors, those of earlier records among them."""
        parts = [self._looker.schema.empty_table()]
        known: set[str] = set()
        for uri in dict.fromkeys(uri for one in measured for uri in one.todo.before):
            with contextlib.suppress(DamagedFile, FileNotFoundError):
                before = storage.read_table(uri)
                before = before.filter(pc.fill_null(before["looked"], False)).select(self._looker.schema.names)
                parts.append(before.cast(self._looker.schema))
                known |= set(before["clip_id"].to_pylist())
        asked = [one for one in measured if one.todo.unlooked is None]
        fresh = [(one, place) for one in asked for place in one.survivors if one.ids[place] not in known]
        for start in range(0, len(fresh), CLIPS_PER_LOOK):
            some = fresh[start : start + CLIPS_PER_LOOK]
            stills = pa.concat_tables([one.stills(place, self._recipe) for one, place in some])
            parts.append(self._looker([one.ids[place] for one, place in some], stills))
        return pa.concat_tables(parts)

    # ---- cut, caption ------------------------------------------------------------------------------------------------

    def cut(self, lease: CutLease) -> int:
        return cut_lease(self._recipe, self._root, lease)

    def caption(self, lease: CaptionLease, servers: Servers, key: str | None, concurrency: int) -> int:
        return caption_lease(self._recipe, self._root, lease, servers, key, concurrency)


@dataclass
class _Measured:
    """An item whose clips are measured. rejected: the first failing rule of the decode, None for survivors."""

    todo: ToLook
    source: Source
    seconds: float
    table: pa.Table
    rejected: np.ndarray

    @cached_property
    def ids(self) -> list[str]:
        return self.table["clip_id"].to_pylist()

    @property
    def survivors(self) -> list[int]:
        return [place for place, rule in enumerate(self.rejected) if rule is None]

    def stills(self, place: int, recipe: Recipe) -> pa.Table:
        """STILLS rows of one clip."""
        row = self.table.slice(place, 1).to_pylist()[0]
        return stills_of(self.todo.observed, self.source.source_id, row, recipe)

    def told(self, record: str) -> Looked:
        counts = dict(Counter(rule for rule in self.rejected if rule is not None))
        return Looked(self.todo.item.key, record, len(self.rejected), len(self.survivors), self.seconds, counts)


def _with_looks(one: _Measured, looks: pa.Table) -> pa.Table:
    """Rows with the models' columns beside the decode's. looked: null where no model was asked, False: it failed."""
    table = left_join(one.table, looks)
    asked = np.equal(one.rejected, None)
    looked = pc.and_kleene(pc.is_in(table["clip_id"], looks["clip_id"]), pa.array(asked))
    if one.todo.unlooked:
        looked = pa.array(np.zeros(len(asked), bool))
    table = with_column(table, "looked", pc.if_else(pa.array(asked), looked, pa.scalar(None, pa.bool_())))
    table = with_column(table, "item", pa.array([one.todo.item.key] * len(asked), pa.string()))
    reasons = (one.todo.unlooked or "", "not looked at, the clip was rejected before")
    why = [f"{LOOK_FAILED.missing}: {reasons[0] if a else reasons[1]}" for a in asked]
    seen = table["look_notes"].to_pylist()
    notes = [more if more is not None else [reason] for more, reason in zip(seen, why, strict=True)]
    return noted(table.drop_columns(["look_notes"]), notes)


def stop_reason(error: BaseException) -> str | None:
    """The sentence with which the whole run must stop, None where the error concerns one lease only."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"No space is left on a disk this run needs ({error}); free some and start the same command again."
    if isinstance(error, DamagedFile):
        return None
    if isinstance(error, StorageError | ImportError | ServersDown):
        return str(error)
    return None
