"""Net win rates: the interval holds what it promises, also where pairs are few."""

from __future__ import annotations

import numpy as np
import pytest

from rushes.pipelines.review.winrate import majority, net_win_rate

RATERS = ((0.3, 0.3), (0.45, 0.25), (0.7, 0.1), (0.9, 0.05), (0.05, 0.02))  # a rater's share of a and of b


def test_a_majority_of_three_decides_and_no_majority_is_a_tie():
    assert majority(["a", "a", "b"]) == "a" and majority(["b", "tie", "b"]) == "b"
    assert majority(["a", "b", "tie"]) == majority(["a", "tie", "tie"]) == majority(["a", "b"]) == "tie"


def test_the_rate_counts_ties_and_mirrors_when_the_models_are_swapped():
    rate, low, high = net_win_rate(30, 10, 60)
    assert rate == pytest.approx(20.0) and low < 20 < high
    assert net_win_rate(10, 30, 60) == pytest.approx((-rate, -high, -low))
    assert net_win_rate(0, 0, 0) is None


def test_no_pair_lost_is_not_certain_to_win():
    assert net_win_rate(12, 0, 0)[:1] == (100.0,) and 45 < net_win_rate(12, 0, 0)[1] < 60
    assert net_win_rate(0, 0, 40)[1:] == pytest.approx((-8.8, 8.8), abs=0.2)


@pytest.mark.parametrize("pairs", [25, 100, 381])
def test_95_of_100_intervals_hold_the_true_rate(pairs):
    """Three raters a pair, their majority; the true rate is that of majorities, exact from a rater's shares."""
    rng = np.random.default_rng(7)
    held = []
    for a, b in RATERS:
        win, loss = (p**3 + 3 * p**2 * (1 - p) for p in (a, b))
        counts = rng.multinomial(pairs, [win, loss, 1 - win - loss], size=400)
        kinds, times = np.unique(counts, axis=0, return_counts=True)
        inside = []
        for wins, losses, ties in kinds:
            _, low, high = net_win_rate(int(wins), int(losses), int(ties))
            inside.append(low <= 100 * (win - loss) <= high)
        held.append(float(np.average(inside, weights=times)))
    assert 0.94 <= np.mean(held) <= 0.975 and min(held) >= 0.92, held
