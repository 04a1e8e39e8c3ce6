"""Whether people are in a clip, by the detectors inside OpenCV: faces (Haar cascades) and figures (HOG).

Movie Gen balances its sets by people in them (section 3.2.1). These detectors are the offline stand-in for a
learned one: they see faces turned to the camera and upright figures of a fair size, and miss people from
behind, small, in the dark or cut off at the neck. A score of 0 therefore means "none seen", not "none there".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

FACE_AREA = 320 * 180  # px of the copy searched for frontal faces, about 14 ms (cost goes with the area)
PROFILE_AREA = 232 * 130  # px, for faces in profile: that cascade is dearer, 10 ms for each direction
SCALE_STEP = 1.25  # between the sizes tried: twice as fast as 1.1, one face in ten is lost
FRONTAL_NEIGHBOURS = 2  # overlapping hits that make a face; the score grows with their number
PROFILE_NEIGHBOURS = 3  # the profile cascade is less sure of itself
MIN_FACE = 0.09  # of the shorter side: smaller faces are someone in the background
MIN_FACE_PX = 20  # the cascades were trained on windows of 20 px
HITS_HALF = 3.0  # overlapping hits at which a face is as likely as not
PROFILE_TRUST = 0.6  # of a profile hit against a frontal one
FIGURE_WINDOW = (64, 128)  # px, width and height of the HOG window: a smaller copy holds no figure
FIGURE_STRIDE = (8, 8)  # px
FIGURE_STEP = 1.1
FIGURE_MARGIN = 0.4  # distance to the HOG's decision plane below which foliage and furniture answer as well
FIGURE_HALF = 1.0  # that distance at which a figure is as likely as not
MIN_CONTRAST = 8.0  # luma std: in a flat or black still there is nothing to see
MIN_FACE_LUMA = 24.0  # mean luma of a face: the cascades normalise contrast and find faces in black noise
MIN_FACE_STD = 10.0  # luma std of a face, for the same reason
HAIR = 0.3  # of a face's height: what a head has above the face that the cascade finds
Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of the picture's sides
STILLS = 3  # looked at: the middle, and one from each half


class PeopleDetector:
    """Human score of a clip from at most three stills.

    Each hit has a confidence: a frontal face n / (n + 3) for n overlapping hits of the cascade, a profile 0.6
    times that, a figure d / (d + 1) for the distance d to the HOG's decision plane. A detector's evidence is
    its best hit over the stills (a false hit in a static scene comes again in each of them), and detectors
    count as independent: score = 1 - product(1 - evidence). Frontal faces are looked for in three stills,
    until `sure`; figures in the middle one, and profiles there too if nothing else was seen. The score is a
    confidence to be thresholded (above 0.5: a face seen clearly), not a calibrated probability.

    Args:
        sure: score in (0, 1] at which the search ends.

    Raises:
        RuntimeError: this OpenCV has no cascades (5.0 dropped them).
    """

    name = "opencv"

    def __init__(self, sure: float = 0.65) -> None:
        if not 0.0 < sure <= 1.0:
            raise ValueError(f"sure must be in (0, 1], not {sure}")
        self.sure = sure
        self._frontal = _cascade("haarcascade_frontalface_alt2.xml")
        self._profile = _cascade("haarcascade_profileface.xml")
        self._figure = cv2.HOGDescriptor()
        self._figure.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())

    def measure(self, stills: Sequence[np.ndarray]) -> float:
        """Confidence in [0, 1] that people are seen in the clip; 0 where none were found."""
        return self.find(stills)[0]

    def find(self, stills: Sequence[np.ndarray]) -> tuple[float, tuple[Box, ...]]:
        """The confidence of `measure`, and the heads that were seen on the way, in any still.

        Args:
            stills: uint8 BGR [H, W, 3], in order of time; three of them are looked at.

        Raises:
            ValueError: no still.
        """
        if len(stills) == 0:
            raise ValueError("people need at least one still")
        lumas = [cv2.cvtColor(_shrink(stills[i], FACE_AREA), cv2.COLOR_BGR2GRAY) for i in _spread(len(stills))]
        lumas = [luma for luma in lumas if luma.std() >= MIN_CONTRAST]
        if not lumas:
            return 0.0, ()
        frontal, heads = 0.0, ()
        for luma in lumas:
            score, faces = _faces(self._frontal, luma, FRONTAL_NEIGHBOURS)
            frontal, heads = max(frontal, score), heads + faces
            if frontal >= self.sure:
                return frontal, heads
        figure, figures = self._upright_figures(lumas[0])
        if frontal == figure == 0.0:  # the dear one only where nothing else was seen
            return self._profile_face(lumas[0])
        return 1.0 - (1.0 - frontal) * (1.0 - figure), heads + figures

    def _profile_face(self, luma: np.ndarray) -> tuple[float, tuple[Box, ...]]:
        small = _shrink(luma, PROFILE_AREA)
        best, heads = _faces(self._profile, small, PROFILE_NEIGHBOURS)
        other, mirrored = _faces(self._profile, cv2.flip(small, 1), PROFILE_NEIGHBOURS)  # it knows one side only
        heads += tuple((1 - right, top, 1 - left, bottom) for left, top, right, bottom in mirrored)
        return PROFILE_TRUST * max(best, other), heads

    def _upright_figures(self, luma: np.ndarray) -> tuple[float, tuple[Box, ...]]:
        """The surest figure, and the heads of all: the upper middle of their windows."""
        height, width = luma.shape
        if width < FIGURE_WINDOW[0] or height < FIGURE_WINDOW[1]:
            return 0.0, ()
        boxes, distances = self._figure.detectMultiScale(
            luma, hitThreshold=FIGURE_MARGIN, winStride=FIGURE_STRIDE, padding=FIGURE_STRIDE, scale=FIGURE_STEP
        )
        distance = float(np.max(distances)) if len(distances) else 0.0
        heads = tuple(_shares(x + w / 3, y + h / 12, w / 3, h / 6, luma) for x, y, w, h in boxes)
        return distance / (distance + FIGURE_HALF), heads


def _spread(count: int) -> list[int]:
    """Up to three indices, the middle first."""
    wanted = (count // 2, count // 6, count - 1 - count // 6)[:STILLS]
    return list(dict.fromkeys(wanted))


def _shrink(image: np.ndarray, area: int) -> np.ndarray:
    """The image with at most `area` pixels (area averaging)."""
    scale = (area / (image.shape[0] * image.shape[1])) ** 0.5
    if scale >= 1.0:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _cascade(file_name: str) -> cv2.CascadeClassifier:
    if not hasattr(cv2, "CascadeClassifier") or not hasattr(cv2, "data"):
        raise RuntimeError(f"OpenCV {cv2.__version__} has no cascades: pip install 'opencv-python>=4.13,<5'")
    path = Path(cv2.data.haarcascades) / file_name
    cascade = cv2.CascadeClassifier(str(path))
    if cascade.empty():
        raise RuntimeError(f"OpenCV {cv2.__version__} lacks {path}: pip install 'opencv-python>=4.13,<5'")
    return cascade


def _faces(cascade: cv2.CascadeClassifier, luma: np.ndarray, neighbours: int) -> tuple[float, tuple[Box, ...]]:
    """Confidence of the surest face, and the boxes of all, widened to the heads that they belong to."""
    least = max(MIN_FACE_PX, int(MIN_FACE * min(luma.shape)))
    boxes, hits = cascade.detectMultiScale2(
        luma, scaleFactor=SCALE_STEP, minNeighbors=neighbours, minSize=(least, least)
    )
    most, heads = 0, ()
    for (x, y, width, height), count in zip(boxes, hits):
        mean, std = cv2.meanStdDev(luma[y : y + height, x : x + width])
        if mean[0, 0] >= MIN_FACE_LUMA and std[0, 0] >= MIN_FACE_STD:
            most = max(most, int(count))
            heads += (_shares(x, y - HAIR * height, width, (1 + HAIR) * height, luma),)
    return most / (most + HITS_HALF), heads


def _shares(x: float, y: float, width: float, height: float, luma: np.ndarray) -> Box:
    """A box in pixels as shares of the picture's sides."""
    rows, columns = luma.shape
    sides = (x / columns, y / rows, (x + width) / columns, (y + height) / rows)
    return tuple(float(min(max(side, 0.0), 1.0)) for side in sides)
