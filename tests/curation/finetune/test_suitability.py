"""A score learns a rule from few, partly wrong decisions, asks where it is unsure, and is kept without code."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rushes.curation.finetune.suitability import FitError, Score, fit, gain, uncertainty

NAMES = [f"signal_{n}" for n in range(12)]
NOISE = 0.1  # share of decisions that contradict the rule
POOL, TEST = 3_000, 1_000


def world(seed: int):
    """Signals of clips of 60 sources, which of them the known rule accepts, and what people with 10 % noise say."""
    rng = np.random.default_rng(seed)
    sources = rng.integers(0, 60, POOL + TEST)
    values = 0.8 * rng.normal(size=(POOL + TEST, 12)) + 0.6 * rng.normal(size=(60, 12))[sources]
    raw = values[:, :4] @ [1.5, -1.2, 1.0, 0.8]
    truth = raw > np.quantile(raw, 0.6)
    return values, truth, truth ^ (rng.random(POOL + TEST) < NOISE), sources.astype(str).tolist()


def learn(seed: int, active: bool, most: int, batch: int = 50) -> float:
    """AUC against the rule, on clips never decided on, after `most` decisions."""
    values, truth, said, sources = world(seed)
    rng = np.random.default_rng(seed)
    asked = list(rng.permutation(POOL)[:50])
    while True:
        done = len(asked) >= most
        if active or done:
            score, _ = fit(NAMES, values[asked], None, said[asked], [sources[n] for n in asked])
        if done:
            return float(roc_auc_score(truth[POOL:], score(values[POOL:], None)))
        rest = np.setdiff1d(np.arange(POOL), asked)
        order = np.argsort(uncertainty(score(values[rest], None))) if active else rng.permutation(len(rest))
        asked += rest[order[:batch]].tolist()


def test_300_decisions_with_noise_are_enough_and_asking_what_is_unsure_takes_half_as_many():
    seeds = (0, 1)
    at_random = [learn(seed, False, 300) for seed in seeds]
    asking = [learn(seed, True, 150) for seed in seeds]
    assert min(at_random) >= 0.9
    assert np.mean(asking) >= np.mean(at_random)


def test_the_error_is_told_on_sources_that_were_left_out():
    """What only names the source is no knowledge: a score that learnt it must be told to know nothing."""
    rng = np.random.default_rng(0)
    sources = np.repeat(np.arange(20), 15)
    values = np.eye(20)[sources] + 0.01 * rng.normal(size=(300, 20))
    accepted = (sources % 2 == 0) ^ (rng.random(300) < 0.05)
    _, report = fit([f"s{n}" for n in range(20)], values, None, accepted, sources.astype(str).tolist())
    assert report.auc < 0.65 and report.error > 0.3


def test_embeddings_and_signals_that_are_missing_are_no_obstacle():
    values, _, said, sources = world(5)
    vectors = np.full((400, 16), np.nan, np.float32)
    vectors[:300] = np.random.default_rng(1).normal(size=(300, 16))
    some = values[:400].copy()
    some[::7, 2] = np.nan
    some[:, 11] = np.nan
    score, report = fit(NAMES, some, vectors, said[:400], sources[:400])
    found = score(some, vectors)
    assert np.isfinite(found).all() and report.auc > 0.8
    assert abs(found.mean() - said[:400].mean()) < 0.05  # calibrated: on average as often as people accept


def test_a_score_is_kept_as_json_and_reads_back_the_same(tmp_path):
    values, _, said, sources = world(2)
    score, report = fit(NAMES, values[:200], None, said[:200], sources[:200])
    data = score.to_json({"auc": report.auc})
    again = Score.from_json(data)
    assert again(values[:50], None) == pytest.approx(score(values[:50], None), abs=1e-12)
    broken = json.loads(data)
    broken["score"]["weights"] = broken["score"]["weights"][:3]
    for wrong in (b"no json", b"{}", json.dumps(broken).encode()):
        with pytest.raises(FitError, match="no file of"):
            Score.from_json(wrong)


def test_too_few_decisions_are_told():
    values, _, said, sources = world(2)
    with pytest.raises(FitError, match="12 decisions"):
        fit(NAMES, values[:12], None, said[:12], sources[:12])
    with pytest.raises(FitError, match="too few"):
        fit(NAMES, values[:100], None, np.zeros(100, bool), sources[:100])
    with pytest.raises(FitError, match="one source"):
        fit(NAMES, values[:100], None, said[:100], ["a"] * 100)


def test_the_gain_of_each_hundred_decisions_is_a_curve():
    values, _, said, sources = world(4)
    curve = gain(NAMES, values[:250], None, said[:250], sources[:250])
    assert [row["decisions"] for row in curve] == [100, 200, 250]
    assert all(0.5 < row["auc"] <= 1 for row in curve)
