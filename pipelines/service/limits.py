"""What every request passes before a route sees it: whose it is, how large, how often; plain ASGI, no framework."""

from __future__ import annotations

import contextlib
import json
import time
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie
from typing import Any

from rushes.pipelines.service.access import LOCAL, Person
from rushes.pipelines.service.settings import LOOPBACK, Settings
from rushes.pipelines.studio.pages import is_page

COOKIE = "rushes_token"
OPEN = frozenset(("/api/v1/health", "/api/v1/openapi.json"))  # asked without a token
BURST_S = 2.0  # seconds' worth of requests that may come at once
PEOPLE_REMEMBERED = 10_000
URL_MOST = 8_192  # bytes of path and query
#: No page of this service is shown inside another, guesses types, or tells others where its reader came from.
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Gate:
    """ASGI middleware. The person stands in scope["person"] behind it."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self._rates: OrderedDict[str, tuple[float, float]] = OrderedDict()  # who -> (requests left, when counted)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        left = self.settings.body_bytes_most
        began = False

        async def bounded() -> dict[str, Any]:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise TooLarge  # routes may answer it as any other broken body; `marked` says what it was
            return message

        async def marked(message: dict[str, Any]) -> None:
            nonlocal began
            if left < 0 and not began:
                return
            if message["type"] == "http.response.start":
                began = True
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        with contextlib.suppress(TooLarge):
            await self.app(scope, bounded, marked)
        if left < 0 and not began:
            await _refuse(send, 413, f"A request's body is at most {self.settings.body_bytes_most:,} bytes.")

    def _refusal(self, scope: dict[str, Any], headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > URL_MOST:
            return 414, f"An address is at most {URL_MOST:,} bytes."
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:15]) > self.settings.body_bytes_most:
            return 413, f"A request's body is at most {self.settings.body_bytes_most:,} bytes."
        person = self._person(scope, headers)
        client = (scope.get("client") or ("unknown", 0))[0]
        if not self._counted(person.name if person and person is not LOCAL else client):
            return 429, "Too many requests; wait a second."
        if person is None:
            return 401, "Send a token: Authorization: Bearer TOKEN."
        scope["person"] = person
        return None

    def _person(self, scope: dict[str, Any], headers: dict[bytes, bytes]) -> Person | None:
        if self.settings.tokens is None:
            host = headers.get(b"host", b"").decode("latin-1").rsplit(":", 1)[0].strip("[]").lower()
            origin = headers.get(b"origin")
            own = origin is None or origin.split(b"//")[-1] == headers.get(b"host")
            return LOCAL if host in LOOPBACK and own else None  # a page of another site must not use this one
        token = _token(headers)
        person = self.settings.tokens.person(token) if token else None
        is_open = scope["path"] in OPEN or is_page(scope["path"])
        return person or (Person("nobody", "viewer") if is_open else None)

    def _counted(self, who: str) -> bool:
        """One request less of what a person may ask in a second."""
        rate, now = self.settings.requests_per_s, time.monotonic()
        left, then = self._rates.pop(who, (rate * BURST_S, now))
        left = min(rate * BURST_S, left + (now - then) * rate) - 1
        self._rates[who] = (max(left, 0.0), now)
        if len(self._rates) > PEOPLE_REMEMBERED:
            self._rates.popitem(last=False)
        return left >= 0


class TooLarge(Exception):
    """A body that goes on beyond the bound."""


def _token(headers: dict[bytes, bytes]) -> str | None:
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    try:
        cookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
    except CookieError:
        return None
    return cookie.value if cookie else None


async def _refuse(send: Any, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
