"""The stages that read footage, on the driver's side: what is observed and looked at, in which leases.

    observe  tracks and stills, by one decode             a lease: a part of a long source
    look     clips' rows from tracks, models on stills    a lease: the same, as soon as its source is observed
    read     both, one after the other in one worker      a lease: short sources next to each other

Looking is a lease of its own where its models have workers of their own, where sources are observed already, and where
reading failed. Leases are planned while others are worked on, so the driver holds a few for each worker, however many
sources there are: it knows their lengths, and names of records. Rows stay where the workers left them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from rushes.curation import storage
from rushes.curation.video.source import Source
from rushes.pipelines.engine.pool import CPU, Failure, Task
from rushes.pipelines.engine.pool import LOOK as LOOK_KIND
from rushes.pipelines.stages.items import LONG_S, Item, Looked, Seen, ToLook, part_count, parts_of
from rushes.pipelines.stages.job import LEASE_S, LEASE_SOURCES, Job, Recorded
from rushes.pipelines.stages.probing import Blame, sources_of
from rushes.pipelines.stages.records import Index, Ledger

DIVISOR = 2  # a lease is half of a worker's share of what is left: large ones first, small ones at the end
AGAIN_MAX = 3  # times that a source is observed again as its record was damaged
LEAST_PER_WORKER_S = 0.005  # footage of a lease at least, per worker: the driver hands out some 10,000 leases a second
OBSERVE, LOOK = "scenes, visual, motion", "visual: text, people, look"


def observe_and_look(job: Job) -> None:
    """Decode every good input once, and look at its clips as soon as it is observed; long sources first.

    What is recorded is not done again. A lease that fails is divided: one bad input costs no other its place. A record
    that turns out to be damaged is made again.
    """
    _Reading(job).run()


class _Reading:
    def __init__(self, job: Job) -> None:
        self.job, self.inputs, self.pool = job, job.inputs, job.pool
        ok = np.flatnonzero(self.inputs.ok)
        self.left = seconds = float(self.inputs.seconds[ok].sum())
        parts = np.ones(len(self.inputs.ok), np.int64)
        for number in np.flatnonzero(self.inputs.ok & (self.inputs.seconds > LONG_S)):
            parts[number] = part_count(float(self.inputs.seconds[number]))
        job.observed, job.looked = Recorded(parts), Recorded(parts)
        self.observing = job.bus.stage(OBSERVE, len(ok), "sources", seconds)
        self.looking = job.bus.stage(LOOK, len(ok), "sources", seconds)
        self.blame = Blame(job)
        self.before = _Before(job)
        self.kind = self.pool.kind(LOOK_KIND)
        self.again: Counter[int] = Counter()

    def run(self) -> None:
        for task, result in self.pool.completed(self._plan()):
            {"read": self._was_read, "observe": self._observed, "look": self._looked}[task.stage](task, result)
        self.observing.end()
        self.looking.end()

    # ---- planning ----------------------------------------------------------------------------------------------------

    def _plan(self) -> Iterator[None]:
        """Each step submits a lease or more: parts of long sources first, then short sources as they come."""
        observed = Ledger(self.job.root, "observe", self.job.keys.observe).index()
        looked = Ledger(self.job.root, "look", self.job.keys.looked).index()
        filling: dict[Callable[[list[Item]], None], list[Item]] = {self._read: [], self._look: []}
        for number, source in sources_of(self.inputs):
            self.left -= source.duration_s or 0.0
            items = parts_of(source, number)
            self.job.observed.take(number, observed.find([item.key for item in items]))
            self.job.looked.take(number, looked.find([item.key for item in items]))
            missing = self._to_do(source, items)
            if missing is None:
                continue
            if len(items) > 1:
                for item in missing:
                    self._observe([item])
                if not missing:
                    self._look_each(self._unlooked(items))
                yield
                continue
            submit = self._read if missing else self._look
            if not self._fits(filling[submit], items[0]):
                submit(filling[submit])
                filling[submit] = []
                yield
            filling[submit].append(items[0])
        for submit, items in filling.items():
            if items:
                submit(items)
                yield

    def _to_do(self, source: Source, items: list[Item]) -> list[Item] | None:
        """Items that are not observed, None where all of the source is recorded."""
        number, seconds = items[0].number, source.duration_s or 0.0
        done = self.job.looked.whole(number)
        records = [None] * len(items) if done else self.job.observed.of(number)
        missing = [] if done else [item for item, record in zip(items, records, strict=True) if record is None]
        if not missing:
            self.observing.step(0, seconds)
        if done:
            self._done(seconds)
        return None if done else missing

    def _fits(self, items: list[Item], item: Item) -> bool:
        """Whether a lease of `items` takes another: small enough that workers end together, and the driver keeps up."""
        workers = self.pool.workers()
        share = max(self.left / (workers * DIVISOR), workers * LEAST_PER_WORKER_S)
        length = sum(one.length_s for one in items) + item.length_s
        return not items or (length <= min(LEASE_S, share) and len(items) < LEASE_SOURCES)

    def _done(self, seconds: float) -> None:
        self.observing.step(1)
        self.looking.step(1, seconds)

    def _fail(self, number: int, reason: str) -> None:
        """No row of this input's clips is to be had; its own row says why."""
        if number not in self.inputs.failed:
            self.inputs.failed[number] = reason
            self.observing.error("source")
            self._done(0.0)

    # ---- read: observe, then look, in one lease ----------------------------------------------------------------------

    def _read(self, items: list[Item]) -> None:
        if self.kind != CPU:
            self._observe(items)
            return
        todo = [ToLook(item, (), self.before.records(item.key)) for item in items]
        seconds = sum(item.length_s for item in items)
        limit = 2 * self.job.timeout_s(seconds, len(items))
        self.pool.submit("read", items[0].key, todo, order=(1, -seconds), timeout_s=limit, attempts=1)

    def _was_read(self, task: Task, result: tuple[list[Seen], list[Looked]] | Failure) -> None:
        todo: list[ToLook] = task.args[0]
        items = [one.item for one in todo]
        if isinstance(result, Failure):
            for item in items:
                self._observe([item])
            return
        seen, looked = result
        told = {one.key for one in looked}
        observed = self._take_seen(task, items, seen)
        self._take_looked({one.item.key: one for one in todo}, looked)
        self._look_each([item for item in observed if item.key not in told])

    # ---- observe -----------------------------------------------------------------------------------------------------

    def _observe(self, items: list[Item], avoid: frozenset[str] = frozenset()) -> None:
        seconds = sum(item.length_s for item in items)
        limit = self.job.timeout_s(seconds, len(items))
        self.pool.submit("observe", items[0].key, items, order=(1, -seconds), timeout_s=limit, avoid=avoid,
                         attempts=1 if len(items) > 1 else None)  # fmt: skip

    def _observed(self, task: Task, result: list[Seen] | Failure) -> None:
        items: list[Item] = task.args[0]
        if not isinstance(result, Failure):
            whole = self._take_seen(task, items, result)
            if whole:
                self._look(whole) if whole[0].parts == 1 else self._look_each(whole)
        elif len(items) > 1:  # one of them; the others lose nothing by it
            for item in items:
                self._observe([item], task.avoid)
        else:
            self._fail(items[0].number, result.reason)

    def _take_seen(self, task: Task, items: list[Item], result: list[Seen]) -> list[Item]:
        """Items that can be looked at now: all parts of their sources are observed."""
        complete: list[Item] = []
        for item, seen in zip(items, result, strict=True):
            if seen.passing and self._try_elsewhere(task, item):
                continue
            self.blame.cleared(item.key, int(seen.passing))
            if seen.passing:
                self._fail(item.number, seen.error or "it could not be read")
                continue
            self.job.observed.set(item.number, item.part, seen.record)
            self.observing.step(0, seen.seconds)
            if self.job.observed.whole(item.number) and item.number not in self.inputs.failed:
                complete += self._unlooked([replace(item, part=part) for part in range(item.parts)])
        return complete

    def _try_elsewhere(self, task: Task, item: Item) -> bool:
        """Whether an item that could not be read here is given to another node."""
        avoid = task.avoid | {task.place.node}
        if not self.pool.elsewhere(avoid):
            return False
        self.blame.suspect(item.key, task.place, 1)
        self._observe([item], avoid)
        return True

    # ---- look --------------------------------------------------------------------------------------------------------

    def _unlooked(self, items: list[Item]) -> list[Item]:
        records = self.job.looked.of(items[0].number)
        return [item for item in items if records[item.part] is None]

    def _look_each(self, items: list[Item]) -> None:
        for item in items:
            self._look([item])

    def _look(self, items: list[Item], unlooked: str | None = None) -> None:
        todo = []
        for item in items:
            observed = tuple(self.job.observed.of(item.number))
            todo.append(ToLook(item, observed, self.before.records(item.key), unlooked))
        seconds = sum(item.length_s for item in items)
        limit = self.job.timeout_s(seconds, len(items))
        self.pool.submit("look", items[0].key, todo, order=(0, -seconds), timeout_s=limit, kind=self.kind,
                         attempts=1 if len(items) > 1 else None)  # fmt: skip

    def _looked(self, task: Task, result: list[Looked] | Failure) -> None:
        todo: list[ToLook] = task.args[0]
        if not isinstance(result, Failure):
            self._take_looked({one.item.key: one for one in todo}, result)
        elif len(todo) > 1:
            for one in todo:
                self._look([one.item], one.unlooked)
        elif todo[0].unlooked is None:  # the models fail: the clips have their rows all the same
            self._look([todo[0].item], result.reason)
        else:
            self._fail(todo[0].item.number, result.reason)

    def _take_looked(self, asked: dict[str, ToLook], result: list[Looked]) -> None:
        for looked in result:
            one = asked[looked.key]
            number = one.item.number
            if looked.damaged:
                self._observe_again(one.item, looked.damaged)
                continue
            self.job.looked.set(number, one.item.part, looked.record)
            self.job.survivors += looked.survivors
            self.looking.reject(looked.rejected)
            if one.unlooked is not None:
                self.job.unlooked += looked.survivors
                self.looking.error("look", looked.survivors)
            if self.job.looked.whole(number):
                self._done(one.item.source.duration_s or 0.0)

    def _observe_again(self, item: Item, damaged: tuple[str, ...]) -> None:
        self.again[item.number] += 1
        if self.again[item.number] > AGAIN_MAX * item.parts:
            self._fail(item.number, f"its records are damaged again and again ({damaged[0]})")
            return
        records = self.job.observed.of(item.number)
        lost = [part for part, record in enumerate(records) if record in (None, *damaged)]
        for part in lost:
            if records[part] is not None:
                self.job.observed.set(item.number, part, None)
                self._observe([replace(item, part=part)])
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
