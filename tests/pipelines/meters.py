"""Meters of one's own, as the tests' recipes name them: of the picture, of BLAS, and one that ends its process."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_info

from rushes.curation.meter import Span

DEADLY_WIDTH = 362  # of the file that kills its worker


class Redness:
    """Mean excess of red over green, grey levels."""

    tracks = (pa.field("red_over_green", pa.float32()),)
    columns = (pa.field("redness", pa.float32()),)

    def __init__(self, info) -> None:
        pass

    def observe(self, batch) -> dict:
        pictures = batch.tiny_bgr.astype(np.float32)
        return {"red_over_green": (pictures[..., 2] - pictures[..., 1]).mean(axis=(1, 2))}

    def measure(self, tracks, span: Span) -> dict:
        return {"redness": float(tracks["red_over_green"][span.first : span.stop].mean())}


class BlasThreads:
    """The largest number of threads that BLAS would use while a meter works."""

    tracks = (pa.field("blas", pa.float32()),)
    columns = (pa.field("blas_threads", pa.float32()),)

    def __init__(self, info) -> None:
        pass

    def observe(self, batch) -> dict:
        threads = max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return {"blas": np.full(len(batch), threads, np.float32)}

    def measure(self, tracks, span: Span) -> dict:
        return {"blas_threads": float(tracks["blas"].max())}


class DiesOnOneFile:
    """Ends its process, as a crash in a decoder does, in the midst of files of DEADLY_WIDTH pixels."""

    tracks = columns = ()

    def __init__(self, info) -> None:
        self.deadly = info.width == DEADLY_WIDTH

    def observe(self, batch) -> dict:
        if self.deadly:
            os._exit(1)
        return {}

    def measure(self, tracks, span: Span) -> dict:
        return {}
