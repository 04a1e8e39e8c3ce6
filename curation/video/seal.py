"""The seal of a cut clip: its last bytes say which clip it is and what it holds, so that any copy can be checked.

An MP4 box of the type `uuid`, which players and decoders pass over, with one JSON object of a fixed size: the clip's
id, frames, length in bytes and BLAKE2b of all that stands before the box. Whether a clip is there, whole, and the
one that its name says is known from one short read at its end; whether each byte is right, by reading it all.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BOX_BYTES = 256  # of the whole box
BOX_TYPE = b"uuid"
BOX_ID = hashlib.blake2b(b"rushes: seal of a cut clip, 1", digest_size=16).digest()
HEAD = BOX_BYTES.to_bytes(4, "big") + BOX_TYPE + BOX_ID
HASH_BYTES = 16
READ_BYTES = 1 << 20  # read at a time


@dataclass(frozen=True)
class Seal:
    """content_bytes, blake2b: length and hash (32 hexadecimal digits) of what stands before the seal."""

    clip_id: str
    frames: int
    content_bytes: int
    blake2b: str

    @property
    def file_bytes(self) -> int:
        return self.content_bytes + BOX_BYTES


def put(path: str | os.PathLike[str], clip_id: str, frames: int) -> Seal:
    """Append the seal to a clip that was just written."""
    with Path(path).open("r+b") as file:
        digest, size = hash_of(file, None)
        seal = Seal(clip_id, frames, size, digest)
        text = json.dumps(asdict(seal), separators=(",", ":")).encode()
        room = BOX_BYTES - len(HEAD)
        if len(text) > room:
            raise ValueError(f"the clip id '{clip_id}' is too long for a seal")
        file.write(HEAD + text.ljust(room))
    return seal


def read(file: Any, size: int) -> Seal | None:
    """The seal at the end of a seekable binary file of `size` bytes; None where there is none, or it is damaged."""
    if size < BOX_BYTES:
        return None
    file.seek(size - BOX_BYTES)
    box = file.read(BOX_BYTES)
    if box[: len(HEAD)] != HEAD:
        return None
    try:
        return Seal(**json.loads(box[len(HEAD) :]))
    except (ValueError, TypeError):
        return None


def hash_of(file: Any, length: int | None) -> tuple[str, int]:
    """(BLAKE2b, bytes) of the first `length` bytes of a seekable binary file, None: of all."""
    file.seek(0)
    digest, seen = hashlib.blake2b(digest_size=HASH_BYTES), 0
    while length is None or seen < length:
        part = file.read(READ_BYTES if length is None else min(READ_BYTES, length - seen))
        if not part:
            break
        digest.update(part)
        seen += len(part)
    return digest.hexdigest(), seen


def fault(seal: Seal | None, size: int, clip_id: str) -> str | None:
    """What is wrong with a clip as far as its seal and its size tell: a few words, None where nothing is."""
    if seal is None:
        return "empty" if size == 0 else "cut short or overwritten"
    if seal.clip_id != clip_id:
        return f"another clip ({seal.clip_id})"
    if seal.file_bytes != size:
        return f"{size} bytes long, not {seal.file_bytes}"
    return None
