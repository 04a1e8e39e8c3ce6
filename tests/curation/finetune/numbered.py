"""Films whose frames carry their number, at any rate: what was cut out of them can be read off the pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS, CELL, HEIGHT = 12, 16, 96
#: Rates as people meet them; None: frames of 8 to 60 ms, as screen recordings and telephones write them.
RATES: dict[str, Fraction | None] = {
    "23.976": Fraction(24000, 1001), "24": Fraction(24), "25": Fraction(25), "29.97": Fraction(30000, 1001),
    "30": Fraction(30), "59.94": Fraction(60000, 1001), "60": Fraction(60), "variable": None,
}  # fmt: skip


def picture(number: int) -> np.ndarray:
    """Grey blocks: the number's bits, white for 1, and below them their opposites."""
    bits = np.array([(number >> bit) & 1 for bit in range(BITS)], np.uint8)
    rows = np.stack([bits, 1 - bits]).repeat(HEIGHT // 2, axis=0).repeat(CELL, axis=1) * 215 + 20
    return np.repeat(rows[..., None], 3, axis=2).astype(np.uint8)


def number_of(gray: np.ndarray) -> int:
    """The number in a decoded picture [HEIGHT, BITS * CELL]; raises AssertionError where it cannot be read."""
    middle = gray[:, CELL // 2 :: CELL].astype(int)
    upper, lower = middle[HEIGHT // 4], middle[3 * HEIGHT // 4]
    assert (np.abs(upper - lower) > 100).all()
    return int(sum(int(up > low) << bit for bit, (up, low) in enumerate(zip(upper, lower))))


def write_film(path: Path, rate: str, frames: int, seed: int = 0) -> np.ndarray:
    """A film with long GOPs and B-frames; its frames' times in seconds, as the container can hold them."""
    base = Fraction(1, 1000) if path.suffix == ".mkv" else Fraction(1, 90000)
    fps = RATES[rate]
    if fps is None:
        gaps = np.random.default_rng(seed).integers(8, 61, frames) * (base.denominator // 1000)
        ticks = np.concatenate([[0], np.cumsum(gaps)[:-1]])
    else:
        ticks = np.array([round(number / fps / base) for number in range(frames)])
    with av.open(str(path), "w") as container:
        options = {"g": "250", "bf": "3", "crf": "20", "preset": "ultrafast", "x264-params": "bframes=3:b-adapt=0"}
        stream = container.add_stream("libx264", rate=fps or 30, options=options)
        stream.width, stream.height, stream.pix_fmt = BITS * CELL, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = base
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = int(tick), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return ticks * float(base)


def numbers_in(path: str) -> list[int]:
    """The numbers of all frames of a file, in the order in which they are shown."""
    with av.open(path) as container:
        return [number_of(frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
