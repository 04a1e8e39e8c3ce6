"""Opening media files: containers that hold their own footage, local files, nothing else.

FFmpeg recognises a format by its content, whatever the name says, and some formats are lists of other files: a text
called clip.mp4 that begins with `ffconcat` makes it read any file of the machine, a playlist any address of the
network. So formats are a whitelist, protocols are `file` alone, and references from one file to another are off.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from pathlib import Path
from typing import Any

import av
import av.error
import av.format

#: FFmpeg's demuxers whose files hold their own pictures (or sound, so that the sentence can be "holds no video").
FORMATS = (
    "mov", "mp4", "matroska", "webm", "avi", "mpeg", "mpegts", "mpegvideo", "m4v", "flv", "asf", "ogg", "mxf", "gxf",
    "yuv4mpegpipe", "nut", "ivf", "rm", "wtv", "dv", "h261", "h263", "h264", "hevc", "vvc", "av1", "obu", "vc1",
    "mjpeg", "gif", "apng", "png_pipe", "jpeg_pipe", "webp_pipe", "webp", "bmp_pipe", "tiff_pipe", "dhav", "cine",
    "mp3", "wav", "flac", "aac", "aiff", "ac3", "w64", "caf",
)  # fmt: skip
PROTOCOLS = "file"
#: Beginnings of texts that name other files, and what they are called.
REFERRING = {
    b"ffconcat": "a list of files (ffconcat)", b"#EXTM3U": "a playlist (m3u8)", b"v=0": "a session description (SDP)",
    b"<MPD": "a DASH manifest", b"<SmoothStreamingMedia": "a Smooth Streaming manifest", b"[playlist]": "a playlist",
    b"<smil": "a playlist (SMIL)", b"<asx": "a playlist (ASX)", b"[Reference]": "a playlist (ASX)",
    b"RTSPtext": "an address (RTSP)", b"rtsp://": "an address (RTSP)", b"<AssetMap": "a package (IMF)",
}  # fmt: skip
PATTERN = re.compile(r"%0?\d*d")
SNIFFED = 4096  # bytes of a refused file that are looked at for its kind

_allowed: tuple[str, ...] = ()


class ContainerError(OSError):
    """A file that is not opened: one sentence."""


def allow(formats: tuple[str, ...]) -> None:
    """Open these demuxers too, in this process: what the recipe's `formats` names."""
    global _allowed
    _allowed = tuple(formats)


def unknown_format(formats: tuple[str, ...]) -> str | None:
    """A sentence on the first name that is no format of FFmpeg's, None where all are."""
    known = {part for name in av.format.formats_available for part in name.split(",")}
    for name in formats:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            return f"FFmpeg has no format '{name}'" + (f"; did you mean '{near[0]}'?" if near else "")
    return None


def options() -> dict[str, str]:
    """Options of the demuxer, for PyAV and for the FFmpeg binary."""
    return {"format_whitelist": ",".join((*FORMATS, *_allowed)), "protocol_whitelist": PROTOCOLS}


def open_media(file: Any) -> Any:
    """A PyAV container of a local path or a seekable file object.

    Raises ContainerError where it is no file that holds footage, and the operating system's errors.
    """
    if isinstance(file, str | os.PathLike):
        refuse_special(file)
    try:
        return av.open(file, options=options(), metadata_errors="replace")
    except av.error.FFmpegError as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ContainerError(_refused(file) or f"this is not a video that FFmpeg can open ({_words(error)})") from error


def refuse_special(path: str | os.PathLike[str]) -> None:
    """Raises ContainerError for FIFOs, sockets and devices: reading one may wait for ever."""
    mode = os.stat(path).st_mode
    for is_kind, name in (
        (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device")
    ):  # fmt: skip
        if is_kind(mode):
            raise ContainerError(f"this is {name}, not a file")


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).strip().rstrip(".")


def _refused(file: Any) -> str | None:
    """What a file that was refused is, where its beginning or its name tells."""
    if isinstance(file, str | os.PathLike):
        if PATTERN.search(os.path.basename(file)):
            return "its name is a pattern that stands for other files to FFmpeg: rename it without '%'"
        with Path(file).open("rb") as stream:
            head = stream.read(SNIFFED)
    else:
        file.seek(0)
        head = file.read(SNIFFED)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for mark, kind in REFERRING.items():
        found = mark.lower() in text.lower() if mark.startswith(b"<") else text.lower().startswith(mark.lower())
        if found and b"\0" not in text[: len(mark)]:
            return (
                f"this is {kind}, which names other files, and only files that hold their own footage are read; name "
                f"those files as inputs"
            )
    return None
