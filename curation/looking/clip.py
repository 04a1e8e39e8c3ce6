"""A CLIP by open_clip: one pass over the stills feeds the semantic embedding, the heads and the zero-shot questions.

The embedding of a clip is the mean of its stills' embeddings, each of length 1, and is of length 1 itself. Pictures
are squeezed to the model's square as its own preprocessing does (shorter side to size, centre crop), in the mean and
standard deviation of its configuration.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from rushes.curation.looking.base import Clip, ModelError, file_name, in_batches, is_flat
from rushes.curation.looking.heads import Head
from rushes.curation.looking.torchvision_schemas import import_open_clip
from rushes.curation.looking.zeroshot import PEOPLE_SURE, Question, flag_question, people_question
from rushes.curation.meter import Unmeasured
from rushes.curation.recipe import Recipe


class Tower:
    """An open_clip model: pictures and texts to rows of length 1.

    model: a name that open_clip knows; weights: a tag of it, a file, or "hf-hub:OWNER/NAME" (then `model` may be the
    same). device: "cpu" or "cuda". batch: pictures per pass.
    Raises ModelError where open_clip, the model or its weights are missing or do not belong together.
    """

    def __init__(self, model: str, weights: str | None, device: str = "cpu", precision: str = "fp32", batch: int = 64):
        try:
            open_clip = import_open_clip()
        except ImportError as error:
            raise ModelError(
                f"models.clip={model} needs the package open_clip_torch ({error}): pip install 'rushes[models]'."
            ) from error
        # a name alone would be a model of random numbers
        if weights is None and not model.startswith("hf-hub:"):
            raise ModelError(
                f"models.clip={model} has no weights: set models.clip_weights to a tag, a file or a hub id."
            )
        try:
            self._model, _, _ = open_clip.create_model_and_transforms(
                model, pretrained=weights, precision=precision, device=device
            )
        except Exception as error:  # open_clip, torch and the hub have no class of errors in common
            raise ModelError(_cannot_load(model, weights, error)) from error
        self._model.eval().requires_grad_(False)
        self._tokenize = open_clip.get_tokenizer(model)
        config = open_clip.get_model_preprocess_cfg(self._model)
        size = config["size"]
        self.size: int = size if isinstance(size, int) else size[0]
        self._mean, self._std = (np.asarray(config[key], np.float32) for key in ("mean", "std"))
        self._device, self._precision, self._batch = device, precision, batch
        self.scale = float(self._model.logit_scale.exp())
        self.dim = self.texts(["a"]).shape[1]
        self.name = tower_name(model, weights)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, dim], rows of length 1: what they say, comparable with pictures."""
        import torch

        with torch.inference_mode():
            found = self._model.encode_text(self._tokenize(list(texts)).to(self._device), normalize=True)
        return found.float().cpu().numpy()

    def pictures(self, pictures: Sequence[np.ndarray], halved: Any = lambda batch: None) -> np.ndarray:
        """Pictures uint8 BGR [H, W, 3] -> float32 [N, dim], rows of length 1."""
        import torch

        def run(some: Sequence[np.ndarray]) -> np.ndarray:
            pixels = torch.from_numpy(np.stack([self._pixels(picture) for picture in some])).to(self._device)
            if self._precision != "fp32":
                pixels = pixels.to(torch.bfloat16 if self._precision == "bf16" else torch.float16)
            with torch.inference_mode():
                return self._model.encode_image(pixels, normalize=True).float().cpu().numpy()

        def smaller(batch: int) -> None:
            self._batch = batch
            halved(batch)

        return in_batches(pictures, run, self._batch, smaller)

    def _pixels(self, picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        scale = self.size / min(height, width)
        shape = (max(self.size, round(width * scale)), max(self.size, round(height * scale)))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        resized = cv2.resize(picture, shape, interpolation=way)
        top, left = (shape[1] - self.size) // 2, (shape[0] - self.size) // 2
        rgb = resized[top : top + self.size, left : left + self.size, ::-1].astype(np.float32) / 255.0
        return np.ascontiguousarray(((rgb - self._mean) / self._std).transpose(2, 0, 1))


def tower_name(model: str, weights: str | None) -> str:
    """How rows name this model: with a hash of its weights where they are a file."""
    made_by = file_name(weights) if weights and os.path.isfile(weights) else weights
    return f"{model}/{made_by}" if made_by else model


def tower_of(recipe: Recipe, device: str = "cpu") -> Tower:
    """The recipe's CLIP. Raises ModelError."""
    models = recipe.models
    return Tower(models.clip, models.clip_weights, device, models.clip_precision, models.batch)


class ClipLooker:
    """Everything that the recipe asks of its CLIP, in one pass over the stills."""

    def __init__(self, recipe: Recipe, device: str, tower: Tower | None = None) -> None:
        models = recipe.models
        self.tower = tower or tower_of(recipe, device)
        self.name = self.tower.name
        self._semantic = models.semantic == "clip"
        self._aesthetic = None
        if models.aesthetics != "measured":
            self._aesthetic = Head(models.aesthetics, self.tower.dim, "models.aesthetics", self.tower.name)
        people = recipe.visual.people and models.people == "clip"
        self._people = people_question(self.tower) if people else None
        self._flags: dict[str, Question | Head] = {}
        for name in ("nsfw", "watermark", "rendered"):
            how = getattr(models, name)
            if how == "clip":
                self._flags[f"{name}_score"] = flag_question(self.tower, name)
            elif how is not None:
                self._flags[f"{name}_score"] = Head(how, self.tower.dim, f"models.{name}", self.tower.name)
        self.columns = (
            *(("semantic",) if self._semantic else ()),
            *(("aesthetic",) if self._aesthetic else ()),
            *(("human_score", "human_action") if self._people else ()),
            *self._flags,
        )

    def made_by(self, column: str) -> str:
        """Which model wrote the column."""
        reader = {"aesthetic": self._aesthetic, **self._flags}.get(column)
        return f"{reader.name} on {self.name}" if isinstance(reader, Head) else self.name

    def __call__(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        counts = [len(clip.pictures) for clip in clips]

        def halved(batch: int) -> None:
            for clip in clips:
                clip.notes.append(f"{self.columns[0]}: memory ran out, batches of {batch} pictures from here on")

        flat = [is_flat(clip.pictures) for clip in clips]
        try:
            rows = self.tower.pictures([picture for clip in clips for picture in clip.pictures], halved)
        except MemoryError as error:
            return [dict.fromkeys(self.columns, Unmeasured(str(error))) for _ in clips]
        parts = np.split(rows, np.cumsum(counts)[:-1])
        return [self._read(part, one_colour) for part, one_colour in zip(parts, flat)]

    def _read(self, rows: np.ndarray, flat: bool) -> dict[str, Any]:
        """rows: the stills' embeddings [n, dim] of one clip."""
        if flat:
            return dict.fromkeys(self.columns, Unmeasured("the picture is one flat colour"))
        if not np.isfinite(rows).all():
            return dict.fromkeys(self.columns, Unmeasured(f"{self.name} answered numbers that are not finite"))
        row: dict[str, Any] = {}
        if self._semantic:
            mean = rows.mean(axis=0)
            row["semantic"] = (mean / max(np.linalg.norm(mean), np.finfo(float).tiny)).astype(np.float32)
        if self._aesthetic:
            row["aesthetic"] = _finite(self._aesthetic(rows).mean(), self._aesthetic.name)
        if self._people:
            score, best = self._people(rows)
            row["human_score"] = score
            row["human_action"] = best if score >= PEOPLE_SURE else Unmeasured("no people are seen")
        for column, reader in self._flags.items():
            if isinstance(reader, Head):
                row[column] = _finite((1.0 / (1.0 + np.exp(-reader(rows)))).max(), reader.name)
            else:
                row[column] = reader(rows)[0]
        return row


def _finite(value: float, name: str) -> float | Unmeasured:
    return float(value) if np.isfinite(value) else Unmeasured(f"{name} answered a number that is not finite")


def _cannot_load(model: str, weights: str | None, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    if weights and os.path.isfile(weights):
        return f"models.clip_weights={weights} does not fit models.clip={model}: {reason}."
    return (
        f"models.clip={model} with models.clip_weights={weights} cannot be loaded: {reason}; name a model and a tag "
        f"that open_clip lists, a file, or hf-hub:OWNER/NAME."
    )
