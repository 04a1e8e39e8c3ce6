"""The stages that read footage, on the driver's side: what is probed, observed and looked at, in which leases.

    probe    what every input is                          a lease: addresses next to each other
    observe  tracks and stills, by one decode             a lease: sources next to each other, or a part of a long one
    look     clips' rows from tracks, models on stills    a lease: the same, as soon as its sources are observed

The driver knows names, lengths and counts; rows stay where the workers left them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation import storage
from rushes.curation.video.source import Source
from rushes.pipelines.engine.cluster import Place
from rushes.pipelines.engine.pool import LOOK as LOOK_KIND
from rushes.pipelines.engine.pool import Failure, Task
from rushes.pipelines.stages.items import PROBED, Item, Looked, Probed, Seen, ToLook, parts_of
from rushes.pipelines.stages.job import LEASE_S, LEASE_SOURCES, LEASES_PER_WORKER, Inputs, Job
from rushes.pipelines.stages.records import Index, Ledger, key_of, number_of

AGAIN_MAX = 3  # times that a source is observed again as its record was damaged
MANY = 100_000  # addresses from which they are not all made Python strings at once
PROBE_MEAN, PROBE_MOST = 128, 512  # inputs of a lease of probing
PROBE_S = 5.0  # an input's share of such a lease's time limit, beside engine.timeout_min_s
BLAMED_MAX = 3  # inputs found elsewhere after which the node that did not find them is left out
OBSERVE, LOOK, PROBE = "scenes, visual, motion", "visual: text, people, look", "probe"


# ---- probe -----------------------------------------------------------------------------------------------------------


def probe(job: Job) -> None:
    """What every input is; of inputs with the same content the first goes on."""
    stage = job.bus.stage(PROBE, len(job.inputs.uris), "sources")
    blame = _Blame(job)
    for number, some in enumerate(_probe_leases(job.inputs.uris)):
        _submit_probe(job, some, (number,))
    done: dict[tuple[float, ...], Probed] = {}
    for task, result in job.pool.completed():
        uris, record = task.args
        if isinstance(result, Failure):
            if len(uris) > 1:  # one of them; the others lose nothing by it
                for place, uri in enumerate(uris):
                    _submit_probe(job, [uri], (*task.order, place))
                continue
            result = _not_probed(uris[0], record, result.reason)
        elif result.missing and job.pool.elsewhere(task.avoid | {task.place.node}):
            _submit_probe(job, uris, task.order, task.avoid | {task.place.node})
            blame.suspect(task.order, task.place, len(result.missing))
            continue
        blame.cleared(task.order, len(result.missing))
        done[task.order] = result
        stage.error("probe", sum(not ok for ok in result.ok))
        stage.step(len(uris))
    job.inputs.take([done[order] for order in sorted(done)])
    stage.end()


def _submit_probe(job: Job, uris: list[str], order: tuple[float, ...], avoid: frozenset[str] = frozenset()) -> None:
    record = job.work("sources", f"{key_of(uris)}.parquet")
    limit = job.recipe.engine.timeout_min_s + PROBE_S * (len(uris) - 1)
    job.pool.submit("probe", str(order[0]), uris, record, order=order, timeout_s=limit, avoid=avoid)


def _probe_leases(uris: pa.Array) -> Iterator[list[str]]:
    """Addresses next to each other. A lease ends where an address's hash says so: one more input changes one lease."""
    some: list[str] = []
    for uri in uris.to_pylist() if len(uris) < MANY else (value.as_py() for value in uris):
        some.append(uri)
        if number_of(uri) % PROBE_MEAN == 0 or len(some) >= PROBE_MOST:
            yield some
            some = []
    if some:
        yield some


def _not_probed(uri: str, record: str, reason: str) -> Probed:
    """An input that ended every worker that probed it: a row all the same."""
    source = Source(uri=uri).failed(reason)
    storage.write_table(record, pa.Table.from_pylist([{**source.row(), "stamp": None}], PROBED))
    return Probed(record, [0], [0.0], [False], [])


class _Blame:
    """Nodes that do not find what others find: after some such inputs a node is left out."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._suspects: dict[Any, list[tuple[Place, int]]] = {}
        self._blamed: Counter[str] = Counter()

    def suspect(self, key: Any, place: Place, count: int) -> None:
        """So many inputs of a lease were not found there."""
        self._suspects.setdefault(key, []).append((place, count))

    def cleared(self, key: Any, missing: int) -> None:
        """The lease was done, by another node where there are suspects, which found all but `missing`."""
        for place, count in self._suspects.pop(key, []):
            self._blamed[place.node] += max(0, count - missing)
            if self._blamed[place.node] >= BLAMED_MAX:
                self._job.pool.leave_out(place, "it does not find files that other nodes find")


# ---- observe and look ------------------------------------------------------------------------------------------------


def observe_and_look(job: Job) -> None:
    """Decode every good input once, and look at its clips as soon as it is observed; long leases first.

    What is recorded is not done again. A lease that fails is divided: one bad input costs no other its place. A record
    that turns out to be damaged is made again.
    """
    _Reading(job).run()


class _Reading:
    def __init__(self, job: Job) -> None:
        self.job, self.inputs, self.pool = job, job.inputs, job.pool
        ok = np.flatnonzero(self.inputs.ok)
        seconds = float(self.inputs.seconds[ok].sum())
        self.observing = job.bus.stage(OBSERVE, len(ok), "sources", seconds)
        self.looking = job.bus.stage(LOOK, len(ok), "sources", seconds)
        self.blame = _Blame(job)
        self.before = _Before(job)
        self.numbers: dict[str, int] = {}  # inputs by the keys of their items that are in work
        self.again: Counter[int] = Counter()

    def run(self) -> None:
        job = self.job
        observed = Ledger(job.root, "observe", job.keys.observe).index()
        looked = Ledger(job.root, "look", job.keys.looked).index()
        to_observe, to_look = [], []
        for number, source in sources_of(self.inputs):
            items = parts_of(source)
            job.observed[number] = observed.find([item.key for item in items])
            job.looked[number] = looked.find([item.key for item in items])
            done = None not in job.looked[number]
            missing = [] if done else [i for i, uri in zip(items, job.observed[number], strict=True) if uri is None]
            self.observing.step(0, source.duration_s or 0.0) if not missing else None
            if done:
                self._done(source.duration_s or 0.0)
                continue
            self.numbers |= {item.key: number for item in items}
            to_observe += missing
            to_look += [] if missing else self._unlooked(number, items)
        size = self._size(to_observe + to_look)
        for lease in leases(to_observe, size):
            self._observe(lease)
        for lease in leases(to_look, size):
            self._look(lease)
        for task, result in self.pool.completed():
            (self._observed if task.stage == "observe" else self._looked)(task, result)
        self.observing.end()
        self.looking.end()

    def _size(self, items: list[Item]) -> float:
        """Footage of a lease, seconds: small enough that workers end together."""
        share = sum(item.length_s for item in items) / (self.pool.workers() * LEASES_PER_WORKER)
        return min(LEASE_S, share)

    def _done(self, seconds: float) -> None:
        self.observing.step(1)
        self.looking.step(1, seconds)

    def _fail(self, number: int, reason: str) -> None:
        """No row of this input's clips is to be had; its own row says why."""
        if number not in self.inputs.failed:
            self.inputs.failed[number] = reason
            self.observing.error("source")
            self._done(0.0)

    # ---- observe -----------------------------------------------------------------------------------------------------

    def _observe(self, items: list[Item], avoid: frozenset[str] = frozenset()) -> None:
        seconds = sum(item.length_s for item in items)
        limit = self.job.timeout_s(seconds, len(items))
        self.pool.submit("observe", items[0].key, items, order=(1, -seconds), timeout_s=limit, avoid=avoid,
                         attempts=1 if len(items) > 1 else None)  # fmt: skip

    def _observed(self, task: Task, result: list[Seen] | Failure) -> None:
        items: list[Item] = task.args[0]
        if isinstance(result, Failure):
            if len(items) > 1:  # one of them; the others lose nothing by it
                for item in items:
                    self._observe([item], task.avoid)
            else:
                self._fail(self.numbers[items[0].key], result.reason)
            return
        complete: list[Item] = []
        for item, seen in zip(items, result, strict=True):
            number = self.numbers[item.key]
            if seen.passing and self._try_elsewhere(task, item):
                continue
            self.blame.cleared(item.key, int(seen.passing))
            if seen.passing:
                self._fail(number, seen.error or "it could not be read")
                continue
            self.job.observed[number][item.part] = seen.record
            self.observing.step(0, seen.seconds)
            if None not in self.job.observed[number] and number not in self.inputs.failed:
                complete += self._unlooked(number, parts_of(item.source))
        for lease in leases(complete, max(self._size(items), LEASE_S)):
            self._look(lease)

    def _try_elsewhere(self, task: Task, item: Item) -> bool:
        """Whether an item that could not be read here is given to another node."""
        avoid = task.avoid | {task.place.node}
        if not self.pool.elsewhere(avoid):
            return False
        self.blame.suspect(item.key, task.place, 1)
        self._observe([item], avoid)
        return True

    # ---- look --------------------------------------------------------------------------------------------------------

    def _unlooked(self, number: int, items: list[Item]) -> list[Item]:
        return [item for item, uri in zip(items, self.job.looked[number], strict=True) if uri is None]

    def _look(self, items: list[Item], unlooked: str | None = None) -> None:
        todo = []
        for item in items:
            observed = tuple(self.job.observed[self.numbers[item.key]])
            todo.append(ToLook(item, observed, self.before.records(item.key), unlooked))
        seconds = sum(item.length_s for item in items)
        limit = self.job.timeout_s(seconds, len(items))
        kind = self.pool.kind(LOOK_KIND)
        self.pool.submit("look", items[0].key, todo, order=(0, -seconds), timeout_s=limit, kind=kind,
                         attempts=1 if len(items) > 1 else None)  # fmt: skip

    def _looked(self, task: Task, result: list[Looked] | Failure) -> None:
        todo: list[ToLook] = task.args[0]
        if isinstance(result, Failure):
            if len(todo) > 1:
                for one in todo:
                    self._look([one.item], one.unlooked)
            elif todo[0].unlooked is None:  # the models fail: the clips have their rows all the same
                self._look([todo[0].item], result.reason)
            else:
                self._fail(self.numbers[todo[0].item.key], result.reason)
            return
        by_key = {one.item.key: one for one in todo}
        for looked in result:
            one = by_key[looked.key]
            number = self.numbers[looked.key]
            if looked.damaged:
                self._observe_again(number, one.item, looked.damaged)
                continue
            self.job.looked[number][one.item.part] = looked.record
            self.job.survivors += looked.survivors
            self.looking.reject(looked.rejected)
            if one.unlooked is not None:
                self.job.unlooked += looked.survivors
                self.looking.error("look", looked.survivors)
            if None not in self.job.looked[number]:
                self._done(one.item.source.duration_s or 0.0)

    def _observe_again(self, number: int, item: Item, damaged: tuple[str, ...]) -> None:
        self.again[number] += 1
        if self.again[number] > AGAIN_MAX * item.parts:
            self._fail(number, f"its records are damaged again and again ({damaged[0]})")
            return
        parts = parts_of(item.source)
        records = self.job.observed[number]
        lost = [part for part in parts if records[part.part] in (None, *damaged)]
        for part in lost:
            if records[part.part] is not None:
                records[part.part] = None
                self._observe([part])
        if not lost:  # another of its leases had them made again already
            self._look([item])


class _Before:
    """Records of clips that were looked at with other thresholds: what was seen of them holds."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._indexes: list[Index] | None = None

    def records(self, key: str) -> tuple[str, ...]:
        if self._indexes is None:
            folder = self._job.work("look", self._job.keys.look)
            self._indexes = [Ledger(self._job.root, "look", f"{self._job.keys.look}/{asked}").index()
                             for asked in storage.folders(folder) if asked != self._job.keys.asked]  # fmt: skip
        found = (index.find([key])[0] for index in self._indexes)
        return tuple(uri for uri in found if uri is not None)


def sources_of(inputs: Inputs) -> Iterator[tuple[int, Source]]:
    """(number, source) of every input that is worth decoding; one lease's rows are in memory at a time."""
    for record, first, stop in zip(inputs.records, inputs.first, inputs.first[1:], strict=False):
        if inputs.ok[first:stop].any():
            for place, row in enumerate(probed_rows(record)):
                if inputs.ok[first + place]:
                    yield first + place, Source(**row)


def probed_rows(record: str) -> list[dict[str, Any]]:
    """Rows of `sources` in a record of probing."""
    return storage.read_table(record, columns=[name for name in PROBED.names if name != "stamp"]).to_pylist()


def leases(items: Iterable[Item], seconds: float) -> Iterator[list[Item]]:
    """Items next to each other, up to so much footage and LEASE_SOURCES; a part of a long source stands alone."""
    some: list[Item] = []
    length = 0.0
    for item in items:
        full = some and (length + item.length_s > seconds or len(some) >= LEASE_SOURCES)
        if full or (some and item.parts > 1):
            yield some
            some, length = [], 0.0
        some.append(item)
        length += item.length_s
        if item.parts > 1:
            yield some
            some, length = [], 0.0
    if some:
        yield some
