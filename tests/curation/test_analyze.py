"""ANALYZE on its own, without any engine: one decode feeds all meters, and every clip has a full row."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from rushes.curation import manifest
from rushes.curation.analyze import Analyzer
from rushes.curation.content.grid import vectors_of
from rushes.curation.look import Looker
from rushes.curation.meter import Unmeasured
from rushes.curation.recipe import RecipeError, build
from rushes.curation.video.decode import probe
from rushes.curation.video.source import Source
from tests.footage import timed_cuts

SHORT = ["scenes.head_s=0", "visual.text=false"]


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("analyze") / "film.mp4"
    return path, timed_cuts(path, (2.0, 4.5))


@pytest.fixture(scope="module")
def analysis(film):
    return Analyzer(build({}, SHORT))(probe(str(film[0])))


def test_clips_have_the_published_columns_and_a_value_or_a_reason_in_each(analysis):
    assert analysis.clips.schema.equals(manifest.ANALYZED)
    for row in analysis.clips.to_pylist():
        for name in set(manifest.ANALYZED.names) - {"notes"}:
            assert row[name] is not None or any(note.startswith(f"{name}:") for note in row["notes"]), name


def test_there_is_one_clip_per_shot_with_stills_from_inside_it(analysis, film):
    rows = analysis.clips.to_pylist()
    assert [row["shot"] for row in rows] == [0, 1, 2]
    assert analysis.source.clips == 3 and analysis.source.status == "ok"
    stills = analysis.stills.to_pylist()
    for row in rows:
        times = [still["t_s"] for still in stills if still["clip_id"] == row["clip_id"]]
        assert times and all(row["start_s"] <= t < row["end_s"] for t in times)


def test_bits_per_pixel_are_those_of_the_file_and_unknown_where_its_size_is(analysis, film):
    row = analysis.clips.to_pylist()[0]
    pixels = analysis.source.frames * row["width"] * row["height"]
    assert row["bits_per_pixel"] == pytest.approx(8 * film[0].stat().st_size / pixels, rel=1e-6)
    row = Analyzer(build({}, SHORT))(Source(uri=str(film[0]))).clips.to_pylist()[0]
    assert row["bits_per_pixel"] is None and "bits_per_pixel: the size of the file is not known" in row["notes"]


def test_the_same_file_gives_the_same_rows(analysis, film):
    again = Analyzer(build({}, SHORT))(probe(str(film[0])))
    assert again.clips.equals(analysis.clips) and again.stills.equals(analysis.stills)


def test_a_truncated_file_is_partial_and_keeps_the_clips_that_can_be_read(bad_inputs):
    found = Analyzer(build({}, SHORT))(probe(str(bad_inputs["truncated_moov_first"])))
    assert found.source.status == "partial" and found.source.error
    assert found.clips.num_rows and found.source.frames < 48


def test_what_a_meter_cannot_measure_becomes_null_with_its_reason(film, monkeypatch):
    from rushes.curation.motion import MotionMeter

    monkeypatch.setattr(MotionMeter, "measure", lambda *_: {"vmaf_motion": Unmeasured("the sky was too blue")})
    row = Analyzer(build({}, SHORT))(probe(str(film[0]))).clips.to_pylist()[0]
    assert row["vmaf_motion"] is None and "vmaf_motion: the sky was too blue" in row["notes"]


def test_a_meter_of_ones_own_adds_its_columns(film):
    recipe = build({}, [*SHORT, "meters=[tests.pipelines.meters:Redness]"])
    rows = Analyzer(recipe)(probe(str(film[0]))).clips.to_pylist()
    assert all(np.isfinite(row["redness"]) for row in rows)
    with pytest.raises(RecipeError, match="cannot be imported"):
        Analyzer(build({}, ["meters=[tests.pipelines.meters:Nothing]"]))


def test_meters_leave_the_other_cores_alone(film):
    """Outside of an engine, which sets OMP_NUM_THREADS: BLAS threads that wait burn as much as the whole analysis."""
    with threadpool_limits(4, "blas"):
        recipe = build({}, [*SHORT, "meters=[tests.pipelines.meters:BlasThreads]"])
        rows = Analyzer(recipe)(probe(str(film[0]))).clips.to_pylist()
    assert {row["blas_threads"] for row in rows} == {1.0}


def test_a_damaged_middle_shows_in_the_source_and_its_clips(bad_inputs):
    found = Analyzer(build({}, SHORT))(probe(str(bad_inputs["corrupt_middle"])))
    assert found.source.status == "partial" and "damaged at" in found.source.error


def test_look_can_be_called_on_stills_without_an_engine(analysis):
    ids = analysis.clips["clip_id"].to_pylist()
    looks = Looker(build({}, SHORT))(ids, analysis.stills)
    assert looks["clip_id"].to_pylist() == ids
    assert all(0 <= value <= 10 for value in looks["aesthetic"].to_pylist())
    assert np.isfinite(vectors_of(looks["copy"])).all() and np.isfinite(vectors_of(looks["semantic"])).all()
    (bare,) = Looker(build({}, SHORT))(["nobody"], analysis.stills).to_pylist()
    assert bare["aesthetic"] is None and any("too short for a still" in note for note in bare["look_notes"])
