"""OpenAI-compatible servers as one pool: bounded, patient, and sure whose answer is whose.

Identity. Every request has an id of its own, made of the clip's id and a number that is never used again; it goes out
as `X-Request-Id`, and vLLM gives it back as a header and inside the answer's `id`. An answer that names another
request is thrown away with its connection, and the clip is asked again: an answer sent twice, or one that comes late,
can then never be taken for the next one's. A server that gives no id back gets a connection per request, on which
there is no next one.

Trouble is of three kinds. A *busy or absent* server (429, 503, no connection) is waited for, with growing, jittered
pauses or as long as it says (Retry-After); nobody's tries are used up. A *broken* exchange (time-out, 500, HTML,
bytes that are no JSON) counts as one of `retries` for this clip. What the server *refuses* (400: longer than the
context) is final for this clip. The run stops with `ServersDown` when no server has answered anyone for `patience_s`.
"""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

PAUSE_FIRST_S, PAUSE_MOST_S = 0.25, 30.0  # between tries: doubled each time, times 0.5 to 1.5
CONNECT_S = 10.0  # a server on the same network takes a connection within milliseconds
IDLE_S = 2.0  # an idle connection is used again within this; servers close theirs after 5 (uvicorn)
SAID_LETTERS = 200  # of a server's own words in a reason
OK = 200
BUSY = (429, 502, 503)  # what a full, restarting or proxied server answers
REFUSED = (400, 413, 422)  # what this very request will get again
MISPLACED = (401, 403, 404, 405)  # what every request would get


class Unanswered(RuntimeError):
    """No answer for one clip: one sentence. `lasting` where asking again would give the same."""

    def __init__(self, reason: str, lasting: bool) -> None:
        super().__init__(reason)
        self.lasting = lasting


class ServersDown(RuntimeError):
    """No server answers any more, or none will take requests of this kind: one sentence for the whole run."""


class _Broken(Exception):
    """This exchange gave nothing usable."""


class _Busy(Exception):
    """The server cannot take it now; `after_s` as it says, None where it does not."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


@dataclass(frozen=True)
class Answer:
    """text as the model wrote it; finished: False where max_tokens ended it; tokens as the server counted them."""

    text: str
    finished: bool
    tokens_in: int | None
    tokens_out: int | None


@dataclass
class Server:
    """One base URL (.../v1), whether it gives request ids back, and its state."""

    url: str
    echoes: bool = False
    in_flight: int = 0
    rests_until: float = 0.0  # monotonic seconds


@dataclass(frozen=True)
class Servers:
    """Which servers serve which model, as preflight found them; plain data that can be sent to workers."""

    by_model: dict[str, tuple[str, ...]]
    echoing: frozenset[str] = field(default_factory=frozenset)


class Endpoints:
    """`await endpoints.ask(clip_id, body)` inside `async with endpoints:`; bounded by whoever calls it.

    servers: from `preflight`; timeout_s, retries, patience_s, key: see sections.Captioning.
    """

    def __init__(
        self, servers: Servers, timeout_s: float, retries: int, patience_s: float, key: str | None = None
    ) -> None:
        known = {url: Server(url, url in servers.echoing) for urls in servers.by_model.values() for url in urls}
        self._by_model = {model: [known[url] for url in urls] for model, urls in servers.by_model.items()}
        self._timeout_s, self._retries, self._patience_s = timeout_s, retries, patience_s
        self._headers = headers(key)
        self._numbers = itertools.count()
        self._nonce = os.urandom(4).hex()  # two workers, or a run before this one, never share an id
        self._last_answer = time.monotonic()
        self._waiting = 0

    async def __aenter__(self) -> Endpoints:
        timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=min(CONNECT_S, self._timeout_s))

        def session(**options: Any) -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(limit=0, **options)
            return aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._headers)

        self._lasting = session(keepalive_timeout=IDLE_S)
        # A server that does not name the request it answers gets a connection for each: a second copy of an answer
        # could otherwise be read as the next one's.
        self._single = session(force_close=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._lasting.close()
        await self._single.close()

    async def ask(self, clip_id: str, body: dict[str, Any]) -> Answer:
        """One answer to one body, or Unanswered; ServersDown where nobody gets any."""
        if not self._waiting:  # patience counts while someone waits
            self._last_answer = time.monotonic()
        self._waiting += 1
        try:
            return await self._ask(clip_id, body)
        finally:
            self._waiting -= 1

    async def _ask(self, clip_id: str, body: dict[str, Any]) -> Answer:
        content = json.dumps(body).encode()
        began, broken, busy = time.monotonic(), 0, 0
        while True:
            server = self._server(body["model"])
            server.in_flight += 1
            try:
                answer = await self._exchange(server, clip_id, content)
            except _Busy as trouble:
                busy += 1
                reason = f"{server.url} {trouble}"
                await self._pause(server, body["model"], trouble.after_s, busy)
                if time.monotonic() - began > self._patience_s and self._others_fare_better():
                    raise Unanswered(f"not taken in {self._patience_s:.0f} s: {reason}", lasting=False) from trouble
            except (_Broken, TimeoutError, aiohttp.ClientError) as trouble:
                broken += 1
                reason = f"{server.url} {_told(trouble, self._timeout_s)}"
                if broken > self._retries:
                    raise Unanswered(f"no answer in {broken} tries: {reason}", lasting=False) from trouble
                await asyncio.sleep(jittered(broken))
            else:
                self._last_answer = time.monotonic()
                return answer
            finally:
                server.in_flight -= 1
            if time.monotonic() - self._last_answer > self._patience_s:
                raise ServersDown(
                    f"No caption server has answered for {self._patience_s:.0f} s (the last trouble: {reason}). What "
                    f"was captioned is kept: start the same command again once they are back."
                )

    def _others_fare_better(self) -> bool:
        """Whether the servers answer at all: then one clip is given up, else the run is stopped soon."""
        return time.monotonic() - self._last_answer < self._patience_s / 2

    def _server(self, model: str) -> Server:
        """The server of this model with the fewest requests among those that do not rest; where all do, any."""
        now = time.monotonic()
        servers = self._by_model[model]
        awake = [server for server in servers if server.rests_until <= now]
        return min(awake or servers, key=lambda server: server.in_flight)

    async def _pause(self, server: Server, model: str, after_s: float | None, times: int) -> None:
        """Let a busy server rest; whoever can go to another one does so at once."""
        pause = min(jittered(times) if after_s is None else after_s, self._patience_s)
        now = time.monotonic()
        server.rests_until = now + pause
        if all(other.rests_until > now for other in self._by_model[model]):
            await asyncio.sleep(pause)

    async def _exchange(self, server: Server, clip_id: str, content: bytes) -> Answer:
        request_id = f"{clip_id}-{self._nonce}-{next(self._numbers)}"
        sent = {"X-Request-Id": request_id, "Content-Type": "application/json"}
        try:
            http = self._lasting if server.echoes else self._single
            response = await http.post(f"{server.url}/chat/completions", data=content, headers=sent)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _Busy(f"takes no connection ({plain(error)})") from error
        try:
            data = await response.read()
            answer = parse_answer(response.status, response.headers, data)
            if server.echoes:
                _mine(request_id, response.headers, data)
        except BaseException:
            response.close()  # with its connection: nothing left on it is ever read as another's answer
            raise
        return answer


def parse_answer(status: int, sent: Mapping[str, str], data: bytes) -> Answer:
    """The answer in a response. Raises _Busy, _Broken, Unanswered (refused) or ServersDown (misplaced)."""
    if status in BUSY:
        raise _Busy(f"is busy ({status})", retry_after(sent.get("retry-after"), time.time()))
    if status in REFUSED:
        raise Unanswered(f"the server refused the request ({status}): {said(data)}", lasting=True)
    if status in MISPLACED:
        raise ServersDown(f"The caption server answers {status} to every request: {said(data)}.")
    if status != OK:
        raise _Broken(f"failed ({status}): {said(data)}")
    try:
        decoded = json.loads(data.decode("utf-8"))
        choice = decoded["choices"][0]
        text = choice["message"]["content"]
        usage = decoded.get("usage") or {}
    except UnicodeDecodeError as error:
        raise _Broken("answered invalid UTF-8") from error
    except (ValueError, LookupError, TypeError) as error:
        raise _Broken(f"answered {'a web page' if is_html(data) else 'no chat completion'}: {said(data)}") from error
    if not isinstance(text, str):
        text = ""  # some servers give null for nothing: an empty answer, which the checks turn down
    return Answer(
        text, choice.get("finish_reason") != "length", usage.get("prompt_tokens"), usage.get("completion_tokens")
    )


def echoed(request_id: str, sent: Mapping[str, str], data: bytes) -> bool:
    """Whether a response names the request it answers: in its header, or in the completion's id."""
    return sent.get("x-request-id") == request_id or request_id in _completion_id(data)


def _mine(request_id: str, sent: Mapping[str, str], data: bytes) -> None:
    """Raises _Broken where a response answers another request, or does not say which it answers."""
    header, named = sent.get("x-request-id"), _completion_id(data)
    if header not in (None, request_id) or (request_id not in named and header is None):
        raise _Broken(f"answered another request ({header or named or 'unnamed'})")


def _completion_id(data: bytes) -> str:
    try:
        found = json.loads(data).get("id")
    except (ValueError, AttributeError):
        return ""
    return found if isinstance(found, str) else ""


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for (a number or a date), None where it says nothing usable."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (TypeError, ValueError):
        return None


def jittered(times: int) -> float:
    """Pause before try number `times` + 1, seconds; random, so that a crowd does not come back as one."""
    return min(PAUSE_MOST_S, PAUSE_FIRST_S * 2 ** min(times - 1, 16)) * random.uniform(0.5, 1.5)


def headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def is_html(data: bytes) -> bool:
    return data.lstrip()[:1] == b"<"


def said(data: bytes) -> str:
    """A server's own words, in one short line: the message of an error where there is one."""
    text = data.decode("utf-8", errors="replace")
    try:
        decoded = json.loads(text)
        error = decoded.get("error", decoded)
        text = str(error.get("message", text)) if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError):
        pass
    text = " ".join(text.split())
    return (text[:SAID_LETTERS] + " ..." if len(text) > SAID_LETTERS else text).rstrip(".") or "nothing"


def plain(error: BaseException) -> str:
    """An error of the network in its own words, without the client's details."""
    cause = getattr(error, "os_error", None)
    return (getattr(cause, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


def _told(trouble: BaseException, timeout_s: float) -> str:
    if isinstance(trouble, TimeoutError):
        return f"gave no answer within {timeout_s:g} s"
    return str(trouble) if isinstance(trouble, _Broken) else f"broke the connection ({plain(trouble)})"
