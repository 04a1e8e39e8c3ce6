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


def training_section(run: str, tae: str, dit: str | None) -> tuple[str, str]:
    """(title, HTML) for `write_report`. tae, dit: outputs of trainings. Raises CheckpointError where one is not."""
    import jinja2

    from rushes.model.train import load_tae

    for output in (tae, dit):
        if output and not (Path(output) / "log.jsonl").is_file():
            raise CheckpointError(f"{output} holds no log of a training; name the folder that `rushes train` wrote.")
    decoder, mark = load_tae(tae)
    curves = _curves(Path(tae), "Autoencoder", "error on clips never trained on")
    curves += _curves(Path(dit), "Transformer", "loss on clips never trained on") if dit else []
    environment = jinja2.Environment(loader=jinja2.PackageLoader("rushes.pipelines.view", "templates"), autoescape=True)
    page = environment.get_template("training.html.j2").render(
        lede="What models learned from these sets. A dozen clips and a minute show that the sets can be trained on, "
        "no more: a transformer soon knows a few clips by heart, and its loss on others then rises.",
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
    (first, start), (last, end) = told[0], told[-1]
    losses = [loss for _, loss in told]
    low, spread = min(losses), (max(losses) - min(losses)) or 1.0
    wide, tall = charts.CHART
    points = [
        (MARGIN + (wide - 2 * MARGIN) * (step - first) / (last - first),
         MARGIN + (tall - 2 * MARGIN) * (1 - (loss - low) / spread), f"step {step}: {loss:.5f}")
        for step, loss in told
    ]  # fmt: skip
    ends = {"first": f"step {first}", "last": f"step {last}"}
    return {"title": title, "what": what, "points": points, "fall": f"{start:.4f} to {end:.4f}", **ends}


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
    from rushes.model.sample import load_dit, sample_video
    from rushes.model.train import text_encoders
    from rushes.model.train_recipe import Text, load

    model, meta = load_dit(dit, mark)
    stage = load(str(Path(dit) / "recipe.yaml")).stages[meta["stage"]]
    options = DataOptions(
        stage.set, 1, 0, stage.frames_max, stage.resolution, buckets=stage.buckets, small_buckets="leave_out", workers=0
    )
    loader = Loader([run], options)
    encoders, process = text_encoders(Text(**meta["text"])), PROCESSES[meta["process"]]()
    found: dict[str, Sample] = {}
    for batch in loader.batches(range(sum(loader.plan.sizes))):
        found.setdefault(batch.samples[0].caption, batch.samples[0])
    samples = []
    for number, (caption, clip) in enumerate(list(found.items())[:SAMPLES]):
        frames, high, wide = clip.frames.shape[:3]
        video = sample_video(
            model, tae, encoders, caption, frames, high, wide, guidance=GUIDANCE, seed=number, process=process,
            fps=clip.rate if frames > 1 else None,
        )  # fmt: skip
        samples.append({"picture": _strip(video), "caption": caption, "shape": f"{wide} x {high}, {frames} frames"})
    return samples


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
