"""What a training learned, for the report of the run it was trained on: validation loss, reconstructions, samples.

`rushes report RUN --tae T --dit D` puts it behind the sets. Everything is made anew from the checkpoints and the log.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from rushes.model.checkpoint import CheckpointError
from rushes.model.data import DataError, DataOptions, Loader, Sample
from rushes.pipelines.view import charts
from rushes.pipelines.view.report import STRIP_BYTES, filmstrip

PAIRS, SAMPLES = 2, 3  # shown
STILL_WIDTH = 336  # pixels: smaller frames are enlarged smoothly to this before they go into a strip
GUIDANCE = 1.5  # a small model is overdriven by the paper's 7.5
JPEG_QUALITY = 90
MARGIN = 4.0  # drawing units around a curve
RISE = 0.02  # above its lowest point from which a curve is said to rise
NEAREST_SIZE = (32, 32)  # pixels, width x height, at which a sample is compared with clips ...
NEAREST_FRAMES = 4  # ... and frames


def training_section(run: str, tae: str, dit: str | None) -> tuple[str, str]:
    """(title, HTML) for `write_report`. tae, dit: outputs of trainings. Raises CheckpointError where one is not."""
    import jinja2

    from rushes.model.frozen import load_tae

    for output in (tae, dit):
        if output and not (Path(output) / "log.jsonl").is_file():
            raise CheckpointError(f"{output} holds no log of a training; name the folder that `rushes train` wrote.")
    decoder, mark = load_tae(tae)
    curves = _curves(Path(tae), "Autoencoder", "error on clips never trained on")
    curves += _curves(Path(dit), "Transformer", "loss on clips never trained on") if dit else []
    environment = jinja2.Environment(loader=jinja2.PackageLoader("rushes.pipelines.view", "templates"), autoescape=True)
    page = environment.get_template("training.html.j2").render(
        lede="What models learned from these sets. A dozen clips and a minute show that the sets can be trained on, "
        "no more: whether a sample is more than a clip known by heart, the nearest clip beside it says.",
        curves=curves,
        size=charts.CHART,
        pairs=_pairs(run, decoder),
        samples=_samples(run, decoder, dit, mark) if dit else [],
    )
    return "Training", page


def _curves(output: Path, title: str, what: str) -> list[dict[str, Any]]:
    """The validation losses of each stage as points in drawing units; stages differ in what a loss means."""
    lines = (output / "log.jsonl").read_text(encoding="utf-8").splitlines()
    stages: dict[str, list[tuple[int, float]]] = {}
    for entry in map(json.loads, lines):
        if entry.get("validation") is not None:
            stages.setdefault(entry["stage"], []).append((entry["step"], entry["validation"]))
    return [_curve(f"{title}: {stage}", what, told) for stage, told in stages.items() if len(told) > 1]


def _curve(title: str, what: str, told: list[tuple[int, float]]) -> dict[str, Any]:
    """Losses by step in drawing units, with ticks, and in words what became of them."""
    steps, losses = np.array([step for step, _ in told]), np.array([loss for _, loss in told])
    low, high = float(losses.min()), float(losses.max())
    wide, tall = charts.CHART
    spread = (high - low) or 1.0

    def x(step: float) -> float:
        return MARGIN + (wide - 2 * MARGIN) * (step - steps[0]) / (steps[-1] - steps[0])

    def y(loss: float) -> float:
        return MARGIN + (tall - 2 * MARGIN) * (1 - (loss - low) / spread)

    return {
        "title": title, "what": what, "note": _note(steps, losses),
        "points": [(x(step), y(loss), f"step {step}: {loss:.5f}") for step, loss in told],
        "x_ticks": [(x(step), f"{step:,g}") for step in charts.ticks(steps[0], steps[-1])],
        "y_ticks": [(y(loss), f"{loss:g}") for loss in charts.ticks(low, high, 3)],
        "fall": f"{losses[0]:.4f} to {losses[-1]:.4f}",
    }  # fmt: skip


def _note(steps: np.ndarray, losses: np.ndarray) -> str:
    """Why a curve rises, where it does."""
    best = int(losses.argmin())
    if losses[-1] <= losses[best] * (1 + RISE):
        return ""
    return (
        f"Lowest at step {steps[best]:,}, then it rises: the stage learns its few clips by heart, and what is drawn "
        f"is the loss on clips that it never sees."
    )


def _pairs(run: str, tae: Any) -> list[dict[str, Any]]:
    from rushes.model.evaluate import mean_frame, psnr, reconstruct

    try:
        loader = Loader([run], DataOptions("validation", 1, 0, workers=0))
    except DataError:
        return []
    pairs = []
    for batch in loader.batches(range(min(PAIRS, sum(loader.plan.sizes)))):
        frames = batch.frames[0]
        made = reconstruct(tae, frames)
        pairs.append(
            {"clip_id": batch.samples[0].clip_id, "original": _strip(frames), "made": _strip(made),
             "psnr": psnr(frames, made), "baseline": psnr(frames, mean_frame(frames))}
        )  # fmt: skip
    return pairs


def _samples(run: str, tae: Any, dit: str, mark: str) -> list[dict[str, Any]]:
    """Videos for captions that were trained on: a model this small knows no others."""
    from rushes.model.flow import PROCESSES
    from rushes.model.frozen import text_encoders
    from rushes.model.sample import load_dit, sample_video
    from rushes.model.train_recipe import Text, load

    model, meta = load_dit(dit, mark)
    stage = load(str(Path(dit) / "recipe.yaml")).stages[meta["stage"]]
    options = DataOptions(
        stage.set, 1, 0, stage.frames_max, stage.resolution, buckets=stage.buckets, small_buckets="leave_out", workers=0
    )
    loader = Loader([run], options)
    encoders, process = text_encoders(Text(**meta["text"])), PROCESSES[meta["process"]]()
    clips: dict[str, Sample] = {}
    for batch in loader.batches(range(sum(loader.plan.sizes))):
        clips.setdefault(batch.samples[0].clip_id, batch.samples[0])
    captions: dict[str, Sample] = {}
    for clip in clips.values():
        captions.setdefault(clip.caption, clip)
    small = {clip_id: _small(clip.frames) for clip_id, clip in clips.items()}
    samples = []
    for number, (caption, clip) in enumerate(list(captions.items())[:SAMPLES]):
        frames, high, wide = clip.frames.shape[:3]
        video = sample_video(
            model, tae, encoders, caption, frames, high, wide, guidance=GUIDANCE, seed=number, process=process,
            fps=clip.rate if frames > 1 else None,
        )  # fmt: skip
        far = {clip_id: float(np.square(_small(video) - other).mean()) for clip_id, other in small.items()}
        near = clips[min(far, key=far.__getitem__)]
        samples.append(
            {"picture": _strip(video), "caption": caption, "shape": f"{wide} x {high}, {frames} frames",
             "near": _strip(near.frames), "near_id": near.clip_id, "near_same": near.caption == caption,
             "near_rms": far[near.clip_id] ** 0.5, "of": len(clips)}
        )  # fmt: skip
    return samples


def _small(frames: np.ndarray) -> np.ndarray:
    """uint8 [T, H, W, 3] -> float32 [NEAREST_FRAMES, 32, 32, 3]: what videos of different shapes are compared by."""
    import cv2

    chosen = frames[np.linspace(0, len(frames) - 1, NEAREST_FRAMES).round().astype(int)]
    return np.stack([cv2.resize(f, NEAREST_SIZE, interpolation=cv2.INTER_AREA) for f in chosen]).astype(np.float32)


def _strip(frames: np.ndarray) -> str:
    """uint8 [T, H, W, 3] RGB -> data URI of a strip of its first, middle and last frames."""
    import cv2

    chosen = frames[np.linspace(0, len(frames) - 1, 3).round().astype(int)]
    scale = max(1.0, STILL_WIDTH / frames.shape[2])
    jpegs = []
    for frame in chosen:
        large = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else frame
        bgr = cv2.cvtColor(large, cv2.COLOR_RGB2BGR)
        jpegs.append(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())
    return "data:image/jpeg;base64," + base64.b64encode(filmstrip(jpegs, STRIP_BYTES)).decode("ascii")
