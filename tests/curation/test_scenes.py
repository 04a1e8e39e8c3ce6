"""Shots end where the picture is cut or dissolves, and clips lie inside single shots."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rushes.curation import tracks
from rushes.curation.observe import Observer
from rushes.curation.recipe import Scenes, build
from rushes.curation.scenes import adaptive_candidates, clip_spans, find_shots, spaced
from rushes.curation.video.decode import probe
from tests.footage import PATTERN, make_video, timed_cuts

FPS = 24


def shots_of(path, **overrides) -> tuple[list[tuple[int, int]], int]:
    observed = tracks.load(Observer(build({}))(probe(str(path))).batches())
    return find_shots(observed, build({}).scenes.model_copy(update=overrides)), observed.frames


@pytest.mark.parametrize("fps", [12, 50])
def test_hard_cuts_are_found_within_one_frame_at_any_rate(tmp_path, fps):
    cuts = timed_cuts(tmp_path / "a.mp4", (1.5, 3.0, 4.25), fps=fps)
    shots, total = shots_of(tmp_path / "a.mp4")
    assert [first for first, _ in shots[1:]] == pytest.approx([cut * fps for cut in cuts], abs=1.01)
    assert shots[0][0] == 0 and shots[-1][1] == total


def test_one_moving_shot_is_one_shot(tmp_path):
    path = make_video(tmp_path / "a.mp4", source="carphone", seconds=4)
    assert shots_of(path) == ([(0, 96)], 96)
    path = make_video(tmp_path / "b.mp4", source=PATTERN, seconds=3)
    assert len(shots_of(path)[0]) == 1


def test_no_shot_reaches_into_a_dissolve(pool):
    film = next(f for f in pool if f.path.name == "dissolve.mp4")
    shots, _ = shots_of(film.path)
    for begin, end in film.transitions:
        middle = round((begin + end) / 2 * 25)
        assert not any(first <= middle < stop for first, stop in shots)
    assert len(shots) == len(film.transitions) + 1


def test_hard_cuts_are_those_of_pyscenedetects_adaptive_detector(pool):
    """Its own detector over the same pictures, for thresholds on both sides of the defaults."""
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    from rushes.curation.video.batch import batches
    from rushes.curation.video.decode import Decoded, opened

    compared = 0
    for name in ("hard_cuts.mp4", "slideshow.mp4", "street.mp4"):
        path = str(next(f.path for f in pool if f.path.name == name))
        with opened(path) as (container, stream):
            pictures = [bgr for batch in batches(container, stream, Decoded()) for bgr in batch.tiny_bgr]
        observed = tracks.load(Observer(build({}))(probe(path)).batches())
        for threshold, least, frames in ((3.0, 15.0, 10), (2.0, 8.0, 1), (1.5, 4.0, 24)):
            theirs = AdaptiveDetector(adaptive_threshold=threshold, min_content_val=least, min_scene_len=frames)
            cuts = []
            for number, picture in enumerate(pictures):
                cuts += [cut.frame_num for cut in theirs.process_frame(FrameTimecode(number, 25.0), picture)]
            assert spaced(adaptive_candidates(observed["content"], threshold, least), frames) == cuts
            compared += len(cuts)
    assert compared > 15


# --- clips from shots ------------------------------------------------------------------------------------------


def spans(shots, seconds, **overrides):
    times = np.arange(round(seconds * FPS)) / FPS
    return clip_spans(shots, times, seconds, Scenes(**overrides))


def test_edges_at_a_boundary_are_trimmed_and_the_head_of_the_file_is_dropped():
    one, two = spans([(0, 240), (240, 480)], 20, trim_frames=3, head_s=2)
    assert (one.span.first, one.span.stop) == (48, 237)
    assert (two.span.first, two.span.stop) == (243, 480)  # the file's end is no boundary
    assert (one.span.start_s, one.span.end_s) == pytest.approx((2.0, 237 / FPS))


def test_a_long_shot_becomes_whole_windows_and_a_rest():
    clips = spans([(0, 40 * FPS)], 40, trim_frames=0, head_s=0, duration_max_s=16)
    assert [c.span.duration_s for c in clips] == pytest.approx([16, 16, 8])
    assert all(a.span.stop == b.span.first for a, b in itertools.pairwise(clips))


def test_clips_cover_each_shot_but_for_the_trims_and_none_spans_two():
    rng = np.random.default_rng(3)
    edges = [0, *sorted(rng.choice(np.arange(1, 960), 12, replace=False).tolist()), 960]
    shots = list(itertools.pairwise(edges))
    for clip in spans(shots, 40, trim_frames=3, head_s=1):
        first, stop = shots[clip.shot]
        assert first <= clip.span.first < clip.span.stop <= stop
        assert clip.span.duration_s <= 16 + 1e-6
    covered = {c.shot for c in spans(shots, 40, trim_frames=3, head_s=1)}
    assert covered == set(range(len(shots)))  # also the shots that are too short: the rules reject them


@pytest.mark.parametrize("frames_in_file", [1, 4, 7])
def test_a_file_shorter_than_every_trim_still_has_a_row(frames_in_file):
    (clip,) = spans([(0, frames_in_file)], frames_in_file / FPS, trim_frames=3, head_s=2)
    assert (clip.span.first, clip.span.stop) == (0, frames_in_file)


def test_variable_frame_times_are_kept():
    times = np.array([0, 0.5, 0.6, 3.0, 3.5])
    (clip,) = clip_spans([(0, 5)], times, 4.0, Scenes(trim_frames=0, head_s=0))
    assert (clip.span.start_s, clip.span.end_s) == (0.0, 4.0)
