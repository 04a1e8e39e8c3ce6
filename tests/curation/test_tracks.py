"""Tracks of a file are the same whatever parts it was decoded in, and all that is measured is measured from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from rushes.curation import tracks
from rushes.curation.analyze import measure
from rushes.curation.motion.camera import CameraMeter
from rushes.curation.observe import Observer
from rushes.curation.recipe import build
from rushes.curation.tracks import OBSERVED, load, stills_of
from rushes.curation.video.decode import probe

RECIPE = build({}, ["scenes.head_s=0", "visual.stills_per_s=2"])


def observed(path, edges: list[float | None], recipe=RECIPE) -> pa.Table:
    """OBSERVED rows of a file decoded in parts that end at these seconds."""
    source, found = probe(str(path)), []
    for part, (begin_s, end_s) in enumerate(zip([0.0, *edges], [*edges, None])):
        found += Observer(recipe)(source, begin_s, end_s, part).batches()
    return pa.Table.from_batches(found, OBSERVED)


@pytest.fixture(scope="module")
def whole(pool):
    path = next(f.path for f in pool if f.path.name == "hard_cuts.mp4")
    return path, observed(path, [])


@pytest.mark.parametrize("edges", [[11.3], [5.02, 17.0], [1.0, 1.5, 500.0]])
def test_a_film_in_parts_gives_the_tracks_clips_and_stills_of_an_unbroken_decode(whole, edges):
    path, table = whole
    one, many = load(table), load(observed(path, edges))
    assert one.frames == many.frames > 500 and one.end_s == many.end_s
    for name in one:
        np.testing.assert_array_equal(one[name], many[name], err_msg=name)
    np.testing.assert_array_equal(one.stills.times_s, many.stills.times_s)
    source = probe(str(path))
    assert measure(source, one, RECIPE).equals(measure(source, many, RECIPE))
    assert one.source == many.source and one.source.status == "ok"
    spans = [(0.0, 2.0), (4.0, 9.5)]
    assert stills_of(table, one.source.source_id, spans, 4) == stills_of(
        observed(path, edges), one.source.source_id, spans, 4
    )


def test_a_film_without_vectors_and_with_b_frames_is_whole_in_parts_too(bad_inputs):
    for name in ("vp9", "interlaced", "late_start", "variable_frame_rate"):
        one, many = load(observed(bad_inputs[name], [])), load(observed(bad_inputs[name], [0.5]))
        for track in one:
            np.testing.assert_array_equal(one[track], many[track], err_msg=f"{name} {track}")


def test_other_thresholds_of_scenes_are_measured_without_the_file(whole, tmp_path):
    path, table = whole
    source = replace(probe(str(path)), uri=str(tmp_path / "gone.mp4"))
    strict = build({}, ["scenes.head_s=0", "scenes.min_content_val=200", "scenes.dissolves=false"])
    found = load(table)
    assert measure(source, found, strict)["shot"].to_pylist()[-1] == 0
    assert measure(source, found, RECIPE).num_rows > 2
    assert strict.part_hash("observe") != RECIPE.part_hash("observe")  # stills_per_s; the rest is the measuring's


def test_sources_share_a_table_and_a_broken_one_is_told(whole, bad_inputs):
    path, table = whole
    other = observed(bad_inputs["truncated_moov_first"], [])
    both = pa.concat_tables([other, table])
    name = table["source_id"][0].as_py()
    assert load(both, name).source == load(table).source
    assert load(both, other["source_id"][0].as_py()).source.status == "partial"
    with pytest.raises(ValueError, match="not whole"):
        load(table.slice(0, table.num_rows - 1), name)
    parts = observed(path, [8.0])
    with pytest.raises(ValueError, match="not whole"):
        load(parts.filter(pa.compute.equal(parts["part"], 1)), name)


def test_a_long_file_is_many_small_batches(whole):
    _, table = whole
    frames = table["frames"].to_pylist()
    assert len(frames) > 1 or sum(frames) < 1200
    assert max(len(data.as_py()) for data in table["tracks"] if data.is_valid) < 300_000
    assert [facts is not None for facts in table["facts"].to_pylist()] == [False] * (len(frames) - 1) + [True]


def test_a_track_of_another_length_is_refused():
    fields = [pa.field("time_s", pa.float64()), pa.field("own", pa.float32())]
    with pytest.raises(ValueError, match="'own' has 2 values for 3 frames"):
        tracks.pack({"time_s": np.arange(3.0), "own": np.zeros(2)}, fields)


def test_a_file_replaced_while_it_is_read_leaves_no_record(bunny_video, tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(bunny_video.read_bytes())
    observation = Observer(RECIPE)(probe(str(path)))
    rows = observation.batches()
    path.write_bytes(bunny_video.read_bytes()[:-1] + b"x")
    found = load(list(rows))
    assert observation.transient and found.transient
    assert found.source.error == "the file changed while it was read"


def test_a_track_that_few_frames_have_is_held_as_those_and_reads_as_all(whole):
    _, table = whole
    found = load(table)
    dense = np.asarray(found["looks"])
    assert isinstance(found["looks"], tracks.Seldom) and len(found["looks"]) == found.frames == len(dense)
    known = np.isfinite(dense[:, 0])
    assert 0 < known.sum() < found.frames / 2 and np.array_equal(known.nonzero()[0], found["looks"].rows)
    for span in (slice(7, 90), slice(0, 0), slice(40, 10_000), slice(-30, None, 3)):
        assert np.array_equal(found["looks"][span], dense[span], equal_nan=True)
    whole_frames = tracks.unpack(tracks.pack({"time_s": found.time_s, "looks": found["looks"]},
                                             [pa.field("time_s", pa.float64()), CameraMeter.tracks[0]]))  # fmt: skip
    assert np.array_equal(np.asarray(whole_frames["looks"]), dense, equal_nan=True)
