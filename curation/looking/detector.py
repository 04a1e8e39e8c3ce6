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
NMS_MOST = 1000  # boxes of a graph with suppression inside; without it there are thousands


class OnnxPeople:
    """human_score by a detector. person: number of the class "person" (0 in YOLO's COCO, 1 in DETR's).

    Raises ModelError where the file is missing, no graph, or answers in another form.
    """

    columns = ("human_score",)

    def __init__(self, path: str, person: int = 0, gpu: bool = False) -> None:
        import onnxruntime

        if not os.path.isfile(path):
            raise ModelError(f"models.people={path}: there is no such file; give an ONNX detector, 'opencv' or 'clip'.")
        have = onnxruntime.get_available_providers()
        if gpu and "CUDAExecutionProvider" not in have:
            raise ModelError(
                f"models.people={path} on a GPU needs onnxruntime-gpu in place of onnxruntime: install it, or set "
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
            raise ModelError(f"models.people={path} is no ONNX graph that can be run: {reason}.") from error
        self.name, self._person, self._path = file_name(path), person, path
        first = self._session.get_inputs()[0]
        if len(first.shape) != 4 or first.type != "tensor(float)":
            raise ModelError(f"models.people={path} takes {first.type} {first.shape}, not float pictures [1, 3, H, W].")
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
        pixels = _letterboxed(picture, self._size)
        outputs = self._session.run(None, {self._input: pixels})
        scores = person_scores(outputs, self._person)
        if scores is None:
            shapes = ", ".join(str(list(output.shape)) for output in outputs)
            raise ModelError(f"models.people={self._path} answers {shapes}, which is no form that is understood.")
        return float(np.max(scores)) if len(scores) else 0.0


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
    if rows.shape[1] == NMS_WIDTH and len(rows) <= NMS_MOST:
        return np.where(rows[:, 5].round() == person, rows[:, 4], 0.0)
    if rows.shape[1] == YOLO5_WIDTH:
        return rows[:, BOX] * rows[:, BOX + 1 + person]
    return rows[:, BOX + person] if rows.shape[1] > BOX + person else None


def _letterboxed(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 BGR -> float32 RGB [1, 3, *size] in 0..1."""
    scale = min(size[0] / picture.shape[0], size[1] / picture.shape[1])
    shape = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas = np.full((*size, 3), GREY, np.uint8)
    top, left = (size[0] - shape[1]) // 2, (size[1] - shape[0]) // 2
    canvas[top : top + shape[1], left : left + shape[0]] = small
    return np.ascontiguousarray(canvas[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255.0)
