"""Trees of a model that was fitted elsewhere, kept as plain arrays: no pickle is read, and no scikit-learn is needed.

A forest of scikit-learn's extremely randomised trees (Geurts 2006) is five arrays: which feature a node asks about, the
threshold, its two children, and what a leaf answers. Leaves are their own children, so that all trees of all rows go
down together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ARRAYS = ("feature", "threshold", "left", "right", "value", "roots")


@dataclass(frozen=True)
class Forest:
    """feature, left, right: int [nodes]; threshold: float32 [nodes]; value: [nodes, answers]; roots: int [trees].

    depth: steps after which every row stands at a leaf.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    roots: np.ndarray
    depth: int

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """float32 [rows, answers]: the mean of the trees' answers to float32 [rows, features]."""
        here = np.broadcast_to(self.roots, (len(rows), len(self.roots)))
        which = np.arange(len(rows))[:, None]
        for _ in range(self.depth):
            smaller = rows[which, self.feature[here]] <= self.threshold[here]
            here = np.where(smaller, self.left[here], self.right[here])
        return self.value[here].astype(np.float32).mean(axis=1)

    def part(self, first: int, stop: int) -> Forest:
        """Trees [first, stop) of the forest, of the same arrays."""
        return replace(self, roots=self.roots[first:stop])


def of(model: Any, answers: Any) -> dict[str, np.ndarray]:
    """The arrays of a fitted forest of scikit-learn. answers: a tree's `value` [nodes, ...] -> [nodes, answers]."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
    begin, depth = 0, 0
    for estimator in model.estimators_:
        tree = estimator.tree_
        leaf = tree.children_left < 0
        own = np.arange(tree.node_count)
        parts["feature"].append(np.where(leaf, 0, tree.feature).astype(np.int16))
        parts["threshold"].append(tree.threshold.astype(np.float32))
        parts["left"].append((np.where(leaf, own, tree.children_left) + begin).astype(np.int32))
        parts["right"].append((np.where(leaf, own, tree.children_right) + begin).astype(np.int32))
        parts["value"].append(np.where(leaf[:, None], answers(tree.value), 0).astype(np.float16))
        parts["roots"].append(np.array([begin], np.int32))
        begin, depth = begin + tree.node_count, max(depth, tree.max_depth)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()} | {"depth": np.array(depth)}


def load(path: Path) -> tuple[Forest, Mapping[str, np.ndarray]]:
    """A forest and whatever else stands in its file. Raises ValueError for a file that holds none."""
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    missing = [name for name in (*ARRAYS, "depth") if name not in found]
    if missing:
        raise ValueError(f"{path} holds no forest: it has no array '{missing[0]}'; make it again with `rushes fit`")
    forest = Forest(*(found.pop(name) for name in ARRAYS), int(found.pop("depth")))
    return forest, found
