"""The footage of `make demo` and of the tests: a small pool of real-looking files with known faults.

pool = make_pool(Path("runs/demo/footage"))
pool[0].path, pool[0].cuts_s, pool[0].expect
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rushes.pipelines.demo.film import Film, Reel, Shot, encode, encode_stream, film_frames, unfinished

# Spans [first, stop) of frames without a cut. The bikes clip is a montage: these are its shots, without the
# moments in which a car sweeps over the whole picture, which any shot detector may take for a cut.
BUNNY, CARPHONE = ("bunny", 0, 132), ("carphone", 0, 120)
BUS, CYCLIST = ("bikes", 0, 30), ("bikes", 108, 137)
TRAFFIC, WALL = ("bikes", 137, 187), ("bikes", 187, 242)


CINEMA, CLASSIC, TALL, SMALL = (640, 272), (480, 360), (360, 640), (480, 270)  # width, height
DUPLICATE_CRF, DUPLICATE_BRIGHTER = 33, 0.04  # a poor re-encode; brightness on FFmpeg's scale of -1 to 1
TRUNCATED_SHARE = 0.55  # of the bytes; the index stands in front, so the file opens and then breaks off
NOT_A_VIDEO = "Shot list, day 3.\nThis is a text file that somebody has named .mp4.\n" * 40

SUBTITLES = (
    "I have waited for this morning",
    "a very long time, you know.",
    "Nobody told me it would rain.",
    "Then let us walk to the river.",
)
SUBTITLE_S = 3.0


@dataclass(frozen=True)
class PoolFile:
    """One file of the pool and what is known of it.

    Times are seconds from the first frame. `cuts_s` are the times of the first frame after each hard cut,
    `transitions` the (start, end) of each dissolve: every frame in [start, end) mixes two shots. `expect` is
    what should become of it: kept, text, border, slideshow, jitter, duplicate or error.
    """

    path: Path
    what: str
    cuts_s: list[float]
    transitions: list[tuple[float, float]]
    expect: str


def films() -> list[Film]:
    """The films of the pool that are composed of shots; make_pool adds the files derived from them.

    A shot that should become a clip lasts more than 4 s after the trims (1 s at a file's head, some frames
    at each edge). Clean shots show different subjects or parts of the picture, so that none is another's
    near-duplicate; their camera moves are slow enough for Movie Gen's limit on motion (sec 3.2.1).
    """
    return [*_clean_films(), *_faulty_films()]


def _clean_films() -> list[Film]:
    return [
        Film(
            "landscape.mp4",
            "one long shot: a camera glides over a meadow in which an animal stretches",
            "kept",
            [Shot(BUNNY, 15, (0.36, 0.5, 0.72), (0.62, 0.45, 0.72))],
        ),
        Film(
            "hard_cuts.mp4",
            "five shots of known length joined by hard cuts",
            "kept",
            [
                Shot(BUNNY, 7.2, (0.74, 0.7, 0.5), (0.64, 0.4, 0.5)),
                Shot(CYCLIST, 5.6, (0.64, 0.5, 0.62), (0.69, 0.5, 0.55)),
                Shot(BUNNY, 5.0, (0.22, 0.7, 0.44), (0.3, 0.4, 0.44)),
                Shot(WALL, 5.4, (0.3, 0.5, 0.56), (0.36, 0.5, 0.6), mirrored=True),
                Shot(TRAFFIC, 6.4, (0.28, 0.5, 0.52), (0.4, 0.5, 0.58), mirrored=True),
            ],
        ),
        Film(
            "dissolve.mp4",
            "three shots joined by dissolves of one second",
            "kept",
            [
                Shot(WALL, 7.4, (0.66, 0.5, 0.6), (0.6, 0.5, 0.72), mirrored=True),
                Shot(BUNNY, 7.4, (0.74, 0.4, 0.5), (0.6, 0.6, 0.5), mirrored=True),
                Shot(TRAFFIC, 7.0, (0.72, 0.6, 0.5), (0.6, 0.55, 0.55)),
            ],
            dissolves_s=[1.0, 1.0],
        ),
        Film(
            "street.mp4",
            "two shots of a street in a wide format, joined by a hard cut",
            "kept",
            [
                Shot(TRAFFIC, 9.2, (0.44, 0.5, 0.88), (0.52, 0.5, 0.94)),
                Shot(WALL, 8.4, (0.5, 0.5, 0.96), (0.44, 0.5, 0.84)),
            ],
            size=CINEMA,
        ),
        Film(
            "overhead.mp4",
            "one shot from above: vehicles pass on a street",
            "kept",
            [Shot(BUS, 10, (0.46, 0.5, 0.9), (0.52, 0.5, 0.96))],
            size=CINEMA,
        ),
        Film(
            "close_up.mp4",
            "one shot: the camera moves in on the face of an animal",
            "kept",
            [Shot(BUNNY, 9, (0.36, 0.3, 0.5), (0.31, 0.3, 0.34))],
            fps=24,
        ),
        Film(
            "people.mp4",
            "one long shot: a man talks in a driving car",
            "kept",
            [Shot(CARPHONE, 14, (0.54, 0.5, 0.86), (0.46, 0.42, 0.72), mirrored=True)],
            size=CLASSIC,
            fps=30,
        ),
        Film(
            "portrait.mp4",
            "one upright shot, nine to sixteen",
            "kept",
            [Shot(BUNNY, 10, (0.24, 0.5, 0.29), (0.44, 0.5, 0.29))],
            size=TALL,
        ),
    ]


def _faulty_films() -> list[Film]:
    return [
        Film(
            "letterboxed.mp4",
            "black bars above and below, then coloured bars left and right",
            "border",
            [
                Shot(WALL, 8, (0.5, 0.5, 0.94), (0.54, 0.5, 0.9), mirrored=True, inset=(640, 264)),
                Shot(CARPHONE, 7, (0.48, 0.5, 0.9), mirrored=True, inset=(432, 360), bars=(70, 40, 24)),
            ],
        ),
        Film(
            "rendered_text.mp4",
            "one shot with subtitles and a station's logo drawn over it",
            "text",
            [Shot(BUNNY, 10, (0.5, 0.4, 0.6), (0.68, 0.55, 0.6), mirrored=True)],
            draw=_draw_subtitles,
        ),
        Film(
            "slideshow.mp4",
            "still pictures: two hard cuts, then two soft ones",
            "slideshow",
            [
                Shot(BUNNY, 6.0, (0.5, 0.5, 0.95), still=True),
                Shot(TRAFFIC, 5.2, (0.4, 0.5, 0.7), still=True),
                Shot(CARPHONE, 5.0, (0.5, 0.5, 0.95), still=True),
                Shot(WALL, 4.0, (0.5, 0.5, 0.7), still=True),
                Shot(BUS, 3.6, (0.5, 0.5, 0.7), still=True),
            ],
            dissolves_s=[0, 0, 0.6, 0.6],
        ),
        Film(
            "shaken.mp4",
            "one shot from a camera that is violently shaken, about once a second",
            "jitter",
            [Shot(CYCLIST, 10, (0.62, 0.5, 0.6), (0.66, 0.5, 0.6), shake=0.045)],
            size=SMALL,
        ),
    ]


def make_pool(folder: Path, names: Sequence[str] | None = None) -> list[PoolFile]:
    """Make the pool in `folder` (created if missing) and say what each file holds.

    Files that exist are left alone, and a file appears under its name only when it is whole: a killed call
    can simply be repeated, and two at once do no harm. To make a file anew, delete it. `names` limits the
    pool to some of its files; None is all of them.

    Raises FileNotFoundError where the clips are not installed, ValueError for an unknown name, RuntimeError
    where FFmpeg fails.
    """
    folder = Path(folder)
    composed = {film.name: film for film in films()}
    derived = {
        "near_duplicate.mp4": (_make_near_duplicate, "landscape.mp4 again: half the size, poorer, brighter"),
        "truncated.mp4": (_make_truncated, "a file that breaks off in the middle; its index is whole"),
        "not_a_video.mp4": (_make_not_a_video, "a text file named .mp4"),
    }
    known = [*composed, *derived]
    if unknown := [name for name in names or () if name not in known]:
        raise ValueError(f"no file of the pool is called {unknown[0]!r}; there are {', '.join(known)}")
    folder.mkdir(parents=True, exist_ok=True)
    reel, pool = Reel(), []
    for name in known:
        path = folder / name
        if names is not None and name not in names:
            continue
        if name in composed:
            film = composed[name]
            pool.append(PoolFile(path, film.what, film.cuts_s(), film.transitions(), film.expect))
            if not path.exists():
                encode(film_frames(film, reel), path, film.size, film.fps)
        else:
            make, what = derived[name]
            expect = "duplicate" if make is _make_near_duplicate else "error"
            pool.append(PoolFile(path, what, [], [], expect))
            if not path.exists():
                make(path, reel)
    return pool


def _make_near_duplicate(path: Path, reel: Reel) -> None:
    import ffmpeg

    film = _clean_films()[0]
    original = path.with_name(film.name)
    if not original.exists():
        encode(film_frames(film, reel), original, film.size, film.fps)
    half = ffmpeg.input(str(original)).filter("scale", film.size[0] // 2, film.size[1] // 2)
    encode_stream(half.filter("eq", brightness=DUPLICATE_BRIGHTER), path, DUPLICATE_CRF)


def _make_truncated(path: Path, reel: Reel) -> None:
    film = Film(path.name, "", "error", [Shot(WALL, 9, (0.5, 0.5, 0.7), (0.4, 0.5, 0.7))])
    whole = unfinished(path)
    try:
        encode(film_frames(film, reel), whole, film.size, film.fps)
        _write(path, whole.read_bytes()[: round(whole.stat().st_size * TRUNCATED_SHARE)])
    finally:
        whole.unlink(missing_ok=True)


def _make_not_a_video(path: Path, reel: Reel) -> None:
    _write(path, NOT_A_VIDEO.encode())


def _write(path: Path, content: bytes) -> None:
    half_made = unfinished(path)
    half_made.write_bytes(content)
    os.replace(half_made, path)


def _draw_subtitles(image: np.ndarray, at_s: float) -> None:
    """A white subtitle with a dark edge at the foot, a station's logo in the upper right corner."""
    import cv2

    height, width = image.shape[:2]
    font, edge, white = cv2.FONT_HERSHEY_DUPLEX, (0, 0, 0), (255, 255, 255)
    line = SUBTITLES[int(at_s / SUBTITLE_S) % len(SUBTITLES)]
    size = height / 330  # of the font: a capital is then about a fifteenth of the picture high
    (text_width, _), _ = cv2.getTextSize(line, font, size, 1)
    place = ((width - text_width) // 2, round(height * 0.92))
    cv2.putText(image, line, place, font, size, edge, 6, cv2.LINE_AA)
    cv2.putText(image, line, place, font, size, white, 2, cv2.LINE_AA)
    box = (round(width * 0.78), round(height * 0.05)), (round(width * 0.97), round(height * 0.15))
    cv2.rectangle(image, *box, (40, 40, 200), cv2.FILLED)
    logo = (box[0][0] + round(width * 0.01), box[1][1] - round(height * 0.025))
    cv2.putText(image, "NEWS 24", logo, font, size * 0.7, white, 1, cv2.LINE_AA)
