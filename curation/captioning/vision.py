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

from curation.captioning import checks
from curation.captioning.assign import assign_models, sampling_seed
from curation.captioning.base import Caption
from curation.captioning.endpoint import Endpoints, Servers, ServersDown, Unanswered
from curation.captioning.frames import FrameError
from curation.captioning.prompt import chat_body, load_template
from curation.recipe import Captioning

RECORD_EVERY = 16  # captions handed over at once ...
RECORD_S = 2.0  # ... or after so many seconds, whichever comes first
AHEAD = 16  # clips whose frames are ready before a request is free
PREPARERS = 2  # threads that decode frames; libav and OpenCV leave the interpreter free meanwhile

Row = dict[str, Any]
Frames = Callable[[Row], list[bytes]]
Record = Callable[[list[Caption]], None]


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

        frames(row): JPEG frames of a clip, in a thread; FrameError makes a failed Caption. record(captions): in a
        thread, one call at a time; what it raises ends the run. Raises ServersDown; what was answered is recorded.
        """
        asyncio.run(self._run(rows, frames, record))

    async def _run(self, rows: Iterable[Row], frames: Frames, record: Record) -> None:
        recipe = self._recipe
        pool = Endpoints(self._servers, recipe.timeout_s, recipe.retries, recipe.patience_s, self._key)
        ready: asyncio.Queue[tuple[Row, asyncio.Future[list[bytes]]] | None] = asyncio.Queue(AHEAD)
        done: asyncio.Queue[Caption | None] = asyncio.Queue(2 * self._concurrency)
        recorder = asyncio.create_task(_hand_over(done, record))
        try:
            with ThreadPoolExecutor(PREPARERS) as threads:
                async with pool, asyncio.TaskGroup() as group:
                    group.create_task(self._prepare(rows, frames, ready, threads))
                    group.create_task(_stop_with(recorder))
                    askers = [group.create_task(self._ask(pool, ready, done)) for _ in range(self._concurrency)]
                    await asyncio.wait(askers)
                    await done.put(None)
        except* ServersDown as group:
            raise _first(group) from None
        except* (OSError, RuntimeError) as group:
            raise _first(group) from None
        finally:
            if not recorder.done():
                await done.put(None)
                await recorder
