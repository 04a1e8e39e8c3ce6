"""Support vectors of a model that was fitted elsewhere, kept as plain arrays: no pickle, no scikit-learn is needed.

A support vector regression with Gaussian kernels answers `offset + sum_i weight_i exp(-gamma |x - vector_i|^2)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ARRAYS = ("vectors", "weights", "centre", "scale", "emphasis", "settings")
REACH = 4.0  # standard deviations at which a feature is cut off: beyond them nothing was seen


@dataclass(frozen=True)
class Kernel:
    """vectors: [n, features], as `place` gives them; weights: [n]; gamma, offset: numbers.

    centre, scale, emphasis: of each feature; one of emphasis 0 is not asked.
    """

    vectors: np.ndarray
    weights: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    emphasis: np.ndarray
    gamma: float
    offset: float

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """float64 [rows] of rows [rows, features]."""
        placed = place(rows, self.centre, self.scale, self.emphasis)
        apart = (placed**2).sum(axis=1)[:, None] + (self.vectors**2).sum(axis=1) - 2 * placed @ self.vectors.T
        return np.exp(-self.gamma * np.maximum(apart, 0)) @ self.weights + self.offset


def place(rows: np.ndarray, centre: np.ndarray, scale: np.ndarray, emphasis: np.ndarray) -> np.ndarray:
    """Rows in standard deviations from the centre, cut off at REACH, times the emphasis."""
    return np.clip((rows - centre) / scale, -REACH, REACH) * emphasis


def of(model: Any, centre: np.ndarray, scale: np.ndarray, emphasis: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """The arrays of a fitted SVR of scikit-learn with a Gaussian kernel, whose gamma is a number, under a name."""
    arrays = (
        model.support_vectors_.astype(np.float16), model.dual_coef_[0].astype(np.float32), centre.astype(np.float32),
        scale.astype(np.float32), emphasis.astype(np.float32), np.array([model.gamma, model.intercept_[0]]),
    )  # fmt: skip
    return {f"{name}_{array}": values for array, values in zip(ARRAYS, arrays, strict=True)}


def load(path: Path, name: str) -> Kernel:
    """The model of this name in a file. Raises ValueError where there is none."""
    with np.load(path, allow_pickle=False) as file:
        missing = [f"{name}_{array}" for array in ARRAYS if f"{name}_{array}" not in file.files]
        if missing:
            raise ValueError(
                f"{path} holds no support vectors '{name}': '{missing[0]}' is missing; make it again with `rushes fit`"
            )
        *arrays, settings = (file[f"{name}_{array}"].astype(np.float64) for array in ARRAYS)
    return Kernel(*arrays, float(settings[0]), float(settings[1]))
