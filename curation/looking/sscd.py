"""Copies by a TorchScript file such as SSCD's (sscd_disc_mixup.torchscript.pt): a picture in, a descriptor out.

Pictures are resized to 320 x 320 with ImageNet's mean and standard deviation, as SSCD's authors advise; a clip is the
mean of its stills' descriptors, each of length 1, and is of length 1 itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from rushes.curation.looking.base import Clip, ModelError, file_name, in_batches, is_flat
from rushes.curation.meter import Unmeasured

SIDE = 320  # px
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])  # RGB, ImageNet


class ScriptedCopies:
    """Copy embeddings by a TorchScript file. Raises ModelError where it is missing or no such model."""

    columns = ("copy",)

    def __init__(self, path: str, device: str = "cpu", batch: int = 64) -> None:
        if not os.path.isfile(path):
            raise ModelError(f"models.copies={path}: there is no such file; give SSCD's TorchScript, or 'measured'.")
        try:
            import torch
        except ImportError as error:
            raise ModelError(f"models.copies={path} needs torch: pip install 'rushes[models]'.") from error
        try:
            self._model = torch.jit.load(path, map_location=device).eval()
        except Exception as error:  # zip, pickle and torch each have errors of their own
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"models.copies={path} is no TorchScript file: {reason}.") from error
        self._device, self._batch = device, batch
        self.name = file_name(path)
        try:
            answer = self._run([np.zeros((SIDE, SIDE, 3), np.uint8)])
        except Exception as error:
            reason = " ".join(str(error).split())[-200:]
            raise ModelError(
                f"models.copies={path} does not take pictures [N, 3, {SIDE}, {SIDE}]: {reason}."
            ) from error
        if answer.ndim != 2:
            raise ModelError(f"models.copies={path} answers {list(answer.shape)} for one picture, not [1, width].")
        self.dim = answer.shape[1]

    def _run(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        import torch

        squares = [cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for picture in pictures]
        pixels = (np.stack(squares)[..., ::-1].astype(np.float32) / 255.0 - MEAN) / STD
        with torch.inference_mode():
            answer = self._model(torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).to(self._device))
        return answer.float().cpu().numpy()

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        def halved(batch: int) -> None:
            self._batch = batch
            for clip in clips:
                clip.notes.append(f"copy: memory ran out, batches of {batch} pictures from here on")

        pictures = [picture for clip in clips for picture in clip.pictures]
        try:
            rows = in_batches(pictures, self._run, self._batch, halved)
        except MemoryError as error:
            return [{"copy": Unmeasured(str(error))} for _ in clips]
        parts = np.split(rows, np.cumsum([len(clip.pictures) for clip in clips])[:-1])
        return [{"copy": self._pooled(part, is_flat(clip.pictures))} for part, clip in zip(parts, clips)]

    def _pooled(self, rows: np.ndarray, flat: bool) -> np.ndarray | Unmeasured:
        if flat:
            return Unmeasured("the picture is one flat colour")
        if not np.isfinite(rows).all():
            return Unmeasured(f"{self.name} answered numbers that are not finite")
        mean = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).mean(axis=0)
        return (mean / max(np.linalg.norm(mean), 1e-12)).astype(np.float32)
