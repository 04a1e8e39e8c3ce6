"""The main job end to end: real footage in, tables that account for everything and clips a trainer can read out."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rushes.curation import manifest, signals
from rushes.curation.curriculum import bucket_shape
from rushes.curation.manifest import open_run
from rushes.pipelines.view.story import story
from tests.conftest import CURATED, MISSING, TWIN, curate_here

FRAME_S = 1 / 25  # of the films used here
DISTINCT_DB = 30.0  # an encode at CRF 18 of the same picture stands above, the next frame of moving footage below
FADE_SEEN = 0.1  # share of a dissolve at either end in which the other picture is hardly seen, and may stay


def luma(path: str | Path) -> tuple[list[np.ndarray], list[float]]:
    """uint8 luma of every frame, upright as stored, and their times."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    start = frames[0].time
    return [f.reformat(format="gray").to_ndarray() for f in frames], [f.time - start for f in frames]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.fixture(scope="module")
def clips(curated):
    return curated.run.table("clips").to_pandas()


@pytest.fixture(scope="module")
def sources(curated):
    return curated.run.table("sources").to_pandas()


def of(table, name):
    return table[table.uri.map(lambda uri: Path(uri).name) == name]


# --- every input and every clip is accounted for ---------------------------------------------------------------


def test_every_input_is_a_row_with_its_status(sources):
    status = {Path(row.uri).name: row.status for row in sources.itertuples()}
    expected = dict.fromkeys(CURATED, "ok") | {MISSING: "failed", "nowhere.mp4": "failed", "not_a_video.mp4": "failed"}
    twins = {status.pop(TWIN), status.pop("portrait.mp4")}
    expected.pop("portrait.mp4")
    assert status == expected
    assert twins == {"ok", "duplicate"}


def test_whatever_is_not_ok_says_why(sources):
    assert sources[sources.status != "ok"].error.str.len().gt(10).all()
    assert sources[sources.status == "ok"].error.isna().all()
    assert "portrait.mp4" in of(sources, TWIN).error.item() or TWIN in of(sources, "portrait.mp4").error.item()


def test_the_funnel_adds_up_to_what_went_in(curated, clips, sources):
    funnel = curated.run.record["funnel"]
    counts = dict(funnel["sources"])
    assert counts.pop("inputs") == len(sources) == sum(counts.values()) == len(CURATED) + 3
    steps = funnel["clips"]
    assert steps[0]["remaining"] == len(clips) == sources.clips.fillna(0).sum()
    assert all(a["remaining"] - b["rejected"] == b["remaining"] for a, b in itertools.pairwise(steps))
    assert steps[-1]["remaining"] == clips.kept.sum()
    assert Counter(clips.rejected_by.dropna()) == {s["rule"]: s["rejected"] for s in steps if s["rejected"]}


def test_a_clip_is_kept_exactly_if_no_rule_rejected_it(clips):
    assert (clips.kept == clips.rejected_by.isna()).all()
    assert clips.kept.any() and (~clips.kept).any()


def test_the_near_duplicate_names_the_better_clip_that_stays(clips):
    copy = of(clips, "near_duplicate.mp4")
    original = of(clips, "landscape.mp4")
    assert set(copy.rejected_by) == {"content.copy_threshold"}
    assert set(copy.duplicate_of) == set(original.clip_id)


def test_a_value_that_could_not_be_measured_says_why(curated, clips):
    written = signals.schema("measure", "look").names
    for row in clips.to_dict("records"):
        notes = " ".join(row["notes"])
        for name in written:
            if name in ("text", "overlays", "text_at_s", "heads", "panel", "look_models"):  # null: nothing was found
                continue
            if row[name] is None or (np.isscalar(row[name]) and row[name] != row[name]):
                assert name in notes, f"{name} of {row['clip_id']} is null without a word: {row['notes']}"


# --- scenes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hard_cuts.mp4", "dissolve.mp4", "landscape.mp4", "portrait.mp4"])
def test_no_clip_spans_a_boundary(curated, clips, sources, name):
    film = curated.films[name]
    uri = of(sources, name).uri.item() if len(of(clips, name)) else of(sources, TWIN).uri.item()
    mine = clips[clips.uri == uri]
    assert len(mine)
    for row in mine.itertuples():
        for cut in film.cuts_s:
            assert not row.start_s + 1e-6 < cut < row.end_s - 1e-6, f"{cut} lies in {row.start_s}-{row.end_s}"
        for begin, end in film.transitions:
            middle = begin + FADE_SEEN * (end - begin) + 1e-6, end - FADE_SEEN * (end - begin) - 1e-6
            assert row.end_s <= middle[0] or row.start_s >= middle[1], f"{middle} meets {row.start_s}-{row.end_s}"


def test_hard_cuts_are_found_at_their_frame(curated, clips):
    cuts = curated.films["hard_cuts.mp4"].cuts_s
    found = of(clips, "hard_cuts.mp4").groupby("shot")  # a shot may be several clips, around a doubt
    mine = found.agg(start_s=("start_s", "min"), end_s=("end_s", "max")).sort_values("start_s")
    trim = 3 * FRAME_S  # scenes.trim_frames at either side of a cut
    assert len(mine) == len(cuts) + 1
    np.testing.assert_allclose(mine.end_s.to_numpy()[:-1] + trim, cuts, atol=1.01 * FRAME_S)
    np.testing.assert_allclose(mine.start_s.to_numpy()[1:] - trim, cuts, atol=1.01 * FRAME_S)


# --- what was cut ----------------------------------------------------------------------------------------------


def test_every_clip_of_a_set_has_its_media_on_disk_and_a_caption(curated):
    listed = 0
    for name in curated.run.tables:
        if name.startswith("sets/"):
            for row in curated.run.table(name).to_pylist():
                assert (curated.root / row["media"]).stat().st_size > 0
                assert row["caption"] and row["weight"] == 1.0
                listed += 1
    assert listed


def test_what_was_rejected_was_not_cut(curated, clips):
    assert clips[~clips.kept].media.isna().all()
    on_disk = {str(path.relative_to(curated.root)) for path in (curated.root / "media").rglob("*") if path.is_file()}
    assert on_disk == set(clips[clips.kept].media)


def test_a_cut_clip_shows_exactly_the_frames_of_its_span(curated, clips):
    for name in ("hard_cuts.mp4", "dissolve.mp4"):
        pictures, times = luma(next(iter(of(clips, name).uri)))
        for row in of(clips[clips.kept], name).itertuples():
            first = int(np.searchsorted(times, row.start_s - 1e-6))
            last = int(np.searchsorted(times, row.end_s - 1e-6)) - 1
            cut, cut_times = luma(curated.root / row.media)
            assert len(cut) == row.frames == last - first + 1
            assert cut_times[-1] + FRAME_S == pytest.approx(row.duration_s, abs=1e-3)
            for mine, theirs in ((cut[0], first), (cut[-1], last)):
                near = [psnr(mine, pictures[i]) for i in range(max(theirs - 2, 0), min(theirs + 3, len(pictures)))]
                assert int(np.argmax(near)) == theirs - max(theirs - 2, 0)
                assert max(near) > DISTINCT_DB


def test_a_trainer_finds_a_key_frame_every_half_second_and_no_sound(curated, clips):
    for path in clips[clips.kept].media:
        with av.open(str(curated.root / path)) as container:
            assert [stream.type for stream in container.streams] == ["video"]
            stream = container.streams.video[0]
            packets = [p for p in container.demux(stream) if p.pts is not None]
            keys = [i for i, p in enumerate(packets) if p.is_keyframe]
            gaps = np.diff([*keys, len(packets)])
            assert max(gaps) <= round(0.5 * stream.average_rate)
            assert stream.codec_context.pix_fmt == "yuv420p"


# --- sets ------------------------------------------------------------------------------------------------------


def test_stage_sets_are_nested_and_validation_shares_no_source_with_them(curated):
    sets = {n.removeprefix("sets/"): curated.run.table(n) for n in curated.run.tables if n.startswith("sets/")}
    held = set(sets.pop("validation")["source_id"].to_pylist())
    stages = [set(sets[name]["clip_id"].to_pylist()) for name in
              ("pretrain-256", "pretrain-768", "pretrain-highres", "finetune")]  # fmt: skip
    assert stages[0] and held
    assert all(later <= earlier for earlier, later in itertools.pairwise(stages))
    assert not held & {source for table in sets.values() for source in table["source_id"].to_pylist()}


def test_the_sets_column_says_the_same_as_the_sets(curated, clips):
    for name in [n for n in curated.run.tables if n.startswith("sets/")]:
        listed = set(curated.run.table(name)["clip_id"].to_pylist())
        marked = {row.clip_id for row in clips.itertuples() if name.removeprefix("sets/") in row.sets}
        assert listed == marked


def test_buckets_fit_the_clips_in_them(curated, clips):
    by_id = clips.set_index("clip_id")
    for row in curated.run.table("sets/pretrain-256").to_pylist():
        clip = by_id.loc[row["clip_id"]]
        assert row["bucket"] == clip.bucket
        width, height, frames = (row[f"bucket_{name}"] for name in ("width", "height", "frames"))
        assert (width, height) == bucket_shape(clip.bucket, 256)[:2] and row["set"] == "pretrain-256"
        assert (width >= height) == (clip.orientation == "landscape")
        assert abs(np.log(width / height * clip.height / clip.width)) < 0.35
        assert 0 <= row["media_start_s"] < row["media_end_s"] <= clip.duration_s + 1e-9
        assert row["sample_fps"] == pytest.approx(frames / (row["media_end_s"] - row["media_start_s"]))
        assert row["fps"] == clip.fps and row["sample_fps"] <= 1.01 * clip.fps


# --- tables ----------------------------------------------------------------------------------------------------


def test_clips_have_the_published_schema_and_unique_names(curated, clips):
    assert curated.run.table("clips").schema.equals(manifest.CLIPS)
    assert clips.clip_id.is_unique


def test_embeddings_belong_to_clips_that_were_looked_at(curated, clips):
    embeddings = curated.run.table("embeddings")
    assert set(embeddings["clip_id"].to_pylist()) == set(clips[clips.aesthetic.notna()].clip_id)
    assert embeddings.schema.field("semantic").type.list_size > 0


def test_tables_can_be_read_by_hand_below_the_run(curated):
    by_hand = pq.read_table(curated.root / "clips")
    assert by_hand.equals(open_run(str(curated.root)).table("clips"))


def test_the_same_footage_from_lists_globs_and_uris_gives_the_same_clips(curated, tmp_path):
    """CSV with a `uri` column, Parquet with file:// URIs, and a glob; the same file named thrice counts once."""
    folder = Path(curated.inputs[0])
    (tmp_path / "list.csv").write_text(f"id,uri\n1,{folder / 'portrait.mp4'}\n", encoding="utf-8")
    pq.write_table(pa.table({"uri": [f"file://{folder}/portrait.mp4"]}), tmp_path / "list.parquet")
    inputs = [str(tmp_path / "list.csv"), str(tmp_path / "list.parquet"), str(folder / "portr*.mp4")]
    run = curate_here(inputs, tmp_path / "run")
    spans = run.table("clips").select(["clip_id", "start_s", "end_s", "vmaf_motion"]).to_pylist()
    all_clips = curated.run.table("clips").select(["clip_id", "start_s", "end_s", "vmaf_motion"]).to_pylist()
    assert spans and all(row in all_clips for row in spans)
    assert run.record["funnel"]["sources"]["inputs"] == run.record["funnel"]["sources"]["ok"] == 1


def test_a_copy_of_real_footage_stands_beside_the_clip_that_stays_with_what_decided(curated):
    rows = curated.run.table("clips").to_pylist()
    gone = [row for row in rows if row["rejected_by"] == "content.copy_threshold"]
    assert gone and all(row["bits_per_pixel"] > 0 for row in rows)
    for row in gone:
        pair = story(curated.run, row["clip_id"])["pair"]
        assert pair["clip_id"] == row["duplicate_of"]
        assert [line["name"] for line in pair["rows"]] == ["resolution", "fps", "bits_per_pixel", "duration"]
        (decided,) = [line for line in pair["rows"] if line["decides"]]
        before = pair["rows"][: pair["rows"].index(decided)]
        assert decided["this"] != decided["other"] and all(line["this"] == line["other"] for line in before)
