"""Windows for teaching gradual/mixed.py: a few seconds of tiny pictures, and which of them a transition mixes.

Blending is linear, so that transitions between takes, and within one, are made of tiny pictures as they are needed, and
beside them whatever is taken for one: pans, zooms, whips, textures, passers, changes of light, flashes, shake, words
that come, frames that are held. Pictures are on the finder's grid of time, some twelve a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from tests.accuracy.mixed_footage import LONG, Roll
from tests.accuracy.scenes_made import Truth, pushed, wiped

LENGTH = 63  # pictures of a window
OUTSIDE, INSIDE, EITHER = 0, 1, -1
SURE = (0.14, 0.86)  # of a transition's time, between which its pictures are INSIDE; at its ends they are EITHER
LEAST_LEVELS = 1.0  # mean grey levels between what is mixed, below which a picture is EITHER
JUMP_LEVELS = 1.6  # ... at the middle of a transition, or at a jump, within one take
CHANCES = {
    "whip": 5, "dissolve": 14, "take": 23, "fade": 5, "wipe": 5, "push": 4, "plain": 12, "cut": 4, "jump": 6,
    "flash": 3, "exposure": 10, "passer": 7, "shake": 2, "title": 3, "hold": 3, "film": 12,
}  # fmt: skip
GRADUAL = ("dissolve", "take", "fade", "wipe", "push")
WORDS = ("RUSHES", "Chapter 2", "THE END", "Hello, world", "12:30", "Music by", "interview", "2026")


@dataclass
class Film:
    """A made film of the fitting side. luma: uint8 [n, h, w], on the grid; labels: int8 [n]; middles: of its events."""

    luma: np.ndarray
    labels: np.ndarray
    middles: list[float]


def film(luma: np.ndarray, truth: Sequence[Truth], step: int) -> Film:
    """One picture in `step` of a film's."""
    times = np.arange(0, len(luma), step)
    labels = np.zeros(len(times), np.int8)
    for event in truth:
        if not event.hard:
            length = event.stop - event.first
            label(labels, (times - event.first + 1) / (length + 1), step / length)
    return Film(luma[::step], labels, [(event.first + event.stop) / 2 / step for event in truth])


def label(labels: np.ndarray, share: np.ndarray, step: float) -> None:
    """Label the pictures of a transition; share: of its time that has gone by; step: from picture to picture."""
    labels[(share > -step / 2) & (share < 1 + step / 2)] = EITHER
    labels[(share > SURE[0]) & (share < SURE[1])] = INSIDE


class Windows:
    """Draws windows from rolls of footage (mixed_footage.py), which change little by little, and from films."""

    def __init__(self, rolls: Sequence[Roll], films: Sequence[Film], rng: np.random.Generator) -> None:
        self.rolls, self._films, self._rng = list(rolls), films, rng
        self._chances = np.array(list(CHANCES.values()), float) / sum(CHANCES.values())

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [LENGTH, h, w] and int8 [LENGTH]."""
        kind = str(self._rng.choice(list(CHANCES), p=self._chances))
        if kind == "film" and self._films:
            pictures, labels = self._from_film()
        else:
            pictures, labels = self._made(kind)
        return np.rint(np.clip(pictures, 0, 255)).astype(np.uint8), labels

    def _from_film(self) -> tuple[np.ndarray, np.ndarray]:
        rng, film = self._rng, self._films[self._rng.integers(len(self._films))]
        last = len(film.luma) - LENGTH
        begin = int(rng.integers(last))
        if film.middles and rng.random() < 0.5:
            begin = int(np.clip(film.middles[rng.integers(len(film.middles))] - rng.integers(12, LENGTH - 12), 0, last))
        pictures = film.luma[begin : begin + LENGTH].astype(np.float32)
        labels = film.labels[begin : begin + LENGTH]
        pictures, labels = turned(pictures, labels, rng, upside_down=0.0, backwards=0.5)
        return pictures * (rng.uniform(0.3, 1) if rng.random() < 0.3 else 1), labels

    def _roll(self, kind: str | None = None) -> np.ndarray:
        for _ in range(3 * len(self.rolls)):
            roll = self.rolls[self._rng.integers(len(self.rolls))]
            if kind is None or roll.kind == kind:
                break
        return roll.luma

    def _piece(self, roll: np.ndarray, begin: int | None = None) -> np.ndarray:
        begin = int(self._rng.integers(LONG - LENGTH + 1)) if begin is None else begin
        return roll[begin : begin + LENGTH].astype(np.float32)

    def _made(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        rng, labels = self._rng, np.zeros(LENGTH, np.int8)
        length = np.exp(rng.uniform(np.log(2.8), np.log(32)))
        share = (np.arange(LENGTH) - rng.uniform(9, LENGTH - 10)) / length + 0.5  # of the transition that has gone by
        of = {"take": "take", "jump": "take", "whip": "whip"}.get(kind)
        of = "photograph" if kind == "plain" and rng.random() < 0.4 else of
        roll = self._roll(of)
        begin = int(rng.integers(LONG - LENGTH + 1))
        before, after = self._piece(roll, begin), None
        if kind in ("take", "jump"):
            after = self._elsewhere(roll, begin, before, int(np.argmin(np.abs(share - 0.5))))
        elif kind in (*GRADUAL, "cut"):
            after = self._piece(self._roll())
        if after is None:
            pictures = before
        elif kind in ("cut", "jump"):
            pictures = np.where((share < 0.5)[:, None, None], before, after)
        else:
            pictures = changed(kind, before, after, share, rng)
            label(labels, share, 1 / length)
            if kind in ("dissolve", "take"):
                labels[(labels == INSIDE) & (np.abs(after - before).mean(axis=(1, 2)) < LEAST_LEVELS)] = EITHER
        for what, often in (("flash", 0), ("exposure", 0.08), ("passer", 0.04), ("shake", 0), ("title", 0.03)):
            if kind == what or rng.random() < often:
                pictures = EVENTS[what](pictures, self, rng)
        if kind == "hold":
            pictures, labels = held(pictures, labels, rng)
        pictures, labels = turned(pictures, labels, rng)
        return encoded(graded(pictures, rng), rng), labels

    def _elsewhere(self, roll: np.ndarray, begin: int, before: np.ndarray, middle: int) -> np.ndarray | None:
        """Another piece of the roll that is unlike the one at `begin` at its middle; None where none is found."""
        for _ in range(6):
            other = int(self._rng.integers(LONG - LENGTH + 1))
            if abs(other - begin) >= self._rng.integers(8, 30):
                after = self._piece(roll, other)
                if np.abs(after[middle] - before[middle]).mean() > JUMP_LEVELS:
                    return after
        return None

    def other(self) -> np.ndarray:
        """A piece of anything."""
        return self._piece(self._roll())


# --- transitions -----------------------------------------------------------------------------------------------


def changed(
    kind: str, before: np.ndarray, after: np.ndarray, share: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One piece becomes the other; all float32 [n, h, w]."""
    way = np.clip(share, 0, 1)
    if kind == "fade":
        colour = 255.0 if rng.random() < 0.35 else rng.uniform(0, 16)
        away = np.minimum(1, 2 * np.minimum(way, 1 - way))
        pictures = np.where((way <= 0.5)[:, None, None], before, after)
        if rng.random() < 0.25:  # out, or in, alone
            pictures, away = before, way if rng.random() < 0.5 else 1 - way
        return pictures + (colour - pictures) * away[:, None, None]
    eased = way * way * (3 - 2 * way) if rng.random() < 0.25 else way
    if kind in ("wipe", "push"):
        direction = int(rng.integers(8 if kind == "wipe" else 4))
        move = wiped if kind == "wipe" else pushed
        pairs = zip(before[..., None], after[..., None], eased, strict=True)
        return np.stack([move(a, b, float(s), direction) for a, b, s in pairs])[..., 0].astype(np.float32)
    gamma = 2.2 if rng.random() < 0.15 else 1.0  # mixed in linear light, or as the values are
    a, b = ((np.clip(piece, 0, 255) / 255) ** gamma for piece in (before, after))
    return (a + (b - a) * eased[:, None, None]) ** (1 / gamma) * 255


# --- what is no transition -------------------------------------------------------------------------------------


def _flash(pictures: np.ndarray, windows: Windows, rng: np.random.Generator) -> np.ndarray:
    pictures = pictures.copy()
    for begin in range(int(rng.integers(3, 20)), LENGTH, int(rng.integers(12, 40))):
        lit = slice(begin, begin + int(rng.integers(1, 3)))
        pictures[lit] = pictures[begin] * 0.25 + 0.75 * rng.uniform(180, 255)
    return pictures


def _exposure(pictures: np.ndarray, windows: Windows, rng: np.random.Generator) -> np.ndarray:
    """Light that sways, that goes from one level to another, or that flickers."""
    times, kind = np.arange(LENGTH), rng.choice([0, 0, 1, 2])
    if kind == 0:
        phase = 2 * np.pi * times * 0.08 / rng.uniform(1.8, 5) + rng.uniform(0, 6)
        gain = 1 + rng.uniform(0.1, 0.55) * np.sin(phase)
    elif kind == 1:
        gain = np.exp(rng.normal(0, 0.6) * np.clip((times - rng.uniform(5, LENGTH - 5)) / rng.uniform(1, 25), 0, 1))
    else:
        gain = np.exp(0.5 * np.cumsum(rng.normal(0, 0.08, LENGTH)))
    gain = gain[:, None, None]
    if rng.random() < 0.6:
        return pictures * gain
    return 255 * (np.clip(pictures, 0, 255) / 255) ** (1 / np.clip(gain, 0.4, 2.5))


def _passer(pictures: np.ndarray, windows: Windows, rng: np.random.Generator) -> np.ndarray:
    """Up to three things cross the picture, some of them stop in its middle."""
    pictures = pictures.copy()
    rows, columns = pictures.shape[1:]
    y, x = np.mgrid[:rows, :columns]
    for _ in range(int(rng.integers(1, 4))):
        other = windows.other()
        high, wide = rows * rng.uniform(0.3, 1.4), columns * rng.uniform(0.12, 0.8)
        begin, time = rng.uniform(0, LENGTH), np.exp(rng.uniform(np.log(3), np.log(45)))
        centre_y, backwards = rng.uniform(0, rows - high / 2) + high / 4, rng.random() < 0.5
        stays, round_, lively, soft = rng.random() < 0.2, rng.random() < 0.5, rng.random() < 0.5, rng.uniform(0.5, 3)
        for number in range(LENGTH):
            way = (number - begin) / time
            way = np.clip(way, 0, 0.5) if stays else way
            if not 0 <= way <= 1:
                continue
            centre_x = -wide / 2 + way * (columns + wide)
            centre_x = columns - centre_x if backwards else centre_x
            dx, dy = np.abs(x - centre_x) / (wide / 2), np.abs(y - centre_y) / (high / 2)
            out = np.hypot(dx, dy) if round_ else np.maximum(dx, dy)
            mask = np.clip((1 - out) * min(wide, high) / 2 / soft + 0.5, 0, 1)
            shown = other[number] if lively else _shifted(other[0], centre_x - columns / 2, 0)
            pictures[number] = pictures[number] * (1 - mask) + shown * mask
    return pictures


def _shake(pictures: np.ndarray, windows: Windows, rng: np.random.Generator) -> np.ndarray:
    return np.stack([_shifted(picture, *rng.normal(0, 1.3, 2)) for picture in pictures])


def _shifted(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return cv2.warpAffine(picture, matrix, picture.shape[::-1], borderMode=cv2.BORDER_REFLECT)


def _title(pictures: np.ndarray, windows: Windows, rng: np.random.Generator) -> np.ndarray:
    """Words that come and go, at once or little by little."""
    rows, columns = pictures.shape[1:]
    mask = np.zeros((rows * 4, columns * 4), np.uint8)
    place = int(rng.integers(0, 1.5 * columns)), int(rng.integers(rows, 3.8 * rows))
    word, face, size = WORDS[rng.integers(len(WORDS))], int(rng.integers(0, 5)), rng.uniform(0.5, 2.2)
    cv2.putText(mask, word, place, face, size, 255, int(rng.integers(1, 5)))
    mask = cv2.resize(mask, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    times = np.arange(LENGTH)
    there = np.clip((times - rng.uniform(0, LENGTH)) / np.exp(rng.uniform(-1, 3)), 0, 1)
    there *= np.clip((rng.uniform(LENGTH * 0.5, LENGTH * 1.6) - times) / np.exp(rng.uniform(-1, 3)), 0, 1)
    weight = mask * there[:, None, None]
    return pictures * (1 - weight) + rng.choice([0.0, 255.0, 235.0]) * weight


EVENTS = {"flash": _flash, "exposure": _exposure, "passer": _passer, "shake": _shake, "title": _title}


def held(pictures: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pictures shown several times, or one that stands to the end."""
    times = np.arange(LENGTH)
    if rng.random() < 0.5:
        several = int(rng.integers(2, 5))
        times = times // several * several
    else:
        times = np.minimum(times, int(rng.integers(5, LENGTH - 5)))
    return pictures[times], labels[times]


# --- the whole window ------------------------------------------------------------------------------------------


def turned(
    pictures: np.ndarray, labels: np.ndarray, rng: np.random.Generator, upside_down: float = 0.2, backwards: float = 0.4
) -> tuple[np.ndarray, np.ndarray]:
    """Mirrored, upside down, backwards, as it happens."""
    if rng.random() < 0.5:
        pictures = pictures[:, :, ::-1]
    if rng.random() < upside_down:
        pictures = pictures[:, ::-1]
    if rng.random() < backwards:
        pictures, labels = pictures[::-1], labels[::-1]
    return np.ascontiguousarray(pictures), labels.copy()


def graded(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darker, of another contrast, in bars, with grain."""
    chance = rng.random()
    if chance < 0.28:
        pictures = pictures * rng.uniform(0.12, 0.4) + rng.uniform(0, 10)
    elif chance < 0.6:
        pictures = (pictures - 128) * rng.uniform(0.5, 1.2) + 128 + rng.uniform(-30, 30)
    if rng.random() < 0.1:
        pictures, bar = pictures.copy(), int(rng.integers(3, 8))
        if rng.random() < 0.7:
            pictures[:, :bar] = pictures[:, -bar:] = rng.uniform(0, 16)
        else:
            pictures[:, :, : 2 * bar] = pictures[:, :, -2 * bar :] = rng.uniform(0, 16)
    if rng.random() < 0.35:
        pictures = pictures + rng.normal(0, rng.uniform(0.2, 1.6), pictures.shape).astype(np.float32)
    return np.clip(pictures, 0, 255)


def encoded(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As an encoder leaves it, half of the time: small changes are not drawn, but at key frames."""
    if rng.random() < 0.5:
        return pictures
    least, every, first = rng.uniform(0.6, 4), int(rng.integers(8, 60)), int(rng.integers(60))
    drawn = [pictures[0]]
    for number in range(1, LENGTH):
        change = pictures[number] - drawn[-1]
        drawn.append(drawn[-1] + (np.rint(change / least) * least if (number + first) % every else np.rint(change)))
    return np.stack(drawn)
