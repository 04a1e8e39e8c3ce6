"""Films with cuts, gradual transitions, and what is taken for one, each known to the frame.

A film holds one kind of event between shots of 6 to 10 s. Its shots are takes of the same side of the split, played
to and fro under a slowly drifting camera, and photographs that the camera moves over.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tests.accuracy.made import FPS, SIZE, Bench, encode, read_truth, write_truth
from tests.accuracy.sources import Take, photographs, takes

HARD = ("cut", "cut_dark", "jump")
GRADUAL = (
    "dissolve", "dissolve_dark", "dissolve_take", "fade_black", "fade_white", "fade_letterbox", "wipe", "push",
)  # fmt: skip
NONE = ("flash", "whip", "pan", "zoom", "exposure", "passer", "shake")
KINDS = (*HARD, *GRADUAL, *NONE)
SHOTS, SHOT_S = 6, (6.0, 10.0)  # of a film
LARGER = 1.3  # takes are held so much larger than the film: room for the camera
JUMP_LEVELS = 5.0  # mean grey levels by which the pictures at a jump cut differ at least
DARK = 0.22  # brightness of dark films
TEXTURES = frozenset(("brick", "grass", "gravel", "ihc", "cell", "hubble_deep_field"))
SEEDS = {True: 941, False: 7}  # measured, fitted


@dataclass(frozen=True)
class Truth:
    """An event of a film: frames [first, stop) that mix two shots; a cut is (i, i), i the first of the new shot."""

    kind: str
    first: int
    stop: int

    @property
    def hard(self) -> bool:
        return self.kind in HARD


@dataclass(frozen=True)
class MadeFilm:
    path: Path
    kind: str
    frames: int
    truth: tuple[Truth, ...]


def films(bench: Bench, measured: bool, each: int = 2) -> list[MadeFilm]:
    """`each` films of every kind, of one side of the split; made where they are not there."""
    folder, seed = bench.place("scenes"), SEEDS[measured]
    return make(folder, bench.footage, measured, {kind: each for kind in KINDS}, seed)


def make(folder: Path, footage: Path | None, measured: bool, each: Mapping[str, int], seed: int) -> list[MadeFilm]:
    """So many films of each kind in the folder; made where they are not there."""
    moving, photos = takes(measured, footage), photographs(measured)
    found = []
    for kind, count in each.items():
        for number in range(count):
            path = folder / f"{'measure' if measured else 'fit'}-{kind}-{number}.mp4"
            truth = path.with_suffix(".parquet")
            if not (path.exists() and truth.exists()):
                rng = np.random.default_rng([seed, KINDS.index(kind), number])
                frames, events = compose(kind, moving, photos, rng)
                encode(path, frames, SIZE, FPS)
                write_truth(truth, [{"file": path.name, "kind": kind, "frames": len(frames), "first": -1, "stop": -1},
                                    *({"file": path.name, "kind": e.kind, "frames": len(frames), "first": e.first,
                                       "stop": e.stop} for e in events)])  # fmt: skip
            found.append(told(path))
    return found


def told(path: Path) -> MadeFilm:
    """A film that was made, with what is known of it."""
    rows = read_truth(path.with_suffix(".parquet"))
    events = tuple(Truth(row["kind"], row["first"], row["stop"]) for row in rows if row["first"] >= 0)
    return MadeFilm(path, rows[0]["kind"], rows[0]["frames"], events)


def compose(
    kind: str, moving: Sequence[Take], photos: Sequence[Take], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[Truth]]:
    """Frames and events of one film."""
    if kind in NONE:
        return _without(kind, moving, photos, rng)

    def length() -> int:
        return round(rng.uniform(*SHOT_S) * FPS)

    if kind in ("jump", "dissolve_take"):
        shots = _pieces(moving, rng, SHOTS, length)
    else:
        shots = [list(shot(take, length(), rng)) for take in _drawn(moving, photos, rng, SHOTS)]
    if kind.endswith("_dark"):
        shots = [[_darker(frame) for frame in one] for one in shots]
    boxed = kind == "fade_letterbox"
    frames, events = list(shots[0]), []
    for after in shots[1:]:
        if kind in HARD:
            events.append(Truth(kind, len(frames), len(frames)))
            frames += after
            continue
        count = round(rng.uniform(0.4, 1.6) * FPS)
        mixed = list(mix(kind, frames[-count:], after[:count], rng))
        first = len(frames) - count
        frames[first:] = mixed
        events.append(Truth(kind, first, first + count))
        frames += after[count:]
    return [_boxed(frame) for frame in frames] if boxed else frames, events


# --- shots -----------------------------------------------------------------------------------------------------


def _drawn(moving: Sequence[Take], photos: Sequence[Take], rng: np.random.Generator, count: int) -> list[Take]:
    """Takes in a row, no two neighbours of one source; two in three of them moving."""
    chosen: list[Take] = []
    while len(chosen) < count:
        among = moving if rng.random() < 0.67 else photos
        take = among[rng.integers(len(among))]
        if not chosen or take.source != chosen[-1].source or (take.source == "bikes" and take.name != chosen[-1].name):
            chosen.append(take)
    return chosen


def shot(take: Take, count: int, rng: np.random.Generator, speed: float = 1.0) -> Iterator[np.ndarray]:
    """`count` frames of a take: to and fro from a random frame, under a camera that drifts; uint8 BGR."""
    width, height = round(SIZE[0] * LARGER), round(SIZE[1] * LARGER)
    pictures = take.frames(width, height)
    begin = int(rng.integers(len(pictures)))
    if take.still:
        start, end = (np.array([*rng.uniform(0.35, 0.65, 2), rng.uniform(0.6, 0.78)]) for _ in range(2))
    else:
        start = np.array([*rng.uniform(0.46, 0.54, 2), rng.uniform(0.74, 0.8)])
        end = start + np.array([*rng.uniform(-0.06, 0.06, 2), rng.uniform(-0.05, 0.05)])
    for number in range(count):
        done = number / count * speed
        yield seen(pictures[_to_and_fro(begin + number, len(pictures))], start * (1 - done) + end * done)


def _to_and_fro(number: int, count: int) -> int:
    lap = max(2 * (count - 1), 1)
    return min(number % lap, lap - number % lap)


def seen(picture: np.ndarray, view: np.ndarray, turn: float = 0.0) -> np.ndarray:
    """What a camera sees: view is (centre x, centre y, width) in shares of the picture; mirrored beyond its edges."""
    rows, columns = picture.shape[:2]
    scale = view[2] * columns / SIZE[0]
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    centre = view[0] * columns, view[1] * rows
    matrix = np.array(
        [[cos, -sin, centre[0] - cos * SIZE[0] / 2 + sin * SIZE[1] / 2],
         [sin, cos, centre[1] - sin * SIZE[0] / 2 - cos * SIZE[1] / 2]]
    )  # fmt: skip
    flags = (cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, matrix, SIZE, flags=flags, borderMode=cv2.BORDER_REFLECT)


def _pieces(moving: Sequence[Take], rng: np.random.Generator, count: int, length) -> list[list[np.ndarray]]:
    """Shots in a row of one take at moments 1.2 s apart or so, under one still camera, where the eye sees the jump."""
    span, view = 36, np.array([*rng.uniform(0.46, 0.54, 2), 0.77])
    long = [take for take in moving if take.stop - take.first >= 100]
    for take in (long[place] for place in rng.permutation(len(long))):
        pictures = [seen(picture, view) for picture in take.frames(*(round(side * LARGER) for side in SIZE))]
        begins = np.arange(0, len(pictures) - span)
        shots, last = [], None
        for _ in range(count):
            if last is not None:
                far = np.abs(begins - last) >= min(span + 29, (len(begins) - 1) // 2)
                ends = shots[-1][-1].astype(np.int16)
                begins_seen = [n for n in begins[far] if np.abs(pictures[n] - ends).mean() >= JUMP_LEVELS]
            else:
                begins_seen = begins.tolist()
            if not begins_seen:
                break
            last = int(rng.choice(begins_seen))
            shots.append([pictures[last + _to_and_fro(n, span)] for n in range(length())])
        if len(shots) == count:
            return shots
    raise SystemExit("no take is long and lively enough for jump cuts: give another folder with --footage")


def _darker(frame: np.ndarray) -> np.ndarray:
    return (frame * DARK + 4).astype(np.uint8)


def _boxed(frame: np.ndarray) -> np.ndarray:
    """In bars above and below, as a film of 2.35:1 lies in 16:9."""
    bar = round((SIZE[1] - SIZE[0] / 2.35) / 2)
    out = frame.copy()
    out[:bar] = out[-bar:] = 0
    return out


# --- transitions -----------------------------------------------------------------------------------------------


def mix(kind: str, before: Sequence[np.ndarray], after: Sequence[np.ndarray], rng: np.random.Generator):
    """Frames of a transition of len(before) frames from one shot to the other, uint8 BGR."""
    count = len(before)
    white = kind == "fade_white" or (kind == "fade_letterbox" and rng.random() < 0.5)
    way = int(rng.integers(8))
    eased = rng.random() < 0.5
    for number, (a, b) in enumerate(zip(before, after, strict=True)):
        share = (number + 1) / (count + 1)
        if kind.startswith("fade"):
            colour = np.full_like(a, 255 if white else 0)
            away = min(1.0, 2 * share) if share <= 0.5 else min(1.0, 2 * (1 - share))
            yield cv2.addWeighted(a if share <= 0.5 else b, 1 - away, colour, away, 0)
        elif kind.startswith("dissolve"):
            yield cv2.addWeighted(a, 1 - share, b, share, 0)
        else:
            share = share * share * (3 - 2 * share) if eased else share
            yield wiped(a, b, share, way) if kind == "wipe" else pushed(a, b, share, way % 4)


def wiped(a: np.ndarray, b: np.ndarray, share: float, way: int) -> np.ndarray:
    """Left, right, up, down, diagonal, iris, clock, and left with a soft edge."""
    rows, columns = a.shape[:2]
    y, x = np.mgrid[0:rows, 0:columns]
    x, y = (x + 0.5) / columns, (y + 0.5) / rows
    when = (
        x, 1 - x, y, 1 - y, (x + y) / 2, np.hypot(x - 0.5, y - 0.5) / 0.7072,
        (np.arctan2(y - 0.5, x - 0.5) / np.pi + 1) / 2, x,
    )[way]  # fmt: skip
    soft = 0.12 if way == 7 else 1e-3
    weight = np.clip((share * (1 + soft) - when) / soft, 0, 1)[..., None]
    return (a * (1 - weight) + b * weight).round().astype(np.uint8)


def pushed(a: np.ndarray, b: np.ndarray, share: float, way: int) -> np.ndarray:
    """The new picture pushes the old one out: to the left, right, up, down."""
    axis = 1 if way < 2 else 0
    size = a.shape[axis]
    moved = round(share * size)
    pair = np.concatenate([a, b] if way in (0, 2) else [b, a], axis=axis)
    begin = moved if way in (0, 2) else size - moved
    return np.ascontiguousarray(pair[:, begin : begin + size] if axis else pair[begin : begin + size])


# --- what is no transition -------------------------------------------------------------------------------------


def _without(
    kind: str, moving: Sequence[Take], photos: Sequence[Take], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[Truth]]:
    """One shot of some 30 s with events that are none; frames and no truth."""
    count = 30 * FPS
    if kind in ("pan", "zoom", "whip"):
        textures = [take for take in photos if take.source in TEXTURES]
        take = (textures if kind == "pan" else photos)[rng.integers(len(textures if kind == "pan" else photos))]
        return [seen(take.picture(), view) for view in _camera(kind, count, rng)], []
    take = moving[rng.integers(len(moving))]
    frames = list(shot(take, count, rng))
    if kind == "flash":
        for at in range(40, count - 40, 60):
            for number in range(at, at + int(rng.integers(1, 4))):
                frames[number] = cv2.addWeighted(frames[number], 0.25, np.full_like(frames[number], 255), 0.75, 0)
    elif kind == "exposure":
        gains = 1 + 0.45 * np.sin(2 * np.pi * np.arange(count) / FPS / rng.uniform(2.5, 4))
        frames = [np.clip(frame * gain, 0, 255).astype(np.uint8) for frame, gain in zip(frames, gains)]
    elif kind == "shake":
        offsets = rng.normal(0, 5, (count, 2))
        frames = [cv2.warpAffine(f, np.float32([[1, 0, x], [0, 1, y]]), SIZE, borderMode=cv2.BORDER_REFLECT)
                  for f, (x, y) in zip(frames, offsets)]  # fmt: skip
    elif kind == "passer":
        _pass(frames, photos[rng.integers(len(photos))].frames(*SIZE)[0], rng)
    return frames, []


def _camera(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Views [count, 3] over a photograph: a slow pan, a zoom in and out, or pans of a quarter second that jerk away."""
    t = np.arange(count) / FPS
    if kind == "zoom":
        return np.stack([np.full(count, 0.5), np.full(count, 0.5), 0.6 + 0.25 * np.sin(2 * np.pi * t / 8)], axis=1)
    if kind == "pan":
        speed = rng.uniform(0.02, 0.08)  # picture widths a second
        return np.stack([0.3 + speed * t * 0.6, 0.4 + 0.1 * speed * t, np.full(count, 0.5)], axis=1)
    x, views = 0.3, []
    for number in range(count):
        within = number % 60
        if within == 0:
            step = rng.uniform(0.35, 0.6) * (1 if x < 0.5 else -1)
        x += step / 6 if 20 <= within < 26 else 0.0005
        views.append([x, 0.5, 0.4])
    return np.array(views)


def _pass(frames: list[np.ndarray], other: np.ndarray, rng: np.random.Generator) -> None:
    """Something that fills half the picture crosses it every 3 s, in half a second."""
    width, wide = SIZE[0], SIZE[0] // 2
    for at in range(30, len(frames) - 40, 3 * FPS):
        for number in range(12):
            left = round(-wide + (width + wide) * (number + 0.5) / 12)
            low, high = max(0, left), min(width, left + wide)
            frames[at + number] = frames[at + number].copy()
            frames[at + number][:, low:high] = other[:, low - left : high - left]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy.scenes_made", description="Films for scenes_fit.")
    parser.add_argument("folder", type=Path, help="where they go")
    parser.add_argument("kinds", nargs="+", metavar="KIND:NUMBER", help=f"so many films of a kind: {', '.join(KINDS)}")
    parser.add_argument("--footage", type=Path, help="a folder of videos that labels.csv knows")
    parser.add_argument("--seed", type=int, default=SEEDS[False])
    words = parser.parse_args()
    words.folder.mkdir(parents=True, exist_ok=True)
    each = {kind: int(number) for kind, _, number in (word.partition(":") for word in words.kinds)}
    made = make(words.folder, words.footage, False, each, words.seed)
    print(f"{words.folder}: {len(made)} films")


if __name__ == "__main__":
    main()
