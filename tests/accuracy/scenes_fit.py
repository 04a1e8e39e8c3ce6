"""The forest of gradual/doubts.py, fitted on made films of the fitting side:

    python -m tests.accuracy.scenes_made FOLDER dissolve:4 wipe:4 ... [--footage FOLDER] [--seed N]
    python -m tests.accuracy.scenes_fit FOLDER [FOLDER ...] [--file FILE]

A row is a triple of pictures as the finder looks at; it is a transition where one lies in its middle and takes most of
it, none where it touches no event, and is left out where it holds a part of one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rushes.curation import forest
from rushes.curation.gradual import doubts, finder
from rushes.curation.gradual.pictures import Ring, Triples
from rushes.curation.video import decode
from rushes.curation.video.batch import batches
from tests.accuracy.scenes_made import GRADUAL, MadeFilm, Truth, told

TREES, DEPTH, LEAF, FEATURES = 80, 14, 3, 0.3
NONE_SHARE = 0.3  # of the triples that are none: there are a hundred for each transition
#: All transitions together weigh a quarter of what is none; every kind weighs the same, but dissolves within a take.
WEIGHT, HARDER = 0.25, {"dissolve_take": 2.0}
SPEEDS = (1, 2, 3)  # of the films: footage for fitting is calm, and much else is not
CENTRED = 0.12  # of its length, by which a triple's middle may lie beside that of the transition
LENGTHS = (0.75, 1.6)  # of a triple, over that of the transition
SHORTEST = 12  # frames: the shortest triple is for all transitions that are shorter

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # features [n, k]; end and half in frames [n, 2]; labels -1, 0, 1


def rows_of(luma: np.ndarray, fps: float, truth: Sequence[Truth]) -> Rows:
    """All triples of a film. luma: its tiny pictures, uint8 [frames, h, w]."""
    step, halves = finder.grid(fps)
    pictures, detail = finder.looked_at(luma[::step])
    ring = Ring.grown(None, pictures, detail, 2 * halves[-1])
    pairs = [(end, half) for half in halves for end in range(2 * half, len(pictures))]
    triples = Triples(ring, *np.array(pairs).T)
    triples = triples.those(triples.change >= finder.CHANGE_MIN)
    places = np.stack([triples.ends, triples.halves], axis=1) * step
    return doubts.features(triples, doubts.quick(triples)), places, labels(places, truth)


def labels(places: np.ndarray, truth: Sequence[Truth]) -> np.ndarray:
    """1, 0 or -1 of triples (end, half) in frames: a transition, none, a part of one."""
    found = np.zeros(len(places), int)
    begin, end, length = places[:, 0] - 2 * places[:, 1], places[:, 0], 2 * places[:, 1]
    for event in truth:
        first, stop = (event.first - 1, event.first) if event.hard else (event.first, event.stop)
        touched = (begin < stop) & (end >= first)
        found[touched & (found == 0)] = -1
        if event.hard:
            continue
        centred = np.abs((begin + end) / 2 - (first + stop) / 2) <= CENTRED * length + 1
        least, most = (bound * (stop - first) for bound in LENGTHS)
        found[touched & centred & (length >= least) & ((length <= most) | (length <= SHORTEST))] = 1
    return found


def faster(event: Truth, speed: int) -> Truth:
    """The event where only one in `speed` frames is left."""
    return Truth(event.kind, -(-event.first // speed), -(-event.stop // speed))


def fitted(rows: np.ndarray, told: np.ndarray, kinds: np.ndarray, seed: int = 0) -> list[Any]:
    """Trees of scikit-learn: the FIRST ones, of what is told quickly, and the others.

    told: 0 or 1 [n]; kinds: of the film that a row is from.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    weights = np.ones(len(told))
    for kind in GRADUAL:
        own = (told == 1) & (kinds == kind)
        share = WEIGHT * HARDER.get(kind, 1.0) / len(GRADUAL)
        weights[own] = share * (told == 0).sum() / max(1, own.sum())
    trees: list[Any] = []
    for count, columns in ((doubts.FIRST, len(doubts.QUICK)), (TREES, len(doubts.NAMES))):
        model = ExtraTreesClassifier(
            count, min_samples_leaf=LEAF, max_features=FEATURES, max_depth=DEPTH, random_state=seed, n_jobs=1
        )
        trees += model.fit(rows[:, :columns], told, sample_weight=weights).estimators_
    return trees


def arrays(trees: list[Any]) -> dict[str, np.ndarray]:
    """What doubts.npz holds: the share of transitions in each leaf."""
    return forest.of(
        SimpleNamespace(estimators_=trees), lambda value: value[:, 0, 1:] / value[:, 0].sum(axis=1, keepdims=True)
    )


def seen(made: Sequence[MadeFilm]) -> Iterator[tuple[np.ndarray, float]]:
    """Tiny pictures and rate of every film."""
    for film in made:
        with decode.opened(str(film.path)) as (container, stream):
            found = list(batches(container, stream, decode.Decoded()))
        yield np.concatenate([batch.tiny_luma for batch in found]), found[0].info.fps


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy.scenes_fit", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="of films that scenes_made has made")
    parser.add_argument("--file", type=Path, default=doubts.MODEL, help="default: the one in the package")
    words = parser.parse_args()
    decode.quiet()
    made = [told(path) for folder in words.folders for path in sorted(folder.glob("fit-*.mp4"))]
    tables, kinds = [], []
    for film, (luma, fps) in zip(made, seen(made), strict=True):
        for speed in SPEEDS:
            tables.append(rows_of(luma[::speed], fps, [faster(event, speed) for event in film.truth]))
            kinds += [film.kind] * len(tables[-1][2])
    rows, _, label = (np.concatenate(parts) for parts in zip(*tables, strict=True))
    chosen = (label == 1) | ((label == 0) & (np.random.default_rng(0).random(len(label)) < NONE_SHARE))
    np.savez_compressed(words.file, **arrays(fitted(rows[chosen], label[chosen], np.array(kinds)[chosen])))
    print(f"{words.file}: {chosen.sum()} triples of {len(made)} films, {(label == 1).sum()} of them transitions")


if __name__ == "__main__":
    main()
