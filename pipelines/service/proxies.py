"""Small copies of large clips, for people to look at: the same frames at the same times, made when first asked for.

They lie in the service's state folder and are made one at a time, beside the service. What a person decides is a
frame's number, so it does not matter which of the two was looked at; a key in the room shows the clip itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ffmpeg
import pyarrow.fs as pafs

from rushes.curation import manifest
from rushes.curation.video import containers
from rushes.curation.video.cut import CutError, LocalCopy
from rushes.curation.video.times import TimesError, frame_times

LARGE_BYTES = 20 << 20  # of a clip that has a small copy: at 20 Mbit/s it takes eight seconds to come
SIDE = 720  # pixels of the shorter side
CRF, GOP = 24, 12  # a seek decodes half a second at most
PATIENCE_S = 15.0  # that somebody waits for a copy before the clip itself is shown
LIMIT_S = 300.0  # that making one may take
CACHE_BYTES = 4 << 30  # of all copies; those not asked for longest go first


class Proxies:
    """Copies below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._making: dict[Path, asyncio.Future[bool]] = {}
        self._without: set[Path] = set()  # copies that could not be made
        self._thread = ThreadPoolExecutor(1, "proxies")

    async def of(self, place: str) -> str | None:
        """Address of what to show of the clip at `place`: itself where it is small or cannot be copied.

        None: its copy is still being made after PATIENCE_S.
        """
        loop = asyncio.get_running_loop()
        path = await loop.run_in_executor(None, self._path, place)
        if path is None or path in self._without:
            return place
        if path.exists():
            return str(path)
        if path not in self._making:
            self._making[path] = loop.run_in_executor(self._thread, self._make, place, path)
            self._making[path].add_done_callback(lambda made: self._making.pop(path))
        done, _ = await asyncio.wait([self._making[path]], timeout=PATIENCE_S)
        if not done:
            return None
        return str(path) if done.pop().result() else place

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _path(self, place: str) -> Path | None:
        """Where the copy of a clip lies, or None where it needs none."""
        fs, path = manifest.resolve(place)
        info = fs.get_file_info(path)
        if info.type != pafs.FileType.File or info.size <= LARGE_BYTES:
            return None
        name = hashlib.blake2b(f"{place}:{info.size}:{info.mtime_ns}".encode(), digest_size=12).hexdigest()
        copy = self.folder / f"{name}.mp4"
        if copy.exists():
            os.utime(copy)
        return copy

    def _make(self, place: str, path: Path) -> bool:
        """Whether there is a copy now."""
        if path.exists():
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{uuid.uuid4().hex}.part"
        try:
            local = LocalCopy(place)
            try:
                encode(local.path, str(temporary))
                same = frame_times(local.path).same(frame_times(str(temporary)))
            finally:
                local.close()
            if same:
                os.replace(temporary, path)
                self._sweep(path)
        except (OSError, CutError, TimesError, subprocess.SubprocessError):
            same = False  # the player says what is wrong with the clip itself
        finally:
            temporary.unlink(missing_ok=True)
        if not same:
            self._without.add(path)
        return same

    def _sweep(self, newest: Path) -> None:
        found = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self.folder.glob("*.mp4"))
        over = sum(size for _, size, _ in found) - CACHE_BYTES
        for _, size, path in found:
            if over > 0 and path != newest:
                path.unlink(missing_ok=True)
                over -= size


def encode(path: str, to: str) -> None:
    """Every frame of a clip at its own time, the shorter side at most SIDE. Raises SubprocessError."""
    import imageio_ffmpeg

    scale = f"min(1,{SIDE}/min(iw,ih))"
    stream = ffmpeg.input(path, **containers.options())["v:0"]
    stream = stream.filter("scale", f"trunc(iw*{scale}/2)*2", f"trunc(ih*{scale}/2)*2", flags="bilinear")
    command = (
        ffmpeg.output(
            stream, to, f="mp4", vcodec="libx264", preset="veryfast", crf=CRF, g=GOP, bf=0, pix_fmt="yuv420p",
            movflags="+faststart", threads=2, **{"fps_mode": "passthrough", "enc_time_base": "demux"},
        )
        .global_args("-hide_banner", "-loglevel", "error", "-nostdin", "-copyts")
        .overwrite_output()
        .compile(cmd=imageio_ffmpeg.get_ffmpeg_exe())
    )  # fmt: skip
    subprocess.run(["nice", "-n", "10", *command], capture_output=True, check=True, timeout=LIMIT_S)
