"""A caption server that misbehaves as told: it reads the number that a test drew into the frames, and says it.

What it answers is therefore bound to the picture: an answer that lands at another clip is seen. Run in a thread
(`serving`), or as a process of its own (`python -m tests.curation.captioning.stub '{"errors": 0.05}'`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

BLOCK, SIDE_BITS = 8, 4  # a picture of 4 x 4 blocks of 8 pixels: 16 bits
FOREVER_S = 3600.0
CONTEXT = 4096


@dataclass
class Behaviour:
    """Shares of requests that go wrong, and how; what is left is answered well."""

    errors: float = 0.0  # 500, 503, 429, HTML, invalid UTF-8, a broken connection, in turn
    hangs: float = 0.0  # no answer, ever
    late: float = 0.0  # an answer after `late_s`
    duplicates: float = 0.0  # the answer twice on the connection
    strangers: float = 0.0  # another request's answer
    delay_s: float = 0.0  # answers take 0 to this, at random: they come in another order
    late_s: float = 5.0
    echo: bool = True  # gives request ids back, as vLLM does
    models: tuple[str, ...] = ("small", "large")
    always: tuple[int, str] | None = None  # status and body of every completion
    page: bool = False  # a web page at every path
    context: int | None = CONTEXT
    texts: tuple[str, ...] = ()  # answers in turn, by seed asked for, instead of the number
    seed: int = 0


def picture(number: int) -> np.ndarray:
    """uint8 [32, 32, 3] that shows 16 bits of a number as black and white blocks."""
    bits = (number >> np.arange(SIDE_BITS**2)) & 1
    return np.repeat(
        (np.kron(bits.reshape(SIDE_BITS, SIDE_BITS), np.ones((BLOCK, BLOCK))) * 255)[..., None], 3, 2
    ).astype(np.uint8)


def number_in(url: str) -> int:
    import cv2

    data = base64.b64decode(url.partition(",")[2].split(",")[0])
    gray = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if gray.shape != (BLOCK * SIDE_BITS,) * 2:
        return -1
    bits = gray[BLOCK // 2 :: BLOCK, BLOCK // 2 :: BLOCK].ravel() > 127
    return int((bits * (1 << np.arange(bits.size))).sum())


@dataclass
class Stub:
    """The server and what it has seen."""

    behaviour: Behaviour
    url: str = ""
    asked: list[str] = field(default_factory=list)  # request ids of completions, in order
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    keep_bodies: bool = True
    in_flight: int = 0
    most_in_flight: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.behaviour.seed)
        self._errors = 0
        self._before: bytes | None = None

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                sent = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(sent.get("content-length", 0)))
                if not await self._answer(head[0].split()[1], sent, body, writer):
                    break
                if sent.get("connection", "").lower() == "close":
                    break
        writer.close()

    async def _answer(self, path: str, sent: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays open."""
        self.keys.add(sent.get("authorization"))
        if self.behaviour.page:
            return await self._send(writer, 200, b"<html><body>Welcome to nginx</body></html>")
        if path.endswith("/models"):
            data = [{"id": name, "max_model_len": self.behaviour.context} for name in self.behaviour.models]
            return await self._send(writer, 200, json.dumps({"data": data}).encode())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._complete(sent.get("x-request-id", ""), json.loads(body), writer)
        finally:
            self.in_flight -= 1

    async def _complete(self, request_id: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        how = self.behaviour
        probe = request_id.startswith("preflight")
        if not probe:
            self.asked.append(request_id)
            if self.keep_bodies:
                self.bodies.append(body)
        if how.always:
            return await self._send(writer, how.always[0], how.always[1].encode())
        answer = self._completion(request_id, body)
        draw = 1.0 if probe else self._random.random()
        await asyncio.sleep(self._random.uniform(0, how.delay_s) if not probe else 0)
        if (draw := draw - how.errors) < 0:
            return await self._error(writer, answer)
        if (draw := draw - how.hangs) < 0:
            await asyncio.sleep(FOREVER_S)
        if (draw := draw - how.late) < 0:
            await asyncio.sleep(how.late_s)
        if (draw := draw - how.duplicates) < 0:
            await self._send(writer, 200, answer, request_id, flush=False)
        if (draw := draw - how.strangers) < 0 and self._before is not None:
            return await self._send(writer, 200, self._before)
        self._before = answer
        return await self._send(writer, 200, answer, request_id)

    def _completion(self, request_id: str, body: dict[str, Any]) -> bytes:
        parts = body["messages"][-1]["content"]
        url = next(part[part["type"]]["url"] for part in parts if part["type"] in ("video_url", "image_url"))
        text = f"The number {number_in(url)} was seen by {body['model']}."
        if self.behaviour.texts:
            text = self.behaviour.texts[min(len(self.asked) - 1, len(self.behaviour.texts) - 1)]
        return json.dumps(
            {
                "id": f"chatcmpl-{request_id}" if self.behaviour.echo else "chatcmpl-42",
                "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 10},
            }
        ).encode()

    async def _error(self, writer: asyncio.StreamWriter, answer: bytes) -> bool:
        self._errors += 1
        kind = self._errors % 6
        if kind == 0:
            return await self._send(writer, 500, b'{"error": {"message": "CUDA error"}}')
        if kind == 1:
            return await self._send(writer, 503, b"busy", extra="Retry-After: 0\r\n")
        if kind == 2:
            return await self._send(writer, 429, b"slow down")
        if kind == 3:
            return await self._send(writer, 200, b"<html>a proxy's page</html>")
        if kind == 4:
            return await self._send(writer, 200, answer.replace(b"number", b"n\xff\xfember"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + answer[:20])
        return False

    async def _send(
        self, writer: asyncio.StreamWriter, status: int, data: bytes, request_id: str = "", extra: str = "",
        flush: bool = True,
    ) -> bool:  # fmt: skip
        if request_id and self.behaviour.echo:
            extra += f"X-Request-Id: {request_id}\r\n"
        head = f"HTTP/1.1 {status} Stub\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{extra}\r\n"
        writer.write(head.encode() + data)
        if flush:
            await writer.drain()
        return True


async def _listen(stub: Stub, ready: threading.Event, port: int = 0) -> None:
    server = await asyncio.start_server(stub.connection, "127.0.0.1", port, limit=1 << 22, backlog=512)
    stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    ready.set()
    async with server:
        await server.serve_forever()


@contextlib.contextmanager
def serving(behaviour: Behaviour | None = None, port: int = 0) -> Iterator[Stub]:
    """A stub in a thread of this process."""
    stub, ready = Stub(behaviour or Behaviour()), threading.Event()
    ends: list[asyncio.AbstractEventLoop | asyncio.Task] = []

    async def main() -> None:
        ends.extend([asyncio.get_running_loop(), asyncio.current_task()])
        await _listen(stub, ready, port)

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(main())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield stub
    finally:
        loop, task = ends
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)


@contextlib.contextmanager
def process(behaviour: Behaviour) -> Iterator[str]:
    """The URL of a stub in a process of its own."""
    import subprocess

    command = [sys.executable, "-m", "tests.curation.captioning.stub", json.dumps(asdict(behaviour))]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield child.stdout.readline().strip()
    finally:
        child.kill()
        child.wait()


async def _main(behaviour: Behaviour) -> None:
    stub, ready = Stub(behaviour, keep_bodies=False), threading.Event()
    task = asyncio.create_task(_listen(stub, ready))
    await asyncio.to_thread(ready.wait)
    print(stub.url, flush=True)
    await task


if __name__ == "__main__":
    asyncio.run(_main(Behaviour(**json.loads(sys.argv[1]))))
