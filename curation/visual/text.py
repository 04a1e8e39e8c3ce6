"""Text on screen: burnt-in subtitles, titles, logos and watermarks, found by detection and recognition.

Movie Gen, appendix B.1: words are detected, then recognised, on adaptively sampled frames; a clip is kept only
if detection score x recognition score stays below 0.6 on all of them. The product matters: a detector alone
answers foliage and rigging with 0.5-0.6, and a recogniser that reads letters there says how unsure it is.

Looking is dear (about 60 ms of one core per still), so few stills are looked at and in a good order. A cheap
map of thin strokes says where text may stand in each still; the still with the strokes least usual for its
clip comes first, then the mean of all stills, which shows faint marks that stand over a restless picture, then
the middle, the first and the last still and those with strokes nobody has looked at yet. A still like one
already looked at is passed over, and the first word that decides ends the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from .frame_stats import shrink
from .lettering import Box, Lettering, lettering, meets, merged, overlap, standing, upright

Found = tuple[np.ndarray, float]  # corners [4, 2] in px of the still, detection score

MIN_ALNUM = 2  # letters or digits that make a word: a lone "l" or "0" is a pole or a wheel
MAX_BOXES = 4  # boxes recognised per still, 25 ms each; more words of one overlay tell nothing new
STROKE_SIDE = 320  # px, size of the copy that is searched for strokes
STROKE_KERNEL = 5  # px of that copy: strokes of letters up to 60 px high in a 640 px still are thinner
STROKE_CONTRAST = 24  # luma levels a stroke stands out from both of its sides
CELL_PX = (8, 16)  # height and width of a cell of the stroke map: about two letters of a subtitle
NEW_STROKES = 0.12  # share of a cell: strokes in less of it are no new word
NEW_PICTURE = 12.0  # mean luma difference of the thumbnails above which a still is another picture
THUMB = (16, 16)  # px
OVERLAY_SCORE = 0.5  # det x rec from which a clip's text is looked for in all its stills, and a word belongs to it
OVERLAY_AGAIN = 0.35  # the same where a word stands in another still
OVERLAY_BOXES = 16  # boxes of a still that are asked whether they are words
OFTEN = 0.5  # share of the stills in which what is read in their mean must stand
ALIKE = 0.7  # overlap of two boxes from which they are one where the same strokes stand


@dataclass(frozen=True)
class TextWord:
    """One recognised box: its text, both scores in [0, 1] and its corners [4, 2] (x, y in px of the still)."""

    text: str
    det_score: float
    rec_score: float
    box: tuple[tuple[float, float], ...]

    @property
    def score(self) -> float:
        """Detection times recognition score, in [0, 1]."""
        return self.det_score * self.rec_score


@dataclass(frozen=True)
class TextResult:
    """What was read in a clip.

    `score` is the highest det x rec over the words of the stills looked at, in [0, 1], and 0 where no word was
    found. The search ends at the first still that decides, so a score above `stop_at` is a lower bound.
    `frame`, `time_s`, `words` and `text` belong to the still with that score: None and empty without one; frame and
    time_s are None where the mean of the stills has it. `overlays` are boxes round the lines of text of all stills
    (shares of the sides), `stands_in` the stills with any of it.
    """

    score: float
    frames_looked: tuple[int, ...]
    frame: int | None = None
    time_s: float | None = None
    words: tuple[TextWord, ...] = field(default=())
    overlays: tuple[Box, ...] = ()
    stands_in: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """The words of the deciding still, best first."""
        return " ".join(word.text for word in self.words)


class TextMeter:
    """Reads stills with RapidOCR (PP-OCRv6, the models are inside its package), one thread per instance.

    Args:
        side: px, longest side of the copy that words are searched in; recognition reads the still itself.
        max_frames: most stills looked at in one clip, their mean among them.
        stop_at: det x rec at which a still decides and the search ends (Movie Gen's threshold).

    Raises:
        ModuleNotFoundError: rapidocr or onnxruntime is missing; the message says what to install.
    """

    name = "rapidocr"

    def __init__(self, side: int = 480, max_frames: int = 5, stop_at: float = 0.6) -> None:
        if side < 64 or max_frames < 1:
            raise ValueError(f"side must be 64 or more and max_frames 1 or more, not {side} and {max_frames}")
        self.side = side
        self.max_frames = max_frames
        self.stop_at = stop_at
        self._engine = _load_engine(side)

    def measure(self, stills: Sequence[np.ndarray], times: Sequence[float] | None = None) -> TextResult:
        """Look for text in the stills of one clip (Movie Gen, appendix B.1).

        Args:
            stills: uint8 BGR [H, W, 3], in order of time; their sizes may differ.
            times: seconds of each still, for `time_s` of the result.

        Raises:
            ValueError: no still, or as many times as stills are not given.
        """
        if len(stills) == 0:
            raise ValueError("text needs at least one still")
        if times is not None and len(times) != len(stills):
            raise ValueError(f"{len(stills)} stills but {len(times)} times")
        pictures = _of_one_size(stills)
        order = looking_order(pictures, len(pictures))
        if len(order) > 1:
            order.insert(1, len(pictures))
            pictures.append(standing(pictures))
        found: dict[int, list[Found]] = {}
        best = TextResult(0.0, ())
        for place in order[: self.max_frames]:
            found[place] = self.detect(pictures[place])
            words = self.read(pictures[place], best.score, found[place])
            if place == len(stills):
                words = tuple(word for word in words if _stands(pictures, np.array(word.box, np.float32)))
            if words and words[0].score > best.score:
                frame = place if place < len(stills) else None
                time_s = None if times is None or frame is None else float(times[frame])
                best = TextResult(words[0].score, (), frame, time_s, words)
            if best.score >= self.stop_at:
                break
        looked = tuple(place for place in found if place < len(stills))
        boxes, where = self._overlays(pictures, order, found) if best.score >= OVERLAY_SCORE else ((), set())
        stands_in = tuple(sorted(place for place in where if place < len(stills)))
        return TextResult(best.score, looked, best.frame, best.time_s, best.words, boxes, stands_in)

    def _overlays(
        self, pictures: list[np.ndarray], order: list[int], found: dict[int, list[Found]]
    ) -> tuple[tuple[Box, ...], set[int]]:
        """Boxes of text, and the places of the pictures in which it stands. found: what `detect` answered before.

        Text is what reads as a word; where a word stands in another picture, less sure ones count.
        """
        lumas, stills = [_gray(picture) for picture in pictures], len(pictures) - (len(order) > 1)
        known: list[Lettering] = []
        unsure: list[tuple[int, np.ndarray, float]] = []
        for place in sorted(order, key=lambda place: place == stills):  # the mean adds what no still shows
            boxes = found[place] if place in found else self.detect(pictures[place])
            unsure += [(place, corners, score) for corners, score in boxes[:OVERLAY_BOXES]]
        for least in (OVERLAY_SCORE, OVERLAY_AGAIN):
            left = []
            for place, corners, det_score in unsure:
                near = [other for other in known if meets(upright(corners), other.raw)]
                if any(place in other.stills and overlap(upright(corners), other.raw) >= ALIKE for other in near):
                    continue
                one = None
                if (near or least == OVERLAY_SCORE) and self._is_word(pictures[place], corners, det_score, least):
                    one = lettering(lumas, place, corners, place == stills)
                if one is not None and (place < stills or _often(one, stills)):
                    known.append(one)
                else:
                    left.append((place, corners, det_score))
            unsure = left
        shares = [one.shares(*lumas[0].shape) for one in known]
        return merged(shares), set().union(*(one.stills for one in known))

    def _is_word(self, still: np.ndarray, corners: np.ndarray, det_score: float, least: float) -> bool:
        if det_score < least:
            return False
        text, rec_score = self._recognise(_cut(still, corners))
        return det_score * rec_score >= least and sum(c.isalnum() for c in text) >= MIN_ALNUM

    def read(self, still: np.ndarray, worth: float = 0.0, boxes: list[Found] | None = None) -> tuple[TextWord, ...]:
        """The words of one still, best first.

        Args:
            still: uint8 BGR [H, W, 3].
            worth: boxes that cannot score above this are not recognised (det x rec is at most det).
            boxes: what `detect` answers for this still, where it was asked before.
        """
        words: list[TextWord] = []
        for box, det_score in (self.detect(still) if boxes is None else boxes)[:MAX_BOXES]:
            if det_score <= max(worth, *(word.score for word in words), 0.0):
                continue
            text, rec_score = self._recognise(_cut(still, box))
            if sum(character.isalnum() for character in text) >= MIN_ALNUM:
                corners = tuple((float(x), float(y)) for x, y in box)
                words.append(TextWord(text, det_score, rec_score, corners))
            if words and words[-1].score >= self.stop_at:
                break
        return tuple(sorted(words, key=lambda word: -word.score))

    def detect(self, still: np.ndarray) -> list[Found]:
        """Corner points [4, 2] in px of the still and detection scores, the most promising first."""
        small = shrink(still, self.side)
        found = self._engine(small, use_det=True, use_cls=False, use_rec=False)
        if found.boxes is None or len(found.boxes) == 0:
            return []
        scale = np.array(still.shape[1::-1], np.float32) / np.array(small.shape[1::-1], np.float32)
        boxes = [np.asarray(box, np.float32) * scale for box in found.boxes]
        longest = max(cv2.contourArea(box) for box in boxes) or 1.0
        # det x size, the size softened: a large faint box must not hide a small clear one
        rank = [-score * (cv2.contourArea(box) / longest) ** 0.25 for box, score in zip(boxes, found.scores)]
        return [(boxes[i], float(found.scores[i])) for i in np.argsort(rank)]

    def _recognise(self, crop: np.ndarray) -> tuple[str, float]:
        read = self._engine(crop, use_det=False, use_cls=False, use_rec=True)
        if getattr(read, "txts", None) is None or len(read.txts) == 0:
            return "", 0.0
        return read.txts[0], float(read.scores[0])


def _stands(pictures: Sequence[np.ndarray], corners: np.ndarray) -> bool:
    """Whether what reads as a word in the last picture, the mean of the others, stands in them."""
    lumas = [_gray(picture) for picture in pictures]
    return _often(lettering(lumas, len(lumas) - 1, corners, mean=True), len(lumas) - 1)


def _often(one: Lettering, stills: int) -> bool:
    return sum(place < stills for place in one.stills) >= OFTEN * stills


def _gray(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)


def _of_one_size(stills: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The stills in the size of the first one."""
    size = stills[0].shape[1::-1]
    return [still if still.shape[1::-1] == size else cv2.resize(still, size) for still in stills]


def looking_order(stills: Sequence[np.ndarray], max_frames: int) -> list[int]:
    """Indices of the stills worth looking at for text, the likeliest first, at most `max_frames`.

    Stills that show no strokes beyond those of the stills before them, in nearly the same picture, are left
    out: one still stands for a static clip.

    Args:
        stills: uint8 BGR [H, W, 3], in order of time.
        max_frames: most indices returned, at least one.
    """
    maps = [stroke_map(still) for still in stills]
    if len(stills) == 1 or any(m.shape != maps[0].shape for m in maps):
        return list(range(len(stills)))[:max_frames]
    strokes = np.stack(maps)
    thumbs = np.stack([_thumb(still) for still in stills])
    usual = np.median(strokes, axis=0)
    unusual = strongest_line(strokes - usual)
    middle = len(stills) // 2
    order = [int(np.argmax(unusual)) if unusual.max() >= NEW_STROKES else middle]
    fixed = [middle, 0, len(stills) - 1]
    while len(order) < max_frames:
        novelty = strongest_line(strokes - strokes[order].max(axis=0))
        distance = np.abs(thumbs[:, None] - thumbs[order][None]).mean(axis=(2, 3)).min(axis=1)
        fresh = (novelty >= NEW_STROKES) | (distance >= NEW_PICTURE)
        fresh[order] = False
        if not fresh.any():
            break
        anchors = [i for i in fixed if fresh[i]] if len(order) % 2 else []
        order.append(anchors[0] if anchors else int(np.argmax(np.where(fresh, novelty, -np.inf))))
    return order


def stroke_map(still: np.ndarray) -> np.ndarray:
    """Share of each cell covered by thin strokes, float32 [rows, columns] in [0, 1].

    A stroke is a line thinner than 5 px of a 320 px copy that is brighter (white top-hat) or darker (black
    top-hat) than what lies on both of its sides: letters at once, most edges of things not at all.

    Args:
        still: uint8 BGR [H, W, 3].
    """
    luma = cv2.cvtColor(shrink(still, STROKE_SIDE), cv2.COLOR_BGR2GRAY)
    kernel = np.ones((STROKE_KERNEL, STROKE_KERNEL), np.uint8)
    bright = cv2.morphologyEx(luma, cv2.MORPH_TOPHAT, kernel)
    dark = cv2.morphologyEx(luma, cv2.MORPH_BLACKHAT, kernel)
    strokes = cv2.threshold(cv2.max(bright, dark), STROKE_CONTRAST, 1.0, cv2.THRESH_BINARY)[1]
    rows, columns = (max(1, n // cell) for n, cell in zip(luma.shape, CELL_PX))
    return cv2.resize(strokes.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)


def strongest_line(maps: np.ndarray) -> np.ndarray:
    """Per map [N, rows, columns] the largest mean of two neighbouring cells of a row: words run sideways."""
    if maps.shape[2] < 2:
        return maps.max(axis=(1, 2))
    return ((maps[:, :, 1:] + maps[:, :, :-1]) / 2).max(axis=(1, 2))


def _thumb(still: np.ndarray) -> np.ndarray:
    small = cv2.resize(still, THUMB, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)


def _cut(still: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The box turned upright; tall boxes lie down, as the recogniser reads lines."""
    width = max(1, round(max(np.linalg.norm(box[0] - box[1]), np.linalg.norm(box[2] - box[3]))))
    height = max(1, round(max(np.linalg.norm(box[0] - box[3]), np.linalg.norm(box[1] - box[2]))))
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    transform = cv2.getPerspectiveTransform(box.astype(np.float32), corners)
    crop = cv2.warpPerspective(
        still, transform, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.ascontiguousarray(np.rot90(crop)) if height >= 1.5 * width else crop


def _load_engine(side: int):
    """RapidOCR with its models in memory, on one thread, with detection scores that belong to their boxes."""
    try:
        import onnxruntime  # noqa: F401 - RapidOCR imports it late, with a less helpful message
        from rapidocr import RapidOCR
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"reading text on screen needs the package {error.name!r}: pip install rapidocr onnxruntime"
        ) from error
    threads = "EngineConfig.onnxruntime"
    engine = RapidOCR(
        params={
            f"{threads}.intra_op_num_threads": 1,
            f"{threads}.inter_op_num_threads": 1,
            "Det.limit_type": "max",
            "Det.limit_side_len": side,
            "Global.log_level": "critical",
        }
    )
    blank = np.zeros((64, 64, 3), np.uint8)
    engine(blank, use_det=True, use_cls=False, use_rec=False)  # loads the detector now, not in the first clip
    engine(blank, use_det=False, use_cls=False, use_rec=True)
    # RapidOCR 3 sorts its boxes for reading and leaves their scores in the old order; unsorted they match.
    engine.text_det.sorted_boxes = lambda boxes: boxes
    return engine
