"""Snapshots whose columns are held in memory: each is read once, in a thread of its own, however many ask."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Any

import pyarrow as pa

from rushes.curation.manifest import ManifestError, Run
from rushes.pipelines.view.first_look import FirstLook
from rushes.pipelines.view.what_if import WhatIf

HELD_MOST = 2  # snapshots
PATIENCE_S = 0.05  # so long is waited for all columns, before what is there is told


class Reading:
    """One snapshot that is being read, or was. first: a first look at it; whole: all thresholds can be moved."""

    def __init__(self, run: Run, column: str | None) -> None:
        self.first: Future[FirstLook] = Future()
        self.whole: Future[WhatIf] = Future()
        self.given_up = False
        threading.Thread(target=self._read, args=(run, column), name=f"columns of {run.snapshot}", daemon=True).start()

    def _read(self, run: Run, column: str | None) -> None:
        try:
            self._steps(run, column)
        except (OSError, pa.ArrowException) as error:
            first = str(error).splitlines()[0]
            self._fail(
                ManifestError(
                    f"A table of {run.root} cannot be read ({first}); published anew, or damaged (`rushes verify`)?"
                )
            )
        except BaseException as error:
            self._fail(error)

    def _steps(self, run: Run, column: str | None) -> None:
        held = WhatIf(run)
        for share in held.reading(column):
            held.progress = share
            if not self.first.done():
                self.first.set_result(FirstLook(held))
            if share == 1:
                self.whole.set_result(held)
            elif self.given_up:
                raise ManifestError(f"The columns of {run.root} gave way to those of other runs; ask again.")

    def _fail(self, error: BaseException) -> None:
        for future in (self.first, self.whole):
            if not future.done():
                future.set_exception(error)
                future.exception()  # it may be that nobody waits for it


class Held:
    """The snapshots that were asked for last."""

    def __init__(self) -> None:
        self._readings: OrderedDict[tuple[str, str], Reading] = OrderedDict()
        self._lock = threading.Lock()

    def reading(self, run: Run, column: str | None = None) -> Reading:
        """The snapshot, which is begun to be read where it is not: this column first."""
        key = (run.root, run.snapshot)
        with self._lock:
            known = self._readings.get(key)
            if known is None or (known.whole.done() and known.whole.exception()):
                self._readings[key] = Reading(run, column)
                while len(self._readings) > HELD_MOST:
                    self._readings.popitem(last=False)[1].given_up = True
            self._readings.move_to_end(key)
            return self._readings[key]

    def of(self, run: Run) -> WhatIf:
        """The snapshot's columns, all of them. Raises what reading them raised."""
        return self.reading(run).whole.result()

    async def soon(self, run: Run, column: str | None) -> FirstLook | None:
        """A first look at a snapshot that is not read yet; None: it is."""
        reading = self.reading(run, column)
        first = await asyncio.shield(asyncio.wrap_future(reading.first))
        if not reading.whole.done():
            await asyncio.wait([_here(reading.whole)], timeout=PATIENCE_S)
        return None if reading.whole.done() else first

    async def ready(self, run: Run) -> None:
        """Wait until the snapshot is read, in no thread. What went wrong is raised by `of`."""
        whole = self.reading(run).whole
        if not whole.done():
            await asyncio.wait([_here(whole)])

    def span(self, run: Run, clip: str) -> dict[str, Any] | None:
        """Where a clip lies that was told of lately, without asking a table."""
        known = self._readings.get((run.root, run.snapshot))
        if known is None or not known.whole.done() or known.whole.exception():
            return None
        return known.whole.result().held.span(clip)


def _here(future: Future[Any]) -> asyncio.Future[Any]:
    """The future in this loop; what it raises is told by `of`."""
    wrapped = asyncio.wrap_future(future)
    wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
    return wrapped
