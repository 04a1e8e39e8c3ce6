"""Text that stands for less than a second: titles and subtitles that come and go within takes.

Films of 6 s at 640 x 360 are coded and analysed, and read as the look stage does. Beside the text rule's recall stands
the share of films in which the text stands as a second begins: what stills on a fixed grid can show.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from rushes.curation import recipe
from rushes.curation.analyze import Analyzer
from rushes.curation.looking.base import Clip
from rushes.curation.looking.measured import TextLooker
from rushes.curation.video.decode import probe
from rushes.curation.visual.stills import decode
from tests.accuracy.made import FPS, Bench, encode
from tests.accuracy.overlays import LETTERED, LINES, NAMES, _bold, _thin
from tests.accuracy.sources import takes
from tests.accuracy.table import Row

SIZE, COUNT = (640, 360), 6 * FPS
SECONDS = (0.3, 0.5, 0.8)
GRID = "stills as seconds begin"


def measure(bench: Bench, measured: bool = True) -> list[Row]:
    cpu = recipe.load("cpu")
    text, analyze = TextLooker(cpu), Analyzer(recipe.build({}, ["scenes.head_s=0", "scenes.trim_frames=0"]))
    place = bench.place("brief_text" if measured else "brief_text-fit")
    found: dict[float, list[tuple[bool, bool]]] = {seconds: [] for seconds in SECONDS}
    clean: list[bool] = []
    rng = np.random.default_rng(3)
    for number, take in enumerate(take for take in takes(measured, bench.footage) if take.source not in LETTERED):
        frames = to_and_fro(take.frames(*SIZE))
        for kind, seconds in [("none", 0.0), *((kind, s) for kind in ("subtitle", "title") for s in SECONDS)]:
            begin = int(rng.uniform(0, COUNT - seconds * FPS))
            shown = range(begin, begin + round(seconds * FPS))
            path = place / f"{take.name}-{kind}-{seconds}.mp4"
            encode(path, lettered(frames, shown, kind, number), SIZE)
            stills = analyze(probe(str(path))).tracks.stills
            pictures = [decode(stills.jpeg(n)) for n in stills.inside(0, COUNT / FPS)]
            told = text([Clip("", stills.times_s.tolist(), pictures)])[0]["text_score"] >= cpu.visual.text_max
            if seconds:
                found[seconds].append((told, any(n % FPS == 0 for n in shown)))
            else:
                clean.append(told)
    return [
        *(Row("brief_text", f"text for {seconds} s: found", float(np.mean([told for told, _ in of])), "", len(of),
              GRID, float(np.mean([grid for _, grid in of]))) for seconds, of in found.items()),
        Row("brief_text", "no text: share called text", float(np.mean(clean)), "<= 0.01", len(clean)),
    ]  # fmt: skip


def to_and_fro(frames: list[np.ndarray]) -> list[np.ndarray]:
    lap = max(2 * len(frames) - 2, 1)
    return [frames[min(n % lap, lap - n % lap)] for n in range(COUNT)]


def lettered(frames: list[np.ndarray], shown: range, kind: str, seed: int) -> Iterator[np.ndarray]:
    """The frames, those of `shown` with a line: thin letters over one take, bold ones over the next."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    write = _bold if seed % 2 else _thin
    if kind == "subtitle":
        write(mask, LINES[seed % 4], None, round(SIZE[1] * 0.92), 0.8)
    elif kind == "title":
        write(mask, NAMES[seed % 4].upper(), None, round(SIZE[1] * 0.35), 1.6)
    edge, ink = cv2.dilate(mask, np.ones((3, 3), np.uint8))[..., None] / 255, mask[..., None] / 255
    for number, frame in enumerate(frames):
        if number not in shown:
            yield frame
        else:
            yield ((frame * (1 - edge) + 15 * edge) * (1 - ink) + 240 * ink).astype(np.uint8)
