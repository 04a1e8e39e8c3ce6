"""VMAF motion on small luma: the score of FFmpeg's `vmafmotion` filter at a hundredth of its price.

FFmpeg's filter blurs each luma picture with a separable 5-tap Gaussian and takes the mean absolute difference of
consecutive blurred pictures. At full size it costs six decodes; on a picture of 160 pixels it costs 0.02 ms.
"""

from __future__ import annotations

import cv2
import numpy as np

#: The filter's taps (libvmaf's motion feature, FFmpeg libavfilter/vf_vmafmotion.c).
TAPS = np.array([0.054488685, 0.244201342, 0.402619947, 0.244201342, 0.054488685], np.float32)

#: full-size score = SCALE x small score ^ POWER: fit by `python -m tests.bench vmaf` (docs/benchmarks.md), so that
#: the published threshold of 2.0, which is one of full-size scores, holds for the column `vmaf_motion`.
SCALE, POWER = 1.35, 0.96


def blur(luma: np.ndarray) -> np.ndarray:
    """float32 [h, w] of uint8 [h, w]."""
    return cv2.sepFilter2D(luma, cv2.CV_32F, TAPS, TAPS)


def difference(blurred: np.ndarray, before: np.ndarray) -> float:
    """Mean absolute difference of two blurred pictures, grey levels."""
    return cv2.norm(blurred, before, cv2.NORM_L1) / blurred.size


def to_full_size(score: float) -> float:
    """The score that FFmpeg's filter would give at full size, from one measured on small luma."""
    return SCALE * score**POWER
