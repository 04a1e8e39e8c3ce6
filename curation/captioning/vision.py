"""Captions by models that see: every clip to its model, every answer to its checks, servers kept full.

`VisionCaptioner.run` keeps `concurrency` requests in flight over any number of clips, prepares the frames of the next
ones meanwhile, and hands finished captions over in small batches, so that little is lost when the process dies.
Memory does not grow with the number of clips.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rushes.curation.captioning import checks
from rushes.curation.captioning.assign import assign_models, sampling_seed
from rushes.curation.captioning.base import Caption
from rushes.curation.captioning.endpoint import Answer, Endpoints, Servers, ServersDown, Unanswered
from rushes.curation.captioning.frames import FrameError
from rushes.curation.captioning.prompt import chat_body, load_template
from rushes.curation.sections import Captioning

RECORD_EVERY = 16  # captions handed over at once ...
RECORD_S = 2.0  # ... or after so many seconds, whichever comes first
AHEAD = 16  # clips whose frames are ready before a request is free
PREPARERS = 2  # threads that decode frames; libav and OpenCV leave the interpreter free meanwhile

Row = dict[str, Any]
Frames = Callable[[Row], list[bytes]]
Record = Callable[[list[Caption]], None]
Prepared = asyncio.Queue  # of (row, its frames to come), None where there are no more


class VisionCaptioner:
    """`VisionCaptioner(recipe, servers).run(rows, frames, record)`; an ordinary class, no engine inside.

    concurrency: requests in flight here, the recipe's unless told. Raises RecipeError for a prompt that is not there.
    """

    def __init__(
        self, recipe: Captioning, servers: Servers, key: str | None = None, concurrency: int | None = None
    ) -> None:
        self._recipe, self._servers, self._key = recipe, servers, key
        self._concurrency = concurrency or recipe.concurrency
        self._template = load_template(recipe.prompt)

    def run(self, rows: Iterable[Row], frames: Frames, record: Record) -> None:
        """Caption every row (clip_id, duration_s, and what `frames` needs) and give each Caption to `record`, once.

        frames(row): JPEG frames of a clip, called in a thread; FrameError makes a Caption that failed.
        record(captions): called in a thread, one call at a time; what it raises ends the run.
        Raises ServersDown. Whatever was answered before the end is recorded.
        """
        try:
            asyncio.run(self._run(rows, frames, record))
        except ExceptionGroup as group:
            raise _sharpest(group) from group

    async def _run(self, rows: Iterable[Row], frames: Frames, record: Record) -> None:
        recipe = self._recipe
        recorder = _Recorder(record)
        ready: Prepared = asyncio.Queue(AHEAD)
        threads = ThreadPoolExecutor(PREPARERS, thread_name_prefix="frames")
        try:
            async with (
                Endpoints(self._servers, recipe.timeout_s, recipe.retries, recipe.patience_s, self._key) as pool,
                asyncio.TaskGroup() as group,  # an error in one ends all
            ):
                ticker = group.create_task(recorder.tick())
                group.create_task(self._prepare(rows, frames, ready, threads))
                await asyncio.wait(
                    [group.create_task(self._take(pool, ready, recorder)) for _ in range(self._concurrency)]
                )
                ticker.cancel()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            await recorder.flush()

    async def _prepare(self, rows: Iterable[Row], frames: Frames, ready: Prepared, threads: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        for row in rows:
            await ready.put((row, loop.run_in_executor(threads, _tried, frames, row)))
        for _ in range(self._concurrency):
            await ready.put(None)

    async def _take(self, pool: Endpoints, ready: Prepared, recorder: _Recorder) -> None:
        while (item := await ready.get()) is not None:
            row, coming = item
            frames = await coming
            model = assign_models([row["clip_id"]], self._recipe.models, self._recipe.seed)[0]
            if isinstance(frames, FrameError):
                await recorder.add(Caption(row["clip_id"], None, model, str(frames)))
            else:
                await recorder.add(await self.caption(pool, row, model, frames))

    async def caption(self, pool: Endpoints, row: Row, model: str, frames: list[bytes]) -> Caption:
        """One clip: asked with one seed after another until an answer passes the checks. Raises ServersDown."""
        clip_id, wrong, spent = row["clip_id"], [], [0, 0]
        for attempt in range(self._recipe.attempts):
            seed = sampling_seed(clip_id, self._recipe.seed, attempt)
            body = chat_body(model, self._template, frames, row["duration_s"], self._recipe, seed)
            try:
                answer = await pool.ask(clip_id, body)
            except Unanswered as trouble:
                return Caption(clip_id, None, model, str(trouble), seed, *spent, lasting=trouble.lasting)
            spent = [spent[0] + (answer.tokens_in or 0), spent[1] + (answer.tokens_out or 0)]
            reason = self._wrong(answer)
            if reason is None:
                return Caption(clip_id, checks.clean(answer.text), model, None, seed, *spent)
            wrong.append(reason)
        return Caption(clip_id, None, model, f"{len(wrong)} answers failed: {'; '.join(wrong)}", seed, *spent)

    def _wrong(self, answer: Answer) -> str | None:
        return checks.check(answer.text, self._recipe, self._template, answer.finished)


class _Recorder:
    """Finished captions on their way to `record`: in batches, one at a time; whoever fills one waits for it."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._finished: list[Caption] = []
        self._lock = asyncio.Lock()

    async def add(self, caption: Caption) -> None:
        self._finished.append(caption)
        if len(self._finished) >= RECORD_EVERY:
            await self.flush()

    async def flush(self) -> None:
        async with self._lock:
            batch, self._finished = self._finished, []
            if batch:
                await asyncio.shield(asyncio.to_thread(self._record, batch))

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(RECORD_S)
            await self.flush()


def _tried(frames: Frames, row: Row) -> list[bytes] | FrameError:
    try:
        return frames(row)
    except FrameError as error:
        return error


def _sharpest(group: BaseExceptionGroup) -> BaseException:
    """The error that says most: servers that are down before what follows from it."""
    flat: list[BaseException] = []
    for error in group.exceptions:
        flat += [_sharpest(error)] if isinstance(error, BaseExceptionGroup) else [error]
    return next((error for error in flat if isinstance(error, ServersDown)), flat[0])
