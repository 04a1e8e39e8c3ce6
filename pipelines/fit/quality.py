"""The model of quality: footage made worse in known ways, its VMAF, and the model that guesses it from that alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rushes.curation import kernel
from rushes.curation.video.batch import batches
from rushes.curation.video.decode import Decoded, opened
from rushes.curation.visual.quality import CODED, SEEN, TOLD, features
from rushes.pipelines.fit import degrade, sources
from rushes.pipelines.fit.degrade import KINDS, Window

COST, TOLERANCE, WIDTH = 60.0, 4.0, 0.5  # of the regression; WIDTH over the number of features is gamma
CODED_WEIGHT = 6.0  # of the quantiser's numbers beside the others: it says most where it is told
FOLDS = 5
LOOKS_PER_S = 3.0  # frames of a made file that are looked at
WINDOWS, WINDOW_S = 5, 2.0  # at most so many windows of a video, each of its own length
MICROSCOPES = ("cell", "retina", "ihc")  # photographs that no lens of a camera took


@dataclass
class Example:
    """A made file: its source and change, the statistics of some frames [n, features], and its VMAF."""

    source: str
    kind: str
    stats: np.ndarray
    vmaf: float


def windows(measuring: bool, own: Iterable[Path] = ()) -> list[Window]:
    """Of the sources that are measured, or of the others: photographs, and windows of videos."""
    found = [Window(path, photo=True) for path in sources.photographs(measuring, own) if path.stem not in MICROSCOPES]
    for path in sources.videos(measuring, own):
        length_s = sources.length_s(path)
        count = int(np.clip(length_s // WINDOW_S, 1, WINDOWS))
        starts = (np.arange(count) + 0.5) / count * length_s - WINDOW_S / 2
        found += [Window(path, round(max(0.0, float(start)), 2)) for start in starts]
    return found


def examples(of: Sequence[Window], rounds: int, seed: int, work: Path,
             tell: Callable[[str], None] = lambda line: None) -> list[Example]:  # fmt: skip
    """Every window `rounds` times, under a change of every kind. Files of the folder `work` are written over."""
    work.mkdir(parents=True, exist_ok=True)
    found: list[Example] = []
    for number in range(rounds):
        for place, window in enumerate(of):
            rng = np.random.default_rng([seed, number, *window.key])
            original = work / "original.mkv"
            size = degrade.reference(window, original, rng)
            for kind in KINDS:
                made = work / "made.mkv"
                degrade.write(degrade.draw(kind, size, rng), original, made)
                scores = degrade.vmaf(made, original, work / "vmaf.csv")
                stats = looks(made)
                if len(stats):
                    found.append(Example(window.source, kind, stats, float(scores.mean())))
            tell(f"{number * len(of) + place + 1} of {rounds * len(of)} windows, {len(found):,} files")
    return found


def looks(path: Path) -> np.ndarray:
    """float32 [frames, features] of some frames of a file."""
    with opened(str(path), vectors=True) as (container, stream):
        found = [
            features(look)
            for batch in batches(container, stream, Decoded(), looks_per_s=LOOKS_PER_S)
            for _, look in batch.looks
        ]
    return np.array(found, np.float32)


def fit(found: Sequence[Example], path: Path) -> dict[str, float]:
    """Fit on all examples and write the model; rank correlation and mean error on sources left out of a fit."""
    from scipy.stats import spearmanr

    names = sorted({example.source for example in found})
    told = np.full(len(found), np.nan)
    for fold in range(min(FOLDS, len(names))):
        held = set(names[fold::FOLDS])
        train = [example for example in found if example.source not in held]
        if train and held:
            model, *place = _regression(train, TOLD)
            for number, example in enumerate(found):
                if example.source in held:
                    told[number] = model.predict(kernel.place(example.stats.mean(axis=0, keepdims=True), *place))[0]
    np.savez_compressed(
        path, **{k: v for name in (TOLD, SEEN) for k, v in kernel.of(*_regression(found, name), name).items()}
    )
    truth, known = np.array([example.vmaf for example in found]), np.isfinite(told)
    if known.sum() < 2:
        return {"files": float(len(found))}
    rank = float(spearmanr(told[known], truth[known]).statistic)
    return {"rank correlation": rank, "mean error": float(np.abs(told - truth)[known].mean())}


def _regression(examples: Sequence[Example], name: str):
    """(fitted SVR, then centre, scale and emphasis of each feature): a row is the mean of a file's frames."""
    from sklearn.svm import SVR

    rows = np.stack([example.stats.mean(axis=0) for example in examples]).astype(np.float64)
    centre, scale, emphasis = rows.mean(axis=0), rows.std(axis=0) + 1e-6, np.ones(rows.shape[1])
    emphasis[-CODED:] = CODED_WEIGHT if name == TOLD else 0.0
    model = SVR(C=COST, epsilon=TOLERANCE, gamma=WIDTH / rows.shape[1])
    model.fit(kernel.place(rows, centre, scale, emphasis), [example.vmaf for example in examples])
    return model, centre, scale, emphasis
