"""Claims about copy groups and concepts over shards: what belongs together, whoever measures it in whatever order."""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rushes.curation import manifest, storage
from rushes.curation import recipe as recipes
from rushes.curation.content import arrays, pairs
from rushes.curation.content.cells import fit, probe
from rushes.curation.content.concepts import merged
from rushes.curation.content.grid import GRID, lengths, nearest, on_grid
from rushes.curation.content.groups import measure, measure_table
from rushes.curation.content.leaders import Graph, leaders
from rushes.curation.content.published import check
from rushes.curation.manifest import ManifestError

SEEDS = st.integers(0, 2**31 - 1)


def recipe(**content):
    return recipes.build({"content": content})


def clips(copy: np.ndarray, semantic: np.ndarray | None = None, ids: list[str] | None = None) -> pa.Table:
    """Rows of a shard; a row of NaN is a clip that was not looked at."""
    semantic = copy if semantic is None else semantic

    def column(rows: np.ndarray) -> pa.Array:
        rows = np.asarray(rows, np.float32)
        values = [None if np.isnan(row).all() else row.tolist() for row in rows]
        return pa.array(values, pa.list_(pa.float32(), rows.shape[1]))

    ids = ids or [f"clip-{i:05d}" for i in range(len(copy))]
    return pa.table({"clip_id": pa.array(ids, pa.string()), "copy": column(copy), "semantic": column(semantic)})


def unit(*angles_deg: float) -> np.ndarray:
    a = np.radians(angles_deg)
    return np.stack([np.cos(a), np.sin(a)], axis=1).astype(np.float32)


def groups(n: int, members: int, seed: int = 0, dim: int = 32, noise: float = 0.02) -> np.ndarray:
    """n far-apart directions, each given `members` times with a little noise (cosine about 0.99)."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.normal(size=(n, dim)), members, axis=0)
    return (rows + noise * rng.normal(size=rows.shape)).astype(np.float32)


def measured(table: pa.Table, folder: Path, shards: int = 1, mapper=map, **content) -> dict[str, dict]:
    """Rows of the result by clip id, with the table cut into so many shards."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = np.linspace(0, table.num_rows, shards + 1).astype(int)
    uris = [str(folder / f"shard-{i}.parquet") for i in range(shards)]
    for i, uri in enumerate(uris):
        pq.write_table(table.slice(ends[i], ends[i + 1] - ends[i]), uri, row_group_size=100)
    files = measure(uris, str(folder / "work"), recipe(**content), mapper)
    found = [storage.read_table(file) for file in files]
    assert [t["clip_id"].to_pylist() for t in found] == [pq.read_table(u)["clip_id"].to_pylist() for u in uris]
    return {row["clip_id"]: row for t in found for row in t.to_pylist()}


# --- the grid ----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 300), st.floats(1e-30, 1e30))
def test_cosines_on_the_grid_are_whole_products_and_right_to_a_ten_thousandth(seed, width, scale):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(8, width)) + 2 * rng.normal(size=width)
    grid = on_grid(rows * scale)
    product = grid.astype(np.float32) @ grid.astype(np.float32).T
    assert (product == grid.astype(np.int64) @ grid.astype(np.int64).T).all()
    exact = rows @ rows.T / np.linalg.norm(rows, axis=1)[:, None] / np.linalg.norm(rows, axis=1)
    assert np.abs(product / lengths(grid)[:, None] / lengths(grid) - exact).max() < 3e-4


def test_the_longest_rows_of_the_widest_vectors_stay_exact():
    rows = on_grid(np.ones((2, 4096)))
    assert np.abs(rows.astype(np.int64)).sum() > 0 and (rows.astype(np.int64) ** 2).sum(axis=1).max() <= 2**24
    with pytest.raises(ValueError, match="up to 4096"):
        on_grid(np.ones((1, 4097)))


def test_rows_without_a_direction_are_zeros():
    rows = on_grid(np.array([[0, 0], [np.nan, 1], [np.inf, 0], [3, 4]], np.float32))
    assert not rows[:3].any() and rows[3].tolist() == [round(0.6 * GRID), round(0.8 * GRID)]


# --- copies ------------------------------------------------------------------------------------------------


def greedy(grid: np.ndarray, order: np.ndarray, threshold: float) -> list[int]:
    """Leader of every row on the grid by comparing each with all that lead before it."""
    cosine = (grid.astype(float) @ grid.T.astype(float)) / lengths(grid)[:, None] / lengths(grid)
    lead: list[int] = []
    leader = list(range(len(grid)))
    for row in order:
        near = [(-cosine[row, other], place) for place, other in enumerate(lead) if cosine[row, other] >= threshold]
        if near:
            leader[row] = lead[min(near)[1]]
        else:
            lead.append(row)
    return leader


def led_by(near: np.ndarray, same: np.ndarray, files: int) -> tuple[np.ndarray, np.ndarray]:
    """The leaders of pairs that lie in so many files, some of them in two."""
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{folder}/near-{i}.npy" for i in range(files)]
        for i, name in enumerate(names):
            arrays.save(name, near[(np.arange(len(near)) % files == i) | (np.arange(len(near)) % 5 == 0)])
        graph = Graph(tuple(names), same, folder, "test")
        return leaders(graph, graph.nodes(map), map)


@example(seed=502, n=61, threshold=0.3)
@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 70), st.sampled_from([0.3, 0.7, 0.95]))
def test_groups_agree_with_comparing_every_pair(seed, n, threshold):
    rng = np.random.default_rng(seed)
    rows, names = on_grid(rng.normal(size=(n, 3))), rng.permutation(n).astype(np.uint64)
    cells = fit(rows, 1)
    entries, of, same = pairs.scatter(rows, names, cells)
    near, drawn = pairs.pairs(entries, rows[of], threshold)
    members, led = led_by(near, np.concatenate([same, drawn]), files=1 + seed % 3)
    found = dict(zip(members.tolist(), led.tolist()))
    wanted = greedy(rows, np.argsort(names), threshold)
    for row, leader in enumerate(wanted):
        alone = leader == row and wanted.count(row) == 1
        assert found.get(int(names[row])) == (None if alone else int(names[leader]))


def test_copies_are_found_across_cells_as_comparing_all_pairs_finds_them():
    rng = np.random.default_rng(0)
    base = groups(60, 40, noise=0.6)  # clouds, so that copies lie on the borders of cells as well
    noise = rng.normal(size=(600, 32))
    some = base[rng.choice(len(base), 600)]
    some = some / np.linalg.norm(some, axis=1, keepdims=True)
    noise -= (noise * some).sum(axis=1, keepdims=True) * some
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = rng.uniform(0.9, 1, 600)[:, None]
    rows = on_grid(np.concatenate([base, cosine * some + np.sqrt(1 - cosine**2) * noise]))
    names = np.arange(len(rows), dtype=np.uint64)
    entries, of, _ = pairs.scatter(rows, names, fit(rows, 40))
    near, _ = pairs.pairs(entries, rows[of], 0.9)
    product = np.triu(rows.astype(np.float32) @ rows.T.astype(np.float32), 1)
    left, right = np.nonzero(product >= 0.9 * lengths(rows)[:, None] * lengths(rows))
    truth = set(zip(left.tolist(), right.tolist()))
    found = set(zip(near["a"].tolist(), near["b"].tolist()))
    assert len(truth) > 600 and found <= truth
    assert len(found) >= 0.99 * len(truth)


def test_nothing_chains_and_a_follower_names_the_leader_it_is_most_like():
    some = np.array([(1, 2, 0.95), (2, 3, 0.96), (3, 4, 0.99), (1, 4, 0.91)], pairs.PAIR)
    members, led = led_by(some, np.empty(0, pairs.PAIR), files=2)
    assert dict(zip(members.tolist(), led.tolist())) == {1: 1, 2: 1, 3: 3, 4: 3}


def test_a_crowd_of_near_copies_does_not_become_a_square_of_pairs(tmp_path):
    rows = np.concatenate([groups(1, 3000, noise=0.005), groups(50, 2, seed=1)])
    found = measured(clips(rows), tmp_path)
    crowd = {found[f"clip-{i:05d}"]["copy_group"] for i in range(3000)}
    assert len(crowd) == 1 and None not in crowd
    size = sum(storage.resolve(str(p))[0].get_file_info(str(p)).size for p in tmp_path.glob("work/content/near-*"))
    assert size < 20 * 40 * len(rows)


def test_clips_that_are_all_identical_are_one_group_and_one_concept(tmp_path):
    found = measured(clips(np.ones((500, 16))), tmp_path, shards=3)
    leaders = {row["copy_group"] for row in found.values()}
    assert leaders <= set(found) and len(leaders) == 1
    assert {row["cluster_id"] for row in found.values()} == {0}


@pytest.mark.parametrize("n", [0, 1, 2])
def test_very_few_clips_are_measured(tmp_path, n):
    found = measured(clips(unit(*range(0, 90 * n, 90)).reshape(n, 2)), tmp_path)
    assert [row["copy_group"] for row in found.values()] == [None] * n
    assert [row["cluster_id"] for row in found.values()] == [0] * n


def test_clips_without_a_direction_belong_to_nothing(tmp_path):
    rows = np.concatenate([np.zeros((2, 8)), np.full((2, 8), np.nan), np.ones((3, 8))]).astype(np.float32)
    rows[3] = np.where(np.arange(8) == 1, np.nan, 1.0)
    found = list(measured(clips(rows), tmp_path).values())
    assert [row["cluster_id"] for row in found] == [None] * 4 + [0] * 3
    assert [row["copy_group"] is None for row in found] == [True] * 4 + [False] * 3


def test_shards_in_which_nobody_was_looked_at_have_neither_groups_nor_concepts(tmp_path):
    table = pa.table({"clip_id": ["a", "b"], "copy": pa.nulls(2), "semantic": pa.nulls(2)})
    found = measured(table, tmp_path)
    assert all(row["copy_group"] is None and row["cluster_id"] is None for row in found.values())


# --- concepts ----------------------------------------------------------------------------------------------


def test_concepts_follow_the_groups_and_are_numbered_by_size(tmp_path):
    rows = np.concatenate([groups(1, 10, seed=1), groups(1, 40, seed=2), groups(1, 20, seed=3)])
    found = measured(clips(rows), tmp_path, clusters=12)
    assert [row["cluster_id"] for row in found.values()] == [2] * 10 + [0] * 40 + [1] * 20


def test_a_concept_that_k_means_split_is_merged_again(tmp_path):
    rows = groups(2, 60)
    split = measured(clips(rows), tmp_path / "a", clusters=10, merge_threshold=1.0)
    assert len({row["cluster_id"] for row in split.values()}) > 2
    whole = measured(clips(rows), tmp_path / "b", clusters=10)
    assert len({row["cluster_id"] for row in whole.values()}) == 2


def test_merging_joins_no_two_centres_below_the_threshold():
    arc = on_grid(unit(*np.linspace(0, 90, 40)))
    name = merged(arc, np.ones(40, np.int64), 0.95)
    assert 2 < len(np.unique(name)) < 40
    for one in np.unique(name):
        inside = arc[name == one].astype(float)
        inside /= np.linalg.norm(inside, axis=1, keepdims=True)
        assert (inside @ inside.T).min() > 0.95 - 1e-6


def test_a_row_goes_to_its_nearest_cell_first_and_to_no_cell_twice():
    rows = on_grid(np.random.default_rng(0).normal(size=(800, 16)))
    cells = fit(rows, 25)
    where = probe(rows, cells, tops=len(cells.tops), most=6, margin=0.3)
    assert (where[:, 0] == nearest(rows, cells.leaves)[0]).all()
    for row in where:
        assert len(set(row[row >= 0])) == (row >= 0).sum()


# --- the same whoever measures -----------------------------------------------------------------------------


def test_groups_and_concepts_are_the_same_for_any_order_shards_and_workers(tmp_path):
    rng = np.random.default_rng(3)
    table = clips(groups(250, 6, noise=0.25), rng.normal(size=(1500, 12)) + 2 * groups(30, 50, dim=12))
    first = measured(table, tmp_path / "one", clusters=60, semantic_threshold=0.97)
    for column in ("copy_group", "semantic_group", "cluster_id"):
        assert len({row[column] for row in first.values()}) > 20, column
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rushes.curation.content", "scipy.sparse.csgraph", "pyarrow.parquet"])
    for workers in (1, 2, 7):
        mixed = table.take(pa.array(rng.permutation(table.num_rows)))
        with context.Pool(workers) as pool:
            again = measured(mixed, tmp_path / f"{workers}", workers, pool.imap, clusters=60, semantic_threshold=0.97)
        assert again == first


def test_a_killed_measurement_repeats_only_what_was_not_finished(tmp_path):
    table = clips(groups(50, 6))
    done = []

    def counted(function, items):
        for item in items:
            if len(done) == 4:
                raise KeyboardInterrupt
            done.append(item)
            yield function(item)

    with pytest.raises(KeyboardInterrupt):
        measured(table, tmp_path, 3, counted)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("work/content/*")}
    assert files
    uris = sorted(str(p) for p in tmp_path.glob("shard-*.parquet"))
    measure(uris, str(tmp_path / "work"), recipe())
    assert all(path.stat().st_mtime_ns == then for path, then in files.items())


# --- what cannot be measured is a sentence -----------------------------------------------------------------


def test_a_missing_shard_and_one_that_is_no_parquet_are_named(tmp_path):
    with pytest.raises(ManifestError, match=r"shard .*gone.parquet is not there"):
        measure([str(tmp_path / "gone.parquet")], str(tmp_path / "work"), recipe())
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(ManifestError, match=r"text.parquet cannot be read"):
        measure([str(tmp_path / "text.parquet")], str(tmp_path / "work"), recipe())


def test_vectors_of_two_widths_are_refused(tmp_path):
    for name, width in (("a", 8), ("b", 9)):
        pq.write_table(clips(np.ones((3, width)), ids=[name + str(i) for i in range(3)]), tmp_path / f"{name}.parquet")
    with pytest.raises(ManifestError, match=r"8 numbers in .* and 9 in .*different models"):
        measure([str(tmp_path / f"{n}.parquet") for n in "ab"], str(tmp_path / "work"), recipe())


# --- semantic near-duplicates ------------------------------------------------------------------------------


def test_of_clips_alike_in_content_the_one_furthest_from_its_centre_leads(tmp_path):
    # One concept around 17 degrees: 0 and 2 are alike, and 0 is further from the centre.
    semantic = unit(-30, -20, -10, 0, 2, 80, 100)
    found = list(measured(clips(groups(7, 1), semantic), tmp_path, clusters=1, semantic_threshold=0.999).values())
    assert [row["semantic_group"] for row in found[:3]] == [None] * 3
    assert found[3]["semantic_group"] == found[4]["semantic_group"] == "clip-00003"


# --- growing a set -----------------------------------------------------------------------------------------


def published(folder: Path, table: pa.Table, kept: np.ndarray, models: list[str] | None = None, **content) -> str:
    """A run of these clips with their concepts; models: which of them made the vectors."""
    _, concepts = measure_table(table, str(folder / "work"), recipe(**content))
    rows = pa.table({"clip_id": table["clip_id"], "kept": pa.array(kept, pa.bool_())})
    rows = rows.append_column("look_models", pa.array([None, *[models] * (len(rows) - 1)], pa.list_(pa.string())))
    manifest.publish(str(folder), {"clips": rows, "embeddings": table, "concepts": concepts}, {})
    return str(folder)


def test_what_an_older_run_keeps_is_found_again_and_what_it_dropped_is_not(tmp_path):
    old = groups(40, 1, seed=5)
    run = published(tmp_path / "old", clips(old, ids=[f"old-{i}" for i in range(40)]), np.arange(40) % 2 == 0)
    new = np.concatenate([old[:10] + 0.01, groups(30, 1, seed=6)])
    found = list(measured(clips(new), tmp_path / "new", shards=2, against=[run]).values())
    assert [row["published_copy"] for row in found[:10:2]] == [f"{run}#old-{i}" for i in range(0, 10, 2)]
    assert all(row["published_copy"] is None for row in [*found[1:10:2], *found[10:]])


def test_an_older_run_by_another_model_of_the_same_width_is_refused_before_anything_is_compared(tmp_path):
    rows = np.random.default_rng(0).normal(size=(6, 8))
    run = published(tmp_path / "old", clips(rows), np.ones(6, bool), models=["copy: sscd@12", "semantic: ViT-X/one"])
    for content, said in (
        (dict(against=[run]), r"content.against, holds 'copy' vectors by sscd@12, and this recipe .* measured-edges"),
        (dict(join=run), r"content.join, holds 'semantic' vectors by ViT-X/one, and this recipe .* measured-colour"),
    ):
        with pytest.raises(ManifestError, match=said):
            check(recipe(**content))
        with pytest.raises(ManifestError, match=said):
            measured(clips(rows), tmp_path / "new", **content)
    same = recipes.build(
        {"content": {"join": run}, "models": {"semantic": "clip", "clip": "ViT-X", "clip_weights": "one"}}
    )
    check(same)


@pytest.mark.parametrize("key", ["against", "join"])
def test_an_older_run_that_is_none_is_named_with_its_key(tmp_path, key):
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=rf"content.{key}: .*nowhere holds no published run"):
        check(recipe(**{key: [nowhere] if key == "against" else nowhere}))
    rows = pa.table({"clip_id": ["a"], "kept": [True]})
    bare = manifest.publish(str(tmp_path / "bare"), {"clips": rows}, {}).root
    with pytest.raises(ManifestError, match=rf"named by content.{key}, has no table"):
        check(recipe(**{key: [bare] if key == "against" else bare}))


def test_an_older_run_of_another_width_or_without_vectors_is_a_sentence(tmp_path):
    run = published(tmp_path / "old", clips(np.ones((4, 8))), np.ones(4, bool))
    with pytest.raises(ManifestError, match="vectors of 8 numbers, and this run's have 16"):
        measured(clips(np.ones((4, 16))), tmp_path / "new", against=[run])
    with pytest.raises(ManifestError, match=r"content.join.* 8 numbers.*16"):
        measured(clips(np.ones((4, 16))), tmp_path / "newer", join=run)
    with pytest.raises(ManifestError, match="holds no published run"):
        measured(clips(np.ones((4, 8))), tmp_path / "third", against=[str(tmp_path / "nowhere")])


def test_new_footage_joins_the_concepts_of_an_older_run(tmp_path):
    old = groups(5, 30, seed=7)
    table = clips(old, ids=[f"old-{i}" for i in range(150)])
    run = published(tmp_path / "old", table, np.ones(150, bool), clusters=20)
    before = measured(table, tmp_path / "again", clusters=20)
    assert len({row["cluster_id"] for row in before.values()}) == 5
    new = groups(5, 30, seed=7)[::-1][:60]
    found = list(measured(clips(new), tmp_path / "new", join=run, clusters=20).values())
    assert [row["cluster_id"] for row in found] == [row["cluster_id"] for row in list(before.values())[::-1][:60]]
