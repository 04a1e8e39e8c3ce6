"""Claims about the look stage: batches over sources, one row per clip, who made which column."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rushes.curation import look
from rushes.curation.look import CLIPS_AT_ONCE, Looker
from rushes.curation.recipe import build
from rushes.curation.visual.stills import STILLS, encode


def stills(pictures, clips: int) -> pa.Table:
    """Stills of many clips, mixed: clip i has the pictures rolled by i."""
    rows = [
        {"clip_id": f"c{i}", "t_s": float(t), "jpeg": encode(np.roll(picture, 9 * i, axis=1))}
        for t, picture in enumerate(pictures)
        for i in range(clips)
    ]
    return pa.Table.from_pylist(rows, STILLS)


@pytest.fixture(scope="module")
def looker():
    return Looker(build({}, ["visual.text=false"]))


def test_a_row_does_not_depend_on_the_clips_beside_it(looker, pictures):
    table = stills(pictures[:2], 2 * CLIPS_AT_ONCE + 1)
    names = [f"c{i}" for i in range(2 * CLIPS_AT_ONCE + 1)]
    together = looker(names, table)
    assert together["clip_id"].to_pylist() == names and together.schema == looker.schema
    for name in (names[0], names[CLIPS_AT_ONCE - 1], names[-1]):
        assert looker([name], table).to_pylist() == [row for row in together.to_pylist() if row["clip_id"] == name]


def test_few_clips_are_decoded_at_a_time(looker, pictures, monkeypatch):
    alive, most = 0, 0
    one_by_one = looker._look

    def count(clips):
        nonlocal most
        most = max(most, sum(bool(clip.pictures) for clip in clips))
        return one_by_one(clips)

    monkeypatch.setattr(looker, "_look", count)
    looker([f"c{i}" for i in range(20)], stills(pictures[:1], 20))
    assert alive == 0 and most <= look.CLIPS_AT_ONCE


def test_the_row_says_which_model_made_a_column(looker, pictures, recipe, weights):
    row = looker(["c0"], stills(pictures, 1)).to_pylist()[0]
    assert "copy: measured-edges-moments" in row["look_models"] and "human_score: opencv" in row["look_models"]
    learned = Looker(recipe("models.semantic=clip", f"models.copies={weights / 'copies.pt'}"))
    row = learned(["c0"], stills(pictures, 1)).to_pylist()[0]
    made = dict(entry.split(": ") for entry in row["look_models"])
    assert made["semantic"].startswith("tiny-for-tests/clip.pt@") and made["copy"].startswith("copies.pt@")
    assert made["aesthetic"] == "measured" and len(row["semantic"]) == 16


def test_a_clip_without_a_still_and_one_of_one_colour_say_why(looker, pictures):
    table = stills([np.full((90, 160, 3), 40, np.uint8)] * 2, 1)
    flat, none = looker(["c0", "gone"], table).to_pylist()
    assert flat["copy"] is None and "copy: the picture is one flat colour" in flat["look_notes"]
    assert none["aesthetic"] is None and none["look_models"] == []
    assert any("aesthetic" in note and "too short for a still" in note for note in none["look_notes"])


def test_faces_are_found_by_the_detector_that_a_wheel_carries(pictures):
    import av

    from rushes.curation.looking.base import Clip
    from rushes.curation.looking.faces import FaceLooker
    from rushes.pipelines.demo.film import clip_path

    def still(name: str) -> np.ndarray:
        with av.open(str(clip_path(name))) as container:
            return next(container.decode(video=0)).to_ndarray(format="bgr24")

    shown = [still("carphone"), still("bunny"), pictures[0]]
    scores = [row["human_score"] for row in FaceLooker()([Clip("c", [0.0], [picture]) for picture in shown])]
    assert scores[0] > 0.6 and max(scores[1:]) < 0.5
