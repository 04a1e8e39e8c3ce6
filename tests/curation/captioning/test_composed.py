"""Captions composed from measured facts say what was measured, and nothing that was not."""

from __future__ import annotations

from rushes.curation import captioning

ROW = {
    "clip_id": "a", "orientation": "landscape", "duration_s": 6.25, "luma_mean": 100.0, "saturation": 0.4,
    "vmaf_motion": 2.0, "human_score": 0.0, "camera_motion": "pan left", "camera_motion_conf": 0.9,
}  # fmt: skip


def caption(**changes) -> str:
    return captioning.compose({**ROW, **changes})


def test_the_camera_motion_is_left_to_its_own_columns():
    assert "pan" not in caption().lower()
    assert captioning.sure_camera(ROW) == "pan left"
    assert captioning.sure_camera({**ROW, "camera_motion_conf": 0.3}) is None
    assert captioning.sure_camera({**ROW, "camera_motion": None, "camera_motion_conf": None}) is None


def test_the_rate_of_a_bucket_is_said_as_a_token():
    assert captioning.fps_token(128, 8.0) == "FPS-16" and captioning.fps_token(256, 10.67) == "FPS-24"


def test_a_caption_says_what_was_measured():
    assert "dark" in caption(luma_mean=20.0) and "bright" in caption(luma_mean=240.0)
    assert "people" in caption(human_score=0.9) and "people" not in caption(human_score=0.1)
    assert "fast movement" in caption(vmaf_motion=30.0) and "hardly any" in caption(vmaf_motion=0.2)
    assert "portrait" in caption(orientation="portrait") and "6.2 seconds" in caption()


def test_what_was_not_measured_is_not_told():
    bare = dict.fromkeys(("luma_mean", "saturation", "vmaf_motion", "human_score", "camera_motion"))
    assert caption(**bare, camera_motion_conf=None) == "A landscape shot, 6.2 seconds long."


def test_extreme_measurements_have_a_word():
    for luma, saturation, motion in ((0.0, 0.0, 0.0), (255.0, 1.0, 1e6)):
        assert caption(luma_mean=luma, saturation=saturation, vmaf_motion=motion).endswith("seconds long.")


def test_every_clip_has_one_caption_that_names_its_author():
    made = captioning.ComposedCaptioner()([ROW, {**ROW, "clip_id": "b"}])
    assert [c.clip_id for c in made] == ["a", "b"]
    assert all(c.model == "composed" and c.text and c.error is None for c in made)
