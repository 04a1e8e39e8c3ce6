"""When each frame of a file is shown, without decoding any: what a frame's number means in seconds, at any rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rushes.curation.video.containers import open_media
from rushes.curation.video.source import open_bytes

STEADY_S = 0.0015  # frames whose distances differ by less have one rate: containers round to a millisecond


class TimesError(RuntimeError):
    """A file whose frames' times cannot be told: one sentence."""


@dataclass(frozen=True)
class Times:
    """shown_s: when each frame begins, from the first, ascending [N], s; end_s: when the last one ends."""

    shown_s: np.ndarray
    end_s: float

    @property
    def variable(self) -> bool:
        gaps = np.diff(self.shown_s)
        return bool(len(gaps) and np.ptp(gaps) > STEADY_S)

    @property
    def fps(self) -> float:
        return len(self.shown_s) / self.end_s

    def same(self, other: Times) -> bool:
        """Whether the other has as many frames, each shown at the same time as here."""
        return len(self.shown_s) == len(other.shown_s) and bool(np.allclose(self.shown_s, other.shown_s, atol=STEADY_S))

    def span_s(self, first: int, after: int) -> tuple[float, float]:
        """Begin and end in seconds of the frames [first, after). Raises TimesError where there are not so many."""
        if not 0 <= first < after <= len(self.shown_s):
            raise TimesError(f"frames {first} to {after} were asked for, and there are {len(self.shown_s)}")
        end_s = self.end_s if after == len(self.shown_s) else float(self.shown_s[after])
        return float(self.shown_s[first]), end_s


def frame_times(uri: str) -> Times:
    """Times of the frames of a file's first video stream, by its packets. Raises TimesError and OSError."""
    file, _ = open_bytes(uri)
    shown, lengths = [], []
    with open_media(file) as container:
        if not container.streams.video:
            raise TimesError("the file has no pictures")
        for packet in container.demux(container.streams.video[0]):
            if packet.size and packet.pts is not None and not packet.is_discard:
                shown.append(float(packet.pts * packet.time_base))
                lengths.append(float((packet.duration or 0) * packet.time_base))
    if not shown:
        raise TimesError("none of the file's pictures says when it is shown")
    order = np.argsort(shown)
    times = np.asarray(shown)[order]
    last_s = lengths[order[-1]] or (float(np.median(np.diff(times))) if len(times) > 1 else 0.0)
    return Times(times - times[0], float(times[-1] - times[0] + last_s))
