"""Content on Ray's workers: the same groups and concepts, and a worker killed in the middle costs one task."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rushes.curation.sections import Engine
from rushes.pipelines.engine import ray_start
from rushes.pipelines.engine.cluster import Kind, RayCluster
from rushes.pipelines.engine.pool import CPU, Pool
from tests.curation.test_groups import clips, groups, measured

SHARDS = 4


class Idle:
    """A worker that only applies functions."""

    def ready(self) -> int:
        return os.getpid()


def noted(item: Any, function: partial, folder: Path, fatal: str | None) -> Any:
    """Apply a mapped function and note it; the first call of the one named `fatal` kills its worker."""
    with (folder / "calls").open("a") as calls:
        calls.write(f"{function.func.__name__}\n")
    if function.func.__name__ == fatal:
        with contextlib.suppress(FileExistsError):  # of two workers that are at it at once, one is killed
            (folder / "killed").touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
    return function(item)


def test_a_worker_killed_in_the_middle_costs_its_part_only_and_changes_nothing(tmp_path):
    rng = np.random.default_rng(3)
    table = clips(groups(80, 4, noise=0.25), rng.normal(size=(320, 12)) + 2 * groups(16, 20, dim=12))
    ray_start.start(Engine(num_cpus=2))
    pool = Pool(RayCluster(), [Kind(CPU, Idle, most=2)], 2, lambda error: None)
    found, calls = {}, {}
    try:
        for name, mapper, fatal in (("alone", map, None), ("on Ray", pool.map, "_label")):
            folder = tmp_path / name
            folder.mkdir()

            def apply(function, items, mapper=mapper, folder=folder, fatal=fatal):
                return mapper(partial(noted, function=function, folder=folder, fatal=fatal), list(items))

            found[name] = measured(table, folder, SHARDS, apply, clusters=20)
            calls[name] = Counter((folder / "calls").read_text().split())
    finally:
        pool.close()
    assert (tmp_path / "on Ray" / "killed").exists()
    assert found["on Ray"] == found["alone"]
    assert calls["on Ray"] - calls["alone"] == {"_label": 1}
