"""A measured estimate of how good a picture looks, for runs without a learned model.

It is not the LAION predictor and knows nothing of subject or composition: it scores exposure, contrast,
colour and sharpness, each on a soft scale, and is named for what it is. It is of use to drop what no one
would call good (black, flat, washed out, blurred); between good pictures it does not decide.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .frame_stats import frame_stats

SCALE = 10.0  # the scale of the LAION predictor, which the recipe's threshold of 4.0 is meant for
CEILING = 6.2  # measured looks never speak for a masterpiece; with it ordinary good footage lands near 5
# Each measure counts fully from the second value on and not at all below the first.
CONTRAST_RANGE = (0.05, 0.55)  # RMS contrast; ordinary daylight footage has 0.4-0.5
SHARPNESS_RANGE = (0.0006, 0.15)  # of frame_stats, in logarithms: 0.0006 is a blur of 4 px in a 320 px copy
COLOUR_RANGE = (2.0, 80.0)  # Hasler and Suesstrunk: 33 is "moderately", 82 "highly" colourful
COLOUR_FREE = 0.6  # what a picture without any colour keeps: black and white may be good
DARK_RANGE = (8.0, 70.0)  # mean luma, 0..255
BRIGHT_RANGE = (250.0, 205.0)  # mean luma, falling
WEIGHTS = {"exposure": 1.0, "contrast": 1.0, "colour": 0.5, "sharpness": 1.0}
LEAST = 0.02  # of each part: one ruined property costs two thirds of the score, not all of it


class MeasuredAesthetics:
    """The offline aesthetic model: same interface as a learned one."""

    name = "measured"

    def measure(self, stills: Sequence[np.ndarray]) -> float:
        """See `measured_aesthetic`."""
        return measured_aesthetic(stills)


def measured_aesthetic(stills: Sequence[np.ndarray]) -> float:
    """Estimate on a scale of 0..10 from the middle still (Movie Gen B.1: more frames add no recall).

    The four measures are mapped to 0..1 and joined by their weighted geometric mean, so that one ruined
    property cannot be bought back by the others; the result spans 0.1..6.2.

    Args:
        stills: uint8 BGR [H, W, 3], in order of time.

    Raises:
        ValueError: no still.
    """
    if len(stills) == 0:
        raise ValueError("an aesthetic estimate needs at least one still")
    stats = frame_stats(stills[len(stills) // 2])
    luma = stats["luma_mean"]
    parts = {
        "exposure": min(_ramp(luma, *DARK_RANGE), _ramp(luma, *BRIGHT_RANGE)),
        "contrast": _ramp(stats["contrast"], *CONTRAST_RANGE),
        "colour": COLOUR_FREE + (1.0 - COLOUR_FREE) * _ramp(stats["colourfulness"], *COLOUR_RANGE),
        "sharpness": _ramp(_log(stats["sharpness"]), *map(_log, SHARPNESS_RANGE)),
    }
    log_mean = sum(WEIGHTS[name] * _log(max(LEAST, value)) for name, value in parts.items()) / sum(WEIGHTS.values())
    return float(min(SCALE, CEILING * np.exp(log_mean)))


def _ramp(value: float, none: float, full: float) -> float:
    """0 at `none`, 1 at `full` (which may lie below), straight between."""
    return float(np.clip((value - none) / (full - none), 0.0, 1.0))


def _log(value: float) -> float:
    return float(np.log(max(value, 1e-6)))
