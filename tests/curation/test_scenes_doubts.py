"""Clips are planned around what may be a transition, and their rows say how doubtful their worst moment is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rushes.curation.recipe import build
from rushes.curation.scenes import clip_spans, find_doubts, find_shots
from rushes.curation.scenes_doubts import Doubts
from rushes.curation.sections import Scenes
from rushes.curation.tracks import TIME, Tracks
from rushes.curation.video.source import Source

FPS = 24
FRAMES = 20 * FPS


def tracks_of(content: np.ndarray, gradual: tuple[int, int, float] | None = None) -> Tracks:
    """Tracks of a film whose frames change so much; gradual: (first, last, value) of one doubt."""
    doubt, first = np.full((2, len(content)), np.nan, np.float32)
    if gradual:
        doubt[gradual[1]], first[gradual[1]] = gradual[2], gradual[0] - gradual[1]
    nothing = np.full(len(content), np.nan, np.float32)
    values = {
        TIME: np.arange(len(content)) / FPS, "content": content, "vmaf": content,
        "blend_first": nothing, "blend_stop": nothing, "blend_strength": nothing, "doubt": doubt, "doubt_first": first,
        "spike": np.where(content > 5, content / 8, np.nan),
        "mixed": np.full(len(content), gradual[2] if gradual else 0.0),
    }  # fmt: skip
    info = type("Info", (), {"fps": FPS})
    return Tracks(Source("a.mp4"), info, len(content) / FPS, values)


def planned(tracks: Tracks, **overrides):
    scenes = Scenes(trim_frames=0, head_s=0, **overrides)
    shots = find_shots(tracks, scenes)
    doubts = find_doubts(tracks, shots, scenes)
    return clip_spans(shots, tracks.time_s, tracks.end_s, scenes, doubts), doubts


def spiked(height: float) -> np.ndarray:
    content = np.full(FRAMES, 4.0, np.float32)
    content[200] = height
    return content


def test_a_change_that_is_nearly_a_cut_is_no_mark_but_parts_the_clips():
    clips, doubts = planned(tracks_of(spiked(10.5)), doubt_split=0.3)
    assert {clip.shot for clip in clips} == {0}
    assert not any(clip.span.first < 200 < clip.span.stop - 1 for clip in clips if clip.span.duration_s > 1)
    assert max(doubts.worst(clip.span.first, clip.span.stop) for clip in clips if clip.span.duration_s > 1) < 0.5
    assert len(planned(tracks_of(spiked(10.5)), doubt_split=None)[0]) == 2  # 16 s and the rest


def test_a_sure_cut_leaves_no_doubt():
    clips, doubts = planned(tracks_of(spiked(60)))
    assert {clip.shot for clip in clips} == {0, 1} and not len(doubts.value)


def test_what_is_doubtful_over_some_time_is_a_clip_of_its_own():
    clips, doubts = planned(tracks_of(spiked(4), (150, 198, 0.8)), doubt_split=0.5)
    assert [(c.span.first, c.span.stop) for c in clips] == [(0, 150), (150, 199), (199, 480)]
    assert [doubts.worst(c.span.first, c.span.stop) for c in clips] == [0, pytest.approx(0.8), 0]


def test_clips_still_hold_every_frame_of_the_shots():
    rng = np.random.default_rng(2)
    clips, _ = planned(tracks_of(rng.gamma(0.6, 6, FRAMES).astype(np.float32)), doubt_split=0.1)
    assert clips[0].span.first == 0 and clips[-1].span.stop == FRAMES and len(clips) > 5
    assert all(a.span.stop == b.span.first for a, b in itertools.pairwise(clips))


def test_a_gradual_mark_grows_by_what_is_surely_doubtful_beside_it_but_over_no_cut():
    doubts = Doubts(np.array([80, 300]), np.array([120, 340]), np.array([0.9, 0.9]))
    assert doubts.grown([(100, 130), (330, 350)], [310]) == [(80, 130), (330, 350)]


def test_without_dissolves_only_sudden_changes_are_doubted():
    tracks = tracks_of(spiked(4), (150, 198, 0.8))
    assert not len(planned(tracks, dissolves=False)[1].value)


def test_the_rule_rejects_what_is_doubtful():
    assert build({}).scenes.doubt_max == build({}).scenes.doubt_split


@pytest.mark.parametrize(("doubtful", "marked"), [((203, 215), True), ((190, 215), False)])
def test_a_weak_blend_is_supported_by_a_doubt_of_its_own_not_by_that_of_a_cut_beside_it(doubtful, marked):
    """A pan over bricks that begins with a hard cut is one shot, from the cut on."""
    tracks = tracks_of(spiked(60), (*doubtful, 0.7))
    for name, value in (("blend_first", -9), ("blend_stop", 1), ("blend_strength", 0.4)):
        tracks.values[name] = np.full(FRAMES, np.nan, np.float32)
        tracks.values[name][215] = value
    shots = find_shots(tracks, Scenes())
    assert (shots == [(0, 200), (200, FRAMES)]) is not marked
