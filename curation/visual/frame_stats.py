"""Plain measurements of one still: exposure, saturation, sharpness, contrast, colourfulness."""

from __future__ import annotations

import cv2
import numpy as np

WORK_SIDE = 320  # px, longest side of the copy that is measured: size and sensor noise drop out
SHARPNESS_SIGMA = 0.8  # px of the copy: the smoothing inside the Laplacian (noise falls by about 10 x)
SHARPNESS_FLOOR = 60.0  # luma variance added below: a flat still is not sharp because it has a little noise
COLOURFULNESS_MEAN_WEIGHT = 0.3  # Hasler and Suesstrunk 2003, M3
FULL_SCALE = 255.0


def frame_stats(bgr: np.ndarray) -> dict[str, float]:
    """Measure one still.

    Args:
        bgr: uint8 [H, W, 3], longest side 640 px or so.

    Returns:
        luma_mean: mean BT.601 luma, 0..255.
        saturation: sum of (max - min) over sum of max of B, G, R, 0..1: the mean HSV saturation weighted by
            value, so that the noise of near-black pixels does not count as colour. 0 for a black still.
        sharpness: var(Laplacian(G * Y)) / (var(Y) + 60), 0 (flat, blurred) to about 1: Y the luma of a copy of
            at most 320 px, G a Gaussian of 0.8 px. Division by the variance takes out contrast, the copy size
            and noise.
        contrast: standard deviation of luma over its largest possible value 127.5, 0..1 (RMS contrast).
        colourfulness: Hasler and Suesstrunk's M3, 0 (grey) to about 110 (extremely colourful).

    Raises:
        ValueError: not a uint8 array [H, W, 3].
    """
    small, luma, mean, std = _prepared(bgr)
    return {
        "luma_mean": mean,
        "saturation": _saturation(small),
        "sharpness": _sharpness(luma, std),
        "contrast": std / (FULL_SCALE / 2),
        "colourfulness": _colourfulness(small),
    }


def light_stats(bgr: np.ndarray) -> dict[str, float]:
    """luma_mean, saturation and sharpness of `frame_stats` alone: what the decode measures on its stills."""
    small, luma, mean, std = _prepared(bgr)
    return {"luma_mean": mean, "saturation": _saturation(small), "sharpness": _sharpness(luma, std)}


def _prepared(bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """A small copy, its luma, and the luma's mean and standard deviation."""
    if bgr.ndim != 3 or bgr.shape[2] != 3 or bgr.dtype != np.uint8:
        raise ValueError(f"a still must be uint8 BGR [H, W, 3], not {bgr.dtype} {bgr.shape}")
    # An area average by a fraction below 2 costs six times as much and differs little.
    way = cv2.INTER_AREA if max(bgr.shape) >= 2 * WORK_SIDE else cv2.INTER_LINEAR
    small = shrink(bgr, WORK_SIDE, way)
    luma = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    mean, std = (float(v[0, 0]) for v in cv2.meanStdDev(luma))
    return small, luma, mean, std


def shrink(image: np.ndarray, side: int, way: int = cv2.INTER_AREA) -> np.ndarray:
    """The image with its longest side at most `side` px, by area averaging or `way`; or itself."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= side:
        return image
    size = (max(1, round(width * side / longest)), max(1, round(height * side / longest)))
    return cv2.resize(image, size, interpolation=way)


def _saturation(bgr: np.ndarray) -> float:
    blue, green, red = cv2.split(bgr)
    value = cv2.max(cv2.max(blue, green), red)
    least = cv2.min(cv2.min(blue, green), red)
    total = cv2.sumElems(value)[0]
    return 1.0 - cv2.sumElems(least)[0] / total if total > 0 else 0.0


def _sharpness(luma: np.ndarray, std: float) -> float:
    smooth = cv2.GaussianBlur(luma.astype(np.float32), (0, 0), SHARPNESS_SIGMA)
    _, edge_std = cv2.meanStdDev(cv2.Laplacian(smooth, cv2.CV_32F))
    return float(edge_std[0, 0]) ** 2 / (std**2 + SHARPNESS_FLOOR)


def _colourfulness(bgr: np.ndarray) -> float:
    blue, green, red = cv2.split(bgr.astype(np.float32))
    red_green = red - green
    yellow_blue = 0.5 * (red + green) - blue
    (rg_mean, rg_std), (yb_mean, yb_std) = (
        (float(m[0, 0]), float(s[0, 0])) for m, s in map(cv2.meanStdDev, (red_green, yellow_blue))
    )
    return float(np.hypot(rg_std, yb_std) + COLOURFULNESS_MEAN_WEIGHT * np.hypot(rg_mean, yb_mean))
