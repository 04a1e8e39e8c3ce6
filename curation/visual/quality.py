"""Technical quality: what VMAF would say if the original were at hand, from a few patches of native pixels a second.

A small network (weights in quality.npz) maps statistics of patches (visual/patches.py) to VMAF, 0-100. It was taught
on footage made worse in known ways, with FFmpeg's libvmaf as its teacher: `rushes fit quality` makes it again. It
tells blur, up-scaling, low bitrates, noise and bands; it cannot tell a change of brightness or colour.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa

from rushes.curation.meter import Span, Unmeasured
from rushes.curation.recipe import Recipe
from rushes.curation.video.batch import Batch
from rushes.curation.video.decode import StreamInfo
from rushes.curation.visual.patches import SIDE

if TYPE_CHECKING:
    from rushes.curation.tracks import Tracks

EPS = 0.05  # grey levels added before a logarithm
LAGS = (1, 2, 3, 4, 8)  # pixels between those that are compared
LEVELS = 3  # of the Haar pyramid


def features(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """float32 [FEATURES] of the same patches of two frames in a row, uint8 [patches, SIDE, SIDE]."""
    x = now.astype(np.float32)
    return np.array(
        [*_differences(x), *_pyramid(x), *_grid(x), *_local(x), *_in_time(before, now)], np.float32
    )
