"""Batches from manifests: pure functions of the step, real frames, and sentences for what cannot be trained on."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from threading import Event, Thread
from time import sleep

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("torch")

from rushes.curation import manifest
from rushes.curation.manifest import SET, ManifestError, open_run, publish
from rushes.model.checkpoint import open_checkpoint
from rushes.model.data import Bucket, DataError, DataOptions, Loader, Plan, Shape, permute, plan, table
from rushes.model.frames import ClipError, read_clip
from rushes.model.sample import write_mp4
from rushes.model.train import train_dit
from tests.model.small_run import BUCKET, RATE, TALL, dit_recipe, losses, make_film, make_run, row

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
    one = Plan((11, 7), (3, 3), seed=5)
    steps = [(epoch, *group) for epoch, (group,) in map(one.at, range(3 + 2))]
    seen = [(bucket, row) for epoch, bucket, places in steps for row in one.rows(bucket, epoch, places)]
    assert len(set(seen)) == len(seen) == 15
    assert Counter(bucket for _, bucket, _ in steps) == {0: 3, 1: 2}
    assert [one.at(step)[0] for step in (4, 5, 9, 10)] == [0, 1, 1, 2]


def test_epochs_differ_and_the_same_step_is_always_the_same_batch():
    one, rows = Plan((100,), (4,), 0), []
    for step in (3, 28, 3):
        epoch, [(bucket, places)] = Plan((100,), (4,), 0).at(step)
        rows.append(one.rows(bucket, epoch, places).tolist())
    assert rows[0] == rows[2] != rows[1]


def test_replacements_reach_every_clip_of_the_bucket():
    one = Plan((12,), (4,), seed=0)
    assert {one.replacement(0, 5, attempt) for attempt in range(12)} == set(range(12))
    assert one.replacement(0, 5, 0) == 5


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


def picture_run(root, count: int = 9, **changed) -> str:
    """A run of `count` images, as sets/images."""
    root.mkdir(exist_ok=True)
    rows = []
    for number in range(count):
        Image.new("RGB", (80, 48), (20 * number, 0, 0)).save(root / f"{number}.png")
        size = {"media_start_s": 0.0, "media_end_s": 1.0, "fps": 1.0, "bucket_frames": 1, "bucket": "16x9"}
        rows.append(row(100 + number, f"{number}.png", caption=f"Red {number}.", **{**size, **changed}))
    publish(str(root), {"sets/images": pa.Table.from_pylist(rows, schema=SET)}, {})
    return str(root)


def test_images_come_from_their_set_in_an_order_of_their_own(tmp_path, film):
    runs = [make_run(tmp_path / "clips", [row(n, str(film)) for n in range(8)]), picture_run(tmp_path / "images")]
    options = DataOptions("pretrain-256", 4, frames_max=2, workers=0, image_every=3, images="images")
    batches = list(Loader(runs, options).batches(range(9)))
    assert [batch.frames.shape[1] for batch in batches] == [1, 2, 2] * 3
    seen = [[int(sample.clip_id, 16) for sample in batch.samples] for batch in batches]
    shown = seen[0] + seen[3]
    assert len(set(shown)) == 8 and min(shown) >= 100, "no image twice in an epoch"
    clips = [number for at in (1, 2) for number in seen[at]]
    assert sorted(clips) == list(range(8)), "clip batches leave no place out for the images between them"
    for sample in batches[3].samples:
        assert sample.caption == f"Red {int(sample.clip_id, 16) - 100}."
        assert np.array_equal(sample.frames[0, 0, 0], [20 * (int(sample.clip_id, 16) - 100), 0, 0])


def test_image_batches_resume_and_split_among_ranks_like_all_others(tmp_path, film):
    rows = [row(n, str(film), BUCKET if n % 2 else TALL) for n in range(12)]
    runs = [make_run(tmp_path / "clips", rows), picture_run(tmp_path / "images")]
    options = DataOptions("pretrain-256", 4, frames_max=2, workers=2, image_every=2, images="images")
    whole = list(Loader(runs, options).batches(range(8)))
    halves = [list(Loader(runs, options, rank, 2).batches(range(3, 8))) for rank in range(2)]
    for number, batch in enumerate(whole[3:]):
        parts = [half[number] for half in halves]
        assert {part.shape for part in parts} == {batch.shape}
        assert np.array_equal(np.concatenate([part.frames for part in parts]), batch.frames)


def test_a_stage_of_images_alone_needs_no_clips(tmp_path):
    options = DataOptions("pretrain-256", 4, frames_max=1, workers=0, image_every=1, images="images")
    found = Loader([picture_run(tmp_path)], options)
    assert found.table.name == "images" and [b.frames.shape[1] for b in found.batches(range(3))] == [1, 1, 1]


def test_training_mixes_images_in_and_goes_on_as_if_never_stopped(tmp_path, small_run, small_tae):
    runs, said = [small_run, picture_run(tmp_path / "images")], []
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    recipe = dit_recipe(image_every=2, images="images")
    assert train_dit(recipe, runs, str(whole), small_tae, said.append)
    assert any("Images from sets/images, in one of 2 batches" in text for text in said)
    assert train_dit(dit_recipe(image_every=2, images="images", steps=3), runs, str(halted), small_tae, said.append)
    assert train_dit(recipe, runs, str(halted), small_tae, said.append)
    assert losses(halted) == losses(whole)
    identity = open_checkpoint(halted).meta["data"]
    assert [entry[2] for entry in identity] == ["pretrain-256", "images"]


def test_a_run_without_the_set_is_named_and_one_with_it_is_enough(tmp_path, film):
    clips = make_run(tmp_path / "clips", [row(n, str(film)) for n in range(8)])
    images = picture_run(tmp_path / "images")
    found = Loader([images, clips], DataOptions("pretrain-256", 4, image_every=2, images="images"))
    assert f"{images} has no sets/pretrain-256" in found.description
    assert [entry[2] for entry in found.identity] == ["pretrain-256", "images"]
    with pytest.raises(ManifestError, match=r"no set 'finetune' in .*; sets: images, pretrain-256, validation."):
        Loader([images, clips], DataOptions("finetune", 4))


def test_an_image_that_cannot_be_read_is_replaced_like_a_clip(tmp_path):
    run = picture_run(tmp_path)
    (tmp_path / "3.png").write_bytes(b"no picture")
    found = Loader([run], DataOptions("images", 4, workers=0, image_every=1, images="images"))
    ids = [sample.clip_id for batch in found.batches(range(2)) for sample in batch.samples]
    assert len(found.failures) <= 1 and f"{103:020x}" not in ids


def test_a_set_of_many_row_groups_is_read_a_small_group_at_a_time(tmp_path):
    run = make_run(tmp_path, [row(n, "film.mp4", media_start_s=0.0, media_end_s=1.0) for n in range(20_000)])
    table = loader(run).table
    assert [int(table[n].clip_id, 16) for n in (0, 8_191, 8_192, 19_999)] == [0, 8_191, 8_192, 19_999]
    file = open_run(run).record["tables"]["sets/pretrain-256"]["files"][0]
    assert pq.ParquetFile(tmp_path / file).num_row_groups == 3


def test_weights_that_differ_are_refused_and_one_weight_is_not(tmp_path, film):
    run = make_run(tmp_path / "a", [row(n, str(film), weight=1.0 + n) for n in range(8)])
    with pytest.raises(DataError, match="weights in sets/pretrain-256 go from 1 to 8"):
        loader(run)
    heavy = make_run(tmp_path / "b", [row(n, str(film), weight=2.0) for n in range(8)])
    light = make_run(tmp_path / "c", [row(n, str(film), weight=None) for n in range(8)])
    assert Loader([heavy, light], DataOptions(**OPTIONS)).table.rows == 16


def test_a_closed_loader_decodes_nothing_of_what_waits(tmp_path, film, monkeypatch):
    run = make_run(tmp_path, [row(n, str(film)) for n in range(8)])
    found, started, go = loader(run, batch=8, workers=1, prefetch=2), [], Event()
    read = Loader._read

    def slow(*arguments):
        started.append(1)
        go.wait(10)
        return read(*arguments)

    monkeypatch.setattr(Loader, "_read", slow)
    batches = found.batches(range(9))

    def read_on():
        with suppress(CancelledError):
            next(batches)

    reader = Thread(target=read_on)
    reader.start()
    while not started:
        sleep(0.01)
    closer = Thread(target=found.close)
    closer.start()
    go.set()
    closer.join(30)
    reader.join(30)
    assert not closer.is_alive() and not reader.is_alive() and len(started) < 8


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
        assert len(found.failures) == 1 and "bad.mp4" in next(iter(found.failures.values()))
    assert runs[0] == runs[1]
    assert not any(f"{3:020x}" in ids for ids in runs[0])


def test_past_the_budget_of_missing_files_the_run_stops_with_the_last_one_named(tmp_path, film):
    run = make_run(tmp_path, [row(n, str(film) if n > 2 else f"gone-{n}.mp4") for n in range(11)])
    with pytest.raises(DataError, match=r"3 clips could not be decoded, more than errors_max = 2.*gone-\d\.mp4"):
        list(loader(run, batch=4, frames_max=2, errors_max=2).batches(range(9)))
    found = loader(run, batch=4, frames_max=2, errors_max=3)
    assert len(list(found.batches(range(12)))) == 12, "the same clips that fail again are no others"
    assert len(found.failures) == 3


def test_above_the_rows_that_are_held_a_row_group_is_read_about_once_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "SET_ROWS_PER_GROUP", 100)
    monkeypatch.setattr(table, "ROWS_HELD", 800)
    run = make_run(tmp_path, [row(n, "film.mp4", BUCKET if n % 3 else TALL) for n in range(4_000)])
    found, read = loader(run), []
    one_group = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: (read.append(a[1]), one_group(*a, **k))[1])
    seen = []
    for step in range(999):  # an epoch, batches of 4
        [(_, rows)] = found.rows_at(step)
        seen += [int(found.table[int(row)].clip_id, 16) for row in rows]
    assert len(set(seen)) == len(seen) > 3_990
    assert len(read) < 3 * 40, "without windows nine draws in ten read a group"
    assert np.abs(np.diff(seen)).mean() > 50, "neighbours in the epoch are not neighbours in the set"


def test_balanced_batches_cost_alike():
    clips = {
        Shape(128, 192, 336): 9_000,
        Shape(192, 192, 336): 5_000,
        Shape(256, 192, 336): 900,
        Shape(96, 256, 256): 40,
    }

    def cost(shape: Shape) -> float:
        tokens = math.prod((shape.frames // 8, shape.height // 16, shape.width // 16))
        return tokens * (1e4 + tokens)

    options = DataOptions(batch=64, cost=cost)
    for balance, most in ((None, 2.0), (8, 1.04)):
        sizes = plan.batch_sizes(clips, replace(options, balance=balance))
        buckets = [Bucket(s, ("x",), np.arange(n), sizes[s]) for s, n in clips.items() if n >= sizes[s]]
        one = Plan(tuple(len(b.rows) for b in buckets), tuple(b.batch for b in buckets), seed=0)
        found = plan.imbalance(one, np.array([cost(b.shape) for b in buckets]))
        assert found < most and (balance or found > 1.3)
    assert sizes[Shape(256, 192, 336)] == 64 and sizes[Shape(96, 256, 256)] == 64, "no more than there are, or `batch`"


def test_every_rank_has_its_share_of_a_balanced_batch(tmp_path, film):
    run = make_run(tmp_path, [row(n, str(film), bucket_frames=8 if n % 2 else 16) for n in range(24)])
    options = DataOptions(**{**OPTIONS, "batch": 4, "balance": 2, "cost": lambda shape: shape.frames})
    whole, halves = Loader([run], options), [Loader([run], options, rank, 2) for rank in range(2)]
    assert {str(b.shape): b.batch for b in whole.buckets} == {"64x32x16": 4, "64x32x8": 8}
    for step in range(4):
        ids = [[s.clip_id for s in next(one.batches([step])).samples] for one in (whole, *halves)]
        assert ids[0] == ids[1] + ids[2]


def test_steps_of_a_small_set_mix_buckets_until_they_cost_alike():
    """A set of six buckets of which three hold one clip each: those of the demo's footage at 256 px."""
    clips, costs = np.array([1, 1, 6, 2, 1, 3]), np.array([45.0, 72.6, 26.4, 45.0, 67.1, 18.4])
    buckets = [Bucket(Shape(b, 1, 1), (), np.arange(n), 1) for b, n in enumerate(clips)]
    cost = {b.shape: float(c) for b, c in zip(buckets, costs)}
    made = plan.plan_of(buckets, DataOptions(batch=1, balance=1, cost=cost.get))
    assert plan.imbalance(made, costs) < 1.1 < plan.imbalance(replace(made, mixed=()), costs)
    for epoch in (0, 1):
        seen = [
            (bucket, int(row))
            for step in range(epoch * 5, epoch * 5 + 5)
            for bucket, places in made.at(step)[1]
            for row in made.rows(bucket, epoch, places)
        ]
        assert sorted(seen) == [(b, n) for b, count in enumerate(clips) for n in range(count)], "each clip once"
    assert made.at(7)[0] == 1 and str(made.at(1)) != str(made.at(6)), "an epoch has an order of its own"


def test_every_rank_has_its_share_of_each_group_of_a_mixed_step(tmp_path, film):
    frames = [16] * 2 + [12] * 2 + [4] * 2
    run = make_run(tmp_path, [row(n, str(film), bucket_frames=count) for n, count in enumerate(frames)])
    options = DataOptions(**{**OPTIONS, "batch": 2, "balance": 2, "cost": lambda shape: shape.frames})
    whole, halves = Loader([run], options), [Loader([run], options, rank, 2) for rank in range(2)]
    assert "several of them, 2 steps" in whole.description
    for step in range(3):
        batch, *shares = [next(one.batches([step])) for one in (whole, *halves)]
        assert [sum(len(s.frames) for s in one.samples) for one in (batch, *shares)] == [32, 16, 16]
        ids = {place: s.clip_id for one in shares for place, s in zip(one.places, one.samples)}
        assert [ids[place] for place in batch.places] == [s.clip_id for s in batch.samples]
        for one in (batch, *shares):
            shapes = [group.shape.frames for group in one.groups for _ in range(group.clips)]
            assert [len(s.frames) for s in one.samples] == shapes


def test_what_is_prepared_is_made_in_the_loader_s_thread(tmp_path, film):
    run = make_run(tmp_path, [row(n, str(film)) for n in range(8)])
    names = []

    def prepare(batch):
        names.append(threading.current_thread().name)
        return [sample.clip_id for sample in batch.samples]

    for workers in (0, 2):
        for batch in loader(run, frames_max=2, workers=workers).batches(range(2), prepare):
            assert batch.ready == [sample.clip_id for sample in batch.samples]
    assert names[0] == "MainThread" and names[-1].startswith("batch")


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
    with pytest.raises(ManifestError, match="did you mean 'pretrain-256'"):
        loader(run, set="pretrain-25")


def test_another_schema_version_is_a_sentence(tmp_path, film):
    run = make_run(tmp_path, [row(0, str(film))])
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, "schema_version": 99}))
    with pytest.raises(ManifestError, match="manifest version 99"):
        loader(run)


def test_crops_are_squares_of_the_whole_pictures_and_the_same_every_time(small_run):
    whole = Loader([small_run], DataOptions(batch=2, frames_max=4, workers=0))
    options = DataOptions(batch=2, frames_max=4, workers=0, crop=16)
    places = set()
    for full, part, again in zip(
        *(loader.batches(range(6)) for loader in (whole, Loader([small_run], options), Loader([small_run], options)))
    ):
        assert part.frames.shape == (2, 4, 16, 16, 3) and str(part.shape) == "16x16x4"
        assert np.array_equal(part.frames, again.frames)
        for picture, crop in zip(full.frames, part.frames):
            windows = np.lib.stride_tricks.sliding_window_view(picture, crop.shape)
            found = np.argwhere((windows == crop).all(axis=(-4, -3, -2, -1)))
            assert len(found), "the same square in all frames"
            places.add(tuple(found[0]))
    assert len(places) > 6, "at random places"
