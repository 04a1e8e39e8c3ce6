"""Footage that models are fitted on: clips and photographs that installed packages carry, and videos of one's own.

Half of all sources are left for measuring (tests/accuracy): which half a source is in follows from its name alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from rushes.curation.video import containers
from rushes.pipelines.demo.film import CLIPS, clip_path

SPLIT_SALT = "films"
PICTURE_EVERY_S = 1.0  # of a video, pictures are taken this far apart
#: Package, folder and photographs in it.
PHOTOGRAPHS = (
    ("skimage", "data", (
        "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
        "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
    )),
    ("sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
)  # fmt: skip


def for_measuring(name: str) -> bool:
    """Whether the source of this name (a file's, without suffix) is measured and never fitted on."""
    return hashlib.blake2b((SPLIT_SALT + name).encode()).digest()[0] % 2 == 0


def photographs(measuring: bool) -> list[Path]:
    """Image files of one half of the packages that are installed."""
    found = []
    for package, folder, names in PHOTOGRAPHS:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            found += [Path(spec.submodule_search_locations[0]) / folder / name for name in names]
    return [path for path in found if path.is_file() and for_measuring(path.stem) == measuring]


def videos(measuring: bool, own: Iterable[Path] = ()) -> list[Path]:
    """Videos of one half: the packages' clips, and those of folders (or files) of one's own."""
    found = [clip_path(name) for name in CLIPS]
    for place in own:
        found += sorted(place.glob("*.mp4")) if place.is_dir() else [place]
    return [path for path in found if for_measuring(path.stem) == measuring]


def pictures(measuring: bool, own: Iterable[Path] = ()) -> list[np.ndarray]:
    """Luma pictures, uint8: photographs, and a frame a second of videos."""
    found = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in photographs(measuring)]
    for path in videos(measuring, own):
        found += _frames(path)
    return found


def fitting_pictures(own: Sequence[Path] = ()) -> list[np.ndarray]:
    """`pictures` of the half that models are fitted on."""
    return pictures(False, own)


def _frames(path: Path) -> Iterator[np.ndarray]:
    after = 0.0
    with containers.open_media(str(path)) as container:
        for frame in container.decode(video=0):
            if (frame.time or 0.0) >= after:
                after += PICTURE_EVERY_S
                yield frame.to_ndarray(format="gray")


def length_s(path: Path) -> float:
    """Length of a video as its container states it, seconds."""
    with containers.open_media(str(path)) as container:
        return (container.duration or 0) / av.time_base
