"""What a curation would cost, from the headers of its inputs and measured rates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rushes.curation.recipe import Recipe

PROBED_MOST = 200  # headers that are read, evenly spread over the inputs; the rest is taken to be like them
#: Core milliseconds of the analysis: per frame, and per million pixels of it. From docs/benchmarks.md: 4.5 ms x 1.37
#: at 1080p and 0.44 ms x 2.15 at 360p, of a 2-core x86-64 virtual machine.
ANALYZE_MS_FRAME, ANALYZE_MS_MEGAPIXEL = 0.29, 2.85
#: Core seconds per second of footage with the recipe `cpu`: 285 s of footage took 5 s to look at, 2.5 s to cut.
LOOK_PER_S, CUT_PER_S = 5 / 285, 2.5 / 285
FPS_TYPICAL = 25.0  # where a header does not say


@dataclass(frozen=True)
class Cost:
    """inputs: all; probed: headers read, of which `unreadable` failed; core_s: seconds of one core by stage."""

    inputs: int
    probed: int
    unreadable: int
    footage_s: float
    core_s: dict[str, float]


def cost(uris: list[str], recipe: Recipe) -> Cost:
    """Hours of footage and of cores. Captions by models are not in it: their rate is the servers'."""
    from rushes.curation.video.decode import probe

    chosen = [uris[at] for at in np.unique(np.linspace(0, len(uris) - 1, min(PROBED_MOST, len(uris))).astype(int))]
    sources = [probe(uri, source_id="cost") for uri in chosen]
    good = [source for source in sources if source.status in ("ok", "partial") and source.duration_s]
    scale = len(uris) / max(len(chosen), 1)
    footage = sum(source.duration_s for source in good) * scale
    frames = [(source.duration_s * (source.fps or FPS_TYPICAL), source.width * source.height / 1e6) for source in good]
    ms = sum(count * (ANALYZE_MS_FRAME + ANALYZE_MS_MEGAPIXEL * megapixels) for count, megapixels in frames)
    core_s = {"analyze": ms / 1000 * scale}
    if recipe.visual.text or recipe.visual.people:
        core_s["look"] = LOOK_PER_S * footage
    core_s["cut"] = CUT_PER_S * footage
    return Cost(len(uris), len(chosen), len(chosen) - len(good), footage, core_s)
