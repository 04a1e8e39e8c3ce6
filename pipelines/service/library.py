"""The runs of a service: opened once per snapshot, and answers that are kept as bytes until a new one is published."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs
from anyio import CapacityLimiter, to_thread

from rushes.curation import manifest
from rushes.curation.manifest import ManifestError, Run
from rushes.curation.nearest import nearest
from rushes.pipelines.service.places import PlaceError, checked_run, run_root
from rushes.pipelines.service.settings import Settings

REMOTE_STALE_S = 2.0  # an object store is asked so often whether a run was published anew
CACHE_CONTROL = "private, no-cache"  # kept by the browser, and asked for again by its tag
ADDRESSES_MOST = 1_000  # answers that are found by their address alone
REMEMBERED_MOST = 64 * 1024  # bytes of each
LISTED_MOST = 10_000  # runs that are listed
NAMED_MOST = 8  # of them in a sentence


@dataclass(frozen=True)
class Answer:
    """A body and the tag by which a browser knows it again."""

    body: bytes
    tag: str


class Library:
    """Runs by name, and cached answers about them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._opened: dict[str, tuple[Any, Run]] = {}
        self._answers: OrderedDict[tuple[Any, ...], Answer] = OrderedDict()
        self._bytes = 0
        self._addresses: OrderedDict[tuple[str, bytes], tuple[str, Any, Answer]] = OrderedDict()
        self._asked: dict[tuple[Any, ...], asyncio.Future[Answer]] = {}
        self._limit = CapacityLimiter(settings.questions_at_once)

    def names(self) -> list[str]:
        """Names of what lies in the folder of runs and is published."""
        fs, path = manifest.resolve(self.settings.runs)
        found = []
        for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))[:LISTED_MOST]:
            try:
                root = run_root(self.settings.runs, info.base_name)
            except PlaceError:
                continue
            if info.type == pafs.FileType.Directory and manifest.exists(manifest.join(root, "run.json")):
                found.append(info.base_name)
        return sorted(found)

    def run(self, name: str) -> Run:
        """The run's current snapshot. Raises PlaceError or ManifestError."""
        root = run_root(self.settings.runs, name)
        stamp = self._stamp(root)
        if stamp is None and not manifest.exists(manifest.join(root, "run.json")):
            raise ManifestError(self._unknown(name, root))
        held = self._opened.get(name)
        if held is None or held[0] != stamp:
            held = (stamp, checked_run(manifest.open_run(root)))
            self._opened[name] = held
        return held[1]

    def _unknown(self, name: str, root: str) -> str:
        if manifest.exists(manifest.join(root, "work")):
            return f"The run '{name}' has not finished: nothing of it is published yet."
        known = self.names()
        near = nearest(name, known)
        others = f"runs here: {', '.join(known[:NAMED_MOST])}{', ...' * (len(known) > NAMED_MOST)}."
        hint = f"did you mean '{near}'?" if near else others if known else "no run is published here yet."
        return f"There is no published run '{name}'; {hint}"

    async def work(self, function: Callable[[], Any]) -> Any:
        """Run what reads files in a thread; as many at once as the settings say."""
        return await to_thread.run_sync(function, limiter=self._limit)

    async def answer(self, name: str, question: tuple[Any, ...], ask: Callable[[Run], Any]) -> Answer:
        """What `ask` says of the run, as JSON: once per snapshot and question, however many ask at once."""
        run = self.run(name) if name in self._opened else await self.work(lambda: self.run(name))
        key = (name, run.record.get("snapshot"), id(run), *question)
        held = self._answers.get(key)
        if held is not None:
            self._answers.move_to_end(key)
            return held
        if key in self._asked:
            return await asyncio.shield(self._asked[key])
        future = self._asked[key] = asyncio.get_running_loop().create_future()
        try:
            found = await self.work(lambda: _answer(ask(run)))
            future.set_result(found)
        except BaseException as error:
            future.set_exception(error if isinstance(error, Exception) else ManifestError("The question was given up."))
            future.exception()  # it may be that nobody else waits for it
            raise
        finally:
            del self._asked[key]
        self._keep(key, found)
        return found

    def remember(self, scope: dict[str, Any], name: str, answer: Answer) -> None:
        """Keep an answer by the address it was asked at, for `Kept`."""
        held = self._opened.get(name)
        if held is not None and len(answer.body) <= REMEMBERED_MOST:
            self._addresses[scope["path"], scope["query_string"]] = (held[1].root, held[0], answer)
            if len(self._addresses) > ADDRESSES_MOST:
                self._addresses.popitem(last=False)

    def kept(self, scope: dict[str, Any]) -> Answer | None:
        """The answer at an address, while the snapshot that it is about is the current one."""
        held = self._addresses.get((scope["path"], scope["query_string"]))
        return held[2] if held is not None and self._stamp(held[0]) == held[1] else None

    def _keep(self, key: tuple[Any, ...], answer: Answer) -> None:
        self._answers[key] = answer
        self._bytes += len(answer.body)
        while self._bytes > self.settings.cache_bytes and self._answers:
            self._bytes -= len(self._answers.popitem(last=False)[1].body)

    def _stamp(self, root: str) -> Any:
        if "://" in root:
            return int(time.monotonic() / REMOTE_STALE_S)
        try:
            status = os.stat(f"{root}/run.json")
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size


class Kept:
    """ASGI middleware: an answer that is at hand is sent before any routing, thousands a second."""

    def __init__(self, app: Any, library: Library) -> None:
        self.app, self.library = app, library

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        answer = self.library.kept(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if answer is None:
            await self.app(scope, receive, send)
            return
        tag = answer.tag.encode()
        same = any(name == b"if-none-match" and value == tag for name, value in scope["headers"])
        headers = [(b"etag", tag), (b"cache-control", CACHE_CONTROL.encode())]
        if not same:
            headers += [(b"content-type", b"application/json"), (b"content-length", str(len(answer.body)).encode())]
        await send({"type": "http.response.start", "status": 304 if same else 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if same else answer.body})


def _answer(found: Any) -> Answer:
    body = json.dumps(finite(found), ensure_ascii=True, default=str, separators=(",", ":")).encode()
    return Answer(body, f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"')


def finite(value: Any) -> Any:
    """The same with null for what is no number: JSON has no NaN."""
    if isinstance(value, dict):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
