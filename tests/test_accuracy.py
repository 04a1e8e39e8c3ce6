"""What `make accuracy` is made of: the table in the docs, matching marks with the truth, public sets on a disk."""

from __future__ import annotations

import json

import pytest

from tests.accuracy import shot_sets, table
from tests.accuracy.scenes import Score
from tests.accuracy.scenes_made import MadeFilm, Truth
from tests.accuracy.shot_sets import Labelled
from tests.accuracy.table import Row
from tests.footage import timed_cuts


def test_rows_of_one_signal_replace_their_old_ones_and_no_others(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{table.BEGIN}\n{table.END}\nafter\n", encoding="utf-8")
    table.write([Row("scenes", "F1", 0.5, ">= 1", 3, "a tool", 0.25), Row("borders", "IoU", None)], ["borders"], page)
    table.write([Row("scenes", "F1", 0.75, ">= 1", 4)], ["borders"], page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before") and text.endswith("after\n")
    assert "| scenes | F1 | >= 1 | **0.750** | 4 |" in text and "0.500" not in text
    assert "| borders | IoU |  | **not measured** |" in text


def test_a_confusion_picture_counts_what_was_told(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "IMAGES", tmp_path)
    drawn = table.confusion("x", ["pan", "tilt"], ["pan", "pan", "tilt"], ["pan", "zoom", "tilt"]).read_text()
    assert drawn.count("<text") == 3 + 2 + 3 and "zoom" in drawn  # columns, rows, cells that are not empty


def test_marks_are_matched_once_and_clips_with_a_transition_inside_are_counted(tmp_path):
    film = MadeFilm(tmp_path / "a", "dissolve", 600, (Truth("dissolve", 200, 230), Truth("dissolve", 400, 430)))
    score = Score.of([film], [([(0, 198), (232, 300), (300, 600)], None)])
    assert (score.hits["dissolve"], score.truth["dissolve"], score.false["dissolve"]) == (1, 2, 1)
    assert score.recall("dissolve") == 0.5 and score.f1(["dissolve"]) == pytest.approx(2 / 4)
    assert (score.bad.total(), score.clips) == (1, 2)  # the shot of 68 frames is too short to be a clip


@pytest.fixture
def public_sets(tmp_path):
    """A tiny folder of each form with one film: cuts at frames 48 and 96, 144 frames."""
    for name, video, labels in (
        ("BBC", "bbc_01.mp4", "fixed/01-scenes.txt"), ("AutoShot", "7.mp4", "annotations/7.txt"),
        ("ClipShots", "c.mp4", "annotations/test.json"),
    ):  # fmt: skip
        (tmp_path / name / "videos").mkdir(parents=True)
        path = tmp_path / name / labels
        path.parent.mkdir(exist_ok=True)
        film = tmp_path / name / "videos" / video
        if name == "BBC":
            timed_cuts(film, (2.0, 4.0))
        else:
            film.hardlink_to(tmp_path / "BBC" / "videos" / "bbc_01.mp4")
        if path.suffix == ".json":
            path.write_text(json.dumps({"c.mp4": {"transitions": [[47, 48], [95, 96]], "frame_num": 144}}))
        else:
            path.write_text("0\t47\n48\t95\n96\t143\n")
    return tmp_path


@pytest.mark.parametrize("name", list(shot_sets.SETS))
def test_a_folder_of_a_public_set_prints_its_row(public_sets, name, capsys):
    shot_sets.main([name, str(public_sets / name)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"| {name}")]
    assert len(lines) == 3 and all("| 100.00 | 100.00 | 100.00 |" in line for line in lines[1:])


def test_gradual_transitions_of_clipshots_are_those_longer_than_a_cut(public_sets):
    labels = public_sets / "ClipShots" / "annotations" / "test.json"
    labels.write_text(json.dumps({"c.mp4": {"transitions": [[47, 48], [80, 101]]}, "gone.mp4": {"transitions": []}}))
    (video,) = shot_sets.clipshots(public_sets / "ClipShots")
    assert video.cuts == (48,) and video.gradual == ((81, 101),)
    hard, gradual = shot_sets.match(Labelled(video.path, (48,), ((81, 101),)), [(0, 49), (49, 85), (99, 144)], 1)
    assert hard == (1, 0, 0) and gradual == (1, 0, 0)


def test_labels_that_cannot_be_read_are_named_with_their_line(public_sets):
    (public_sets / "BBC" / "fixed" / "01-scenes.txt").write_text("0\t47\nnonsense\n")
    with pytest.raises(SystemExit, match=r"01-scenes\.txt, line 2: .*'nonsense'"):
        list(shot_sets.bbc(public_sets / "BBC"))
