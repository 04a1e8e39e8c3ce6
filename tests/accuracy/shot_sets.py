"""Public sets of labelled shots: `python -m tests.accuracy.shot_sets BBC|AutoShot|ClipShots FOLDER [DETECTOR]`.

DETECTOR is ours, adaptive (PySceneDetect) or transnetv2.

The folders are those of PySceneDetect's own benchmark, so that a row stands beside its rows:

    BBC/videos/bbc_01.mp4         BBC/fixed/01-scenes.txt          a shot's first and last frame, from 0, and a tab
    AutoShot/videos/ID.mp4        AutoShot/annotations/ID.txt      the same
    ClipShots/videos/NAME.mp4     ClipShots/annotations/test.json  {NAME.mp4: {"transitions": [[last, first], ...]}}

In ClipShots a transition names the last frame before it and the first one after it: a hard cut is [n, n + 1].

Marks are matched as there (TRECVID): one that touches a gradual transition answers for it, a second one there is false;
the others are matched with hard cuts, nearest first, within the tolerance.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.accuracy import scenes
from tests.accuracy.scenes import Shots, marks_of

TOLERANCES = (0, 1, 2)  # frames


@dataclass(frozen=True)
class Labelled:
    """A video, the first frames of its shots after hard cuts, and frames [first, stop) of gradual transitions."""

    path: Path
    cuts: tuple[int, ...]
    gradual: tuple[tuple[int, int], ...] = ()


def bbc(folder: Path) -> Iterator[Labelled]:
    for path in sorted((folder / "videos").glob("*.mp4")):
        number = path.stem.removeprefix("bbc_")
        yield Labelled(path, _cuts(folder / "fixed" / f"{number}-scenes.txt"))


def autoshot(folder: Path) -> Iterator[Labelled]:
    """Videos that are no longer to be had are left out, and so are labels without a video."""
    for path in sorted((folder / "videos").glob("*.mp4")):
        labels = folder / "annotations" / f"{path.stem}.txt"
        if labels.is_file():
            yield Labelled(path, _cuts(labels))


def clipshots(folder: Path, split: str = "test") -> Iterator[Labelled]:
    with (folder / "annotations" / f"{split}.json").open(encoding="utf-8") as file:
        labels = json.load(file)
    for name, facts in sorted(labels.items()):
        path = folder / "videos" / name
        if path.is_file():
            pairs = [(int(last), int(first)) for last, first in facts["transitions"]]
            cuts = tuple(first for last, first in pairs if first - last == 1)
            yield Labelled(path, cuts, tuple((last + 1, first) for last, first in pairs if first - last > 1))


def _cuts(labels: Path) -> tuple[int, ...]:
    """First frames of all shots but the first. Raises SystemExit with the line that cannot be read."""
    if not labels.is_file():
        raise SystemExit(f"{labels} is not there: each video needs its file of labels")
    cuts = []
    for number, line in enumerate(labels.read_text(encoding="utf-8").splitlines(), 1):
        try:
            cuts.append(int(line.split("\t")[1]) + 1)
        except (IndexError, ValueError):
            raise SystemExit(
                f"{labels}, line {number}: a first and a last frame with a tab between, not {line!r}"
            ) from None
    return tuple(cuts[:-1])  # the last shot ends with the file


SETS = {"BBC": bbc, "AutoShot": autoshot, "ClipShots": clipshots}


@dataclass
class Counts:
    matched: int = 0
    false: int = 0
    missed: int = 0

    def add(self, matched: int, false: int, missed: int) -> None:
        self.matched, self.false, self.missed = self.matched + matched, self.false + false, self.missed + missed

    def shown(self) -> str:
        recall, precision = (self.matched / max(1, self.matched + other) for other in (self.missed, self.false))
        f1 = 2 * recall * precision / max(1e-9, recall + precision)
        return f"{100 * recall:6.2f} | {100 * precision:6.2f} | {100 * f1:6.2f}"


def match(video: Labelled, shots: Shots, tolerance: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(matched, false, missed) of hard cuts, and of gradual transitions."""
    answered: set[tuple[int, int]] = set()
    rest, twice = [], 0
    for first, stop in marks_of(shots):
        hit = next((span for span in video.gradual if first <= span[1] and stop >= span[0]), None)
        if hit is None:
            rest.append((first + stop) // 2)
        else:
            twice += hit in answered
            answered.add(hit)
    pairs = sorted((abs(a - b), i, j) for i, a in enumerate(rest) for j, b in enumerate(video.cuts))
    left, right = set(), set()
    for distance, i, j in pairs:
        if distance <= tolerance and i not in left and j not in right:
            left.add(i)
            right.add(j)
    hard = len(left), len(rest) - len(left), len(video.cuts) - len(left)
    return hard, (len(answered), twice, len(video.gradual) - len(answered))


def rows(name: str, videos: Sequence[Labelled], detector: str) -> list[str]:
    """Lines of the table: recall, precision, F1 in per cent at each tolerance, and seconds a video."""
    find = {
        "ours": lambda: lambda path: scenes.ours(path)[0],
        "adaptive": lambda: scenes.adaptive,
        "transnetv2": scenes.transnet,
    }[detector]()
    hard, gradual = {tolerance: Counts() for tolerance in TOLERANCES}, Counts()
    began = time.perf_counter()
    for video in videos:
        shots = find(video.path)
        for tolerance in TOLERANCES:
            counted = match(video, shots, tolerance)
            hard[tolerance].add(*counted[0])
        gradual.add(*counted[1])
    each = (time.perf_counter() - began) / max(1, len(videos))
    lines = [f"| {name} | {detector} | hard cuts, ±{t} | {c.shown()} | {each:.2f} |" for t, c in hard.items()]
    if gradual.matched + gradual.missed:
        lines.append(f"| {name} | {detector} | gradual | {gradual.shown()} | {each:.2f} |")
    return lines


def main(words: Sequence[str]) -> None:
    if len(words) < 2 or words[0] not in SETS or not Path(words[1]).is_dir():
        raise SystemExit(__doc__.splitlines()[0])
    videos = list(SETS[words[0]](Path(words[1])))
    if not videos:
        raise SystemExit(
            f"no labelled video of {words[0]} in {words[1]}: see the folders in tests/accuracy/shot_sets.py"
        )
    print(f"{len(videos)} videos\n| set | detector | events | recall | precision | F1 | s a video |\n{'|---' * 7}|")
    print("\n".join(rows(words[0], videos, words[2] if len(words) > 2 else "ours")))


if __name__ == "__main__":
    main(sys.argv[1:])
