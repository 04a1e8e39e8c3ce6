"""Quality: sources that no model was fitted on, made worse in known ways, against VMAF with the original at hand."""

from __future__ import annotations

import json
import os

import numpy as np
from scipy.stats import spearmanr

from rushes.curation.visual.quality import FEATURES, quality, without_quantiser
from rushes.pipelines.fit import degrade
from rushes.pipelines.fit import quality as made
from tests.accuracy.made import Bench
from tests.accuracy.table import Row

ROUNDS = int(os.environ.get("RUSHES_ACCURACY_ROUNDS", "1"))  # times that each window is made worse in every way
SEED = 77  # never one of a fit
POOR, GOOD = 40.0, 80.0  # VMAF below which a file is poor, from which it is good


def measure(bench: Bench) -> list[Row]:
    folder = bench.place("quality")
    cache = folder / f"examples-{ROUNDS}-{FEATURES}.npz"
    if not cache.exists():
        windows = made.windows(True, [bench.footage] if bench.footage else [])
        found = made.examples(windows, ROUNDS, SEED, folder / "work")
        photographs = {window.source for window in windows if window.photo}
        facts = json.dumps([(one.source, one.kind, one.source in photographs, one.vmaf) for one in found])
        np.savez_compressed(cache, facts=np.array(facts), **{f"s{n}": one.stats for n, one in enumerate(found)})
    with np.load(cache) as file:
        facts = json.loads(str(file["facts"]))
        stats = [file[f"s{n}"] for n in range(len(facts))]
    told, blind = (np.array([quality(way(one)) for one in stats]) for way in (np.array, without_quantiser))
    sources, kinds, photo, truth = (np.array(column) for column in zip(*facts))

    def rank(which: np.ndarray, of: np.ndarray = told) -> float:
        return float(spearmanr(of[which], truth[which]).statistic)

    everywhere = np.ones(len(truth), bool)
    inside = [rank(sources == name) for name in sorted(set(sources))]
    some = [(truth < POOR), (truth >= GOOD)]
    order = (told[some[0]][:, None] < told[some[1]][None]).mean()
    rows = [
        Row("quality", "rank correlation with VMAF, all sources", rank(everywhere), ">= 0.90", len(truth)),
        Row("quality", "the same where the codec tells no quantiser", rank(everywhere, blind), "", len(truth)),
        Row("quality", "the same, videos", rank(~photo), "", int((~photo).sum())),
        Row("quality", "the same, photographs under a gliding camera", rank(photo), "", int(photo.sum())),
        Row("quality", "the same within a source, mean", float(np.mean(inside)), "", len(inside)),
        Row("quality", f"a file below VMAF {POOR:g} below one from {GOOD:g}", float(order), "",
            int(some[0].sum() * some[1].sum())),
        Row("quality", "mean error", float(np.abs(told - truth).mean()), "", len(truth)),
    ]  # fmt: skip
    return rows + [
        Row("quality", f"rank correlation, {kind}", rank(kinds == kind), "", int((kinds == kind).sum()))
        for kind in dict.fromkeys(degrade.KINDS)
        if kind != "clean"
    ]
