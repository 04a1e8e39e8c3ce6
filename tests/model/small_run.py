"""A published run of a few tiny clips, and recipes that train on it in a second: what the trainer's tests share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from rushes.curation.manifest import SET, publish
from rushes.model.train_recipe import TrainRecipe, build
from tests.footage import PATTERN, make_video

CLIPS, SECONDS, RATE = 10, 4.0, 16  # of the film that all clips are spans of
BUCKET, TALL = "16x9/4-8s", "9x16/4-8s"
JOB_TIMEOUT_S = 240  # four processes that import torch on a busy machine


def make_film(folder: Path) -> Path:
    return make_video(folder / "film.mp4", size=(64, 48), fps=RATE, seconds=SECONDS, source=PATTERN)


def row(number: int, media: str, bucket: str = BUCKET, **changed: Any) -> dict[str, Any]:
    """A row of a set: a second and a half of the film, a little later for every number."""
    start = 0.2 * number
    wide = bucket == BUCKET
    return {
        "clip_id": f"{number:020x}", "media": media, "source_id": "film", "media_start_s": start,
        "media_end_s": start + 1.5, "fps": float(RATE), "bucket": bucket, "bucket_frames": 16,
        "bucket_width": 64 if wide else 32, "bucket_height": 32 if wide else 64,
        "caption": f"Clip number {number}.", "weight": 1.0, **changed,
    }  # fmt: skip


def make_run(root: Path, rows: list[dict[str, Any]], validation: list[dict[str, Any]] | None = None) -> str:
    """Publish `rows` as sets/pretrain-256, and `validation` as sets/validation; returns the run's address."""
    tables = {"sets/pretrain-256": rows, "sets/validation": validation or []}
    publish(str(root), {name: pa.Table.from_pylist(t, schema=SET) for name, t in tables.items()}, {})
    return str(root)


def film_run(root: Path, clips: int = CLIPS) -> str:
    """A run of `clips` clips and two to validate on."""
    root.mkdir(parents=True, exist_ok=True)
    make_film(root)
    return make_run(root, [row(n, "film.mp4") for n in range(clips)], [row(n, "film.mp4") for n in (10, 11)])


STAGE = {"name": "one", "steps": 6, "batch": 4, "micro_batch": 4, "lr": 1e-3, "frames_max": 8, "resolution": 32,
         "validate_every": 3, "save_every": 2}  # fmt: skip


WHOLE = {"name": "whole", "frames_max": None}
PART = {"name": "part", "frames_max": 8, "image_every": 2}


def dit_recipe(*overrides: str, **stage: Any) -> TrainRecipe:
    """A transformer of one layer."""
    options = {"layers": 1, "dim": 32, "ffn": 48, "heads": 2, "grid": [1, 2, 2]}
    text = {"encoders": [{"name": "bytes", "width": 16, "max_tokens": 24}]}
    data = {"model": "dit", "options": options, "text": text, "data": {"workers": 0, "errors_max": 3}}
    return build({**data, "stages": [{**STAGE, **stage}]}, overrides)


def two_views() -> TrainRecipe:
    """What is encoded for the tests: clips read whole, then parts of them and every second batch of single frames."""
    whole, part = (dit_recipe(**stage).stages[0] for stage in (WHOLE, PART))
    return dit_recipe().model_copy(update={"stages": (whole, part)})


def tae_recipe(*overrides: str, **stage: Any) -> TrainRecipe:
    """The smallest autoencoder."""
    options = {"block_channels": [4, 4, 8, 8], "norm_groups": 4, "blocks": False}
    data = {"model": "tae", "options": options, "loss": {"opl": 1.0}, "data": {"workers": 0}}
    return build({**data, "stages": [{**STAGE, "batch": 2, "micro_batch": 2, **stage}]}, overrides)


def losses(output: Path) -> dict[int, float]:
    """The log's loss by step."""
    import json

    entries = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return {entry["step"]: entry["loss"] for entry in entries}


def on_ranks(world: int, *arguments: object) -> list[int]:
    """Run tests/model/rank_job.py on gloo ranks; the exit codes. Ranks are killed together when one is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.model.rank_job", *map(str, arguments)]
    ranks = [subprocess.Popen(command, env={**os.environ, **common, "RANK": str(rank)}) for rank in range(world)]
    try:
        return [rank.wait(JOB_TIMEOUT_S) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
