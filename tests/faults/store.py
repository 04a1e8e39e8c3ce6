"""An S3-speaking server on loopback, and in front of it a store's bad days: answers of 500 and 503, resets, outages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from dataclasses import dataclass, field

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

KNOWN = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1",
         "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip
ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>a bad day</Message>'
    "<RequestId>0</RequestId></Error>"
)
HOP = {"connection", "transfer-encoding", "keep-alive", "date", "server"}


@dataclass
class Store:
    """Use as a context: `environment` leads AWS' clients to it, `bucket` is there.

    fails: share of the requests that fail, by turns as 500, 503 and a connection that is reset; slow_s: what an answer
    waits at most; `away` until that moment every connection is reset. asked, failed: requests so far.
    """

    host: str = "127.0.0.1"
    bucket: str = "films"
    fails: float = 0.0
    slow_s: float = 0.0
    seed: int = 0
    asked: int = 0
    failed: int = 0
    away_until: float = 0.0
    verbs: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Store:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for every request
        self._chance, self._unlucky = random.Random(self.seed), 0
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        self._behind = "http://{}:{}".format(*self._server.get_host_and_port())
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="store", daemon=True)
        self._thread.start()
        if not self._ready.wait(20):
            raise RuntimeError("the store's front did not start")
        self._make_bucket()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(10)
        self._server.stop()

    @property
    def environment(self) -> dict[str, str]:
        return {**KNOWN, "AWS_ENDPOINT_URL": f"http://{self.host}:{self.port}"}

    def address(self, name: str) -> str:
        return f"s3://{self.bucket}/{name}"

    def away(self, seconds: float) -> None:
        """From now on, for so long, the store is not there."""
        self.away_until = time.monotonic() + seconds

    def forget(self) -> None:
        """Count requests from here."""
        self.asked = self.failed = 0
        self.verbs = {}

    # ---- the front ---------------------------------------------------------------------------------------------------

    def _make_bucket(self) -> None:
        import urllib.request

        request = urllib.request.Request(f"{self._behind}/{self.bucket}", method="PUT")
        urllib.request.urlopen(request, timeout=20).close()

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        connector = TCPConnector(limit=64)
        async with ClientSession(auto_decompress=False, connector=connector, timeout=ClientTimeout(60)) as session:
            self._session = session
            runner = web.AppRunner(_app(self._answer), access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, self.host, 0)
            await site.start()
            self.port = site._server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._ending.wait()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        verb = f"{request.method} {'listing' if 'list-type' in request.query_string else 'object'}"
        self.verbs[verb] = self.verbs.get(verb, 0) + 1
        body = await request.read()
        if time.monotonic() < self.away_until:
            return self._reset(request)
        if self.slow_s:
            await asyncio.sleep(self._chance.uniform(0, self.slow_s))
        if self._bad():
            self.failed += 1
            how = self.failed % 3
            if how == 0:
                return self._reset(request)
            code, name = ((500, "InternalError"), (503, "SlowDown"))[how - 1]
            return web.Response(status=code, text=ERROR.format(name), content_type="application/xml")
        return await self._passed_on(request, body)

    def _bad(self) -> bool:
        """Of every 1 / fails requests one fails, whichever."""
        if not self.fails:
            return False
        block = round(1 / self.fails)
        if (self.asked - 1) % block == 0:
            self._unlucky = self._chance.randrange(block)
        return (self.asked - 1) % block == self._unlucky

    def _reset(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    async def _passed_on(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        url = f"{self._behind}{request.rel_url.raw_path_qs}"
        from yarl import URL

        async with self._session.request(
            request.method, URL(url, encoded=True), data=body or None, headers=headers, allow_redirects=False,
            skip_auto_headers=("Content-Type", "User-Agent", "Accept", "Accept-Encoding"),
        ) as answer:  # fmt: skip
            told = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP]
            return web.Response(status=answer.status, headers=told, body=await answer.read())


def _app(handler: object) -> web.Application:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", handler)
    return app


@contextlib.contextmanager
def in_environment(store: Store):
    """This process' own AWS clients ask the store, within."""
    import os

    before = {name: os.environ.get(name) for name in store.environment}
    os.environ.update(store.environment)
    try:
        yield store
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
