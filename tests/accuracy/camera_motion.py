"""Camera motion: rendered shots of the sixteen classes, encoded, dressed with pictures that no model was fitted on."""

from __future__ import annotations

import os

import cv2
import numpy as np

from rushes.curation import recipe
from rushes.curation.analyze import Analyzer
from rushes.curation.motion.camera import CLASSES
from rushes.curation.signals import CAMERA_SURE
from rushes.curation.video.decode import probe
from rushes.pipelines.fit import render, shots, sources
from tests.accuracy import table
from tests.accuracy.made import Bench, encode, read_truth, write_truth

SHOTS = int(os.environ.get("RUSHES_ACCURACY_SHOTS", "12"))  # of each class
SEED = 77  # scenes and paths are never those of a fit (pipelines/fit/camera.py)
RENDERED_FPS = 12.0
WHOLE = recipe.build({}, ["scenes.head_s=0", "scenes.trim_frames=0", "scenes.duration_min_s=1"])


def measure(bench: Bench) -> list[table.Row]:
    folder = bench.place("camera_motion")
    analyzer = Analyzer(WHOLE)
    truth, told, sure = [], [], []
    for row in _made(bench, folder):
        clips = analyzer(probe(str(folder / row["file"]))).clips.to_pylist()
        if clips:
            clip = max(clips, key=lambda one: one["duration_s"])
            truth.append(row["word"])
            told.append(clip["camera_motion"] or "none")
            sure.append((clip["camera_motion_conf"] or 0.0) >= CAMERA_SURE)
    table.confusion("camera-motion", CLASSES, truth, told)
    right, sure = np.array(truth) == np.array(told), np.array(sure)
    without_depth = [" ".join(shots.FLAT.get(part, part) for part in word.split()) for word in truth]
    said = [" ".join(shots.FLAT.get(part, part) for part in word.split()) for word in told]
    alike = float(np.mean([a == b for a, b in zip(without_depth, said, strict=True)]))
    return [
        table.Row("camera_motion", "right, 16 classes", float(right.mean()), ">= 0.90", len(right)),
        table.Row("camera_motion", f"right from a confidence of {CAMERA_SURE:g}", float(right[sure].mean()), ">= 0.97",
                  int(sure.sum())),
        table.Row("camera_motion", f"share with a confidence of {CAMERA_SURE:g}", float(sure.mean()), "", len(sure)),
        table.Row("camera_motion", "right, push as zoom, truck as pan, pedestal as tilt", alike, "", len(right)),
    ]  # fmt: skip


def _made(bench: Bench, folder):
    """Rows of the truth; films that are missing are made."""
    path = folder / f"truth-{SHOTS}.parquet"
    if not path.exists():
        own = [bench.footage] if bench.footage else []
        worn = render.textures(sources.pictures(True, own))
        rows = []
        for number in range(SHOTS):
            for place, word in enumerate(CLASSES):
                rng = np.random.default_rng([SEED, number, place])
                shot = shots.draw(word, rng)
                name = f"{number:02d}-{word.replace(' ', '-')}.mp4"
                pictures = (
                    cv2.cvtColor(luma, cv2.COLOR_GRAY2BGR) for _, luma in shots.frames(shot, worn, rng, RENDERED_FPS)
                )
                encode(folder / name, pictures, shot.size, RENDERED_FPS)
                rows.append({"file": name, "word": word})
        write_truth(path, rows)
    return read_truth(path)
