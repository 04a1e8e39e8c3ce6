"""Meters of one's own, as the tests' recipes name them: one that measures, one that takes its process with it."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa

from rushes.curation.meter import Span, Track

DEADLY_WIDTH = 362  # of the file that kills its worker


class Redness:
    """Mean excess of red over green, grey levels."""

    columns = (pa.field("redness", pa.float32()),)

    def __init__(self, info) -> None:
        self.track = Track()

    def observe(self, frame) -> None:
        picture = frame.tiny_bgr.astype(np.float32)
        self.track.add(float((picture[..., 2] - picture[..., 1]).mean()))

    def measure(self, span: Span) -> dict:
        return {"redness": float(self.track.between(span.first, span.stop).mean())}


class DiesOnOneFile:
    """Ends its process, as a crash in a decoder does, in the midst of files of DEADLY_WIDTH pixels."""

    columns = ()

    def __init__(self, info) -> None:
        self.deadly = info.width == DEADLY_WIDTH

    def observe(self, frame) -> None:
        if self.deadly and frame.index == 10:
            os._exit(1)

    def measure(self, span: Span) -> dict:
        return {}
