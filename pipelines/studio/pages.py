"""The studio's files over HTTP: one page for every room, its scripts and styles, small, tagged, and under a policy."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from importlib import resources
from typing import Any

ROOMS = ("/look", "/review", "/compare")
ASSETS = "/assets/"
#: Nothing but what this service serves is run, shown or asked; no inline script or style, no frame, no form elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
         ".html": "text/html; charset=utf-8", ".txt": "text/plain; charset=utf-8"}  # fmt: skip


@dataclass(frozen=True)
class File:
    """A file as it is sent. tag: a hash of its bytes, by which a browser knows that it has it."""

    kind: str
    body: bytes
    packed: bytes
    tag: str


def is_page(path: str) -> bool:
    """Whether the address is the studio's: asked without a token, as signing in is a page too."""
    return path == "/" or path.startswith(ASSETS) or any(path == r or path.startswith(r + "/") for r in ROOMS)


class Pages:
    """ASGI middleware: the studio's addresses are answered here, all others passed on. Files are read once."""

    def __init__(self, app: Any) -> None:
        self.app = app
        folder = resources.files("rushes.pipelines.studio") / "assets"
        self.files = {
            entry.name: _file(entry.name, entry.read_bytes()) for entry in folder.iterdir() if entry.is_file()
        }

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not is_page(scope["path"]):
            await self.app(scope, receive, send)
            return
        if scope["method"] not in ("GET", "HEAD"):
            await _send(send, 405, [(b"allow", b"GET, HEAD")], b"")
            return
        name = scope["path"].removeprefix(ASSETS) if scope["path"].startswith(ASSETS) else "index.html"
        file = self.files.get(name)
        if file is None:
            await _send(
                send, 404, [(b"content-type", b"application/json")], b'{"detail": "The studio has no such file."}'
            )
            return
        asked = dict(scope["headers"])
        headers = [
            (b"etag", file.tag.encode()), (b"cache-control", b"no-cache"), (b"vary", b"accept-encoding"),
            (b"content-security-policy", POLICY.encode()),
        ]  # fmt: skip
        if asked.get(b"if-none-match") == file.tag.encode():
            await _send(send, 304, headers, b"")
            return
        headers.append((b"content-type", file.kind.encode()))
        packed = b"gzip" in asked.get(b"accept-encoding", b"")
        body = file.packed if packed else file.body
        if packed:
            headers.append((b"content-encoding", b"gzip"))
        headers.append((b"content-length", str(len(body)).encode()))
        await _send(send, 200, headers, b"" if scope["method"] == "HEAD" else body)


def _file(name: str, body: bytes) -> File:
    end = name[name.rfind(".") :]
    kind = KINDS.get(end) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return File(kind, body, gzip.compress(body, 9, mtime=0), f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"')


async def _send(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
