"""The loader against bare decode: PyAV's loop over the same frames of the same clips, thrown away as they come."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import av
import numpy as np

from rushes.curation.sections import Cut
from rushes.curation.video import decode
from rushes.curation.video.cut import Cutter
from tests.bench import footage

CLIPS, FRAMES = 6, 128  # clips of a pass, frames of each: the bucket of 4 to 8 s
PASSES = 5  # over all clips, bare decode and loader in turn
EVERY, SOME = 128 / 24, 7.5  # seconds: every frame of the file is wanted, or two in three (17 of 24 a second)


def short_clips(size: str, seconds: float) -> list[Path]:
    """Clips as curation cuts them, `seconds` long, from the benchmarks' film of this size."""
    film = footage.film(64, size, crf=16)  # so that a clip has the bits of one that is cut from camera footage
    source, root = decode.probe(str(film)), footage.HERE / "loader" / f"{size.replace(':', 'x')}-{seconds:.2f}"
    step = (64 - seconds) / CLIPS
    spans = [(n * step, n * step + seconds) for n in range(CLIPS)]
    rows = [{"clip_id": f"{n:020x}", "start_s": a, "end_s": b, "frames": round(seconds * 24), "fps": 24.0}
            for n, (a, b) in enumerate((round(a * 24) / 24, round(b * 24) / 24) for a, b in spans)]  # fmt: skip
    cut = Cutter(Cut(), "cut", str(root))(source, rows)
    return [root / clip.media for clip in cut.values()]


def bare(path: Path, times: np.ndarray) -> None:
    """Decode from the key frame in front of the first time to the last time, in one thread."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        container.seek(int(times[0] / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.time + 1 / 24 > times[-1]:
                return


def loader_speed(size: str, seconds: float, height: int, width: int) -> str:
    """Speed of `read_clip` as a share of bare decode's: CPU seconds of the process, medians of paired passes."""
    from rushes.model.frames import read_clip

    decode.quiet()
    clips = short_clips(size, seconds)
    times = (np.arange(FRAMES) + 0.5) * seconds / FRAMES
    shares, bare_ms = [], []
    for _ in range(PASSES + 1):  # the first warms up
        spent = [0.0, 0.0]
        for path in clips:
            for index, read in enumerate((lambda p: bare(p, times), lambda p: read_clip(str(p), times, height, width))):
                began = time.process_time()
                read(path)
                spent[index] += time.process_time() - began
        shares.append(spent[0] / spent[1])
        bare_ms.append(1e3 * spent[0] / CLIPS)
    spread = f"{min(shares[1:]):.2f}-{max(shares[1:]):.2f}"
    return f"{statistics.median(shares[1:]):.2f} ({spread}; bare {statistics.median(bare_ms[1:]):.0f} ms a clip)"


def report() -> str:
    parts = []
    for size, height, width in (("640:360", 192, 336), ("1920:1080", 192, 336)):
        for seconds, what in ((EVERY, "every frame"), (SOME, "two frames in three")):
            parts.append(f"{size.replace(':', 'x')} {what} {loader_speed(size, seconds, height, width)}")
    return f"speed as a share of bare decode's, to {width}x{height}: " + "; ".join(parts)
