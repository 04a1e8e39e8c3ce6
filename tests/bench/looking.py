"""`python -m tests.bench.looking [NAME ...]`: what looking costs for an hour of video, model by model.

An hour is 360 clips of 10 s with a still a second each, 640 x 360, made of real clips. CPU time of one thread, models
loaded before. Learned models have their real shapes and random weights (a pass costs the same): CLIPs of open_clip,
and a ResNet-50 with a descriptor of 512 in place of SSCD's, at SSCD's 320 px. With a GPU, its wall time as well.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from rushes.curation.looking.base import Clip
from rushes.curation.looking.registry import chosen
from rushes.curation.looking.torchvision_schemas import import_open_clip, imported
from rushes.curation.recipe import build
from rushes.pipelines.demo.film import CLIPS, clip_path

HOUR = 360  # clips
STILLS, SIZE = 10, (640, 360)  # of a clip; width, height
FRAMES = 240  # that TransNetV2 is timed on
HEADS = [f"models.{name}=clip" for name in ("semantic", "people", "nsfw", "watermark", "rendered")]


def _clip_file(folder: Path, name: str) -> list[str]:
    import torch

    path = folder / f"{name}.pt"
    torch.save(import_open_clip().create_model(name).state_dict(), path)
    return [f"models.clip={name}", f"models.clip_weights={path}", *HEADS]


def _copies_file(folder: Path) -> list[str]:
    import torch

    path = folder / "copies.pt"
    torch.jit.script(imported("torchvision").models.resnet50(num_classes=512).eval()).save(str(path))
    return [f"models.copies={path}"]


#: name in the table -> (entry of the registry, recipe keys)
MODELS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "text, RapidOCR": ("text", lambda folder: []),
    "people, OpenCV": ("people-opencv", lambda folder: []),
    "people, CenterFace": ("people-centerface", lambda folder: ["models.people=centerface"]),
    "aesthetics, measured": ("aesthetic-measured", lambda folder: []),
    "split screens, measured": ("splits-measured", lambda folder: []),
    "copies, measured": ("copies-measured", lambda folder: []),
    "concepts, measured": ("semantic-measured", lambda folder: []),
    "copies, ResNet-50 at 320 px": ("copies-scripted", _copies_file),
    "CLIP ViT-B-32, all of its columns": ("clip", lambda folder: _clip_file(folder, "ViT-B-32")),
    "CLIP ViT-L-14, all of its columns": ("clip", lambda folder: _clip_file(folder, "ViT-L-14")),
}


def clips() -> list[Clip]:
    """A clip of each of the demo's films."""
    import av

    found = []
    for name in CLIPS:
        with av.open(str(clip_path(name))) as container:
            frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
        some = np.linspace(0, len(frames) - 1, STILLS).round().astype(int)
        pictures = [cv2.resize(frames[place], SIZE, interpolation=cv2.INTER_AREA) for place in some]
        found.append(Clip(name, [float(n) for n in range(STILLS)], pictures))
    return found


def cost(entry: str, keys: Sequence[str], some: list[Clip], device: str) -> tuple[float, float]:
    """(CPU minutes, wall minutes) for an hour of video."""
    recipe = build({}, ["visual.people=true", *keys, *([] if device == "cpu" else ["models.gpus=1"])])
    looker = next(one for one in chosen(recipe) if one.name == entry).build(recipe, device)
    looker(some[:1])
    began = time.process_time(), time.perf_counter()
    looker(some)
    cpu, wall = time.process_time() - began[0], time.perf_counter() - began[1]
    return cpu / len(some) * HOUR / 60, wall / len(some) * HOUR / 60


def transnet() -> float:
    """CPU minutes of TransNetV2 for an hour at 24 frames a second."""
    from rushes.curation import scenes_learned

    model = scenes_learned.TransNet()
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, *scenes_learned.SIZE[::-1], 3), dtype=np.uint8)
    model(frames)
    began = time.process_time()
    model(frames)
    return (time.process_time() - began) / FRAMES * 24 * 3600 / 60


def main() -> None:
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    some, names = clips(), sys.argv[1:] or [*MODELS, "TransNetV2"]
    print(f"minutes for an hour of video, one core{'' if device == 'cpu' else ', and ' + torch.cuda.get_device_name()}")
    for name in names:
        if name == "TransNetV2":
            print(f"{name:36} {transnet():8.2f}")
            continue
        entry, keys = MODELS[name]
        with tempfile.TemporaryDirectory() as folder:
            cpu, _ = cost(entry, keys(Path(folder)), some, "cpu")
            gpu = f"{cost(entry, keys(Path(folder)), some, device)[1]:8.2f}" if device != "cpu" else ""
        print(f"{name:36} {cpu:8.2f} {gpu}", flush=True)


if __name__ == "__main__":
    main()
