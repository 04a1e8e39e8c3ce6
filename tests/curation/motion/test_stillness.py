"""Stills that pass for footage are told by what repeats and what no camera explains, a shaken camera by its tremor."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from rushes.curation.analyze import Analyzer
from rushes.curation.motion.stillness import ALIVE, after_stop, calm, frozen_run, own_motion, repeated_frac, stir
from rushes.curation.recipe import build
from rushes.curation.signals import RULES
from rushes.curation.video.decode import probe
from rushes.pipelines.demo.film import encode
from tests.footage import decoded

SIZE, FPS = (320, 180), 24
WHOLE = build({}, ["scenes.head_s=0", "scenes.trim_frames=0"])
LIMIT = {rule.key: rule.default for rule in RULES}


@pytest.fixture(scope="module")
def frames(bunny_video) -> list[np.ndarray]:
    """48 real frames, uint8 BGR."""
    return [np.ascontiguousarray(picture[..., ::-1]) for _, picture in decoded(bunny_video)]


def seen(picture: np.ndarray, offset: tuple[float, float] = (0, 0), zoom: float = 1.0) -> np.ndarray:
    """The picture, enlarged, as a camera sees it from another place."""
    large = cv2.resize(picture, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
    scale = 1.2 / zoom
    corner = np.array(large.shape[1::-1]) / 2 + offset - np.array(SIZE) * scale / 2
    matrix = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
    return cv2.warpAffine(large, matrix, SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def small(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), (160, 90), interpolation=cv2.INTER_AREA)


def measured(path: Path, shown: list[np.ndarray]) -> dict:
    encode(shown, path, SIZE, FPS)
    (row,) = Analyzer(WHOLE)(probe(str(path))).clips.to_pylist()
    return row


@pytest.mark.parametrize(
    ("repeats", "run"),
    [([], (0, 0)), ([0, 0], (0, 0)), ([1, 1, 0, 0, 1, 1, 1], (4, 7)), ([0, 1, 1, 0, 1, 1, 0, 0, 1], (1, 6))],
    ids=["no frame", "nothing repeats", "the longer one", "one frame that differs ends no run"],
)
def test_the_longest_frozen_run_is_found(repeats, run):
    assert frozen_run(np.array(repeats, bool)) == run


def test_a_small_part_that_moves_is_seen_where_the_mean_hides_it(frames):
    before = small(frames[0])
    now = before.copy()
    now[40:50, 70:80] = small(frames[30])[40:50, 70:80]
    stack = np.stack([before, before, now])
    still, moved = stir(stack)
    assert still == 0 and moved > 20 * cv2.absdiff(before, now).mean()


@pytest.mark.parametrize("offset, zoom", [((0, 0), 1.0), ((7, 2), 1.0), ((0, 0), 1.06), ((-3, 4), 0.95)])
def test_a_camera_over_a_still_explains_all_of_its_motion(frames, offset, zoom):
    before, now = small(seen(frames[0])), small(seen(frames[0], offset, zoom))
    assert own_motion(before, now) < LIMIT["motion.own_motion_min"]


def test_what_moves_by_itself_is_explained_by_no_camera(frames):
    assert own_motion(small(seen(frames[0])), small(seen(frames[24], (3, 0)))) > LIMIT["motion.own_motion_min"]


def test_sharp_edges_that_an_encoder_draws_blurred_under_a_gliding_camera_are_no_motion(frames):
    drawing = cv2.bilateralFilter(frames[0], 9, 80, 9)
    for colour, thick in ((15, 4), (240, 1)):
        cv2.putText(drawing, "Nobody told me", (40, 165), cv2.FONT_HERSHEY_DUPLEX, 0.8, (colour,) * 3, thick)
    moved = cv2.GaussianBlur(seen(drawing, (1, 0), 1.008), (0, 0), 2.0)
    assert own_motion(small(seen(drawing)), small(moved)) < LIMIT["motion.own_motion_min"]


def test_a_faded_still_is_a_still(frames):
    picture = small(frames[0])
    assert own_motion(picture, (picture * 0.6 + 10).astype(np.uint8)) < LIMIT["motion.own_motion_min"]


def test_a_frozen_tail_begins_where_the_motion_stops_though_the_encoder_redraws_it():
    stirs, times = np.array([20.0] * 30 + [0.6] * 12 + [0.1] * 20), np.arange(63) / FPS
    assert after_stop(stirs, times, 42) == 30
    assert after_stop(np.where(stirs > 1, 0.9, stirs), times, 42) == 42  # what was slow before has not stopped
    assert after_stop(stirs, times, 42 - 12) == 30


def test_slow_motion_that_stands_now_and_then_is_calm_and_what_stops_is_not():
    assert calm(np.array([0.6] * 60 + [0.2] * 30), 60, 90)
    assert not calm(np.array([12.0] * 60 + [0.2] * 30), 60, 90)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_frames_that_are_shown_several_times_are_counted_amid_motion(tmp_path, frames, times):
    shown = [frame for frame in frames[: 72 // times] for _ in range(times)]
    assert measured(tmp_path / "a.mp4", shown)["repeated_frac"] == pytest.approx(1 - 1 / times, abs=0.1)


def test_repeats_are_unknown_where_nothing_moves():
    assert repeated_frac(np.full(100, 0.1)) is None
    assert repeated_frac(np.tile([9.0, 0.5], 50)) == pytest.approx(0.5)


def test_followed_points_align_a_still_that_turns_too_fast_for_correlation(frames):
    large = seen(frames[0])
    turned = cv2.warpAffine(large, cv2.getRotationMatrix2D((159.5, 89.5), 30, 1.0), SIZE, borderMode=cv2.BORDER_REFLECT)
    before, now = small(large), small(turned)
    assert own_motion(before, now) == ALIVE
    camera = cv2.getRotationMatrix2D((79.5, 44.5), 30, 1.0).astype(np.float32)
    assert own_motion(before, now, camera) < LIMIT["motion.own_motion_min"]


def test_a_frozen_tail_is_found_though_the_means_are_those_of_footage(tmp_path, frames):
    row = measured(tmp_path / "a.mp4", frames + [frames[-1]] * 72)
    assert 1.5 < row["frozen_s"] < 3.2 and row["own_motion"] > LIMIT["motion.own_motion_min"]
    assert row["vmaf_motion"] > 0.2


def test_a_slow_zoom_over_a_still_is_told_from_footage_by_own_motion_alone(tmp_path, frames):
    zoomed = measured(tmp_path / "a.mp4", [seen(frames[0], zoom=1 + 0.0015 * n) for n in range(60)])
    assert zoomed["own_motion"] < LIMIT["motion.own_motion_min"] and zoomed["frozen_s"] < 1
    assert measured(tmp_path / "b.mp4", frames)["own_motion"] > LIMIT["motion.own_motion_min"]


def test_a_shaken_camera_is_told_from_a_panned_one(tmp_path, frames):
    tremor = np.random.default_rng(4).normal(0, 3, (48, 2))
    shaken = measured(tmp_path / "a.mp4", [seen(f, tuple(o)) for f, o in zip(frames, tremor, strict=True)])
    panned = measured(tmp_path / "b.mp4", [seen(f, (n - 24, 0)) for n, f in enumerate(frames)])
    assert panned["shake"] < LIMIT["motion.shake_max"] < shaken["shake"]
