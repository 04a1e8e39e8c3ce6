"""Making footage: frames into small H.264 files, and the truth about them into Parquet, once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rushes.pipelines.demo.film import encode_stream

SIZE = (320, 180)  # width, height of made films
FPS = 24
CRF = 23


@dataclass(frozen=True)
class Bench:
    """Where an accuracy run works. folder: made files go there; footage: the folder of --footage, or None."""

    folder: Path
    footage: Path | None = None

    def place(self, signal: str) -> Path:
        """A folder of the signal's own; files that are there already are taken as they are."""
        path = self.folder / (signal if self.footage is None else f"{signal}-footage")
        path.mkdir(parents=True, exist_ok=True)
        return path


def encode(path: Path, frames: Iterable[np.ndarray], size: tuple[int, int] = SIZE, fps: float = FPS, crf: int = CRF):
    """Encode uint8 BGR frames [height, width, 3]; the file appears when it is whole, and one that exists stays."""
    import cv2
    import ffmpeg

    if path.exists():
        return
    source = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="yuv420p", s=f"{size[0]}x{size[1]}", r=fps)
    encode_stream(source, path, crf, (cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).data for frame in frames))


def write_truth(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The truth as Parquet: a row for whatever is known of a file; column `file` names it."""
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def read_truth(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()
