"""`python -m tests.bench [NAME ...]`: the figures of the README, as ratios against a yardstick of the same run.

Bare decode is PyAV's loop over all frames of the file with one thread and nothing else. Ratios are medians of paired
runs, yardstick and subject in turn, in CPU seconds of the process unless a row says wall. NumPy has one thread, as in a
worker: a second one that waits would be counted.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import numpy as np

from tests.bench import footage

PAIRS = 5  # paired runs of a ratio
JUDGED_ROWS = 1_000_000
VMAF_WINDOW = 48  # frames


def bare_decode(path: Path) -> tuple[float, int]:
    """CPU seconds and frames."""
    began, count = time.process_time(), 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            count += 1
    return time.process_time() - began, count


def analysis_ratio(path: Path) -> str:
    from rushes.curation import recipe
    from rushes.curation.analyze import Analyzer
    from rushes.curation.video import decode

    decode.quiet()
    analyzer = Analyzer(recipe.build({}))
    source = decode.probe(str(path))
    analyzer(source)
    ratios, bare_ms = [], []
    for _ in range(PAIRS):
        bare, frames = bare_decode(path)
        began = time.process_time()
        analyzer(source)
        ratios.append((time.process_time() - began) / bare)
        bare_ms.append(1e3 * bare / frames)
    spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
    return f"{statistics.median(ratios):.2f} x ({spread}), bare decode {statistics.median(bare_ms):.2f} ms a frame"


def bench_analysis_1080p() -> str:
    return analysis_ratio(footage.film(60, "1920:1080"))


def bench_analysis_360p() -> str:
    return analysis_ratio(footage.film(120, "640:360"))


def bench_analysis_240p() -> str:
    return analysis_ratio(footage.film(60, "426:240"))


def bench_analysis_180p() -> str:
    return analysis_ratio(footage.film(60, "320:180"))


def bench_analysis_1080p_light() -> str:
    """A file with few bits: the harder case, since its decode is cheaper and the meters cost the same."""
    return analysis_ratio(footage.film(61, "1920:1080", crf=38))


def _curate(name: str, *extra: str) -> str:
    files = footage.small_set()
    seconds = sum(_seconds(f) for f in files)
    bare = sum(bare_decode(f)[0] for f in files)
    walls = []
    for _ in range(3):
        out = footage.HERE / name
        shutil.rmtree(out, ignore_errors=True)
        began = time.perf_counter()
        command = [
            str(Path(sys.executable).parent / "rushes"),
            "curate",
            "--recipe",
            "cpu",
            "-i",
            str(files[0].parent),
            "-o",
            str(out),
        ]
        subprocess.run([*command, *extra], check=True, capture_output=True)
        walls.append(time.perf_counter() - began)
    wall = statistics.median(walls)
    of = f"{len(files)} files, {seconds:.0f} s of footage"
    return f"{wall:.1f} s wall for {of}; {wall / bare:.1f} x its bare decode ({bare:.1f} s)"


def bench_curate() -> str:
    return _curate("curate")


def bench_curate_without_text() -> str:
    return _curate("curate-no-text", "--set", "visual.text=false")


def _seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        return container.duration / av.time_base


def _peak_mb(path: Path) -> float:
    """Peak memory of a process that analyzes the file and looks at its clips, MB."""
    code = (
        "import sys,resource;from rushes.curation import recipe;from rushes.curation.video import decode;"
        "from rushes.curation.analyze import Analyzer;from rushes.curation.look import Looker;decode.quiet();"
        "r=recipe.build({});"
        "a=Analyzer(r)(decode.probe(sys.argv[1]));Looker(r)(a.clips['clip_id'].to_pylist()[:3],a.stills);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    return float(out.stdout)


def bench_memory() -> str:
    short, long = _peak_mb(footage.film(120, "1920:1080")), _peak_mb(footage.film(1200, "1920:1080"))
    return (
        f"{short:.0f} MB for 2 min, {long:.0f} MB for 20 min of 1080p (analysis, and OCR of three clips, one process)"
    )


def bench_vmaf() -> str:
    """Our motion score on small luma against FFmpeg's filter at full size, over windows of 48 frames."""
    from rushes.curation.video import decode

    decode.quiet()
    full, small = [], []
    for path in [f for f in footage.real_files() if f.stem != "plant_1fps"]:
        a, b = ffmpeg_motion(path), our_motion(path)
        for start in range(1, min(len(a), len(b)) - VMAF_WINDOW, VMAF_WINDOW):
            full.append(np.mean(a[start : start + VMAF_WINDOW]))
            small.append(np.mean(b[start : start + VMAF_WINDOW]))
    return vmaf_fit(np.array(full), np.array(small))


def vmaf_fit(full: np.ndarray, small: np.ndarray) -> str:
    from scipy.stats import spearmanr

    moving = (full > 0.05) & (small > 0.05)
    power, scale = np.polyfit(np.log(small[moving]), np.log(full[moving]), 1)
    mapped = np.exp(scale) * small**power
    agree = np.mean((mapped > 2.0) == (full > 2.0))
    return (
        f"rank correlation {spearmanr(full, small).statistic:.4f} over {len(full)} windows; "
        f"full = {np.exp(scale):.3f} x small^{power:.3f}; "
        f"at the threshold of 2.0 the two agree on {agree:.1%} of the windows"
    )


def ffmpeg_motion(path: Path) -> list[float]:
    """Score of FFmpeg's vmafmotion filter for every frame, at full size."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        source = graph.add_buffer(template=stream)
        motion, sink = graph.add("vmafmotion"), graph.add("buffersink")
        source.link_to(motion)
        motion.link_to(sink)
        graph.configure()
        scores = []
        for frame in container.decode(stream):
            graph.push(frame)
            scores.append(float(graph.pull().metadata["lavfi.vmafmotion.score"]))
    return scores


def our_motion(path: Path) -> list[float]:
    """Our unmapped score for every frame."""
    from rushes.curation.motion import vmaf
    from rushes.curation.video.decode import Decoded, frames, opened

    scores, before = [], None
    with opened(str(path)) as (container, stream):
        for frame in frames(container, stream, Decoded()):
            blurred = vmaf.blur(frame.luma)
            scores.append(vmaf.difference(blurred, before) if before is not None else 0.0)
            before = blurred
    return scores


def bench_judge() -> str:
    """Seconds (wall) to decide on a million clip rows and put them into sets."""
    from rushes.curation import recipe
    from rushes.curation.decide import decide_all
    from rushes.curation.sets import curriculum
    from rushes.pipelines.stages.deciding import with_decisions
    from tests.bench.rows import synthetic_clips

    clips = synthetic_clips(JUDGED_ROWS)
    judged = recipe.load("moviegen", ["motion.vmaf_min=3"])
    began = time.perf_counter()
    clips = with_decisions(clips, decide_all(clips, judged)[0], judged)
    decided = time.perf_counter() - began
    curriculum(clips, judged)
    total = time.perf_counter() - began
    return f"{total:.2f} s for {JUDGED_ROWS:,} rows ({decided:.2f} s to decide, the rest for buckets and sets)"


def bench_loader() -> str:
    from tests.bench.loader import report

    return report()


BENCHES: dict[str, Callable[[], str]] = {
    name.removeprefix("bench_"): value for name, value in list(globals().items()) if name.startswith("bench_")
}


def main() -> None:
    chosen = sys.argv[1:] or list(BENCHES)
    load = os.getloadavg()[0]
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}")
    for name in chosen:
        if name not in BENCHES:
            raise SystemExit(f"no benchmark '{name}'; there are: {', '.join(BENCHES)}")
        print(f"{name:24} {BENCHES[name]()}", flush=True)
    print(f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
