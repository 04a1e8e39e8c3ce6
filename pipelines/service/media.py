"""Media by byte ranges, from a disk or an object store, a bounded piece in memory at a time."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import AsyncIterator
from typing import Any

import pyarrow.fs as pafs
from anyio import to_thread
from starlette.responses import Response, StreamingResponse

from rushes.curation import manifest

PIECE = 256 * 1024  # bytes read at a time
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def media_response(place: str, range_header: str | None, head: bool = False) -> Response | None:
    """The file, or the part of it that a Range header asks for; None where there is no such file."""
    fs, path = manifest.resolve(place)
    info = fs.get_file_info(path)
    if info.type != pafs.FileType.File:
        return None
    headers = {"accept-ranges": "bytes", "cache-control": "private, max-age=3600"}
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    asked = _asked(range_header, info.size)
    if asked == "none":
        return Response(status_code=416, headers={**headers, "content-range": f"bytes */{info.size}"})
    first, last = asked or (0, info.size - 1)
    headers["content-length"] = str(last - first + 1)
    if asked:
        headers["content-range"] = f"bytes {first}-{last}/{info.size}"
    status = 206 if asked else 200
    if head:
        return Response(status_code=status, headers=headers, media_type=kind)
    return StreamingResponse(_pieces(fs, path, first, last), status, headers, kind)


def _asked(header: str | None, size: int) -> tuple[int, int] | str | None:
    """First and last byte of a single range; None: everything; "none": a range beyond the file."""
    match = _RANGE.fullmatch((header or "").strip())
    if not match or not (match.group(1) or match.group(2)):
        return None  # what is not understood is answered as if it were not there (RFC 9110)
    begin, end = match.group(1)[:18], match.group(2)[:18]
    if not begin:
        first, last = max(size - int(end), 0), size - 1
        return (first, last) if int(end) and size else "none"
    first, last = int(begin), min(int(end), size - 1) if end else size - 1
    if end and int(end) < first:
        return None
    return (first, last) if first < size else "none"


async def _pieces(fs: pafs.FileSystem, path: str, first: int, last: int) -> AsyncIterator[bytes]:
    file: Any = await to_thread.run_sync(fs.open_input_file, path)
    try:
        at = first
        while at <= last:
            piece = await to_thread.run_sync(file.read_at, min(PIECE, last + 1 - at), at)
            if not piece:
                return
            at += len(piece)
            yield piece
    finally:
        file.close()
