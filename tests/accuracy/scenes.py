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
from rushes.curation.scenes import clip_spans, find_doubts, find_shots
from rushes.curation.scenes_doubts import Doubts
from rushes.curation.video.decode import probe
from tests.accuracy.made import Bench
from tests.accuracy.scenes_made import GRADUAL, HARD, NONE, MadeFilm, Truth, films
from tests.accuracy.sources import labels
from tests.accuracy.table import Row

TOLERANCE = 2  # frames
TAKE = "dissolve_take"
EACH = 2  # films of every kind
Shots = list[tuple[int, int]]


def measure(bench: Bench) -> list[Row]:
    made = films(bench, True, EACH)
    tools = {"AdaptiveDetector": adaptive, "TransNetV2": transnet()}
    two, three = (Score.of(made, [(tool(film.path), None) for film in made]) for tool in tools.values())
    found = [ours(film.path) for film in made]
    one, plain = Score.of(made, found), Score.of(made, [(shots, None) for shots, _ in found])
    rows = [
        Row("scenes", "hard cuts, F1", one.f1(HARD), ">= 0.98", one.count(HARD), "AdaptiveDetector", two.f1(HARD)),
        Row("scenes", "gradual transitions, F1", one.f1(GRADUAL), ">= 0.85", one.count(GRADUAL), "TransNetV2",
            three.f1(GRADUAL)),
        Row("scenes", "4-16 s clips with a transition inside, share", one.impure, "<= 0.005", one.clips, "TransNetV2",
            three.impure),
        Row("scenes", "the same", one.impure, "", one.clips, "AdaptiveDetector", two.impure),
        Row("scenes", "the same, dissolves within a take left out", one.impure_but(TAKE), "", one.clips_but(TAKE),
            "TransNetV2", three.impure_but(TAKE)),
        Row("scenes", "the same, clips not planned around doubts", plain.impure, "", plain.clips),
        Row("scenes", "clean seconds that doubts cost: films of hard cuts", one.lost(plain, HARD), "", "s of them"),
        Row("scenes", "clean seconds that doubts cost: films without any", one.lost(plain, NONE), "", "s of them"),
    ]  # fmt: skip
    for kind in (*HARD, *GRADUAL):
        rows.append(Row("scenes", f"found: {kind}", one.recall(kind), "", one.count([kind]), "TransNetV2",
                        three.recall(kind)))  # fmt: skip
    for kind in NONE:
        rows.append(Row("scenes", f"false marks a minute: {kind}", one.false_per_minute(kind), "", kind, "TransNetV2",
                        three.false_per_minute(kind)))  # fmt: skip
    return rows + real(bench, {"ours": lambda path: ours(path)[0], **tools})


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
    sums = {name: Score.of(made, [(tool(film.path), None) for film in made]) for name, tool in tools.items()}
    one = sums["ours"]
    return [
        Row("scenes", "real footage labelled by eye, F1", one.f1((*HARD, *GRADUAL)), "", one.count((*HARD, *GRADUAL)),
            name, sums[name].f1((*HARD, *GRADUAL)))
        for name in list(tools)[1:]
    ]  # fmt: skip


# --- the tools -------------------------------------------------------------------------------------------------


def ours(path: Path) -> tuple[Shots, Doubts]:
    resolved = recipe.build({})
    observed = tracks.load(Observer(resolved)(probe(str(path))).batches())
    shots = find_shots(observed, resolved.scenes)
    return shots, find_doubts(observed, shots, resolved.scenes)


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
        self.published: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()
        self.clean: Counter[str] = Counter()  # frames of published clips that hold no event

    @classmethod
    def of(cls, made: Sequence[MadeFilm], found: Sequence[tuple[Shots, Doubts | None]]) -> Score:
        score = cls()
        for film, (shots, doubts) in zip(made, found, strict=True):
            score.add(film, shots, doubts)
        return score

    def add(self, film: MadeFilm, shots: Shots, doubts: Doubts | None) -> None:
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
        for first, stop in published(shots, doubts):
            bad = any(inside(event, first, stop) for event in film.truth)
            self.published[film.kind] += 1
            self.bad[film.kind] += bad
            self.clean[film.kind] += 0 if bad else stop - first

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
    def clips(self) -> int:
        return self.published.total()

    @property
    def impure(self) -> float | None:
        return self.bad.total() / self.clips if self.clips else None

    def clips_but(self, kind: str) -> int:
        return self.clips - self.published[kind]

    def impure_but(self, kind: str) -> float:
        return (self.bad.total() - self.bad[kind]) / self.clips_but(kind)

    def lost(self, other: Score, kinds: Sequence[str]) -> float:
        """Share of the clean frames that `other` publishes and this one does not."""
        return 1 - sum(self.clean[kind] for kind in kinds) / sum(other.clean[kind] for kind in kinds)


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


def published(shots: Shots, doubts: Doubts | None = None, fps: float = 24.0) -> list[tuple[int, int]]:
    """Frames [first, stop) of the clips of 4 to 16 s that the default recipe makes of the shots, around doubts."""
    scenes = recipe.build({}).scenes
    times = np.arange(shots[-1][1]) / fps
    clips = clip_spans(shots, times, len(times) / fps, scenes, doubts)
    spans = [(c.span.first, c.span.stop) for c in clips if c.span.duration_s >= scenes.duration_min_s]
    return [span for span in spans if doubts is None or doubts.worst(*span) < scenes.doubt_max]


def inside(event: Truth, first: int, stop: int) -> bool:
    """Whether a clip holds the event: a cut, or more than TOLERANCE frames of a gradual one."""
    if event.hard:
        return first < event.first < stop
    return min(stop, event.stop) - max(first, event.first) > TOLERANCE
