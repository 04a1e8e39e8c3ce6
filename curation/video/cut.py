"""Cutting a clip out of its source: late, for kept clips only, as trainers want to read it.

H.264 with short GOPs and closed ends, square pixels, upright, 8-bit, without sound: any contiguous range of it decodes
fast. The FFmpeg binary does it in a process of its own, with one thread: a crash there costs one clip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ffmpeg
import pyarrow.fs as pafs

from rushes.curation.manifest import DiskFull, ManifestError, is_local, join, named_errors, resolve
from rushes.curation.scratch import scratch_file
from rushes.curation.sections import Cut
from rushes.curation.video import containers, seal
from rushes.curation.video.colour import UNNAMED, missing_tag, sdr_filters
from rushes.curation.video.containers import open_media, refuse_special
from rushes.curation.video.seal import Seal
from rushes.curation.video.source import Source

CUT_MIN_S, CUT_FACTOR = 60.0, 15.0  # FFmpeg may take so long for a clip: seconds, and times its length
UNFINISHED = "work/cutting"  # below the run: clips that are being written
COPY_BYTES = 8 << 20  # read at a time from an object store
STDERR_LINES = 3  # of FFmpeg's own words in an error
EDGE_S, EDGE_FRAMES = 0.002, 0.25  # how early a span is begun and ended, so that rounding loses or adds no frame
#: Seconds before a clip to which the file is wound, the next where frames are missing: MPEG streams have no index of
#: their key frames, and a seek may land behind the one that the clip needs. None: read from the file's start.
SEEK_LEADS_S: tuple[float | None, ...] = (0.0, 12.0, None)


Crop = tuple[int, int, int, int]  # x, y, width, height: pixels of the frame as shown, width and height even


class CutError(RuntimeError):
    """A clip that could not be cut: one sentence."""


@dataclass(frozen=True)
class CutClip:
    """A written clip: its path below the run, frames, size in pixels, length in bytes, and the hash of its seal."""

    media: str
    frames: int
    width: int
    height: int
    media_bytes: int
    media_hash: str


def media_path(recipe_hash: str, clip_id: str, crop: Crop | None = None) -> str:
    """Where a clip lies below the run's folder; the hash of the recipe's cutting and its crop are part of it."""
    return f"media/{recipe_hash}/{clip_id[:2]}/{media_name(clip_id, crop)}"


def media_name(clip_id: str, crop: Crop | None) -> str:
    """A clip's file: its id, and the rectangle where it is not the whole frame."""
    return f"{clip_id}.mp4" if crop is None else f"{clip_id}-{crop[2]}x{crop[3]}-{crop[0]}-{crop[1]}.mp4"


def crop_of(clip: dict[str, Any]) -> Crop | None:
    """The rectangle that is cut of a clip's row; None: the whole frame."""
    if clip.get("crop_width") is None:
        return None
    return clip["crop_x"], clip["crop_y"], clip["crop_width"], clip["crop_height"]


class Cutter:
    """`Cutter(cut recipe, its hash, run folder)(source, clip rows)`; ordinary class, no engine inside."""

    def __init__(self, recipe: Cut, recipe_hash: str, root: str) -> None:
        self._recipe, self._hash, self._root = recipe, recipe_hash, root

    @cached_property
    def _binary(self) -> str:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()

    def __call__(self, source: Source, clips: list[dict[str, Any]]) -> dict[str, CutClip | str]:
        """Cut clips (rows with clip_id, start_s, end_s, frames, fps, crop_x, ...) of one source -> CutClip, or why not.

        Clips that are there already, whole, are not cut again. A source that cannot be read is its clips' failure.
        Raises DiskFull or ManifestError where a clip cannot be written.
        """
        done: dict[str, CutClip | str] = {}
        local: LocalCopy | None = None
        try:
            for clip in clips:
                media = media_path(self._hash, clip["clip_id"], crop_of(clip))
                try:
                    there = self._existing(media, clip)
                    if there is None:
                        local = local or LocalCopy(source.uri)
                        there = self._cut(local.path, source, clip, media)
                    done[clip["clip_id"]] = there
                except CutError as error:
                    done[clip["clip_id"]] = str(error)
        finally:
            if local is not None:
                local.close()
        return done

    def _existing(self, media: str, clip: dict[str, Any]) -> CutClip | None:
        """The clip that was cut before; None where there is none, or what is there is not that clip, whole."""
        fs, path = resolve(join(self._root, media))
        info = fs.get_file_info(path)
        if info.type != pafs.FileType.File:
            return None
        try:
            with fs.open_input_file(path) as stream:
                found = seal.read(stream, info.size)
                if found is None or seal.fault(found, info.size, clip["clip_id"]) or found.frames != clip["frames"]:
                    return None
                stream.seek(0)
                return _inspect(path if is_local(fs) else stream, media, found)
        except (CutError, OSError):
            return None

    def _cut(self, path: str, source: Source, clip: dict[str, Any], media: str) -> CutClip:
        fs, final = resolve(join(self._root, media))
        if not is_local(fs):
            temporary = scratch_file(".mp4")
        else:
            temporary = resolve(join(self._root, UNFINISHED, f"{uuid.uuid4().hex}.mp4"))[1]
            with named_errors(final):
                os.makedirs(os.path.dirname(final), exist_ok=True)
                os.makedirs(os.path.dirname(temporary), exist_ok=True)
        try:
            self._encode(path, source, clip, temporary)
            frames = _frames(temporary)
            if frames != clip["frames"]:
                raise CutError(f"{frames} of {clip['frames']} frames could be cut")
            with named_errors(final):
                cut = _inspect(temporary, media, seal.put(temporary, clip["clip_id"], frames))
                if is_local(fs):
                    os.replace(temporary, final)
                else:
                    with open(temporary, "rb") as data, fs.open_output_stream(final) as stream:
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
        first, matrix, standard = (source.first_pts_s or 0.0) - edge, None, []
        if source.hdr is None:
            matrix = _missing_tag(path)
        else:
            standard = sdr_filters(source.hdr, *_named(path))
        start, end = first + clip["start_s"], first + clip["end_s"]
        for lead in SEEK_LEADS_S:
            seeks = lead is not None and clip["start_s"] > lead
            options = {"seek_timestamp": 1, "ss": f"{start - lead:.6f}"} if lead is not None and seeks else {}
            stream = ffmpeg.input(path, threads=1, **containers.options(), **options)["v:0"]
            if matrix is not None:
                stream = stream.filter("setparams", colorspace=matrix)
            if source.interlaced:
                stream = stream.filter("bwdif", mode="send_frame")
            stream = stream.filter("trim", start=f"{start:.6f}", end=f"{end:.6f}").filter("setpts", "PTS-STARTPTS")
            stream = self._scaled(stream, source.rotation in (90, 270), crop_of(clip))
            for name, of in standard:
                stream = stream.filter(name, **of)
            self._run(stream, clip, temporary)
            if not seeks or _frames(temporary) >= clip["frames"]:
                return

    def _scaled(self, stream: Any, turned: bool, crop: Crop | None) -> Any:
        """Square pixels, cropped, even sides, the longer one at most `side_max`; sizes as `StreamInfo.shown` has them.

        A picture that is turned upright has its coded width standing: it is the height that is stretched then.
        """
        width, height = ("iw", "ih/sar") if turned else ("iw*sar", "ih")
        side = self._recipe.side_max
        if crop is not None:
            x, y, w, h = crop
            stream = stream.filter("scale", f"trunc({width})", f"trunc({height})").filter("crop", w, h, x, y)
            width, height = "iw", "ih"
        scale = f"*min(1,{side}/max({width},{height}))" if side else ""
        stream = stream.filter("scale", f"trunc({width}{scale}/2)*2", f"trunc({height}{scale}/2)*2")
        return stream.filter("setsar", 1)

    def _run(self, stream: Any, clip: dict[str, Any], temporary: str) -> None:
        command = (
            ffmpeg.output(
                stream, temporary, f="mp4", vcodec=self._recipe.encoder, **_quality(self._recipe),
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


def _quality(recipe: Cut) -> dict[str, Any]:
    """FFmpeg's options for a constant quality: every encoder has its own."""
    return {
        "libx264": {"preset": recipe.preset, "crf": recipe.crf},
        "libopenh264": {"rc_mode": "off", "qmin": recipe.crf, "qmax": recipe.crf},
        "libvpx-vp9": {"crf": recipe.crf, "b:v": 0, "deadline": "good", "cpu-used": 4},
        "libsvtav1": {"crf": recipe.crf, "preset": 8},
    }[recipe.encoder]


def _named(path: str) -> tuple[bool, bool]:
    """Whether a file names the matrix and the primaries of its colours."""
    try:
        with open_media(path) as container:
            context = container.streams.video[0].codec_context
            return int(context.colorspace) != UNNAMED, int(context.color_primaries) != UNNAMED
    except (OSError, IndexError):
        return True, True


def _missing_tag(path: str) -> str | None:
    """See colour.missing_tag; None where the file cannot be opened: FFmpeg says why."""
    try:
        with open_media(path) as container:
            return missing_tag(container.streams.video[0])
    except (OSError, IndexError):
        return None


def _frames(path: str) -> int:
    """Frames in a file that was cut; 0 where it holds no picture."""
    try:
        with open_media(path) as container:
            return container.streams.video[0].frames if container.streams.video else 0
    except OSError:
        return 0


def _inspect(file: Any, media: str, found: Seal) -> CutClip:
    """Raises CutError where it cannot be opened or holds other frames than its seal says."""
    try:
        with open_media(file) as container:
            stream = container.streams.video[0]
            if stream.frames != found.frames:
                raise CutError(f"the clip holds {stream.frames} frames, and {found.frames} were cut")
            return CutClip(media, stream.frames, stream.width, stream.height, found.file_bytes, found.blake2b)
    except (OSError, IndexError) as error:
        raise CutError(f"the clip that was cut cannot be read back: {error}") from error


def sweep(root: str) -> None:
    """Remove what killed workers left half written below a local run; for whoever holds the run's lock."""
    fs, path = resolve(join(root, UNFINISHED))
    if is_local(fs):
        shutil.rmtree(path, ignore_errors=True)


class LocalCopy:
    """A source as a local path: itself, or a temporary copy of what lies in an object store. Raises CutError."""

    def __init__(self, uri: str) -> None:
        self._temporary: str | None = None
        try:
            fs, path = resolve(uri)
            if is_local(fs):
                if not os.path.exists(path):
                    raise CutError("the source vanished before the clip was cut")
                refuse_special(path)
                self.path = path
                return
            source = fs.open_input_stream(path)
        except (ManifestError, OSError) as error:
            raise CutError(f"the source cannot be read: {error}") from error
        self._temporary = self.path = scratch_file(Path(path).suffix)
        with source, open(self.path, "wb") as out:
            self._copy(source, out)

    def _copy(self, source: Any, out: Any) -> None:
        """Faults of reading are the source's, faults of writing the temporary folder's."""
        while True:
            try:
                part = source.read(COPY_BYTES)
            except OSError as error:
                self.close()
                raise CutError(f"the source cannot be read: {error}") from error
            if not part:
                return
            with named_errors(self.path):
                out.write(part)

    def close(self) -> None:
        if self._temporary is not None:
            os.unlink(self._temporary)
            self._temporary = None
