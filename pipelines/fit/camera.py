"""The model of camera motion: rendered shots of the sixteen classes, and the forest that tells them apart.

A shot counts four times: as it is, mirrored, played backwards, and both, each with the word that it then has. The
confidence is calibrated by folds: a forest is asked about shots, and pictures that they wear, that it has not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rushes.curation import forest
from rushes.curation.motion import points
from rushes.curation.motion.camera import CLASSES, LOOKS_MIN, features
from rushes.curation.signals import CAMERA_SURE
from rushes.curation.tracks import spread
from rushes.pipelines.fit import render, shots

TREES, LEAVES_MAX, FEATURES_SHARE = 100, 400, 0.3
FOLDS = 5
WORN = 8  # pictures of one source at most
KNOTS = 33  # of the calibration
LOOK_S = 1.0 / points.TICKS_PER_S
TURNED = {"right": "left", "left": "right"}
BACK = {"in": "out", "out": "in", "up": "down", "down": "up", "push": "pull", "pull": "push", **TURNED}


@dataclass
class Example:
    """A shot: its word, and its followed points [looks, points, 4]."""

    word: str
    points: np.ndarray


def examples(pictures: Sequence[Sequence[np.ndarray]], count: int, seed: int,
             tell: Callable[[str], None] = lambda line: None) -> list[Example]:  # fmt: skip
    """`count` shots of each class, dressed with luma pictures: a list of each source.

    The sources are divided among the folds, so that what a fold's shots wear is in no other.
    """
    folds = [[some for of in pictures[fold::FOLDS] for some in spread(of, WORN)] for fold in range(FOLDS)]
    dressed = [render.textures(fold) for fold in folds if fold]
    found = []
    for number in range(count):
        worn = dressed[number % FOLDS % len(dressed)]
        for place, word in enumerate(CLASSES):
            rng = np.random.default_rng([seed, number, place])
            shot = shots.draw(word, rng)
            seen = [_half(luma) for _, luma in shots.frames(shot, worn, rng, points.TICKS_PER_S)]
            pairs = zip(seen[::2], seen[1::2], strict=False)
            found.append(Example(word, np.stack([points.follow(before, now, LOOK_S) for before, now in pairs])))
        tell(f"{len(found):,} of {count * len(CLASSES):,} shots")
    return found


def _half(luma: np.ndarray) -> np.ndarray:
    return cv2.resize(luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def versions(example: Example) -> list[Example]:
    """The shot as it is, mirrored, backwards, and mirrored backwards."""
    mirrored = Example(_said(example.word, TURNED), example.points * np.float32([-1, 1, -1, 1]))
    return [example, mirrored, *(Example(_said(one.word, BACK), _backwards(one.points)) for one in (example, mirrored))]


def _said(word: str, other: dict[str, str]) -> str:
    return " ".join(other.get(part, part) for part in word.split())


def _backwards(seen: np.ndarray) -> np.ndarray:
    ends = seen[..., :2] + seen[..., 2:] * LOOK_S
    return np.concatenate([ends, -seen[..., 2:]], axis=-1)[::-1]


def table(of: Iterable[Example]) -> tuple[np.ndarray, np.ndarray]:
    """(features [n, ...], class numbers [n]) of the examples that can be followed."""
    rows, classes = [], []
    for example in of:
        looks = points.looks(example.points)
        looks = looks[np.isfinite(looks[:, 0])]
        if len(looks) >= LOOKS_MIN:
            rows.append(features(looks))
            classes.append(CLASSES.index(example.word))
    return np.stack(rows), np.array(classes)


def fit(found: Sequence[Example], path: Path, seed: int = 0) -> dict[str, float]:
    """Fit on all examples and write the model; what the folds say of it: accuracy, and of sure answers."""
    from sklearn.isotonic import IsotonicRegression

    share, right = [], []
    for fold in range(FOLDS):
        train = [e for n, example in enumerate(found) if n // len(CLASSES) % FOLDS != fold for e in versions(example)]
        held = [example for n, example in enumerate(found) if n // len(CLASSES) % FOLDS == fold]
        if not train or not held:
            continue
        model = _forest(*table(train), seed)
        rows, classes = table(held)
        votes = model.predict_proba(rows)
        share += votes.max(axis=1).tolist()
        right += (model.classes_[votes.argmax(axis=1)] == classes).tolist()
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(share, np.array(right, float))
    knots = np.linspace(0, 1, KNOTS)
    model = _forest(*table(e for example in found for e in versions(example)), seed)
    if len(model.classes_) != len(CLASSES):
        raise ValueError(f"{len(model.classes_)} of {len(CLASSES)} classes can be followed: render more shots")
    arrays = forest.of(model, lambda value: value[:, 0] / value[:, 0].sum(axis=1, keepdims=True))
    np.savez_compressed(path, **arrays, curve=np.stack([knots, curve.predict(knots)]).astype(np.float32))
    hit, sure = np.array(right), curve.predict(share) >= CAMERA_SURE
    return {"right": float(hit.mean()), "sure": float(sure.mean()), "right of the sure": float(hit[sure].mean())}


def _forest(rows: np.ndarray, classes: np.ndarray, seed: int):
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(TREES, max_leaf_nodes=LEAVES_MAX, max_features=FEATURES_SHARE, random_state=seed)
    return model.fit(rows, classes)
