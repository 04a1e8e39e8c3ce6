"""A still shows text that stands for less than a second; where there is none, it is the first frame of its second."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rushes.curation.video.batch import batches
from rushes.curation.video.decode import Decoded, opened
from rushes.curation.visual.moments import FRESH, Strokes
from rushes.pipelines.demo.film import encode
from tests.footage import decoded

FPS, SIZE = 24, (640, 360)


@pytest.fixture(scope="module")
def frames(bunny_video) -> list[np.ndarray]:
    """48 real frames to and fro, uint8 BGR."""
    there = [cv2.resize(np.ascontiguousarray(p[..., ::-1]), SIZE) for _, p in decoded(bunny_video)]
    return there + there[::-1]


def titled(picture: np.ndarray) -> np.ndarray:
    shown = picture.copy()
    for colour, thick in ((15, 5), (240, 2)):
        cv2.putText(shown, "Nobody told me", (150, 330), cv2.FONT_HERSHEY_DUPLEX, 1, (colour,) * 3, thick, cv2.LINE_AA)
    return shown


def still_times(path) -> list[float]:
    with opened(str(path), vectors=True) as (container, stream):
        found = batches(container, stream, Decoded(), stills_per_s=1.0)
        return [float(b.time_s[place]) for b in found for place, _ in b.stills]


def test_the_still_of_a_second_is_taken_while_its_short_title_stands(tmp_path, frames):
    film = [titled(f) if 54 <= n < 64 else f for n, f in enumerate(frames)]  # 2.25 to 2.67 s
    encode(film, tmp_path / "a.mp4", SIZE, FPS)
    times = still_times(tmp_path / "a.mp4")
    assert len(times) == 4 and times[:2] == [0, 1] and times[3] == 3
    assert 54 / FPS - 1e-6 <= times[2] < 64 / FPS


def test_without_text_stills_are_the_first_frames_of_their_seconds(tmp_path, frames):
    encode(frames, tmp_path / "a.mp4", SIZE, FPS)
    assert still_times(tmp_path / "a.mp4") == [0, 1, 2, 3]


@pytest.mark.parametrize("turned", [False, True])
def test_strokes_of_a_title_are_new_and_those_of_another_picture_are_not(frames, turned):
    def small(picture: np.ndarray) -> np.ndarray:
        gray = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), (160, 90), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(gray.T) if turned else gray

    strokes = Strokes(turned)
    shown = np.stack([small(frame) for frame in frames[:72:6]])
    assert np.isnan(strokes.fresh(shown[:4])).all()
    usual = strokes.fresh(shown[4:8])
    shown[10] = small(titled(frames[60]))
    first, _, title, _ = strokes.fresh(shown[8:])
    assert title - first > FRESH > np.ptp(usual)
    noise = np.random.default_rng(1).integers(0, 255, shown[:2].shape, dtype=np.uint8)
    assert np.isnan(strokes.fresh(noise)).all()
