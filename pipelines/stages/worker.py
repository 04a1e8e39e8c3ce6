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

from rushes.curation import rules, signals, storage
from rushes.curation.analyze import measure, measure_spans
from rushes.curation.analyze import schema as analyzed_schema
from rushes.curation.captioning import Servers, ServersDown
from rushes.curation.look import Looker
from rushes.curation.looking.base import ModelError
from rushes.curation.memory import give_back
from rushes.curation.meter import Span
from rushes.curation.observe import Observation, Observer
from rushes.curation.recipe import Recipe
from rushes.curation.rescue import WHOLE, clean_span
from rushes.curation.scenes import ClipSpan, divided, find_shots
from rushes.curation.storage import DamagedFile, StorageError
from rushes.curation.table import left_join, noted, with_column
from rushes.curation.tracks import OBSERVED, Tracks, load, spread
from rushes.curation.video import containers, decode
from rushes.curation.video.source import Source, stamp
from rushes.curation.visual.stills import STILLS
from rushes.pipelines.stages.captioning import Captioned, caption_lease
from rushes.pipelines.stages.items import PROBED, CaptionLease, CutLease, Item, Looked, Probed, Seen, ToLook
from rushes.pipelines.stages.keys import Keys
from rushes.pipelines.stages.making import cut_lease
from rushes.pipelines.stages.records import Ledger, number_of

NO_STILLS = [name for name in OBSERVED.names if name != "stills"]
CLIPS_PER_LOOK = 8  # clips whose stills are in memory at a time


class Worker:
    """Leases of a run. root: the run's folder, as every node names it."""

    def __init__(self, recipe: Recipe, root: str) -> None:
        decode.quiet()
        containers.allow(recipe.formats)
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
                source = _probed(uri)
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
            table = storage.read_table(record)
        except FileNotFoundError:
            return {}
        except DamagedFile:
            storage.delete(record)
            return {}
        if table.schema.names != PROBED.names:  # of another version of this program
            return {}
        return {row["uri"]: row for row in table.to_pylist()}

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
                (passing if observation.transient else lasting)[item.key] = None
                done.append((item, observation))

        record = Ledger(self._root, "observe", self._keys.observe).write(lasting, OBSERVED, batches(), passing)
        return [Seen(item.key, record, item.length_s, seen.source.error, seen.transient) for item, seen in done]

    # ---- look --------------------------------------------------------------------------------------------------------

    def read(self, todo: list[ToLook]) -> tuple[list[Seen], list[Looked]]:
        """Observe each item, then look at those that could be read; where looking fails, nothing is said of it."""
        seen = self.observe([one.item for one in todo])
        good = [replace(one, observed=(of.record,)) for one, of in zip(todo, seen, strict=True) if not of.passing]
        try:
            return seen, self.look(good) if good else []
        except Exception as error:
            if stop_reason(error) is not None:
                raise
            return seen, []

    def look(self, items: list[ToLook]) -> list[Looked]:
        """Clips of each item from its tracks, a row each; models look at those that pass the decode's rules."""
        done: list[_Measured] = []
        damaged: list[Looked] = []
        lasting: dict[str, Any] = {}
        passing: dict[str, Any] = {}

        def tables() -> Iterator[pa.Table]:
            for todo in items:
                try:
                    one = self._measured(todo)
                except DamagedFile as error:
                    storage.delete(error.uri)
                    damaged.append(Looked(todo.item.key, "", 0, 0, 0.0, damaged=(error.uri,)))
                    continue
                one, looks = self._divided(one, self._looks(one))
                yield _with_looks(one, looks).select(self._schema.names).cast(self._schema)
                (passing if todo.unlooked else lasting)[todo.item.key] = asdict(one.tracks.source)
                one.tracks = replace(one.tracks, values={}, stills=None)  # they were read to be measured
                done.append(one)

        record = Ledger(self._root, "look", self._keys.looked).write(lasting, self._schema, tables(), passing)
        return damaged + [one.told(record) for one in done]

    @cached_property
    def _schema(self) -> pa.Schema:
        """Of a record of clips: rows, vectors, and the item that they come from."""
        return look_schema(self._recipe, self._looker)

    def _measured(self, todo: ToLook) -> _Measured:
        """Rows of the item's clips, and which of them are looked at. Raises DamagedFile."""
        try:
            tracks = load(_observed(todo), todo.item.source.source_id)
        except ValueError as error:
            raise DamagedFile(todo.observed[-1], str(error)) from error
        give_back()
        source = replace(tracks.source, uri=todo.item.source.uri)
        table = measure(source, tracks, self._recipe, *todo.item.span)
        return _Measured(todo, tracks, table, rules.judge(table, self._recipe, "analyze"))

    def _divided(self, one: _Measured, looks: pa.Table) -> tuple[_Measured, pa.Table]:
        """The clips with those divided in which text comes or goes; the parts are measured and looked at anew."""
        cuts: dict[str, list[float]] = {}
        visual = self._recipe.visual
        if visual.text and visual.text_split:
            for row in looks.select(["clip_id", "text_at_s"]).to_pylist():
                if row["text_at_s"] and row["clip_id"] in one.ids:
                    start_s, end_s = one.span(one.ids.index(row["clip_id"]))
                    numbers = spread(one.tracks.stills.inside(start_s, end_s), visual.stills_max)
                    at_s = clean_span(one.tracks.stills.times_s[numbers].tolist(), row["text_at_s"], start_s, end_s)
                    cuts |= {row["clip_id"]: at_s} if at_s else {}
        if not cuts:
            return one, looks
        tables, shots = [], find_shots(one.tracks, self._recipe.scenes)
        for place, clip_id in enumerate(one.ids):
            tables.append(one.table.slice(place, 1))
            if clip_id in cuts:
                parts = divided(one.clip(place), cuts[clip_id], one.tracks.time_s)
                source = replace(one.tracks.source, uri=one.todo.item.source.uri)
                tables[-1] = measure_spans(source, replace(one.tracks, shots=shots), parts, self._recipe)
        table = pa.concat_tables(tables)
        new = _Measured(one.todo, one.tracks, table, rules.judge(table, self._recipe, "analyze"))
        return new, self._looks(new, looks)

    def _looks(self, one: _Measured, seen: pa.Table | None = None) -> pa.Table:
        """Rows of what the models see in the survivors; those of earlier records, and in `seen`, are not seen again."""
        parts = [self._looker.schema.empty_table() if seen is None else seen]
        known = set(parts[0]["clip_id"].to_pylist())
        for uri in dict.fromkeys(one.todo.before):
            with contextlib.suppress(DamagedFile, FileNotFoundError):
                before = storage.read_table(uri, filters=pc.field("source_id") == one.tracks.source.source_id)
                before = before.filter(pc.fill_null(before["looked"], False)).select(self._looker.schema.names)
                parts.append(before.cast(self._looker.schema))
                known |= set(before["clip_id"].to_pylist())
        fresh = [] if one.todo.unlooked else [place for place in one.survivors if one.ids[place] not in known]
        for start in range(0, len(fresh), CLIPS_PER_LOOK):
            some = fresh[start : start + CLIPS_PER_LOOK]
            stills = pa.concat_tables([one.stills(place, self._recipe.visual.stills_max) for place in some])
            parts.append(self._looker([one.ids[place] for place in some], stills, one.pictures(some)))
            give_back()
        return pa.concat_tables(parts)

    # ---- cut, caption ------------------------------------------------------------------------------------------------

    def cut(self, lease: CutLease) -> int:
        return cut_lease(self._recipe, self._root, lease)

    def caption(self, lease: CaptionLease, servers: Servers, key: str | None, concurrency: int) -> Captioned:
        return caption_lease(self._recipe, self._root, lease, servers, key, concurrency)


def _observed(todo: ToLook) -> Iterator[pa.RecordBatch]:
    """What was observed of the item's source; of a long one only the stills that its own clips may show.

    Raises DamagedFile.
    """
    item = todo.item
    mine = (pc.field("source_id") == item.source.source_id) & pc.field("part").isin([item.part, item.part + 1])
    rest = (pc.field("source_id") == item.source.source_id) & ~pc.field("part").isin([item.part, item.part + 1])
    for uri in dict.fromkeys(todo.observed):
        try:
            yield from storage.read_table(uri, filters=mine).to_batches()
            if item.parts > 1:
                yield from storage.read_table(uri, columns=NO_STILLS, filters=rest).to_batches()
        except FileNotFoundError as error:
            raise DamagedFile(uri, "it is gone") from error


def _probed(uri: str) -> Source:
    try:
        return decode.probe(uri)
    except StorageError as error:  # no address: this input's own fault, and no other's
        return Source(uri=uri).failed(str(error))


@dataclass
class _Measured:
    """An item whose clips are measured. rejected: the first failing rule of the decode, None for survivors."""

    todo: ToLook
    tracks: Tracks
    table: pa.Table
    rejected: np.ndarray

    @cached_property
    def ids(self) -> list[str]:
        return self.table["clip_id"].to_pylist()

    @property
    def survivors(self) -> list[int]:
        return [place for place, rule in enumerate(self.rejected) if rule is None]

    def span(self, place: int) -> tuple[float, float]:
        return self.table["start_s"][place].as_py(), self.table["end_s"][place].as_py()

    def clip(self, place: int) -> ClipSpan:
        start_s, end_s = self.span(place)
        first = int(np.searchsorted(self.tracks.time_s, start_s - 1e-6))
        stop = first + self.table["frames"][place].as_py()
        return ClipSpan(self.table["shot"][place].as_py(), Span(first, stop, start_s, end_s))

    def pictures(self, places: list[int]) -> dict[str, list[float]]:
        """What lies inside the borders, of those clips that have any."""
        found = {self.ids[place]: self.table["picture"][place].as_py() for place in places}
        return {name: picture for name, picture in found.items() if picture is not None and tuple(picture) != WHOLE}

    def stills(self, place: int, most: int) -> pa.Table:
        """STILLS rows of one clip."""
        stills = self.tracks.stills
        numbers = spread(stills.inside(*self.span(place)), most)
        times, pictures = stills.times_s[numbers], [stills.jpeg(number) for number in numbers]
        return pa.table([[self.ids[place]] * len(numbers), times, pictures], schema=STILLS)

    def told(self, record: str) -> Looked:
        counts = dict(Counter(rule for rule in self.rejected if rule is not None))
        survivors = len(self.rejected) - sum(counts.values())
        return Looked(self.todo.item.key, record, len(self.rejected), survivors, self.todo.item.length_s, counts)


def look_schema(recipe: Recipe, looker: Looker) -> pa.Schema:
    """Schema of clips that were measured and looked at, with their vectors."""
    more = [field for field in looker.schema if field.name not in ("clip_id", "look_notes", "looked")]
    return pa.schema([*analyzed_schema(recipe), *more, pa.field("looked", pa.bool_()), pa.field("item", pa.string())])


def _with_looks(one: _Measured, looks: pa.Table) -> pa.Table:
    """Rows with the models' columns beside the decode's. looked: null where no model was asked, False: it failed."""
    table = left_join(one.table, looks)
    asked = np.equal(one.rejected, None)
    looked = pa.array(asked & (one.todo.unlooked is None), mask=~asked)
    reasons = (one.todo.unlooked or "", "not looked at, the clip was rejected before")
    unseen = ", ".join(name for name in signals.schema("look").names if name != "looked")
    why = [f"{unseen}: {reasons[0] if a else reasons[1]}" for a in asked]
    seen = table["look_notes"].to_pylist()
    notes = [more if more is not None else [reason] for more, reason in zip(seen, why, strict=True)]
    table = noted(table.drop_columns(["look_notes"]), notes)
    items = pa.array([one.todo.item.key] * len(asked), pa.string())
    return with_column(with_column(table, "looked", looked), "item", items)


def stop_reason(error: BaseException) -> str | None:
    """The sentence with which the whole run must stop, None where the error concerns one lease only."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"No space is left on a disk this run needs ({error}); free some and start the same command again."
    if isinstance(error, DamagedFile):
        return None
    if isinstance(error, StorageError | ImportError | ModelError | ServersDown):
        return str(error)
    return None
