"""Odd and broken footage in one run beside good files: a row for each, and no file costs another its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from rushes.curation import signals
from rushes.curation.manifest import open_run
from tests.conftest import curate_here
from tests.footage import BAD_INPUTS, DAMAGED, NO_PICTURE
from tests.pipelines.commands import curate_command, finish

GOOD = ("dissolve.mp4", "portrait.mp4")
SAID = {
    "garbage": "not a video that FFmpeg can open",
    "zero_bytes": "the file is empty (0 bytes)",
    "truncated_moov_last": "not a video that FFmpeg can open",
    "audio_only": "the file holds no video (only audio)",
}
FRAMES = {"one_frame": 1, "four_frames": 4, "one_fps": 6, "variable_frame_rate": 48, "still_png": 1, "interlaced": 25}
SHOWN = {"rotated": (180, 320), "wide_pixels": (320, 180), "odd_size": (321, 181), "odd_size_subsampled": (321, 181)}
MEASURED = signals.schema("measure").names


@pytest.fixture(scope="module")
def inputs(bad_inputs, footage_folder) -> list[str]:
    folder, _ = footage_folder
    return [str(path) for path in bad_inputs.values()] + [str(folder / name) for name in GOOD]


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    return curate_here(inputs, tmp_path_factory.mktemp("bad-run") / "run")


@pytest.fixture(scope="module")
def rows(run, bad_inputs) -> dict[str, dict]:
    by_uri = {row["uri"]: row for row in run.table("sources").to_pylist()}
    return {name: by_uri[str(path)] for name, path in bad_inputs.items()}


def expected_status(name: str) -> str:
    return "failed" if name in NO_PICTURE else "partial" if name in DAMAGED else "ok"


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_each_input_has_the_status_that_fits_it_and_a_reason_where_it_is_not_ok(rows, name):
    row = rows[name]
    assert (row["status"], bool(row["error"])) == (expected_status(name), expected_status(name) != "ok"), row["error"]
    assert SAID.get(name, "") in (row["error"] or "")


def test_facts_of_odd_files_are_right(rows):
    for name, frames in FRAMES.items():
        assert rows[name]["frames"] == frames, name
    for name, size in SHOWN.items():
        assert (rows[name]["width"], rows[name]["height"]) == size, name
    assert rows["interlaced"]["interlaced"] and not rows["hevc"]["interlaced"]
    assert rows["late_start"]["first_pts_s"] > 9
    codecs = {name: rows[name]["codec"] for name in ("hevc", "vp9", "av1", "ten_bit")}
    assert {k: v.split("-")[0].removeprefix("lib") for k, v in codecs.items()} in (
        {"hevc": "hevc", "vp9": "vp9", "av1": av1, "ten_bit": "hevc"} for av1 in ("av1", "dav1d")
    )


def test_every_frame_of_a_readable_file_is_in_a_clip_or_a_named_trim(run, rows):
    clips = run.table("clips").to_pylist()
    for name, row in rows.items():
        mine = [clip for clip in clips if clip["uri"] == row["uri"]]
        assert len(mine) == (row["clips"] or 0)
        assert bool(mine) == (name not in NO_PICTURE)
        assert all(0 <= c["start_s"] < c["end_s"] <= row["duration_s"] + 1e-6 for c in mine)


def test_at_one_frame_a_second_motion_is_null_and_the_notes_say_why(run, rows):
    clips = [c for c in run.table("clips").to_pylist() if c["uri"] == rows["one_fps"]["uri"]]
    for clip in clips:
        assert clip["vmaf_motion"] is clip["mv_mean"] is clip["camera_motion"] is None
        assert any("vmaf_motion" in note and "1 frames per second" in note for note in clip["notes"])


@pytest.mark.parametrize("name", ["vp9", "av1", "hevc"])
def test_codecs_without_vectors_have_measured_motion_and_a_note(run, rows, name):
    clips = [c for c in run.table("clips").to_pylist() if c["uri"] == rows[name]["uri"]]
    assert clips
    for clip in clips:
        assert clip["mv_mean"] > 0
        assert any("optical flow" in note for note in clip["notes"])


def test_good_files_are_measured_as_if_they_were_alone(run, curated):
    def measured(of):
        table = of.table("clips").select(MEASURED).to_pylist()
        return {(Path(row.pop("uri")).name, row["clip_id"]): row for row in table}

    alone, beside = measured(curated.run), measured(run)
    ids = {clip_id for _, clip_id in alone}
    good = {clip_id: row for (name, clip_id), row in beside.items() if name in GOOD}
    assert {name for name, _ in beside} >= set(GOOD) and set(good) == {i for n, i in alone if n in GOOD} <= ids
    assert all(row in alone.values() for row in good.values())


def test_good_files_are_kept_and_cut_beside_bad_ones(run):
    kept = [c for c in run.table("clips").to_pylist() if Path(c["uri"]).name in GOOD and c["kept"]]
    assert kept and all((Path(run.root) / clip["media"]).exists() for clip in kept)


def test_with_a_single_cpu_the_run_ends_with_the_same_tables(run, inputs, tmp_path):
    code, _, said = finish(curate_command(inputs, tmp_path / "run", "engine.num_cpus=1"))
    assert code == 0, said
    single = open_run(str(tmp_path / "run"))
    for name in run.tables:
        assert single.table(name).equals(run.table(name)), name


def test_more_failed_sources_than_the_budget_is_exit_code_3_and_the_tables_are_there(bad_inputs, tmp_path):
    inputs = [str(bad_inputs[name]) for name in ("garbage", "four_frames")]
    code, _, said = finish(curate_command(inputs, tmp_path / "run", "engine.error_budget=0.4"))
    assert code == 3
    assert "1 of 2 sources failed (50%), more than engine.error_budget=40% allows" in said
    assert open_run(str(tmp_path / "run")).record["funnel"]["sources"]["failed"] == 1
