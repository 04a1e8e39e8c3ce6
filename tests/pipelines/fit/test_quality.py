"""Footage is made worse as its change says, and a model that is fitted on a little of it is the same again."""

from __future__ import annotations

import numpy as np
import pytest

from rushes.curation import kernel
from rushes.curation.visual.quality import FEATURES
from rushes.pipelines.demo.film import clip_path
from rushes.pipelines.fit import degrade, quality
from rushes.pipelines.fit.degrade import Change, Window


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("fit") / "original.mkv"
    degrade.reference(Window(clip_path("carphone"), 0.5), path, np.random.default_rng(0))
    return path


def test_what_was_made_worse_by_more_has_less_vmaf(original, tmp_path):
    def scored(crf: int) -> float:
        made = tmp_path / f"{crf}.mkv"
        degrade.write(Change("h264", (), ("-c:v", "libx264", "-preset", "veryfast", "-crf", crf)), original, made)
        stats = quality.looks(made)
        assert stats.shape[1] == FEATURES and np.isfinite(stats).all() and len(stats) >= 3
        return float(degrade.vmaf(made, original, tmp_path / "log.csv").mean())

    fine, coarse = scored(12), scored(45)
    assert fine > 90 and coarse < 50


@pytest.mark.parametrize(
    ("codec", "expected"), [(("libx264", "-qp", 31), (31, 1, 0)), (("mpeg4", "-q:v", 8), (28, 0, 1))]
)
def test_the_quantiser_is_the_encoders_on_one_scale(original, tmp_path, codec, expected):
    made = tmp_path / "made.mkv"
    degrade.write(Change("h264", (), ("-c:v", *codec, "-bf", 0)), original, made)
    value, h264, mpeg = quality.looks(made)[1:, -3:].mean(axis=0)
    assert value == pytest.approx(expected[0], abs=1.5) and (h264, mpeg) == expected[1:]


def test_every_kind_of_change_is_drawn_with_a_strength_of_its_own():
    rng = np.random.default_rng(4)
    for kind in degrade.KINDS:
        some = {(change.filters, change.codec) for change in (degrade.draw(kind, (320, 180), rng) for _ in range(4))}
        assert len(some) > 1, kind


def test_a_fit_on_few_files_is_the_same_again(tmp_path):
    rng = np.random.default_rng(1)
    truth = rng.uniform(0, 100, 60)
    found = [
        quality.Example(f"source{n % 6}", "blur", rng.normal(v / 50, 0.2, (3, FEATURES)).astype(np.float32), float(v))
        for n, v in enumerate(truth)
    ]
    said = [quality.fit(found, tmp_path / f"{n}.npz") for n in (1, 2)]
    assert said[0] == said[1] and said[0]["rank correlation"] > 0.95
    models = [kernel.load(tmp_path / f"{n}.npz", "told") for n in (1, 2)]
    rows = np.stack([example.stats.mean(axis=0) for example in found])
    told = models[0](rows)
    assert np.array_equal(told, models[1](rows))
    assert np.abs(told - truth).mean() < 10
