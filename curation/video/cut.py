"""Cutting a clip out of its source: late, for kept clips only, as trainers want to read it.

H.264 with short GOPs and closed ends, square pixels, upright, 8-bit, without sound: any contiguous range of it decodes
fast. The FFmpeg binary does it in a process of its own, with one thread: a crash there costs one clip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import ffmpeg
import pyarrow.fs as pafs

from rushes.curation.manifest import DiskFull, is_local, join, named_errors, resolve
from rushes.curation.recipe import Cut
from rushes.curation.video.source import Source

CUT_MIN_S, CUT_FACTOR = 60.0, 15.0  # FFmpeg may take so long for a clip: seconds, and times its length
STDERR_LINES = 3  # of FFmpeg's own words in an error
EDGE_S, EDGE_FRAMES = 0.002, 0.25  # how early a span is begun and ended, so that rounding loses or adds no frame
#: Seconds before a clip to which the file is wound, the next where frames are missing: MPEG streams have no index of
#: their key frames, and a seek may land behind the one that the clip needs. None: read from the file's start.
SEEK_LEADS_S: tuple[float | None, ...] = (0.0, 12.0, None)


class CutError(RuntimeError):
    """A clip that could not be cut: one sentence."""


@dataclass(frozen=True)
class CutClip:
    """A written clip: its path below the run, frames, and size in pixels."""

    media: str
    frames: int
    width: int
    height: int


def media_path(recipe_hash: str, clip_id: str) -> str:
    """Where a clip lies below the run's folder; the hash of the recipe's cutting is part of it."""
    return f"media/{recipe_hash}/{clip_id[:2]}/{clip_id}.mp4"


class Cutter:
    """`Cutter(cut recipe, its hash, run folder)(source, clip rows)`; ordinary class, no engine inside."""

    def __init__(self, recipe: Cut, recipe_hash: str, root: str) -> None:
        self._recipe, self._hash, self._root = recipe, recipe_hash, root

    @cached_property
    def _binary(self) -> str:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()

    def __call__(self, source: Source, clips: list[dict[str, Any]]) -> dict[str, CutClip | str]:
        """Cut clips (rows with clip_id, start_s, end_s, frames, fps) of one source: clip_id -> CutClip, or why not.

        Clips that are there already are not cut again. Raises DiskFull.
        """
        done: dict[str, CutClip | str] = {}
        local: _LocalCopy | None = None
        try:
            for clip in clips:
                media = media_path(self._hash, clip["clip_id"])
                try:
                    there = self._existing(media)
                    if there is None:
                        local = local or _LocalCopy(source.uri)
                        there = self._cut(local.path, source, clip, media)
                    done[clip["clip_id"]] = there
                except (CutError, FileNotFoundError) as error:
                    done[clip["clip_id"]] = str(error)
        finally:
            if local is not None:
                local.close()
        return done

    def _existing(self, media: str) -> CutClip | None:
        fs, path = resolve(join(self._root, media))
        if fs.get_file_info(path).type != pafs.FileType.File:
            return None
        if is_local(fs):
            return _inspect(path, media)
        with fs.open_input_file(path) as stream:
            return _inspect(stream, media)

    def _cut(self, path: str, source: Source, clip: dict[str, Any], media: str) -> CutClip:
        fs, final = resolve(join(self._root, media))
        if is_local(fs):
            with named_errors(final):
                os.makedirs(os.path.dirname(final), exist_ok=True)
            temporary = f"{final}.{uuid.uuid4().hex[:8]}.tmp"
        else:
            temporary = os.path.join(tempfile.gettempdir(), f"rushes-{uuid.uuid4().hex}.mp4")
        try:
            self._encode(path, source, clip, temporary)
            cut = _inspect(temporary, media)
            if cut.frames != clip["frames"]:
                raise CutError(f"{cut.frames} of {clip['frames']} frames could be cut")
            if is_local(fs):
                os.replace(temporary, final)
            else:
                with named_errors(final), open(temporary, "rb") as data, fs.open_output_stream(final) as stream:
                    shutil.copyfileobj(data, stream)
            return cut
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)

    def _encode(self, path: str, source: Source, clip: dict[str, Any], temporary: str) -> None:
        """Encode the span's frames. Times are the file's own (copyts) and the span is taken by a filter: where a
        seek lands behind the span's first frame, frames are missing, never replaced by later ones.
        """
        edge = min(EDGE_S, EDGE_FRAMES / clip["fps"])
        first = (source.first_pts_s or 0.0) - edge
        start, end = first + clip["start_s"], first + clip["end_s"]
        for lead in SEEK_LEADS_S:
            seeks = lead is not None and clip["start_s"] > lead
            options = {"seek_timestamp": 1, "ss": f"{start - lead:.6f}"} if lead is not None and seeks else {}
            stream = ffmpeg.input(path, threads=1, **options)["v:0"]
            if source.interlaced:
                stream = stream.filter("bwdif", mode="send_frame")
            stream = stream.filter("trim", start=f"{start:.6f}", end=f"{end:.6f}").filter("setpts", "PTS-STARTPTS")
            self._run(self._scaled(stream, source.rotation in (90, 270)), clip, temporary)
            if not seeks or _frames(temporary) >= clip["frames"]:
                return

    def _scaled(self, stream: Any, turned: bool) -> Any:
        """Square pixels, even sides, the longer one at most `side_max`; sizes as `StreamInfo.shown` has them.

        A picture that is turned upright has its coded width standing: it is the height that is stretched then.
        """
        width, height = ("iw", "ih/sar") if turned else ("iw*sar", "ih")
        side = self._recipe.side_max
        scale = f"*min(1,{side}/max({width},{height}))" if side else ""
        stream = stream.filter("scale", f"trunc({width}{scale}/2)*2", f"trunc({height}{scale}/2)*2")
        return stream.filter("setsar", 1)

    def _run(self, stream: Any, clip: dict[str, Any], temporary: str) -> None:
        command = (
            ffmpeg.output(
                stream, temporary, f="mp4", vcodec="libx264", preset=self._recipe.preset, crf=self._recipe.crf,
                pix_fmt="yuv420p", g=max(1, round(self._recipe.gop_s * clip["fps"])), threads=1, movflags="+faststart",
                **{"frames:v": clip["frames"], "fps_mode": "passthrough", "enc_time_base": "filter",
                   "flags": "+bitexact+cgop", "fflags": "+bitexact", "map_metadata": -1},
            )
            .global_args("-hide_banner", "-loglevel", "error", "-nostdin", "-copyts")
            .overwrite_output()
            .compile(cmd=self._binary)
        )  # fmt: skip
        # Accurate seeking would cut by the container's idea of its start; the filter above cuts by the pictures'.
        command.insert(command.index("-i"), "-noaccurate_seek")
        limit_s = CUT_MIN_S + CUT_FACTOR * (clip["end_s"] - clip["start_s"])
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False, timeout=limit_s
            )
        except subprocess.TimeoutExpired as error:
            raise CutError(f"FFmpeg took longer than {limit_s:.0f} s and was ended") from error
        if result.returncode:
            said = "; ".join(result.stderr.strip().splitlines()[-STDERR_LINES:])
            if "No space left" in result.stderr:
                raise DiskFull(
                    f"No space is left while writing {temporary}; free some and start the same command again."
                )
            raise CutError(f"FFmpeg could not cut it: {said or f'exit code {result.returncode}'}")


def _frames(path: str) -> int:
    """Frames in a file that was cut; 0 where it holds no picture."""
    try:
        with av.open(path) as container:
            return container.streams.video[0].frames if container.streams.video else 0
    except av.error.FFmpegError:
        return 0


def _inspect(file: Any, media: str) -> CutClip:
    try:
        with av.open(file) as container:
            stream = container.streams.video[0]
            return CutClip(media, stream.frames, stream.width, stream.height)
    except (av.error.FFmpegError, IndexError) as error:
        raise CutError(f"the clip that was cut cannot be read back: {error}") from error


class _LocalCopy:
    """A source as a local path: itself, or a temporary copy of what lies in an object store."""

    def __init__(self, uri: str) -> None:
        fs, path = resolve(uri)
        self._temporary: str | None = None
        if is_local(fs):
            if not os.path.exists(path):
                raise FileNotFoundError("the source vanished before the clip was cut")
            self.path = path
            return
        self._temporary = self.path = os.path.join(
            tempfile.gettempdir(), f"rushes-{uuid.uuid4().hex}{Path(path).suffix}"
        )
        with named_errors(self.path), fs.open_input_stream(path) as data, open(self.path, "wb") as out:
            shutil.copyfileobj(data, out)

    def close(self) -> None:
        if self._temporary is not None:
            os.unlink(self._temporary)
