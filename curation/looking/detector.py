"""People by an object detector in ONNX: YOLO's and (RT-)DETR's outputs.

Input: one picture, float32 RGB in 0..1, [1, 3, H, W], scaled to fit and padded with grey (640 px where the graph leaves
its size open). Outputs that are understood, told apart by their shapes:

- [1, 4 + C, N] or [1, N, 4 + C]: box and C class scores (YOLOv8 and later, Ultralytics' RT-DETR);
- [1, N, 85]: box, objectness and 80 class scores (YOLOv5, YOLOX);
- [1, N, 6]: box, score, class (graphs with non-maximum suppression inside);
- two outputs, [1, N, C] class logits and [1, N, 4] boxes (DETR).

A clip's score is the best person's over its stills (at most `STILLS`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from rushes.curation.looking.base import Clip, ModelError, file_name, is_flat
from rushes.curation.meter import Unmeasured

SIDE, GREY = 640, 114
STILLS = 4
BOX = 4
YOLO5_WIDTH, NMS_WIDTH = 85, 6
SHARES_MOST = 1.5  # boxes whose numbers are all below this are in shares of the picture
NMS_MOST = 1000  # boxes of a graph with suppression inside; without it there are thousands


class OnnxPeople:
    """human_score by a detector. person: number of the class "person" (0 in YOLO's COCO, 1 in DETR's). key: that of
    the recipe which names the file.

    Raises ModelError where the file is missing, no graph, or answers in another form.
    """

    columns = ("human_score",)

    def __init__(self, path: str, person: int = 0, gpu: bool = False, key: str = "models.people") -> None:
        import onnxruntime

        if not os.path.isfile(path):
            raise ModelError(f"{key}={path}: there is no such file; give an ONNX detector.")
        have = onnxruntime.get_available_providers()
        if gpu and "CUDAExecutionProvider" not in have:
            raise ModelError(
                f"{key}={path} on a GPU needs onnxruntime-gpu in place of onnxruntime: install it, or set "
                "models.gpus=0."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        providers = ["CUDAExecutionProvider"] * gpu + ["CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # onnxruntime's errors are classes of its compiled part
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{key}={path} is no ONNX graph that can be run: {reason}.") from error
        self.name, self._person, self._path, self._key = file_name(path), person, path, key
        first = self._session.get_inputs()[0]
        if len(first.shape) != 4 or first.type != "tensor(float)":
            raise ModelError(f"{key}={path} takes {first.type} {first.shape}, not float pictures [1, 3, H, W].")
        self._input = first.name
        self._size = tuple(side if isinstance(side, int) else SIDE for side in first.shape[2:])
        self._score(np.zeros((*self._size, 3), np.uint8))

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        return [{"human_score": self._clip(clip.pictures)} for clip in clips]

    def _clip(self, pictures: Sequence[np.ndarray]) -> float | Unmeasured:
        if is_flat(pictures):
            return Unmeasured("the picture is one flat colour")
        some = np.linspace(0, len(pictures) - 1, min(STILLS, len(pictures))).round().astype(int)
        best = max(self._score(pictures[i]) for i in some)
        return best if np.isfinite(best) else Unmeasured(f"{self.name} answered numbers that are not finite")

    def _score(self, picture: np.ndarray) -> float:
        outputs = self._session.run(None, {self._input: _letterboxed(picture, self._size)})
        scores = self._known(person_scores(outputs, self._person), outputs)
        return float(np.max(scores)) if len(scores) else 0.0

    def _known(self, found: Any, outputs: Sequence[np.ndarray]) -> Any:
        if found is None:
            shapes = ", ".join(str(list(output.shape)) for output in outputs)
            raise ModelError(f"{self._key}={self._path} answers {shapes}, which is no form that is understood.")
        return found

    def boxes(self, picture: np.ndarray, least: float) -> np.ndarray:
        """Things of any class that are seen with a score of at least `least`: left, top, right, bottom in shares of the
        picture (uint8 BGR), float64 [N, 4].
        """
        outputs = self._session.run(None, {self._input: _letterboxed(picture, self._size)})
        found, scores = self._known(boxes(outputs, self._size), outputs)
        scale, left, top = padding(picture, self._size)
        inside = (found[scores >= least] - [left, top, left, top]) / scale
        return np.clip(inside / ([picture.shape[1], picture.shape[0]] * 2), 0.0, 1.0)


def person_scores(outputs: Sequence[np.ndarray], person: int) -> np.ndarray | None:
    """Scores in [0, 1] of one class, of every box; None where the outputs have no known form."""
    if len(outputs) >= 2:
        logits = next((o for o in outputs if o.ndim == 3 and o.shape[2] > max(BOX, person)), None)
        boxes = next((o for o in outputs if o.ndim == 3 and o.shape[2] == BOX), None)
        if logits is None or boxes is None:
            return None
        return 1.0 / (1.0 + np.exp(-logits[0, :, person]))
    found = outputs[0]
    if found.ndim != 3 or found.shape[0] != 1:
        return None
    rows = found[0] if found.shape[1] >= found.shape[2] or found.shape[2] in (YOLO5_WIDTH, NMS_WIDTH) else found[0].T
    if found.shape[2] == NMS_WIDTH and len(rows) <= NMS_MOST:
        return np.where(rows[:, 5].round() == person, rows[:, 4], 0.0)
    if rows.shape[1] == YOLO5_WIDTH:
        return rows[:, BOX] * rows[:, BOX + 1 + person]
    return rows[:, BOX + person] if rows.shape[1] > BOX + person else None


def boxes(outputs: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """(left, top, right, bottom [N, 4] in pixels of the padded picture, best class score [N]) of every box; None where
    the outputs have no known form. size: height and width of the padded picture.
    """
    if len(outputs) >= 2:
        logits = next((o for o in outputs if o.ndim == 3 and o.shape[2] > BOX), None)
        places = next((o for o in outputs if o.ndim == 3 and o.shape[2] == BOX), None)
        if logits is None or places is None:
            return None
        return _corners(places[0], size), 1.0 / (1.0 + np.exp(-logits[0].max(axis=1)))
    found = outputs[0]
    if found.ndim != 3 or found.shape[0] != 1:
        return None
    rows = found[0] if found.shape[1] >= found.shape[2] or found.shape[2] in (YOLO5_WIDTH, NMS_WIDTH) else found[0].T
    if found.shape[2] == NMS_WIDTH and len(rows) <= NMS_MOST:
        return rows[:, :BOX], rows[:, BOX]
    if rows.shape[1] == YOLO5_WIDTH:
        return _corners(rows[:, :BOX], size), rows[:, BOX] * rows[:, BOX + 1 :].max(axis=1)
    return (_corners(rows[:, :BOX], size), rows[:, BOX:].max(axis=1)) if rows.shape[1] > BOX else None


def _corners(middles: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Middle, width and height [N, 4], in pixels or in shares of the picture, as left, top, right, bottom in pixels."""
    scale = np.array([size[1], size[0]] * 2) if len(middles) and middles.max() <= SHARES_MOST else 1.0
    middle, half = (middles * scale)[:, :2], (middles * scale)[:, 2:] / 2
    return np.hstack([middle - half, middle + half])


def padding(picture: np.ndarray, size: tuple[int, int]) -> tuple[float, int, int]:
    """(scale, left, top) at which a picture lies in the padded one."""
    scale = min(size[0] / picture.shape[0], size[1] / picture.shape[1])
    wide, high = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return scale, (size[1] - wide) // 2, (size[0] - high) // 2


def _letterboxed(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 BGR -> float32 RGB [1, 3, *size] in 0..1."""
    scale, left, top = padding(picture, size)
    shape = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas = np.full((*size, 3), GREY, np.uint8)
    canvas[top : top + shape[1], left : left + shape[0]] = small
    return np.ascontiguousarray(canvas[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255.0)
