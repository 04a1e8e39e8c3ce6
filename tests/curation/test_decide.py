"""Claims about decisions over shards: who of a group stays, the law of the sampling, targets, and the sets."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.curation import recipe as recipes
from rushes.curation import sets
from rushes.curation.decide import decide, decide_all, quality, solve
from rushes.curation.recipe import RecipeError

SEEDS = st.integers(0, 2**31 - 1)
RULES_OFF = {
    "visual": {"size_min": None, "fps_min": None, "aspect_max": None, "corrupt_max": None, "border_max": None,
               "luma_min": None, "luma_max": None, "text_max": None, "aesthetic_min": None},
    "motion": {"frozen_max_s": None, "own_motion_min": None, "shake_max": None, "slideshow_max": None,
               "static_max": None, "vmaf_min": None, "mv_min": None, "mv_max": None, "shots_per_s_max": None},
    "scenes": {"doubt_max": None},
}  # fmt: skip


def recipe(*overrides: str, **content):
    return recipes.build({**RULES_OFF, "content": {"keep_all_below": 0, **content}}, overrides)


def clips(n: int, **columns) -> pa.Table:
    data = {
        "clip_id": [f"clip-{i:05d}" for i in range(n)],
        "source_id": [f"source-{i // 3:04d}" for i in range(n)],
        "width": [1920] * n,
        "height": [1080] * n,
        "fps": [24.0] * n,
        "duration_s": [8.0] * n,
        "human_score": [0.0] * n,
        "aesthetic": [4.8] * n,
    }
    data |= {name: list(values) for name, values in columns.items()}
    text = {name: pa.nulls(n, pa.string()) for name in ("copy_group", "semantic_group", "published_copy")}
    text |= {name: pa.array(data.pop(name), pa.string()) for name in text if name in data}
    text["cluster_id"] = pa.array(data.pop("cluster_id", [0] * n), pa.int64())
    return pa.table(text | data)


def part(table: pa.Table, rows: np.ndarray) -> pa.Table:
    return table.take(pa.array(rows))


def itself(table: pa.Table) -> pa.Table:
    return table


# --- which copy stays --------------------------------------------------------------------------------------


def test_of_copies_the_clean_rectangle_then_the_rate_then_the_bits_then_the_length_decides():
    group = dict(copy_group=["g"] * 3)
    for columns, best in (
        (dict(width=[1920, 1280, 1280], fps=[24.0, 60.0, 60.0]), 0),
        (dict(picture=[[0, 0, 1 / 3, 1 / 3], None, None], width=[1920, 1280, 1024]), 1),
        (dict(fps=[24.0, 25.0, 30.0], duration_s=[16.0, 8.0, 8.0]), 2),
        (dict(bits_per_pixel=[0.02, 0.3, None], duration_s=[8.0, 8.0, 16.0]), 1),
        (dict(duration_s=[8.0, 9.0, 8.5]), 1),
    ):
        found, _ = decide_all(clips(3, **group, **columns), recipe(keep=1.0))
        assert found.kept.tolist() == [i == best for i in range(3)], columns
        assert [d for d in found.duplicate_of if d] == [f"clip-{best:05d}"] * 2


def test_the_order_stands_in_the_recipe():
    table = clips(2, copy_group=["g", "g"], width=[1920, 1280], duration_s=[8.0, 16.0])
    found, _ = decide_all(table, recipe(keep=1.0, prefer=["duration", "resolution"]))
    assert found.kept.tolist() == [False, True]
    assert quality(table, ["fps", "bits_per_pixel"]).tolist() == [[24.0, -1.0]] * 2


def test_a_copy_that_the_rules_reject_rejects_nobody():
    table = clips(2, copy_group=["g", "g"], width=[3840, 1280], duration_s=[2.0, 8.0])
    found, _ = decide_all(table, recipe(keep=1.0))
    assert found.rejected_by.tolist() == ["scenes.duration_min_s", None]


def test_what_is_published_already_goes_before_its_copies_do():
    table = clips(2, copy_group=["g", "g"], width=[3840, 1280], published_copy=["old#1", None])
    found, _ = decide_all(table, recipe(keep=1.0, against=["old"]))
    assert found.rejected_by.tolist() == ["content.against", None]
    assert decide_all(table, recipe(keep=1.0))[0].rejected_by.tolist() == [None, "content.copy_threshold"]


def test_semantic_groups_lose_all_but_their_leader_and_only_where_it_is_asked_for():
    table = clips(3, semantic_group=["clip-00002"] * 3, width=[3840, 1280, 640])
    found, _ = decide_all(table, recipe(keep=1.0, semantic_threshold=0.98))
    assert found.kept.tolist() == [False, False, True]
    assert set(found.rejected_by[:2]) == {"content.semantic_threshold"}
    assert decide_all(table, recipe(keep=1.0))[0].kept.all()


# --- the sampling ------------------------------------------------------------------------------------------


def world(seed: int, n: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, max(n, 1), n)
    return clips(
        n,
        aesthetic=rng.uniform(3, 7, n),
        cluster_id=[int(c) if c < 9 else None for c in rng.integers(0, 10, n)],
        human_score=rng.random(n),
        width=rng.choice([1080, 1920, 1280], n),
        height=rng.choice([1080, 1920, 720], n),
        duration_s=rng.uniform(4, 16, n),
        copy_group=[f"g{g}" if g < n // 3 else None for g in group],
    )


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 200), st.floats(0.05, 1.0), st.integers(1, 7))
def test_decisions_and_sets_are_the_same_for_any_shards_and_any_order(seed, n, keep, shards):
    table, wanted = world(seed, n), recipe(keep=keep)
    whole, _ = decide_all(table, wanted)
    order = np.random.default_rng(seed).permutation(n // 3 + 1)  # sources stay together
    rows = np.arange(n)
    pieces = [rows[np.isin(rows // 3, some)][::-1] for some in np.array_split(order, shards)]
    tables = [part(table, piece) for piece in pieces]
    chosen = solve(itself, tables, wanted)
    for piece, found in zip(pieces, map(partial(decide, chosen=chosen, recipe=wanted), tables)):
        assert found.rejected_by.tolist() == whole.rejected_by[piece].tolist()
        assert found.duplicate_of.tolist() == whole.duplicate_of[piece].tolist()
        np.testing.assert_array_equal(found.keep_prob, whole.keep_prob[piece])
    done = table.append_column("kept", pa.array(whole.kept))
    done = done.append_column("media", pa.array(["m"] * n, pa.string(), mask=np.arange(n) % 11 == 0))
    masks, bucket, notes = sets.curriculum(done, wanted)
    tables = [part(done, piece) for piece in pieces]
    filled = sets.solve(itself, tables, wanted)
    assert list(filled.notes) == notes
    for piece, shard in zip(pieces, tables):
        mine, buckets = sets.members(shard, filled, wanted)
        assert buckets.tolist() == bucket[piece].tolist()
        assert all(mine[name].tolist() == masks[name][piece].tolist() for name in masks)


def test_every_clip_is_kept_with_the_root_of_t_over_the_size_of_its_concept():
    sizes = [1, 2, 5, 12, 80]
    cluster = np.repeat(np.arange(5), sizes)
    table = clips(100, cluster_id=cluster)
    runs = [decide_all(table, recipe(keep=0.5, seed=seed))[0] for seed in range(1500)]
    prob = runs[0].keep_prob
    often = np.mean([run.kept for run in runs], axis=0)
    assert np.abs(often - prob).max() < 5 * 0.5 / np.sqrt(1500)
    t = prob[-1] ** 2 * 80
    assert prob == pytest.approx(np.minimum(1, np.sqrt(t / np.repeat(sizes, sizes))))
    assert prob.sum() == pytest.approx(50)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 120), st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_raising_the_target_only_adds_clips(seed, n, one, other):
    kept = [decide_all(world(seed, n), recipe(keep=share))[0].kept for share in sorted((one, other))]
    assert not (kept[0] & ~kept[1]).any()


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(60, 400))
def test_when_footage_is_added_only_clips_whose_probability_moved_past_their_draw_change(seed, n):
    rng = np.random.default_rng(seed)
    more = clips(n + n // 10, cluster_id=rng.integers(0, 8, n + n // 10))
    before, _ = decide_all(more.slice(0, n), recipe(keep=0.6))
    after, _ = decide_all(more, recipe(keep=0.6))
    moved = np.abs(after.keep_prob[:n] - before.keep_prob)
    changed = after.kept[:n] != before.kept
    assert not changed[moved == 0].any()
    assert changed.mean() <= moved.mean() + 5 * np.sqrt((moved.mean() + 1e-9) / n)


def test_the_share_of_people_is_preserved_where_it_is_asked_for():
    # All people are in one big concept: sampling by size alone would thin them out.
    cluster = np.concatenate([np.zeros(2700, int), np.arange(1, 1801)])
    table = clips(4500, cluster_id=cluster, human_score=(cluster == 0).astype(float))
    kept = decide_all(table, recipe(keep=0.5))[0].kept
    assert (cluster == 0)[kept].mean() == pytest.approx(0.6, abs=0.03)
    thinned = decide_all(table, recipe(keep=0.5, keep_people=False))[0].kept
    assert (cluster == 0)[thinned].mean() < 0.4


@pytest.mark.parametrize(("keep", "wanted"), [("1000 clips", 1000), (0.25, 1000), ("2 hours", 900)])
def test_a_target_is_a_share_or_a_number_of_clips_or_hours(keep, wanted):
    cluster = np.random.default_rng(0).zipf(1.5, 4000).clip(max=50)
    found, notes = decide_all(clips(4000, cluster_id=cluster), recipe(keep=keep))
    assert np.nansum(found.keep_prob) == pytest.approx(wanted) and not notes
    assert found.kept.sum() == pytest.approx(wanted, rel=0.1)


def test_a_target_beyond_what_is_there_keeps_all_and_says_so():
    found, notes = decide_all(clips(50), recipe(keep="5000 clips"))
    assert found.kept.all() and notes == ("content.keep asks for 5000 clips and 50 are there: all are kept.",)


def test_a_few_clips_are_all_kept_and_it_is_said():
    found, notes = decide_all(clips(39), recipe(keep=0.5, keep_all_below=40))
    assert found.kept.all() and "all 39 clips are kept" in notes[0]
    assert not decide_all(clips(40), recipe(keep=0.5, keep_all_below=40))[0].kept.all()


@pytest.mark.parametrize("keep", [0, 1.2, "some clips", "-3 clips", "3 days", "inf hours", ".nan"])
def test_a_target_that_makes_no_sense_is_a_sentence_with_its_key(keep):
    with pytest.raises(RecipeError, match=r"content.keep"):
        recipe(f"content.keep={keep}")


def test_no_clips_have_no_decisions():
    found, notes = decide_all(clips(3).slice(0, 0), recipe(keep=0.5))
    assert not len(found.kept) and not notes
