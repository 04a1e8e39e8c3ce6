"""Burnt-in text: the rule that rejects it, the rectangle where it stands, and the hours that a crop saves.

Titles, subtitles, watermarks and names of stations are drawn over takes and photographs at 640 x 360, in thin letters
over one source and in bold ones over the next, and looked at as the look stage does; borders come from `borders`. Hours
count the clips that visual.rescue=reject loses to their border or text, and those of them that pass as they are cropped
(recipe cpu: 240 pixels, aspect 2.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

from rushes.curation import recipe, rules
from rushes.curation.looking.base import Clip
from rushes.curation.looking.measured import PeopleLooker, TextLooker
from rushes.curation.visual.borders import static_border_frac
from rushes.curation.visual.stills import decode, decode_gray, encode
from tests.accuracy.borders import SIZE, _frames, bordered, sources
from tests.accuracy.made import Bench
from tests.accuracy.table import Row

FONT = cv2.FONT_HERSHEY_DUPLEX
LETTERED = ("cartoon_titles", "portrait_fashion", "portrait_overlay_text")  # files with text of their own
LINES = ("We should have left hours ago", "Nobody told me about this", "It was never about the money", "Wait for me")
NAMES = ("RIVERSIDE TV", "studio nine", "archive.example.org", "LIVE 24")


@dataclass(frozen=True)
class Drawn:
    """A clip with text, and where its letters are: a mask, bool [h, w], over all its stills."""

    kind: str
    frames: list[np.ndarray]
    letters: np.ndarray


def measure(bench: Bench, measured: bool = True) -> list[Row]:
    cpu = recipe.load("cpu")
    text, people = TextLooker(cpu), PeopleLooker()
    overlaps: dict[str, list[float]] = {}
    told: list[tuple[bool, float]] = []
    rows: list[dict] = []
    rng = np.random.default_rng(5)
    for number, take in enumerate(take for take in sources(bench, measured) if take.source not in LETTERED):
        frames = _frames(take)
        for drawn in texts(frames, number):
            row = _row(drawn.frames, text, people)
            rows.append(row)
            told.append((True, row["text_score"]))
            overlaps.setdefault(drawn.kind, []).append(_overlap(row["overlays"], drawn.letters))
        clean = text([Clip(take.name, list(range(4)), frames)])[0]["text_score"]
        told.append((False, clean))
        for name, (shown, _) in bordered(frames, rng):
            if name in ("letterbox", "pillarbox", "one side", "blurred copy", "subtitle in the bar"):
                rows.append(_row(shown, text, people))
    limit = cpu.visual.text_max
    truth, called = np.array([t for t, _ in told]), np.array([score >= limit for _, score in told])
    every = [value for values in overlaps.values() for value in values]
    lost, saved = _saved(rows, cpu)
    right = int((truth & called).sum())
    return [
        Row("overlays", "text rule, precision", right / max(int(called.sum()), 1), ">= 0.95", int(called.sum())),
        Row("overlays", "text rule, recall", right / int(truth.sum()), ">= 0.95", int(truth.sum())),
        Row("overlays", "rectangle, mean IoU", float(np.mean(every)), ">= 0.85", len(every)),
        *(Row("overlays", f"rectangle, {kind}", float(np.mean(v)), "", len(v)) for kind, v in overlaps.items()),
        Row("rescue", "share of hours lost to borders and text that a crop saves", saved / lost, ">= 0.6", lost),
    ]


def _row(frames: list[np.ndarray], text: TextLooker, people: PeopleLooker) -> dict:
    """A clip's row as measure and look leave it: borders first, models inside them."""
    jpegs = [encode(frame) for frame in frames]
    box = static_border_frac([decode_gray(jpeg) for jpeg in jpegs])
    x0, x1 = round(box.left * SIZE[0]), round((1 - box.right) * SIZE[0])
    y0, y1 = round(box.top * SIZE[1]), round((1 - box.bottom) * SIZE[1])
    clip = Clip("", list(range(len(frames))), [np.ascontiguousarray(decode(jpeg)[y0:y1, x0:x1]) for jpeg in jpegs])
    row = {"border_frac": box.frac, "picture": [box.left, box.top, 1 - box.right, 1 - box.bottom]}
    row |= text([clip])[0] | people([clip])[0]
    low, size = np.array([x0, y0] * 2) / (SIZE * 2), np.array([x1 - x0, y1 - y0] * 2) / (SIZE * 2)
    for name in ("overlays", "heads"):
        row[name] = None if row[name] is None else (np.reshape(row[name], (-1, 4)) * size + low).ravel().tolist()
    return row


def _saved(rows: list[dict], cpu: recipe.Recipe) -> tuple[int, int]:
    """Clips that are lost where nothing is cropped, and those of them that the crop saves: all are of one length."""
    numbers = pa.list_(pa.float32())
    table = pa.table({name: pa.array([row[name] for row in rows], numbers) for name in ("picture", "overlays", "heads")}
                     | {name: [float(row[name]) for row in rows] for name in ("border_frac", "text_score")}
                     | {"width": [SIZE[0]] * len(rows), "height": [SIZE[1]] * len(rows)})  # fmt: skip
    asked = ("visual.size_min", "visual.aspect_max", "visual.border_max", "visual.text_max")
    off = [f"{key}=null" for key in rules.BY_KEY if key not in asked]
    fates = [
        np.equal(rules.judge(table, recipe.build(cpu.model_dump(mode="json"), [*off, f"visual.rescue={how}"])), None)
        for how in ("reject", "crop")
    ]
    lost = ~fates[0]
    return int(lost.sum()), int((lost & fates[1]).sum())


def _overlap(boxes: list[float] | None, letters: np.ndarray) -> float:
    """IoU of the area that the boxes cover and of the boxes round the letters: all of one line are one."""
    found, true = np.zeros(letters.shape, bool), np.zeros(letters.shape, bool)
    for left, top, right, bottom in np.reshape(boxes or [], (-1, 4)) * (SIZE * 2):
        found[round(top) : round(bottom), round(left) : round(right)] = True
    count, lines = cv2.connectedComponents(cv2.dilate(letters.astype(np.uint8), np.ones((9, 61), np.uint8)))
    for label in range(1, count):
        y, x = np.nonzero(letters & (lines == label))
        true[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
    return float((found & true).sum() / max((found | true).sum(), 1))


def texts(frames: list[np.ndarray], seed: int) -> Iterator[Drawn]:
    write = _bold if seed % 2 else _thin
    kinds: dict[str, Callable[[np.ndarray, int], None]] = {
        "subtitle": lambda mask, n: write(mask, LINES[(seed + n // 2) % 4], None, round(mask.shape[0] * 0.92), 0.8),
        "title": lambda mask, n: write(mask, NAMES[seed % 4].upper(), None, round(mask.shape[0] * 0.3), 1.6),
        "watermark": lambda mask, n: write(mask, NAMES[(seed + 1) % 4], 470, 40, 0.7),
        "small watermark": lambda mask, n: write(mask, NAMES[(seed + 2) % 4], 20, 340, 0.45),
    }
    for kind, draw in kinds.items():
        shown, letters = [], np.zeros(SIZE[::-1], bool)
        strength = 0.6 if "watermark" in kind else 1.0
        for number, frame in enumerate(frames):
            mask = np.zeros(SIZE[::-1], np.uint8)
            draw(mask, number)
            letters |= mask > 96
            edge = cv2.dilate(mask, np.ones((3, 3), np.uint8))[..., None] / 255 * strength
            ink = mask[..., None] / 255 * strength
            shown.append(((frame * (1 - edge) + 15 * edge) * (1 - ink) + 240 * ink).astype(np.uint8))
        yield Drawn(kind, shown, letters)


def _thin(mask: np.ndarray, line: str, x: int | None, y: int, size: float) -> None:
    """Letters of lines, from x or in the middle, on the line y; their capitals are 22 x size pixels high."""
    if x is None:
        x = (mask.shape[1] - cv2.getTextSize(line, FONT, size, 1)[0][0]) // 2
    cv2.putText(mask, line, (x, y), FONT, size, 255, 2 if size > 1 else 1, cv2.LINE_AA)


def _bold(mask: np.ndarray, line: str, x: int | None, y: int, size: float) -> None:
    """The same in Pillow's own font, with strokes of a fifth of their height."""
    font, more = ImageFont.load_default(round(30 * size)), max(1, round(size))
    if x is None:
        x = (mask.shape[1] - round(font.getlength(line))) // 2
    picture = Image.fromarray(mask)
    ImageDraw.Draw(picture).text((x, y), line, 255, font, anchor="ls", stroke_width=more)
    mask[:] = np.asarray(picture)
