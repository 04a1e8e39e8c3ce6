"""Batches from manifests: pure functions of the step, real frames, and sentences for what cannot be trained on."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from curation.manifest import ManifestError
from model.data import DataError, DataOptions, Loader, Plan, Shape, permute
from model.frames import ClipError, read_clip
from model.sample import write_mp4
from tests.model.small_run import BUCKET, RATE, TALL, make_film, make_run, row

OPTIONS = {"set": "pretrain-256", "batch": 4, "workers": 0}


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return make_film(tmp_path_factory.mktemp("film"))


def loader(run: str, rank: int = 0, world: int = 1, **changed) -> Loader:
    return Loader([run], DataOptions(**{**OPTIONS, **changed}), rank, world)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**63))
def test_a_permutation_visits_every_number_once(size, key):
    assert sorted(permute(np.arange(size), size, key)) == list(range(size))


def test_another_key_is_another_order_and_neighbours_are_torn_apart():
    first, second = (permute(np.arange(1000), 1000, key) for key in (1, 2))
    assert (first != second).mean() > 0.98
    assert (np.abs(np.diff(first)) == 1).mean() < 0.02


def test_an_epoch_sees_no_clip_twice_and_all_full_batches():
    plan = Plan((11, 7), batch=3, seed=5)
    steps = [plan.at(step) for step in range(3 + 2)]
    seen = [(bucket, row) for bucket, epoch, places in steps for row in plan.rows(bucket, epoch, places)]
    assert len(set(seen)) == len(seen) == 15
    assert Counter(bucket for bucket, _, _ in steps) == {0: 3, 1: 2}
    assert [plan.at(step)[1] for step in (4, 5, 9, 10)] == [0, 1, 1, 2]


def test_epochs_differ_and_the_same_step_is_always_the_same_batch():
    rows = [Plan((100,), 4, 0).rows(*Plan((100,), 4, 0).at(step)).tolist() for step in (3, 28, 3)]
    assert rows[0] == rows[2] != rows[1]


def test_replacements_reach_every_clip_of_the_bucket():
    plan = Plan((12,), batch=4, seed=0)
    assert {plan.replacement(0, 5, attempt) for attempt in range(12)} == set(range(12))
    assert plan.replacement(0, 5, 0) == 5


def test_ranks_split_the_batch_of_one_process(tmp_path, film):
    run = make_run(tmp_path, [row(n, str(film), BUCKET if n % 3 else TALL) for n in range(12)])
    whole = list(loader(run, batch=4, frames_max=4).batches(range(4)))
    halves = [list(loader(run, rank, 2, batch=4, frames_max=4).batches(range(4))) for rank in range(2)]
    for number, batch in enumerate(whole):
        parts = [half[number] for half in halves]
        assert {str(part.shape) for part in parts} == {str(batch.shape)}
        assert [s.clip_id for part in parts for s in part.samples] == [s.clip_id for s in batch.samples]
        assert np.array_equal(np.concatenate([part.frames for part in parts]), batch.frames)


def test_threads_and_resuming_change_no_batch(tmp_path, film):
    run = make_run(tmp_path, [row(n, str(film)) for n in range(9)])
    plain = list(loader(run, frames_max=4).batches(range(6)))
    resumed = list(loader(run, frames_max=4, workers=3, prefetch=2).batches(range(3, 6)))
    assert [b.step for b in resumed] == [3, 4, 5]
    for one, other in zip(plain[3:], resumed):
        assert np.array_equal(one.frames, other.frames)


def test_frames_are_those_on_screen_at_their_times(tmp_path):
    brighter = [np.full((48, 64, 3), 5 * number, np.uint8) for number in range(48)]
    film = write_mp4(tmp_path / "ramp.mp4", brighter, fps=RATE)
    wanted = np.array([3, 4, 9, 40, 47])
    for inside in (0.0, 0.5, 0.9):
        frames = read_clip(str(film), (wanted + inside) / RATE, height=32, width=32)
        assert np.array_equal(np.round(frames.mean((1, 2, 3)) / 5), wanted)


def test_a_picture_keeps_its_aspect_and_loses_its_edges(film):
    wide = read_clip(str(film), np.array([0.1]), height=48, width=64)[0]
    square = read_clip(str(film), np.array([0.1]), height=48, width=48)[0]
    assert np.abs(square.astype(int) - wide[:, 8:56]).mean() < 1


def test_image_batches_come_at_their_ratio_and_have_one_frame(tmp_path, film):
    run = make_run(tmp_path, [row(n, str(film)) for n in range(8)])
    shapes = [batch.frames.shape for batch in loader(run, image_every=4, frames_max=4).batches(range(8))]
    assert [shape[1] for shape in shapes] == [1, 4, 4, 4, 1, 4, 4, 4]
    assert all(shape[2:] == (32, 64, 3) for shape in shapes)


def test_shapes_scale_to_small_machines_with_sides_of_sixteen():
    assert Shape(256, 576, 1024).scaled(16, 128) == Shape(16, 96, 176)
    assert Shape(128, 192, 336).scaled(None, None) == Shape(128, 192, 336)


def test_an_undecodable_clip_is_recorded_and_replaced_the_same_way_every_time(tmp_path, film):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    run = make_run(tmp_path, [row(n, str(bad if n == 3 else film)) for n in range(8)])
    runs = []
    for workers in (0, 2):
        found = loader(run, frames_max=2, workers=workers)
        runs.append([[s.clip_id for s in batch.samples] for batch in found.batches(range(2))])
        assert len(found.failures) == 1 and "bad.mp4" in found.failures[0]
    assert runs[0] == runs[1]
    assert not any(f"{3:020x}" in ids for ids in runs[0])


def test_past_the_budget_of_missing_files_the_run_stops_with_the_last_one_named(tmp_path, film):
    run = make_run(tmp_path, [row(n, str(film) if n else "gone.mp4") for n in range(4)])
    with pytest.raises(DataError, match=r"more than errors_max = 2.*gone\.mp4"):
        list(loader(run, batch=4, frames_max=2, errors_max=2).batches(range(9)))


def test_a_clip_that_ends_early_is_not_stretched(film):
    with pytest.raises(ClipError, match=r"ends before 9.00 s"):
        read_clip(str(film), np.array([1.0, 9.0]), 48, 64)


def test_more_ranks_than_clips_is_a_sentence(tmp_path, film):
    run = make_run(tmp_path, [row(n, str(film)) for n in range(4)])
    with pytest.raises(DataError, match="batch of 4 does not divide among 8 ranks"):
        loader(run, 0, 8)
    with pytest.raises(DataError, match="has 4 clips, fewer than one batch of 8"):
        loader(run, 0, 8, batch=8)


def test_a_small_bucket_stops_the_run_or_is_left_out_as_the_recipe_says(tmp_path, film):
    run = make_run(tmp_path, [row(n, str(film), TALL if n == 0 else BUCKET) for n in range(9)])
    with pytest.raises(DataError, match="32x64x16 has 1 clips, fewer than one batch of 4"):
        loader(run)
    kept = loader(run, small_buckets="leave_out")
    assert [str(bucket.shape) for bucket in kept.buckets] == ["64x32x16"]
    assert "fewer than one batch" in kept.description


def test_an_empty_bucket_and_an_empty_set_are_sentences(tmp_path, film):
    run = make_run(tmp_path, [row(n, str(film)) for n in range(8)])
    with pytest.raises(DataError, match="bucket '1x1/16s' of the set 'pretrain-256' is empty"):
        loader(run, buckets=("1x1/16s",))
    with pytest.raises(DataError, match="set 'validation' has no clips"):
        loader(run, set="validation")
    with pytest.raises(ManifestError, match="did you mean 'sets/pretrain-256'"):
        loader(run, set="pretrain-25")


def test_another_schema_version_is_a_sentence(tmp_path, film):
    run = make_run(tmp_path, [row(0, str(film))])
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, "schema_version": 99}))
    with pytest.raises(ManifestError, match="manifest version 99"):
        loader(run)
