"""What is trained in an ablation: a learner makes of clips a loss on each clip that it is validated on.

predict   a linear predictor of the next frames from the ones before, solved in closed form: milliseconds. It sees
          what moves, how sharp it is and how varied it is; it knows no text and no objects
tae       the tiny autoencoder, trained as `rushes train tae` trains it
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rushes.model.frames import read_clip
from rushes.pipelines.ablate.plan import Span

FRAMES, SIDE = 16, 48  # of a clip as the predictor sees it; pixels
RATE_MOST = 12.0  # frames per second at most: slower sources are read at their own rate
CONTEXT, PATCH, AHEAD, STRIDE = 3, 6, 2, 4  # frames seen, side seen, frames told ahead, pixels between places
TOLD = 4  # side of what is told, in the middle of what is seen
KNOWN_MOST = 2048  # clips whose moments are kept, 120 kB each
RIDGE = 1e-3  # of the features' mean power
FLOOR = 1e-6  # of a clip's loss, grey levels in [-1, 1] squared: a clip without any motion has a logarithm too


class Learner(Protocol):
    """name: stands in the report. seeds, pairs of trainings of each, clips of a training: where nobody says otherwise.

    losses: of each validation clip, by set, after training on `clips`.
    """

    name: str
    seeds: int
    pairs: int
    clips: int | None

    def losses(
        self, clips: Sequence[Span], validation: dict[str, Sequence[Span]], seed: int
    ) -> dict[str, list[float]]: ...


@dataclass
class Predictor:
    """Ridge regression of a patch's next frames on its last ones, over all places of all clips."""

    cache: Path
    name: str = "predict"
    seeds: int = 5
    pairs: int = 32
    clips: int | None = 12
    known: dict[str, tuple[np.ndarray, np.ndarray, float, int]] = field(default_factory=dict, repr=False)

    def losses(self, clips: Sequence[Span], validation: dict[str, Sequence[Span]], seed: int) -> dict[str, list[float]]:
        """Squared errors in grey levels of [-1, 1]. Raises ClipError where a clip cannot be read."""
        moments = [self._moments(clip) for clip in clips]
        gram, cross = (sum(one[part] for one in moments) for part in (0, 1))
        gram[np.diag_indices(len(gram))] += RIDGE * np.trace(gram) / len(gram)
        weights = np.linalg.solve(gram, cross)
        return {name: [self._error(clip, weights) for clip in some] for name, some in validation.items()}

    def _error(self, clip: Span, weights: np.ndarray) -> float:
        gram, cross, power, count = self._moments(clip)
        error = power - 2 * np.sum(weights * cross) + np.sum(weights * (gram @ weights))
        return float(max(error, 0.0) / count) + FLOOR

    def _moments(self, clip: Span) -> tuple[np.ndarray, np.ndarray, float, int]:
        """(x'x, x'y, y'y summed, numbers in y): all that a training or a validation needs of a clip."""
        if clip.clip_id not in self.known:
            if len(self.known) >= KNOWN_MOST:
                self.known.clear()
            x, y = self._pairs(clip)
            self.known[clip.clip_id] = (x.T @ x, x.T @ y, float(np.sum(y**2)), y.size)
        return self.known[clip.clip_id]

    def _pairs(self, clip: Span) -> tuple[np.ndarray, np.ndarray]:
        """(what is seen [N, 109], what is told [N, 32]) of all places of a clip; differences to the last mean."""
        video = self._video(clip).astype(np.float64) / 127.5 - 1
        windows = np.lib.stride_tricks.sliding_window_view(video, (CONTEXT + AHEAD, PATCH, PATCH))
        windows = windows[::AHEAD, ::STRIDE, ::STRIDE].reshape(-1, CONTEXT + AHEAD, PATCH, PATCH)
        middle = slice((PATCH - TOLD) // 2, (PATCH + TOLD) // 2)
        seen, ahead = windows[:, :CONTEXT], windows[:, CONTEXT:, middle, middle]
        mean = seen[:, -1].mean((1, 2))[:, None]  # brightness is no one's merit
        x = seen.reshape(len(seen), -1) - mean
        return np.hstack([x, np.ones((len(x), 1))]), ahead.reshape(len(ahead), -1) - mean

    def _video(self, clip: Span) -> np.ndarray:
        """uint8 [16, 48, 48], grey, from the middle of the clip; read once."""
        path = self.cache / f"{clip.clip_id}.npy"
        if path.exists():
            return np.load(path)
        rate = min(clip.fps or RATE_MOST, RATE_MOST)
        length = min(FRAMES / rate, clip.end_s - clip.start_s)
        times = (clip.start_s + clip.end_s - length) / 2 + length * np.arange(FRAMES) / FRAMES
        frames = read_clip(clip.uri, times, SIDE, SIDE)
        grey = np.round(frames @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
        self.cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{_unique()}.npy")
        np.save(part, grey)
        part.replace(path)
        return grey


def _unique() -> str:
    """A name that no other process takes."""
    import uuid

    return uuid.uuid4().hex[:8]


@dataclass
class TinyTAE:
    """`rushes train tae` on the clips, by the recipe; losses are squared errors of whole reconstructions."""

    recipe: Any  # TrainRecipe
    frames: int = 16
    side: int = 96
    name: str = "tae"
    seeds: int = 5
    pairs: int = 1
    clips: int | None = None

    def losses(self, clips: Sequence[Span], validation: dict[str, Sequence[Span]], seed: int) -> dict[str, list[float]]:
        import pyarrow as pa

        from rushes.curation.manifest import SET, publish
        from rushes.model.evaluate import reconstruct
        from rushes.model.frozen import load_tae
        from rushes.model.train import train_tae

        recipe = self.recipe.model_copy(update={"seed": seed})
        with tempfile.TemporaryDirectory() as folder:
            rows = [self._row(clip) for clip in clips]
            tables = {"sets/pretrain-256": rows, "sets/validation": []}
            publish(f"{folder}/run", {k: pa.Table.from_pylist(v, schema=SET) for k, v in tables.items()}, {})
            train_tae(recipe, [f"{folder}/run"], f"{folder}/tae", lambda _: None)
            model, _ = load_tae(f"{folder}/tae")
        told: dict[str, list[float]] = {}
        for name, some in validation.items():
            told[name] = []
            for clip in some:
                frames = read_clip(clip.uri, self._times(clip), self.side, self.side)
                error = (reconstruct(model, frames).astype(np.float64) - frames) / 127.5
                told[name].append(float(np.mean(error**2)) + FLOOR)
        return told

    def _times(self, clip: Span) -> np.ndarray:
        return clip.start_s + np.arange(self.frames) * (clip.end_s - clip.start_s) / self.frames

    def _row(self, clip: Span) -> dict[str, Any]:
        rate = self.frames / (clip.end_s - clip.start_s)
        return {
            "set": "pretrain-256", "clip_id": clip.clip_id, "source_id": clip.source_id, "media": clip.uri,
            "media_start_s": clip.start_s, "media_end_s": clip.end_s, "fps": clip.fps, "bucket": "ablation",
            "bucket_frames": self.frames, "bucket_width": self.side, "bucket_height": self.side, "sample_fps": rate,
            "caption": "", "weight": 1.0,
        }  # fmt: skip
