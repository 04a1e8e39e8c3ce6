"""Steps that take clips of several buckets, so that all of them cost alike where no size of batches makes them.

With few clips a bucket may hold one costly clip and no other. Such a bucket's step is filled up with clips of cheaper
buckets: a step is then some groups of clips, each of one shape, and ranks still share every group among them.
"""

from __future__ import annotations

import heapq

import numpy as np

ENOUGH = 1.02  # costliest step over the mean: no better one is looked for
GOAL = 1.1  # fewer steps an epoch are tried where that is not reached
TRIES = 16  # of numbers of steps
UNITS_MOST = 4096  # that are packed: more of them fill batches of one bucket well
MENDED_MOST, MOVES_MOST = 8192, 100  # steps x buckets of a table that is mended; moves, each the best one there is


def packed(units: np.ndarray, costs: np.ndarray, budget: float) -> np.ndarray:
    """int64 [steps, buckets]: how many of each bucket's `units` [buckets] every step of an epoch takes.

    costs: of a unit of each bucket. budget: about what a step may cost, at most twice of it. The costliest unit goes
    first to the step that costs least (LPT, Graham 1969); then units are moved and exchanged while that helps.
    """
    most = max(1, int(units @ costs / budget))
    found = []
    for steps in np.unique(np.geomspace(most, most // 2 + 1, TRIES).astype(int))[::-1].tolist():
        table = _longest_first(units, costs, steps)
        table = _mended(table, costs) if table.size <= MENDED_MOST else table
        found.append((_over_mean(table, costs), -steps, table))
        if found[-1][0] <= GOAL:
            break
    return min(found, key=lambda one: one[:2])[2]


def _over_mean(table: np.ndarray, costs: np.ndarray) -> float:
    loads = table @ costs
    return float(loads.max() / loads.mean())


def _longest_first(units: np.ndarray, costs: np.ndarray, steps: int) -> np.ndarray:
    table = np.zeros((steps, len(units)), np.int64)
    heap = [(0.0, step) for step in range(steps)]
    for bucket in np.argsort(-costs, kind="stable"):
        for _ in range(int(units[bucket])):
            load, step = heapq.heappop(heap)
            table[step, bucket] += 1
            heapq.heappush(heap, (load + float(costs[bucket]), step))
    return table


def _mended(table: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The costliest step gives a unit to another step, for a cheaper one or for nothing, while it becomes cheaper."""
    offers = np.append(costs, 0.0)  # the last one is nothing
    gain = costs[:, None] - offers  # [given, taken]
    for _ in range(MOVES_MOST):
        loads = table @ costs
        if loads.max() <= ENOUGH * loads.mean():
            break
        high = int(loads.argmax())
        there = np.hstack([table > 0, np.ones((len(table), 1), bool)])
        allowed = (table[high] > 0)[None, :, None] & there[:, None, :] & (gain > 0)
        after = np.maximum(loads[high] - gain, loads[:, None, None] + gain)  # [step, given, taken]
        after[~allowed] = np.inf
        after[high] = np.inf
        step, given, taken = np.unravel_index(after.argmin(), after.shape)
        if after[step, given, taken] >= loads[high] * (1 - 1e-9):
            break
        table[high, given] -= 1
        table[step, given] += 1
        if taken < len(costs):
            table[step, taken] -= 1
            table[high, taken] += 1
    return table
