"""The VMAF motion score is FFmpeg's: the same on the same pictures, and the same ranking as at full size."""

from __future__ import annotations

import itertools

import av
import numpy as np
import pytest
from scipy.stats import spearmanr

from rushes.curation.motion import vmaf
from rushes.curation.video.decode import Decoded, frames, opened
from tests.footage import make_video

KEY = "lavfi.vmafmotion.score"
NEAR = 0.05  # grey levels: FFmpeg's filter works with integers of 10 bits after its blur


def filter_scores(pictures: list[np.ndarray]) -> np.ndarray:
    """Scores that FFmpeg's own filter gives uint8 [h, w] pictures, [n - 1]."""
    height, width = pictures[0].shape
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format="yuv420p", time_base="1/25")
    steps = [source, graph.add("vmafmotion"), graph.add("buffersink")]
    for one, other in itertools.pairwise(steps):
        one.link_to(other)
    graph.configure()
    scores = []
    for number, picture in enumerate(pictures):
        colour = np.full((height // 2, width), 128, np.uint8)
        frame = av.VideoFrame.from_ndarray(np.concatenate([picture, colour]), format="yuv420p")
        frame.pts = number
        source.push(frame)
        scores.append(float(graph.pull().metadata[KEY]))
    return np.array(scores[1:])


def our_scores(pictures: list[np.ndarray]) -> np.ndarray:
    blurred = [vmaf.blur(picture) for picture in pictures]
    return np.array([vmaf.difference(now, then) for then, now in itertools.pairwise(blurred)])


def read(path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Full and small luma of every frame."""
    full, small = [], []
    with opened(str(path)) as (container, stream):
        for frame in frames(container, stream, Decoded()):
            full.append(frame.full_luma.copy())
            small.append(frame.luma)
    return full, small


@pytest.mark.parametrize("source", ["bunny", "bikes", "carphone"])
def test_the_score_of_small_pictures_is_that_of_ffmpegs_filter(tmp_path, source):
    _, small = read(make_video(tmp_path / "a.mp4", source=source, seconds=1.5))
    theirs, mine = filter_scores(small), our_scores(small)
    assert theirs.max() > 0.5
    np.testing.assert_allclose(mine, theirs, atol=NEAR)


def test_clips_rank_by_the_small_score_as_by_the_full_one(tmp_path):
    full_scores, small_scores = [], []
    for number, source in enumerate(("bunny", "bikes", "carphone")):
        path = make_video(tmp_path / f"{number}.mp4", source=source, size=(640, 360), seconds=4)
        full, small = read(path)
        for first in range(0, len(full) - 24, 24):
            full_scores.append(filter_scores(full[first : first + 24]).mean())
            small_scores.append(our_scores(small[first : first + 24]).mean())
    assert spearmanr(full_scores, small_scores).statistic > 0.9
    mapped = np.array([vmaf.to_full_size(score) for score in small_scores])
    assert np.median(mapped / full_scores) == pytest.approx(1.0, abs=0.25)


def test_the_mapping_to_full_size_rises_and_keeps_zero():
    scores = [vmaf.to_full_size(score) for score in np.linspace(0, 40, 50)]
    assert scores[0] == 0 and all(np.diff(scores) > 0)


def test_a_still_picture_has_no_motion():
    picture = np.random.default_rng(0).integers(0, 255, (90, 160), np.uint8)
    assert our_scores([picture, picture]) == 0
