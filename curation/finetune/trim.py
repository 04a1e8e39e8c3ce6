"""From in and out points in frames to spans of the source, and to what a trainer reads (Movie Gen 3.3).

A frame's time is looked up, never computed from a rate: 23.976, 59.94 and variable rates are all the same here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rushes.curation.content.resample import hash_unit
from rushes.curation.curriculum import FRAME_S, FRAMES_STEP, LONG_S, REPEATS_MAX
from rushes.curation.video.times import Times, TimesError

LONG_FPS, SHORT_FPS = 16.0, 24.0  # 16 s at 16 fps, 10.6-16 s at 24 fps
LONG_FRAMES = 256
EDGE_FRAMES = 0.25  # how early a span is begun, in frames, so that rounding loses or adds none


@dataclass(frozen=True)
class Span:
    """Of the source, from its first frame: begin and end in seconds, and how many frames lie between."""

    start_s: float
    end_s: float
    frames: int


def source_span(times: Times, start_s: float, frames: int, first: int, after: int) -> Span:
    """Frames [first, after) of a clip that begins `start_s` into its source; times: of the clip's own file.

    Raises TimesError where the file holds other frames than the clip has.
    """
    if len(times.shown_s) != frames:
        raise TimesError(f"the clip's file holds {len(times.shown_s)} frames, and its row says {frames}")
    begin, end = times.span_s(first, after)
    return Span(start_s + begin, start_s + end, after - first)


def clip_times(source: Times, start_s: float, end_s: float, frames: int) -> Times:
    """Times of a clip's frames out of its source's, for where the clip's own file is gone. Raises TimesError."""
    edge = EDGE_FRAMES * float(np.median(np.diff(source.shown_s))) if len(source.shown_s) > 1 else 0.0
    inside = np.flatnonzero((source.shown_s >= start_s - edge) & (source.shown_s < end_s - edge))
    if len(inside) != frames:
        raise TimesError(f"the source holds {len(inside)} frames of the clip, and its row says {frames}")
    end = source.end_s if inside[-1] + 1 == len(source.shown_s) else source.shown_s[inside[-1] + 1]
    begin = source.shown_s[inside[0]]
    return Times(source.shown_s[inside] - begin, float(end - begin))


def is_long(duration_s: np.ndarray | float) -> np.ndarray | bool:
    """Whether a span counts as 16 s: it may be a frame short."""
    return np.asarray(duration_s) >= LONG_S - FRAME_S


def sampled(duration_s: np.ndarray, fps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start_s, end_s, frames) inside each span's file [N]: 256 frames of 16 s, or as many as 24 fps give of the rest.

    Frames come in steps of 32, so that clips fill batches; what is over is left out at both ends. Footage of less than
    24 fps is sampled at its own rate.
    """
    duration_s, fps = np.asarray(duration_s, np.float64), np.asarray(fps, np.float64)
    long = is_long(duration_s)
    rate = np.where(long, LONG_FPS, np.where(fps * (1 + REPEATS_MAX) < SHORT_FPS, fps, SHORT_FPS))
    most = np.where(long, LONG_FRAMES, np.inf)
    held = np.floor(np.minimum(duration_s, LONG_S) * np.minimum(rate, fps) * (1 + REPEATS_MAX) / FRAMES_STEP)
    frames = np.minimum(most, FRAMES_STEP * np.maximum(held, 1))
    span_s = np.minimum(duration_s, np.where(long, LONG_S, frames / rate))
    start_s = (duration_s - span_s) / 2
    return start_s, start_s + span_s, frames.astype(np.int32)


def left_out(
    clip_ids: Sequence[str], duration_s: Sequence[float], share: float, worth: Sequence[float | None], seed: int
) -> set[str]:
    """Clips that are over where `share` of a set are to be 16 s: of the kind with too many, those of least worth.

    worth: a score, None where there is none; equals by a draw that no other clip has a say in. Where all are of one
    kind, or the share is 0 or 1, nothing is left out.
    """
    long = np.asarray(is_long(np.asarray(duration_s, np.float64)), bool)
    longs, shorts = int(long.sum()), int((~long).sum())
    if not longs or not shorts or not 0 < share < 1:
        return set()
    keep_long = min(longs, int(shorts * share / (1 - share)))
    keep_short = min(shorts, int(longs * (1 - share) / share))
    luck = hash_unit(seed, "finetune", clip_ids)
    order = sorted(range(len(clip_ids)), key=lambda i: (-(worth[i] if worth[i] is not None else 0.0), luck[i]))
    over = [i for i in order if long[i]][keep_long:] + [i for i in order if not long[i]][keep_short:]
    return {clip_ids[i] for i in over}
