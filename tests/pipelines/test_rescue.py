"""Rescue in a worker and in a run: text costs the seconds in which it stands, a border its share of the picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rushes.curation import recipe, storage
from rushes.curation.video import decode
from rushes.pipelines.demo.film import encode
from rushes.pipelines.stages.items import Item, ToLook
from rushes.pipelines.stages.worker import Worker
from tests.conftest import curate_here
from tests.footage import decoded, make_video

SIZE, FPS = (640, 360), 12
RULES_OFF = ("motion.own_motion_min=null", "motion.shake_max=null", "motion.mv_max=null", "motion.frozen_max_s=null",
             "visual.aesthetic_min=null", "scenes.head_s=0", "scenes.duration_min_s=2")  # fmt: skip


def looked_at(path, root, *overrides: str) -> list[dict]:
    """Rows of the file's clips as a worker leaves them, without a cluster."""
    made = recipe.load("demo", [*RULES_OFF, "scenes.doubt_split=null", "scenes.doubt_max=null", *overrides])
    worker = Worker(made, str(root))
    item = Item(decode.probe(str(path)))
    (seen,) = worker.observe([item])
    (looked,) = worker.look([ToLook(item, (seen.record,))])
    return sorted(storage.read_table(looked.record).to_pylist(), key=lambda row: row["start_s"])


@pytest.fixture(scope="module")
def titled(tmp_path_factory):
    """Nine seconds of one shot, with words for the first three."""
    folder = tmp_path_factory.mktemp("titled")
    plain = make_video(folder / "plain.mp4", size=SIZE, fps=FPS, seconds=9)
    frames = [np.ascontiguousarray(picture[..., ::-1]) for _, picture in decoded(plain)]
    for frame in frames[: 3 * FPS]:
        cv2.putText(frame, "THE LONG WAY HOME", (90, 190), cv2.FONT_HERSHEY_DUPLEX, 1.4, (255, 255, 255), 3)
    encode(frames, folder / "titled.mp4", SIZE, FPS)
    return folder / "titled.mp4"


def test_text_of_the_first_seconds_costs_those_seconds_and_not_the_clip(titled, tmp_path):
    first, rest = looked_at(titled, tmp_path)
    assert first["text_score"] > 0.6 and first["overlays"] and rest["text_score"] < 0.6 and not rest["overlays"]
    assert first["start_s"] == 0 and first["end_s"] == rest["start_s"] and rest["end_s"] == pytest.approx(9, abs=0.1)
    assert 3 <= rest["start_s"] <= 4 and rest["frames"] == round(rest["duration_s"] * FPS)
    assert first["clip_id"] != rest["clip_id"] and rest["looked"] and rest["vmaf_motion"] is not None


def test_a_recipe_may_leave_such_a_clip_whole(titled, tmp_path):
    (row,) = looked_at(titled, tmp_path, "visual.text_split=false")
    assert row["text_score"] > 0.6 and len(row["text_at_s"]) in (3, 4)


def test_what_the_demo_letterboxes_is_kept_as_its_clean_rectangle(pool, tmp_path):
    film = next(film.path for film in pool if film.path.name == "letterboxed.mp4")
    run = curate_here([str(film)], tmp_path / "run")
    clips = run.table("clips", ["crop_for", "crop_width", "crop_height", "media"]).to_pylist()
    cropped = [row for row in clips if row["crop_for"] and row["media"]]
    assert cropped
    for row in cropped:
        (_, frame), *_ = decoded(f"{run.root}/{row['media']}")
        assert frame.shape[:2] == (row["crop_height"], row["crop_width"])
        edges = np.concatenate([frame[0], frame[-1]])
        assert edges.std() > 5  # no bar of one colour is left
