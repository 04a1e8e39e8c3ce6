"""Net win rate of one model against another, from people's votes on pairs. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

A, B, TIE = "a", "b", "tie"
Z95 = 1.959963984540054  # of the normal distribution: 95 % lie between -Z95 and Z95


def majority(votes: Sequence[str]) -> str:
    """What more than half of a pair's raters say (a or b), else a tie."""
    (first, count), *_ = Counter(votes).most_common(1) or [(TIE, 0)]
    return first if 2 * count > len(votes) else TIE


def net_win_rate(wins: int, losses: int, ties: int) -> tuple[float, float, float] | None:
    """(win % - loss %, and its 95 % interval), -100 to 100; None without pairs.

    Tango's score interval of a difference of paired proportions (Statistics in Medicine 17, 1998): it keeps its
    coverage where there are few pairs or nearly all go one way, which a bootstrap or the normal interval do not.
    """
    pairs = wins + losses + ties
    if pairs == 0:
        return None
    rate = (wins - losses) / pairs
    low = -1.0 if losses == pairs else _root(wins, losses, pairs, Z95, -1.0, rate)
    high = 1.0 if wins == pairs else _root(wins, losses, pairs, -Z95, rate, 1.0)
    return 100 * rate, 100 * low, 100 * high


def _root(wins: int, losses: int, pairs: int, wanted: float, low: float, high: float) -> float:
    """The difference in [low, high] at which the score is `wanted`; the score falls as the difference grows."""
    from scipy.optimize import brentq

    tiny = 1e-9

    def off(delta: float) -> float:
        return _score(wins, losses, pairs, delta) - wanted

    low, high = max(low, -1 + tiny), min(high, 1 - tiny)
    if off(low) <= 0:
        return low
    if off(high) >= 0:
        return high
    return float(brentq(off, low, high, xtol=1e-10))


def _score(wins: int, losses: int, pairs: int, delta: float) -> float:
    """Standard score of wins - losses if the true difference of shares is `delta`."""
    a = 2 * pairs
    b = -wins - losses + (2 * pairs - wins + losses) * delta
    c = -losses * delta * (1 - delta)
    lost = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = pairs * (2 * lost + delta * (1 - delta))
    difference = wins - losses - pairs * delta
    if variance <= 0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / math.sqrt(variance)
