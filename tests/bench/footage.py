"""Footage of the benchmarks, made once into runs/bench from ../shared/videos, or from the demo's pool."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import imageio_ffmpeg

HERE = Path(os.environ.get("RUSHES_BENCH", "runs/bench"))
SHARED = Path(os.environ.get("RUSHES_FOOTAGE", "../shared/videos"))


def ffmpeg(*args: str) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-nostdin", *args], check=True)


def real_files() -> list[Path]:
    """Real clips at hand, sorted."""
    if SHARED.is_dir():
        return sorted(SHARED.glob("*.mp4"))
    from rushes.pipelines.demo.pool import make_pool

    return sorted(file.path for file in make_pool(HERE / "pool") if file.expect not in ("error", "duplicate"))


def film(seconds: int, size: str, crf: int = 28) -> Path:
    """One H.264 file of so many seconds, size as W:H: two of the real clips in turn, 24 frames per second."""
    path = HERE / f"film-{seconds}s-{size.replace(':', 'x')}.mp4"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = [f for f in real_files() if f.stem in ("film_10s", "portrait_overlay_text", "landscape", "street")][:2]
        names = []
        width, height = size.split(":")
        for number, part in enumerate(parts):
            name = path.with_suffix(f".{number}.mp4")
            fit = f"scale={size}:force_original_aspect_ratio=increase,crop={width}:{height},fps=24,setsar=1"
            ffmpeg(
                "-i", str(part), "-vf", fit, "-an", "-c:v", "libx264", "-preset", "fast", "-crf", str(crf), str(name)
            )
            names.append(name)
        listing = path.with_suffix(".txt")
        listing.write_text("".join(f"file '{n.name}'\n" for n in names * (1 + seconds // 20)))
        temporary = path.with_suffix(".part.mp4")
        ffmpeg("-f", "concat", "-i", str(listing), "-c", "copy", "-t", str(seconds), str(temporary))
        temporary.rename(path)
        for extra in [*names, listing]:
            extra.unlink()
    return path


def small_set(folder: Path = HERE / "set-360p") -> list[Path]:
    """11 files, about 285 s, shorter side 360, H.264: like the set on which Data-Juicer took 118 s."""
    done = sorted(folder.glob("*.mp4"))
    if len(done) == 11:
        return done
    folder.mkdir(parents=True, exist_ok=True)
    files = [f for f in real_files() if f.stem != "plant_1fps"]
    fit = "scale='if(gt(iw,ih),-2,360)':'if(gt(iw,ih),360,-2)',setsar=1"
    for number in range(11):
        source, target = files[number % len(files)], folder / f"{number:02d}-{files[number % len(files)].stem}.mp4"
        mirrored = f"{fit},hflip" if number >= len(files) else fit
        ffmpeg("-stream_loop", "5", "-i", str(source), "-t", str(20 + 12 * (number % 2)), "-vf", mirrored, "-an",
               "-c:v", "libx264", "-preset", "fast", "-crf", "24", str(target))  # fmt: skip
    return sorted(folder.glob("*.mp4"))
