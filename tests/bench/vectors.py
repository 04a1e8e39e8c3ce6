"""Structured vectors with planted copies, written as shards a block at a time: what content at scale is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SEED = 11
COPY_RANK, SEMANTIC_RANK = 48, 40  # directions in which clips of one concept differ
COPIES_SHARE = 0.15  # of the clips are near copies of one before them in the same block
CONCEPTS_PER_ROOT = 3  # concepts = 3 sqrt(clips), sizes by Zipf


@dataclass(frozen=True)
class Widths:
    copy: int = 256
    semantic: int = 168


def write(folder: Path, clips: int, shards: int, widths: Widths | None = None, threshold: float = 0.9) -> list[str]:
    """Shards of clips c00000000, ... with facts, vectors and their true concept; the same for the same numbers."""
    widths = widths or Widths()
    world = World(clips, widths, threshold)
    ends = np.linspace(0, clips, shards + 1).astype(int)
    folder.mkdir(parents=True, exist_ok=True)
    uris = []
    for number, (start, stop) in enumerate(pairwise(ends)):
        path = folder / f"shard-{number:03d}.parquet"
        if not path.exists():
            pq.write_table(world.table(int(start), int(stop)), path, compression="zstd", row_group_size=16_384)
        uris.append(str(path))
    return uris


class World:
    """Concepts of Zipf sizes, each a cloud of low rank around a centre; centres lie in families."""

    def __init__(self, clips: int, widths: Widths, threshold: float) -> None:
        draw = np.random.default_rng(SEED)
        self.widths, self.threshold = widths, threshold
        count = max(8, round(CONCEPTS_PER_ROOT * np.sqrt(clips)))
        self.weights = 1 / np.arange(1, count + 1) ** 0.8
        self.weights /= self.weights.sum()
        families = max(4, count // 12)
        family = draw.integers(0, families, count)
        self.centres = {}
        self.spread = {}
        for name, width, rank in (("copy", widths.copy, COPY_RANK), ("semantic", widths.semantic, SEMANTIC_RANK)):
            roots = draw.normal(size=(families, width)) / np.sqrt(width)
            self.centres[name] = 0.7 * roots[family] + 0.7 * draw.normal(size=(count, width)) / np.sqrt(width)
            self.spread[name] = draw.normal(size=(rank, width)) / np.sqrt(width * rank)

    def table(self, start: int, stop: int) -> pa.Table:
        draw = np.random.default_rng((SEED, start))
        size = stop - start
        concept = draw.choice(len(self.weights), size, p=self.weights)
        rows = {name: self._rows(draw, name, concept) for name in ("copy", "semantic")}
        copies = np.flatnonzero(draw.random(size) < COPIES_SHARE)
        copies = copies[copies > 0]
        of = (draw.random(len(copies)) ** 4 * copies).astype(int)  # a few clips have many copies
        concept[copies] = concept[of]
        self._plant(draw, rows, copies, of)
        ids = [f"c{i:08d}" for i in range(start, stop)]
        columns = {
            "clip_id": pa.array(ids),
            "source_id": pa.array([f"s{i // 10:07d}" for i in range(start, stop)]),
            "concept": pa.array(concept),
            "planted": pa.array(np.isin(np.arange(size), copies)),
            "width": pa.array(draw.choice([1280, 1920, 720], size).astype(np.int32)),
            "height": pa.array(draw.choice([720, 1080, 1280], size).astype(np.int32)),
            "fps": pa.array(draw.choice([24.0, 25.0, 30.0], size)),
            "duration_s": pa.array(draw.uniform(4, 16, size)),
            "human_score": pa.array(draw.random(size).astype(np.float32)),
        }
        for name, values in rows.items():
            flat = pa.array(values.astype(np.float32).ravel())
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        return pa.table(columns)

    def _rows(self, draw: np.random.Generator, name: str, concept: np.ndarray) -> np.ndarray:
        rank, width = self.spread[name].shape
        wide = 0.9 * draw.normal(size=(len(concept), rank)) @ self.spread[name]
        rows = self.centres[name][concept] + wide + 0.25 * draw.normal(size=(len(concept), width)) / np.sqrt(width)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def _plant(
        self, draw: np.random.Generator, rows: dict[str, np.ndarray], copies: np.ndarray, of: np.ndarray
    ) -> None:
        """Copies at a cosine from the threshold to 1 (and a tenth just below it), in the order of the rows."""
        cosine = draw.uniform(self.threshold - 0.01, 1.0, len(copies))
        for values in rows.values():
            noise = draw.normal(size=(len(copies), values.shape[1]))
            for place, (row, original) in enumerate(zip(copies, of)):
                base = values[original]
                away = noise[place] - (noise[place] @ base) * base
                away /= np.linalg.norm(away)
                values[row] = cosine[place] * base + np.sqrt(1 - cosine[place] ** 2) * away
