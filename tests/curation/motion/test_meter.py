"""Motion of clips whose motion is known: speed, direction and word of the camera, and nulls where nothing is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from rushes.curation.analyze import Analyzer
from rushes.curation.recipe import build
from rushes.curation.video.decode import probe
from rushes.pipelines.demo.film import encode
from tests.footage import decoded, make_video

SIZE = (640, 360)  # width, height: vectors are reported for 720 lines, so twice as long
TO_720 = 2.0
FPS, SECONDS = 24, 2.5
WHOLE = build({}, ["scenes.head_s=0", "scenes.trim_frames=0"])


@pytest.fixture(scope="module")
def scene(bunny_video) -> np.ndarray:
    """A large real picture that a synthetic camera can move over, uint8 BGR."""
    _, picture = next(iter(decoded(bunny_video)))
    return cv2.resize(picture[..., ::-1], (1920, 1080), interpolation=cv2.INTER_CUBIC)


def filmed(path: Path, scene: np.ndarray, step: tuple[float, float], zoom: float = 1.0) -> Path:
    """The camera moves by `step` (x, y) film pixels a frame, and its view shrinks by `zoom` a frame."""

    def view(number: int) -> np.ndarray:
        scale = zoom**-number
        count = round(FPS * SECONDS)
        centre = np.array([960, 540]) + np.array(step) * (number - count / 2)
        left = centre - scale * np.array(SIZE) / 2
        matrix = np.float32([[scale, 0, left[0]], [0, scale, left[1]]])
        return cv2.warpAffine(scene, matrix, SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    encode((view(n) for n in range(round(FPS * SECONDS))), path, SIZE, FPS)
    return path


def measured(path: Path) -> dict:
    analysis = Analyzer(WHOLE)(probe(str(path)))
    rows = analysis.clips.to_pylist()
    assert len(rows) == 1, analysis.source.error
    return rows[0]


@pytest.mark.parametrize(
    ("step", "word"),
    [((4, 0), "pan right"), ((-4, 0), "pan left"), ((0, 3), "tilt down"), ((0, -3), "tilt up")],
)
def test_a_moving_camera_has_its_word_and_its_speed(tmp_path, scene, step, word):
    row = measured(filmed(tmp_path / "a.mp4", scene, step))
    assert row["camera_motion"] == word and row["camera_motion_conf"] > 0.6
    assert row["mv_mean"] == pytest.approx(TO_720 * np.hypot(*step), rel=0.25)
    assert row["vmaf_motion"] > 1 and row["static_frac"] == 0


@pytest.mark.parametrize(("zoom", "word"), [(1.008, "zoom in"), (1 / 1.008, "zoom out")])
def test_a_zoom_has_its_word(tmp_path, scene, zoom, word):
    row = measured(filmed(tmp_path / "a.mp4", scene, (0, 0), zoom))
    assert row["camera_motion"] == word


def test_a_camera_that_stands_before_a_still_scene_is_static(tmp_path, scene):
    row = measured(filmed(tmp_path / "a.mp4", scene, (0, 0)))
    assert row["camera_motion"] == "static shot"
    assert row["static_frac"] == 1 and row["vmaf_motion"] < 0.2 and row["mv_mean"] < 0.2


def test_twice_the_speed_has_twice_the_vectors(tmp_path, scene):
    slow, fast = (measured(filmed(tmp_path / f"{v}.mp4", scene, (v, 0))) for v in (2, 4))
    assert fast["mv_mean"] / slow["mv_mean"] == pytest.approx(2, rel=0.2)
    assert fast["vmaf_motion"] > slow["vmaf_motion"]


def test_without_vectors_the_flow_gives_about_the_same_and_says_so(tmp_path, scene):
    coded = filmed(tmp_path / "a.mp4", scene, (3, 0))
    from tests.footage import ENCODERS, ffmpeg

    settings = [item for key, value in ENCODERS["libvpx-vp9"].items() for item in (f"-{key}", value)]
    ffmpeg("-i", coded, "-c:v", "libvpx-vp9", *settings, tmp_path / "a.webm")
    vectors, flow = measured(coded), measured(tmp_path / "a.webm")
    assert flow["mv_mean"] == pytest.approx(vectors["mv_mean"], rel=0.3)
    assert flow["camera_motion"] == vectors["camera_motion"] == "pan right"
    assert any(note.startswith("mv_mean: from optical flow") for note in flow["notes"])
    assert not any("optical flow" in note for note in vectors["notes"])


def test_at_one_frame_a_second_motion_is_null_with_a_reason(bad_inputs):
    (row,) = Analyzer(WHOLE)(probe(str(bad_inputs["one_fps"]))).clips.to_pylist()
    for name in ("vmaf_motion", "mv_mean", "static_frac", "slideshow_score", "camera_motion"):
        assert row[name] is None
        assert any(note.startswith(f"{name}: at 1 frames per second") for note in row["notes"])


def test_a_single_frame_has_no_motion_to_measure(bad_inputs):
    (row,) = Analyzer(WHOLE)(probe(str(bad_inputs["one_frame"]))).clips.to_pylist()
    assert row["vmaf_motion"] is None and "vmaf_motion: one frame shows no motion" in row["notes"]


def test_real_motion_has_a_score_above_the_published_threshold(tmp_path):
    row = measured(make_video(tmp_path / "a.mp4", source="carphone", size=SIZE, seconds=2))
    assert row["vmaf_motion"] > 0.5 and row["mv_mean"] > 0.2
