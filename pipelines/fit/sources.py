"""Footage that models are fitted on: clips and photographs that installed packages carry, and videos of one's own.

Half of the packages' sources and a quarter of one's own are left for measuring (tests/accuracy): which follows from a
source's name alone.
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
OWN_ONE_IN = 4  # of the files of a folder so many are left for measuring
VIDEOS, IMAGES = (".mp4", ".avi", ".mkv", ".mov", ".webm"), (".jpg", ".jpeg", ".png", ".webp")
PICTURE_EVERY_S = 1.0  # of a video, pictures are taken this far apart
#: Package, folder and photographs in it.
PHOTOGRAPHS = (
    ("skimage", "data", (
        "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
        "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
    )),
    ("sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
)  # fmt: skip


def for_measuring(name: str, one_in: int = 2) -> bool:
    """Whether the source of this name (a file's, without suffix) is measured and never fitted on: one in so many."""
    return hashlib.blake2b((SPLIT_SALT + name).encode()).digest()[0] % one_in == 0


def photographs(measuring: bool, own: Iterable[Path] = ()) -> list[Path]:
    """Image files that are measured, or the others: of packages that are installed, and of folders of one's own."""
    found = []
    for package, folder, names in PHOTOGRAPHS:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            found += [Path(spec.submodule_search_locations[0]) / folder / name for name in names]
    return _side([path for path in found if path.is_file()], IMAGES, own, measuring)


def videos(measuring: bool, own: Iterable[Path] = ()) -> list[Path]:
    """Videos that are measured, or the others: the packages' clips, and those of folders (or files) of one's own."""
    return _side([clip_path(name) for name in CLIPS], VIDEOS, own, measuring)


def _side(carried: list[Path], suffixes: Sequence[str], own: Iterable[Path], measuring: bool) -> list[Path]:
    """Of what packages carry one in two is measured, of one's own files one in OWN_ONE_IN."""
    files = [path for place in own for path in (sorted(place.iterdir()) if place.is_dir() else [place])]
    mine = [path for path in files if path.suffix.lower() in suffixes]
    return [path for path in carried if for_measuring(path.stem) == measuring] + [
        path for path in mine if for_measuring(path.stem, OWN_ONE_IN) == measuring
    ]


def pictures(measuring: bool, own: Iterable[Path] = ()) -> list[np.ndarray]:
    """Luma pictures, uint8: photographs, and a frame a second of videos."""
    return [picture for source in pictures_by_source(measuring, own) for picture in source]


def pictures_by_source(measuring: bool, own: Iterable[Path] = ()) -> list[list[np.ndarray]]:
    """The same in lists, each of one photograph or of one video."""
    own = list(own)
    found = [[cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)] for path in photographs(measuring, own)]
    return found + [list(_frames(path)) for path in videos(measuring, own)]


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
