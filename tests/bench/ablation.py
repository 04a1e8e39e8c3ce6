"""`python -m tests.bench.ablation`: rules whose worth is known. Four harms are planted, four rules do nothing.

Clips are small windows on the demo's real films, 16 frames of 48 x 48 pixels that wander as a camera does. The training
sources, the sources that are held out and the clean set are films or parts of films of their own. Each rule turned away
clips at a known share; those of a harmless rule are clips like any other. A harm is found where the interval of the
change lies above 0 on a validation set, a harmless rule is cleared where 0 lies inside on both.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from rushes.curation.manifest import CLIPS, SET, publish
from rushes.pipelines.ablate.learners import FRAMES, SIDE, Predictor
from rushes.pipelines.ablate.run import Asked, ablate
from rushes.pipelines.ablate.show import Change
from rushes.pipelines.demo.film import Reel

TRAIN = (("bunny", 0, 132), ("bikes", 0, 30), ("bikes", 137, 187))
HELD_OUT, CLEAN = (("bikes", 108, 137), ("bikes", 187, 242)), (("carphone", 0, 120),)
LETTERS = "ABCDEFGHKLMNPRSTUVWXYZ0123456789"
VALIDATION = 48  # clips of each validation set
SHAKE = 7  # pixels of the window, to each side
HARMS = ("text", "frozen", "shaken", "duplicates")
HARMLESS = ("harmless-1", "harmless-2", "harmless-3", "harmless-4")
FPS = 12.0


def wander(reel: Reel, spans: tuple, random: np.random.Generator, shake: int = 0, frozen: bool = False) -> np.ndarray:
    """uint8 BGR [16, 48, 48, 3]: a window that drifts over a span of a film, every second frame of it."""
    name, first, stop = spans[
        random.choice(len(spans), p=np.array([b - a for _, a, b in spans]) / sum(b - a for _, a, b in spans))
    ]
    film = reel.frames(name)
    tall, wide = film[0].shape[:2]
    side = int(random.integers(SIDE + 2 * SHAKE, min(tall, wide) // 2))
    start = random.integers(first, max(first + 1, stop - 2 * FRAMES))
    room = np.array([wide - side, tall - side])
    place, drift = random.uniform(0, 1, 2) * room, random.normal(0, 0.02, 2) * side
    frames = []
    for number in range(FRAMES):
        at = start if frozen else min(start + 2 * number, stop - 1)
        x, y = np.clip(
            place + (0 if frozen else number) * drift + random.uniform(-shake, shake, 2) * side / SIDE, 0, room
        ).astype(int)
        frames.append(cv2.resize(film[at][y : y + side, x : x + side], (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    return np.stack(frames)


def with_text(frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Three lines of letters that stand still, white with a black edge."""
    out = frames.copy()
    for line in range(3):
        text = "".join(random.choice(list(LETTERS), 6))
        place = (int(random.integers(-4, 8)), 13 + 15 * line + int(random.integers(-3, 4)))
        for frame in out:
            for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
                cv2.putText(frame, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, width)
    return out


def copied(frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The same clip, a little brighter or darker, as a re-encode makes it."""
    return np.clip(frames + random.normal(random.uniform(-6, 6), 1.0, frames.shape), 0, 255).astype(np.uint8)


def planted(
    root: Path, cache: Path, base: int, share: float, seed: int = 0, rules: tuple[str, ...] = (*HARMS, *HARMLESS),
    validation: int = VALIDATION,
) -> tuple[str, str]:  # fmt: skip
    """(run, clean run): `base` clips in sets/pretrain-256; each rule turned away clips, `share` of all with them.

    The frames lie in the learner's cache, and no file of video is written.
    """
    reel, random = Reel(), np.random.default_rng(seed)
    cache.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []

    def add(source: str, frames: np.ndarray, rule: str | None = None, group: str | None = None) -> str:
        clip_id = f"{len(rows):06d}"
        np.save(cache / f"{clip_id}.npy", np.round(frames @ np.array([0.114, 0.587, 0.299])).astype(np.uint8))
        rows.append(
            {"clip_id": clip_id, "source_id": source, "uri": f"{clip_id}.mp4", "start_s": 0.0, "end_s": FRAMES / FPS,
             "fps": FPS, "kept": rule is None, "rejected_by": rule, "copy_group": group or clip_id}
        )  # fmt: skip
        return clip_id

    usual = {add("train", frames): frames for frames in (wander(reel, TRAIN, random) for _ in range(base))}
    ids = list(usual)
    for rule in rules:
        for number in range(round(base * share / (1 - share))):
            frames = wander(reel, TRAIN, random, SHAKE if rule == "shaken" else 0, rule == "frozen")
            group = None
            if rule == "text":
                frames = with_text(frames, random)
            if rule == "duplicates":
                group = ids[number % max(1, base // 4)]  # a quarter of the clips, over and over
                frames = copied(usual[group], random)
            add("train", frames, rule, group)
    held = [add("held-out", wander(reel, HELD_OUT, random)) for _ in range(validation)]
    clean = [add("clean", wander(reel, CLEAN, random)) for _ in range(validation)]
    clips = pa.Table.from_pylist(rows, schema=CLIPS)

    def table(some: list[str], source: str) -> pa.Table:
        return pa.Table.from_pylist([{"clip_id": one, "source_id": source} for one in some], schema=SET)

    run, clean_run = str(root / "run"), str(root / "clean")
    publish(
        run, {"clips": clips, "sets/pretrain-256": table(ids, "train"), "sets/validation": table(held, "held-out")}, {}
    )
    publish(clean_run, {"clips": clips, "sets/validation": table(clean, "clean")}, {})
    return run, clean_run


def found(changes: list[Change], rule: str) -> bool:
    return any(one.low > 0 for one in changes if one.question == rule)


def cleared(changes: list[Change], rule: str) -> bool:
    return all(one.verdict == "nothing seen" for one in changes if one.question == rule)


def main() -> None:
    import tempfile

    from rich.console import Console

    from rushes.pipelines.ablate.show import table

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--base", type=int, default=480, help="clips of the base set")
    options.add_argument("--share", type=float, default=0.5, help="of each rule's clips")
    options.add_argument("--seeds", type=int, default=Predictor.seeds)
    options.add_argument("--pairs", type=int, default=Predictor.pairs, help="of trainings of each seed")
    options.add_argument("--clips", type=int, default=Predictor.clips, help="of a training, about")
    options.add_argument("--draw", type=int, default=0, help="another draw of all clips")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        cache = Path(folder) / "out" / "clips"
        run, clean = planted(Path(folder), cache, chosen.base, chosen.share, chosen.draw)
        made = time.process_time() - began
        asked = Asked(run, "pretrain-256", (*HARMS, *HARMLESS), (), clean, chosen.seeds, chosen.pairs, chosen.clips)
        changes = ablate(asked, Predictor(cache), f"{folder}/out", print)
        Console(width=160).print(table(changes))
        harms, harmless = sum(found(changes, r) for r in HARMS), sum(cleared(changes, r) for r in HARMLESS)
        print(f"planted harms found: {harms} of {len(HARMS)}; harmless rules cleared: {harmless} of {len(HARMLESS)}")
        spent = time.process_time() - began - made
        print(f"{chosen.seeds} seeds; CPU time {made:.0f} s for the clips, {spent:.0f} s for the trainings")


if __name__ == "__main__":
    main()
