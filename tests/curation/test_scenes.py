"""Shots end where the picture is cut or dissolves, and clips lie inside single shots."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.curation import tracks
from rushes.curation.observe import Observer
from rushes.curation.recipe import build
from rushes.curation.scenes import GAP_S, clip_spans, find_shots, gaps
from rushes.curation.sections import Scenes
from rushes.curation.video.decode import probe
from rushes.pipelines.demo.film import clip_path
from rushes.pipelines.demo.pool import BUNNY, CARPHONE, TRAFFIC
from tests.accuracy.made import SIZE, encode
from tests.accuracy.scenes_made import mix, pushed, seen, wiped
from tests.accuracy.sources import Take
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


@given(st.lists(st.floats(0.001, 600.0), min_size=1, max_size=60))
def test_no_clip_is_longer_than_the_longest_whatever_the_frames_times(steps):
    times = np.concatenate([[0.0], np.cumsum(steps)])
    shots = list(itertools.pairwise([0, *gaps(times).tolist(), len(times)]))
    clips = clip_spans(shots, times, float(times[-1]), Scenes(trim_frames=0, head_s=0))
    assert sum(clip.span.stop - clip.span.first for clip in clips) == len(times)
    assert all(clip.span.duration_s <= 16 + GAP_S for clip in clips)


def test_a_part_that_could_not_be_read_ends_a_shot_and_belongs_to_no_clip(tmp_path):
    """As where the picture changes its size in the first of several parts: the next one begins minutes later."""
    path = make_video(tmp_path / "film.mp4", source="carphone", seconds=2)
    film = tracks.load(Observer(build({}))(probe(str(path))).batches())
    later = np.arange(film.frames) >= film.frames // 2
    broken = replace(film, values={**film.values, tracks.TIME: film.time_s + 500.0 * later}, end_s=film.end_s + 500.0)
    recipe = Scenes(trim_frames=0, head_s=0)
    shots = find_shots(broken, recipe)
    assert any(first == film.frames // 2 for first, _ in shots)
    assert max(c.span.duration_s for c in clip_spans(shots, broken.time_s, broken.end_s, recipe)) < 2.1


# --- what is hard to tell ----------------------------------------------------------------------------------------
# Films of two takes, and what happens between them; the makers of `make accuracy` mix the frames.

RNG_SEED = 5
MIXED, SHOT = 18, 48  # frames of a transition, and of a shot on either side of it


@pytest.fixture(scope="module")
def footage():
    """Frames of two takes, uint8 BGR at 320 x 180: an animal before a meadow, a man who talks in a car."""
    return takes_of(BUNNY)[: SHOT + MIXED], takes_of(CARPHONE)[: SHOT + MIXED]


def takes_of(span):
    clip, first, stop = span
    return Take(clip, clip_path(clip), first, stop, 25.0).frames(*SIZE)


def filmed(tmp_path, frames):
    encode(tmp_path / "a.mp4", frames, SIZE, FPS)
    return shots_of(tmp_path / "a.mp4")[0]


def joined(kind, before, after, way=None):
    """Shots of SHOT frames with MIXED frames between them; the frames that are mixed."""
    ends, begins = before[SHOT:], after[:MIXED]
    if way is None:
        mixed = list(mix(kind, ends, begins, np.random.default_rng(RNG_SEED)))
    else:
        make = wiped if kind == "wipe" else pushed
        mixed = [make(a, b, (n + 1) / (MIXED + 1), way) for n, (a, b) in enumerate(zip(ends, begins))]
    return [*before[:SHOT], *mixed, *after[MIXED:]], (SHOT, SHOT + MIXED)


def assert_no_shot_holds(shots, span, edge=3):
    """No shot reaches further than the first or last few frames into the transition, and there are two shots."""
    assert len(shots) == 2, shots
    assert shots[0][1] <= span[0] + edge and shots[1][0] >= span[1] - edge


@pytest.mark.parametrize(
    ("kind", "way"),
    [("dissolve", None), ("fade_black", None), ("fade_white", None)]
    + [("wipe", way) for way in (0, 3, 4, 5, 7)] + [("push", way) for way in range(4)],
)  # fmt: skip
def test_no_shot_reaches_into_a_transition_of_any_kind(footage, tmp_path, kind, way):
    frames, span = joined(kind, *footage, way)
    assert_no_shot_holds(filmed(tmp_path, frames), span)


def test_a_dissolve_in_the_dark_is_found(footage, tmp_path):
    frames, span = joined("dissolve", *footage)
    assert_no_shot_holds(filmed(tmp_path, [(frame * 0.2 + 4).astype(np.uint8) for frame in frames]), span)


def test_a_white_out_inside_letterbox_bars_is_found(footage, tmp_path):
    frames, span = joined("fade_white", *footage)
    frames = [cv2.copyMakeBorder(frame[22:-22], 22, 22, 0, 0, cv2.BORDER_CONSTANT) for frame in frames]
    assert_no_shot_holds(filmed(tmp_path, frames), span)


def test_a_dissolve_within_one_take_is_found(footage, tmp_path):
    bunny = takes_of(BUNNY)
    still, later = [bunny[4]] * (SHOT + MIXED), [bunny[120]] * (SHOT + MIXED)
    frames, span = joined("dissolve", still, later)
    assert_no_shot_holds(filmed(tmp_path, frames), span)


def test_a_jump_cut_within_one_take_ends_a_shot(tmp_path):
    take = takes_of(CARPHONE)
    assert [first for first, _ in filmed(tmp_path, take[:40] + take[90:])] == [0, 40]


def test_a_jump_cut_within_lively_motion_ends_a_shot_and_the_motion_does_not(tmp_path):
    """A car and a crowd at three times their speed, and the same with a jump."""
    take = takes_of(TRAFFIC)[::2]
    assert filmed(tmp_path, take) == [(0, len(take))]
    (tmp_path / "a.mp4").unlink()
    jumped = take[:11] + take[17:]
    assert [first for first, _ in filmed(tmp_path, jumped)] == [0, 11]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_flash_ends_no_shot_and_a_cut_under_a_flash_does(footage, tmp_path, length):
    before, after = footage
    white = [np.full_like(before[0], 250)] * length
    assert len(filmed(tmp_path, [*before[:40], *white, *before[40:]])) == 1
    (tmp_path / "a.mp4").unlink()
    shots = filmed(tmp_path, [*before[:40], *white, *after[:40]])
    assert len(shots) == 2 and 40 <= shots[1][0] <= 40 + length


def test_a_slow_pan_over_texture_a_change_of_light_and_a_whip_pan_are_one_shot(footage, tmp_path):
    skimage = pytest.importorskip("skimage.data")
    brick = np.repeat(skimage.brick()[..., None], 3, axis=2)
    pan = [seen(brick, np.array([0.35 + 0.0012 * n, 0.5, 0.45])) for n in range(108)]
    assert filmed(tmp_path, pan) == [(0, 108)]
    (tmp_path / "a.mp4").unlink()
    light = 1 + 0.4 * np.sin(np.arange(66) / 10)
    lit = [np.clip(frame * gain, 0, 255).astype(np.uint8) for frame, gain in zip(footage[0], light)]
    assert filmed(tmp_path, lit) == [(0, 66)]
    (tmp_path / "a.mp4").unlink()
    x = np.concatenate([np.full(40, 0.25), 0.25 + 0.08 * np.arange(1, 7), np.full(40, 0.73)])
    whip = [seen(skimage.astronaut()[..., ::-1].copy(), np.array([at, 0.4, 0.4])) for at in x]
    assert filmed(tmp_path, whip) == [(0, 86)]
    assert pan[0].std() > 10
