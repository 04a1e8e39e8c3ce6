"""Synthetic clip rows for the judging benchmark: plausible signals, no footage behind them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rushes.curation import manifest

CLIPS_PER_SOURCE = 3


def synthetic_clips(count: int, seed: int = 0) -> pa.Table:
    """`count` rows of the clips table as the content stage leaves them."""
    draw = np.random.default_rng(seed)
    ids = [f"{value:020x}" for value in draw.permutation(count).astype(np.uint64) * np.uint64(2654435761)]
    tall = draw.random(count) < 0.35
    width, height = np.where(tall, 1080, 1920), np.where(tall, 1920, 1080)
    duration = draw.uniform(2, 16, count)
    columns = {
        "clip_id": ids, "source_id": [f"{i // CLIPS_PER_SOURCE:016x}" for i in range(count)],
        "uri": [f"/footage/{i // CLIPS_PER_SOURCE}.mp4" for i in range(count)], "shot": np.arange(count) % 3,
        "start_s": np.zeros(count), "end_s": duration, "duration_s": duration, "frames": (duration * 24).astype(int),
        "width": width, "height": height, "fps": np.full(count, 24.0),
        "orientation": np.where(tall, "portrait", "landscape"), "corrupt_frames": np.zeros(count, int),
        "border_frac": draw.random(count) * 0.03, "luma_mean": draw.normal(110, 40, count),
        "saturation": draw.random(count),
        "sharpness": draw.random(count), "effect_score": np.zeros(count), "vmaf_motion": draw.gamma(2, 2, count),
        "mv_mean": draw.gamma(2, 1.5, count), "static_frac": draw.random(count) * 0.9,
        "shots_per_s": draw.random(count), "doubt": draw.random(count) * 0.5,
        "frozen_s": draw.random(count), "own_motion": 2 + 4 * draw.random(count), "shake": draw.random(count) * 47,
        "slideshow_score": draw.random(count) * 0.8, "text_score": draw.random(count),
        "aesthetic": draw.normal(5, 1, count),
        "human_score": draw.random(count), "cluster_id": draw.zipf(1.5, count).clip(max=20_000),
        "media": [f"media/{i}.mp4" for i in ids],
    }  # fmt: skip
    groups = np.array(ids, dtype=object)
    copies = np.flatnonzero(draw.random(count) < 0.05)
    groups[copies] = groups[draw.integers(0, count, len(copies))]
    columns["copy_group"] = groups
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(count, field.type)
        for field in manifest.CLIPS
    ]
    return pa.Table.from_arrays(arrays, schema=manifest.CLIPS)
