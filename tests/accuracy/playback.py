"""Slow motion by repeated frames: takes whose frames are shown once to four times, and 24 shown as 30."""

from __future__ import annotations

import numpy as np

from rushes.curation.analyze import Analyzer
from rushes.curation.recipe import build
from rushes.curation.video.decode import probe
from tests.accuracy.made import FPS, SIZE, Bench, encode
from tests.accuracy.sources import takes
from tests.accuracy.table import Row

COUNT = 4 * FPS
NEAR = 0.12  # of the truth: a share within it tells doubled frames from tripled ones
SLOWED = 0.4  # share of repeated frames from which a clip counts as slowed
WHOLE = build({}, ["scenes.head_s=0", "scenes.trim_frames=0"])


def measure(bench: Bench, measured: bool = True) -> list[Row]:
    place = bench.place("playback" if measured else "playback-fit")
    found: dict[str, list[float]] = {}
    for take in takes(measured, bench.footage):
        frames = take.frames(*SIZE)[:COUNT]
        for name, times in {"1": [1], "2": [2], "3": [3], "4": [4], "24 to 30": [1, 1, 1, 2]}.items():
            shown = [frame for number, frame in enumerate(frames) for _ in range(times[number % len(times)])]
            path = place / f"{take.name}-{name.replace(' ', '-')}.mp4"
            encode(path, iter(shown[:COUNT]))
            found.setdefault(name, []).extend(_shares(path))
    rows = [
        Row("playback", f"frames shown {times} times: share of repeats within {NEAR}",
            float(np.mean(np.abs(np.array(found[str(times)]) - (1 - 1 / times)) <= NEAR)), "", len(found[str(times)]))
        for times in (2, 3, 4)
    ]  # fmt: skip
    slowed = np.concatenate([found[times] for times in "234"])
    pulled = np.array(found["24 to 30"])
    return [
        *rows,
        Row("playback", "24 shown as 30: the same", float(np.mean(np.abs(pulled - 0.2) <= NEAR)), "", len(pulled)),
        Row("playback", "slowed: share found", float(np.mean(slowed >= SLOWED)), "", len(slowed)),
        Row("playback", "takes as they are: share taken for slowed", float(np.mean(np.array(found["1"]) >= SLOWED)), "",
            len(found["1"])),
    ]  # fmt: skip


def _shares(path) -> list[float]:
    rows = Analyzer(WHOLE)(probe(str(path))).clips.to_pylist()
    longest = max(rows, key=lambda row: row["duration_s"])
    return [] if longest["repeated_frac"] is None else [longest["repeated_frac"]]
