"""Cuts, gradual transitions and what is taken for one: ours beside PySceneDetect's AdaptiveDetector and TransNetV2."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rushes.curation import recipe, tracks
from rushes.curation.observe import Observer
from rushes.curation.scenes import clip_spans, find_shots
from rushes.curation.video.decode import probe
from tests.accuracy.made import Bench
from tests.accuracy.scenes_made import GRADUAL, HARD, NONE, MadeFilm, Truth, films
from tests.accuracy.sources import labels
from tests.accuracy.table import Row

TOLERANCE = 2  # frames
EACH = 1  # films of every kind
Shots = list[tuple[int, int]]


def measure(bench: Bench) -> list[Row]:
    made = films(bench, True, EACH)
    tools = {"ours": ours, "AdaptiveDetector": adaptive, "TransNetV2": transnet()}
    found = {name: [tool(film.path) for film in made] for name, tool in tools.items()}
    sums = {name: Score.of(made, shots) for name, shots in found.items()}
    one, two, three = (sums[name] for name in tools)
    rows = [
        Row("scenes", "hard cuts, F1", one.f1(HARD), ">= 0.98", one.count(HARD), "AdaptiveDetector", two.f1(HARD)),
        Row("scenes", "gradual transitions, F1", one.f1(GRADUAL), ">= 0.85", one.count(GRADUAL), "TransNetV2",
            three.f1(GRADUAL)),
        Row("scenes", "4-16 s clips with a transition inside, share", one.impure, "<= 0.005", one.clips, "TransNetV2",
            three.impure),
        Row("scenes", "the same", one.impure, "", one.clips, "AdaptiveDetector", two.impure),
    ]  # fmt: skip
    for kind in (*HARD, *GRADUAL):
        rows.append(Row("scenes", f"found: {kind}", one.recall(kind), "", one.count([kind]), "TransNetV2",
                        three.recall(kind)))  # fmt: skip
    for kind in NONE:
        rows.append(Row("scenes", f"false marks a minute: {kind}", one.false_per_minute(kind), "", kind, "TransNetV2",
                        three.false_per_minute(kind)))  # fmt: skip
    return rows + real(bench, tools)


def real(bench: Bench, tools: dict[str, Callable[[Path], Shots]]) -> list[Row]:
    """The labelled cuts of the folder's own files, all of them."""
    if bench.footage is None:
        return []
    made = []
    for file, seen in itertools.groupby((x for x in labels() if x.kind != "take"), lambda label: label.file):
        path = bench.footage / file
        if path.is_file():
            events = sorted((Truth("cut" if x.kind == "cut" else "fade_black", x.first, x.stop) for x in seen),
                            key=lambda event: event.first)  # fmt: skip
            made.append(MadeFilm(path, "cut", 0, tuple(events)))
    sums = {name: Score.of(made, [tool(film.path) for film in made]) for name, tool in tools.items()}
    one = sums["ours"]
    return [
        Row("scenes", "real footage labelled by eye, F1", one.f1((*HARD, *GRADUAL)), "", one.count((*HARD, *GRADUAL)),
            name, sums[name].f1((*HARD, *GRADUAL)))
        for name in list(tools)[1:]
    ]  # fmt: skip


# --- the tools -------------------------------------------------------------------------------------------------


def ours(path: Path) -> Shots:
    resolved = recipe.build({})
    return find_shots(tracks.load(Observer(resolved)(probe(str(path))).batches()), resolved.scenes)


def adaptive(path: Path) -> Shots:
    """PySceneDetect as its documentation shows it."""
    from scenedetect import AdaptiveDetector, detect

    return [(a.frame_num, b.frame_num) for a, b in detect(str(path), AdaptiveDetector(), start_in_scene=True)]


def transnet() -> Callable[[Path], Shots]:
    import av
    import cv2

    from rushes.curation.scenes_learned import SIZE, TransNet, shots

    net: list[TransNet] = []

    def found(path: Path) -> Shots:
        kept = path.with_suffix(".transnetv2.npy")  # twenty milliseconds of CPU a frame: once is enough
        if not kept.exists():
            net.extend([] if net else [TransNet()])
            with av.open(str(path)) as container:
                pictures = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
                small = np.stack([cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA) for picture in pictures])
            scores = net[0](small)
            if not os.access(path.parent, os.W_OK):
                return shots(scores)
            np.save(kept, scores)
        return shots(np.load(kept))

    return found


# --- the figures -----------------------------------------------------------------------------------------------


class Score:
    """Counts over films. A mark is what lies between two shots; each can answer for one event of the truth."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.truth: Counter[str] = Counter()
        self.false: Counter[str] = Counter()  # by the kind of the film
        self.false_hard: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()
        self.clips = self.bad_clips = 0

    @classmethod
    def of(cls, made: Sequence[MadeFilm], shots: Sequence[Shots]) -> Score:
        score = cls()
        for film, found in zip(made, shots, strict=True):
            score.add(film, found)
        return score

    def add(self, film: MadeFilm, shots: Shots) -> None:
        marks = marks_of(shots)
        pairs = matched(film.truth, marks)
        for event in film.truth:
            self.truth[event.kind] += 1
        for event, _ in pairs:
            self.hits[event.kind] += 1
        used = {mark for _, mark in pairs}
        for first, stop in marks:
            if (first, stop) not in used:
                self.false[film.kind] += 1
                self.false_hard[film.kind] += first == stop
        self.frames[film.kind] += film.frames
        for span in published(shots):
            self.clips += 1
            self.bad_clips += any(inside(event, *span) for event in film.truth)

    def count(self, kinds: Sequence[str]) -> int:
        return sum(self.truth[kind] for kind in kinds)

    def recall(self, kind: str) -> float | None:
        return self.hits[kind] / self.truth[kind] if self.truth[kind] else None

    def f1(self, kinds: Sequence[str]) -> float | None:
        """Of events of these kinds. False marks in films without any event count by their shape: a cut, or longer."""
        hits, truth = (sum(of[kind] for kind in kinds) for of in (self.hits, self.truth))
        false = sum(self.false[kind] for kind in kinds)
        hard = set(kinds) >= set(HARD)
        for kind in NONE:
            false += self.false_hard[kind] if hard else self.false[kind] - self.false_hard[kind]
        return 2 * hits / (truth + hits + false) if truth else None

    def false_per_minute(self, kind: str) -> float | None:
        return self.false[kind] / (self.frames[kind] / 24 / 60) if self.frames[kind] else None

    @property
    def impure(self) -> float | None:
        return self.bad_clips / self.clips if self.clips else None


def marks_of(shots: Shots) -> list[tuple[int, int]]:
    """What lies between shots: frames [first, stop), none for a hard cut."""
    return [(before[1], after[0]) for before, after in itertools.pairwise(shots)]


def matched(truth: Sequence[Truth], marks: Sequence[tuple[int, int]]) -> list[tuple[Truth, tuple[int, int]]]:
    """Each event with the first mark that is near and not taken."""
    pairs, taken = [], set()
    for event in truth:
        for mark in marks:
            near = mark[0] <= event.stop + TOLERANCE and mark[1] >= event.first - TOLERANCE
            if near and mark not in taken:
                taken.add(mark)
                pairs.append((event, mark))
                break
    return pairs


def published(shots: Shots, fps: float = 24.0) -> list[tuple[int, int]]:
    """Frames [first, stop) of the clips of 4 to 16 s that the default recipe makes of the shots."""
    scenes = recipe.build({}).scenes
    times = np.arange(shots[-1][1]) / fps
    clips = clip_spans(shots, times, len(times) / fps, scenes)
    return [(c.span.first, c.span.stop) for c in clips if c.span.duration_s >= scenes.duration_min_s]


def inside(event: Truth, first: int, stop: int) -> bool:
    """Whether a clip holds the event: a cut, or more than TOLERANCE frames of a gradual one."""
    if event.hard:
        return first < event.first < stop
    return min(stop, event.stop) - max(first, event.first) > TOLERANCE
