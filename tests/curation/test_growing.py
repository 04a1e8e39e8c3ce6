"""Claims about concepts that grow with the footage: old labels stay, what is unlike all of them gets new numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.curation import manifest, storage
from rushes.curation.content.concepts import BINS, OUTSIDE, Concepts, Tally, tallied
from rushes.curation.content.groups import measure_table
from tests.curation.test_groups import SEEDS, clips, groups, measured, recipe

DIM = 24


def cloud(rng: np.random.Generator, centre: np.ndarray, size: int, spread: float) -> np.ndarray:
    """Rows around a centre at a cosine of about 1 / sqrt(1 + spread ** 2)."""
    noise = rng.normal(size=(size, len(centre))) / np.sqrt(len(centre))
    return centre / np.linalg.norm(centre) + spread * noise


def world(rng: np.random.Generator, concepts: int, size: int, spread: float) -> np.ndarray:
    centres = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:concepts]
    return np.concatenate([cloud(rng, centre, size, spread) for centre in centres])


def publish(folder: Path, table: pa.Table, **content) -> str:
    """A run with these clips' concepts and labels."""
    found, concepts = measure_table(table, str(folder / "work"), recipe(**content))
    rows = found.select(["clip_id", "cluster_id"]).append_column("kept", pa.array([True] * table.num_rows))
    manifest.publish(str(folder), {"clips": rows, "embeddings": table, "concepts": concepts}, {})
    return str(folder)


def labels(found: dict[str, dict]) -> dict[str, int | None]:
    return {name: row["cluster_id"] for name, row in found.items()}


def test_the_reach_of_a_concept_leaves_one_clip_in_a_hundred_outside():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 5000) * 2  # labels 1, 3, 5, 7 have no clips
    cosine = rng.uniform(0.2, 1.0, 5000).astype(np.float32)
    rows = rng.integers(-100, 100, (5000, 3)).astype(np.int16)
    tallies = [tallied(rows[some], label[some], cosine[some], 8) for some in np.array_split(np.arange(5000), 7)]
    tally = sum(tallies, Tally.nothing((8, 3)))
    whole = tallied(rows, label, cosine, 8)
    assert (tally.total == whole.total).all() and (tally.reach() == whole.reach()).all()
    for one in (0, 2, 4, 6):
        mine = np.sort(cosine[label == one])
        outside = (mine < tally.reach()[one]).sum()
        assert outside <= len(mine) // OUTSIDE
        assert mine[len(mine) // OUTSIDE] - tally.reach()[one] <= 2 / BINS
    assert (tally.reach()[1::2] == 1).all()


@settings(max_examples=5, deadline=None)
@given(SEEDS, st.integers(2, 6), st.integers(0, 3), st.floats(0.1, 0.6), st.integers(1, 4))
def test_old_clips_keep_their_labels_and_unlike_ones_get_new_numbers(seed, old, new, spread, shards):
    rng, size = np.random.default_rng(seed), 60
    rows = world(rng, old + new, size, spread)
    first = clips(rows[: old * size], ids=[f"old-{i}" for i in range(old * size)])
    with tempfile.TemporaryDirectory() as folder:
        run = publish(Path(folder) / "first", first, clusters=old * 3, merge_threshold=0.5)
        before = dict(zip(*(storage_rows(run)[name] for name in ("clip_id", "cluster_id"))))
        more = clips(rows[old * size :], ids=[f"new-{i}" for i in range(new * size)]) if new else first.slice(0, 0)
        both = pa.concat_tables([first, more]).take(pa.array(rng.permutation((old + new) * size)))
        found = measured(both, Path(folder) / "second", shards, join=run, clusters=100, merge_threshold=0.5)
        again = measured(both, Path(folder) / "third", 1, join=run, clusters=100, merge_threshold=0.5)
    after = labels(found)
    assert {name: after[name] for name in before} == before
    assert labels(again) == after
    fresh = [after[f"new-{i}"] for i in range(new * size)]
    assert all(label > max(before.values()) for label in fresh)
    assert len(set(fresh)) == new
    assert all(len(set(fresh[at : at + size])) == 1 for at in range(0, new * size, size))


def storage_rows(run: str) -> dict[str, list]:
    return manifest.open_run(run).table("clips", ["clip_id", "cluster_id"]).to_pydict()


@settings(max_examples=3, deadline=None)
@given(SEEDS, st.floats(0.1, 0.5))
def test_more_of_what_was_there_makes_no_new_concept(seed, spread):
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:4]
    first = np.concatenate([cloud(rng, centre, 200, spread) for centre in centres])
    more = np.concatenate([cloud(rng, centre, 100, spread) for centre in centres])
    with tempfile.TemporaryDirectory() as folder:
        run = publish(Path(folder) / "first", clips(first), clusters=8, merge_threshold=0.5)
        known = set(storage_rows(run)["cluster_id"])
        ids = [f"new-{i}" for i in range(400)]
        found = measured(clips(more, ids=ids), Path(folder) / "second", 2, join=run, clusters=100, merge_threshold=0.5)
    assert set(labels(found).values()) <= known


def test_a_set_grows_week_by_week_and_every_label_stays(tmp_path):
    rng, size = np.random.default_rng(4), 40
    rows = world(rng, 8, size, 0.3)
    runs, seen = [], {}
    for week in range(4):
        stop = (2 + 2 * week) * size
        table = clips(rows[:stop], ids=[f"clip-{i}" for i in range(stop)])
        join = {"join": runs[-1]} if runs else {}
        runs.append(publish(tmp_path / f"week-{week}", table, clusters=50, merge_threshold=0.5, **join))
        now = dict(zip(*(storage_rows(runs[-1])[name] for name in ("clip_id", "cluster_id"))))
        assert {name: now[name] for name in seen} == seen
        seen = now
    found = Concepts.of(manifest.open_run(runs[-1]).table("concepts"))
    assert len(set(seen.values())) == 8 and sorted(set(found.generation.tolist())) == [0, 1, 2, 3]
    assert found.clips.sum() == 8 * size


def test_a_few_strange_clips_join_the_nearest_old_concept(tmp_path):
    rng = np.random.default_rng(5)
    rows = world(rng, 3, 60, 0.2)
    run = publish(tmp_path / "first", clips(rows[:120]), clusters=6, merge_threshold=0.5)
    few = clips(rows[120:135], ids=[f"new-{i}" for i in range(15)])
    found = measured(few, tmp_path / "second", join=run, merge_threshold=0.5)
    assert set(labels(found).values()) <= {0, 1}
    enough = clips(rows[120:136], ids=[f"new-{i}" for i in range(16)])
    found = measured(enough, tmp_path / "third", join=run, merge_threshold=0.5)
    assert set(labels(found).values()) == {2}


def test_clips_that_were_not_looked_at_stay_without_a_concept(tmp_path):
    run = publish(tmp_path / "first", clips(groups(3, 20, dim=DIM)), clusters=6)
    rows = groups(2, 20, seed=9, dim=DIM)
    rows[::4] = np.nan
    found = measured(clips(rows, ids=[f"new-{i}" for i in range(40)]), tmp_path / "second", join=run)
    assert [row["cluster_id"] is None for row in found.values()] == [i % 4 == 0 for i in range(40)]
    assert storage.exists(str(tmp_path / "second" / "work" / "concepts.parquet"))
