"""Content at scale: `python -m tests.bench.content CLIPS [FOLDER]`.

Copies, concepts and sampling of structured vectors with planted copies over shards, by two workers of one thread
each. CPU seconds (user and system, of all processes), peak memory of all processes together and of the largest worker,
recall and precision of the pairs against brute force on a sample, the agreement of concepts with the made ones.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench import vectors

SHARD_ROWS = 65_536
SAMPLED = 500  # clips compared with all others
WORKERS = 2
RULES_OFF = {
    "visual": {"size_min": None, "fps_min": None, "aspect_max": None, "corrupt_max": None, "border_max": None,
               "luma_min": None, "luma_max": None, "text_max": None, "aesthetic_min": None},
    "motion": {"frozen_max_s": None, "own_motion_min": None, "shake_max": None, "slideshow_max": None,
               "static_max": None, "vmaf_min": None, "mv_min": None, "mv_max": None, "shots_per_s_max": None},
    "scenes": {"duration_min_s": None, "doubt_max": None},
    "content": {"copy_threshold": 0.9},  # what `vectors` plants its copies for
}  # fmt: skip


def cpu_s() -> float:
    return sum(
        u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


class Peak:
    """Resident memory, MB, looked at ten times a second: the largest sum of this process and its children, its own
    largest, and that of a child."""

    def __enter__(self) -> Peak:
        self.mb = self.driver_mb = self.worker_mb = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            mine = _resident_mb(os.getpid())
            theirs = [_resident_mb(child.pid) for child in multiprocessing.active_children()]
            self.mb = max(self.mb, mine + sum(theirs))
            self.driver_mb, self.worker_mb = max(self.driver_mb, mine), max([self.worker_mb, *theirs])


def _resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def one_thread() -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)


def load(shard: tuple[str, str]) -> pa.Table:
    facts, groups = shard
    columns = ["clip_id", "source_id", "width", "height", "fps", "duration_s", "human_score"]
    table = pq.read_table(facts, columns=columns)
    found = pq.read_table(groups)
    for name in found.column_names[1:]:
        table = table.append_column(name, found[name])
    return table


def decided(shard: tuple[str, str], chosen, recipe) -> int:
    from rushes.curation.decide import decide

    return int(decide(load(shard), chosen, recipe).kept.sum())


def measured(clips: int, folder: Path) -> dict:
    """All steps over shards of so many clips; the work folder stays at folder/work."""
    from rushes.curation import decide
    from rushes.curation.content.groups import measure
    from rushes.curation.recipe import build

    recipe = build(RULES_OFF)
    uris = vectors.write(folder / f"shards-{clips}", clips, max(2, -(-clips // SHARD_ROWS)))
    work = folder / f"work-{clips}"
    shutil.rmtree(work, ignore_errors=True)
    one_thread()
    steps: dict[str, float] = {}
    with Peak() as peak:
        began, wall = cpu_s(), time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(WORKERS, one_thread) as pool:
            mapper = partial(pool.imap, chunksize=1)
            files = measure(uris, str(work), recipe, mapper)
            steps["measured wall"] = time.perf_counter() - wall
            shards = list(zip(uris, files))
            chosen = decide.solve(load, shards, recipe, mapper)
            kept = sum(mapper(partial(decided, chosen=chosen, recipe=recipe), shards))
            pool.close()
            pool.join()
        spent, wall = cpu_s() - began, time.perf_counter() - wall
    return {"clips": clips, "cpu_s": spent, "wall_s": wall, "peak_mb": peak.mb,
            "driver_mb": peak.driver_mb, "worker_mb": peak.worker_mb, "kept": kept / clips, **steps,
            **accuracy(uris, files, work)}  # fmt: skip


def accuracy(uris: list[str], files: list[str], work: Path) -> dict:
    """Pairs at the threshold against brute force on a sample, and the concepts against the made ones."""
    from sklearn.metrics import normalized_mutual_info_score

    from rushes.curation.content.grid import vectors_of
    from rushes.curation.content.shards import clip_hash

    ids = pa.concat_arrays([c for uri in uris for c in pq.read_table(uri, columns=["clip_id"])["clip_id"].chunks])
    names = clip_hash(ids, 0)
    chosen = np.sort(np.random.default_rng(5).choice(len(ids), SAMPLED, replace=False))
    queries, truth, start = [], set(), 0
    for uri in uris:
        rows = vectors_of(pq.read_table(uri, columns=["copy"])["copy"])
        here = chosen[(chosen >= start) & (chosen < start + len(rows))]
        queries.append(rows[here - start])
        start += len(rows)
    query, start = np.concatenate(queries).astype(np.float64), 0
    for uri in uris:
        rows = vectors_of(pq.read_table(uri, columns=["copy"])["copy"]).astype(np.float64)
        left, right = np.nonzero(query @ rows.T >= 0.9)
        for i, j in zip(names[chosen[left]].tolist(), names[right + start].tolist()):
            if i != j:
                truth.add((min(i, j), max(i, j)))
        start += len(rows)
    near = np.concatenate([np.load(path) for path in work.glob("content/near-*.npy")])
    same = np.concatenate([np.load(path) for kind in ("same", "drawn") for path in work.glob(f"content/{kind}-*.npy")])
    stands = dict(zip(same["b"].tolist(), same["a"].tolist()))  # rows drawn together share one's pairs
    found = set(zip(near["a"].tolist(), near["b"].tolist()))
    hit = {pair for pair in truth if _is_found(*(stands.get(end, end) for end in pair), found)}
    mine = set(names[chosen].tolist())
    told = {pair for pair in found if mine & set(pair)}
    concept = np.concatenate([pq.read_table(uri, columns=["concept"])["concept"].to_numpy() for uri in uris])
    cluster = np.concatenate([pq.read_table(file)["cluster_id"].to_numpy() for file in files])
    return {"pairs of the sample": len(truth), "recall": len(hit) / max(len(truth), 1),
            "precision": len(told & truth) / max(len(told), 1), "nmi": normalized_mutual_info_score(concept, cluster),
            "concepts": len(np.unique(cluster))}  # fmt: skip


def _is_found(one: int, other: int, pairs: set[tuple[int, int]]) -> bool:
    return one == other or (min(one, other), max(one, other)) in pairs


if __name__ == "__main__":
    place = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp(prefix="rushes-bench-"))
    for number in sys.argv[1].split(","):
        print(json.dumps({key: round(value, 4) for key, value in measured(int(number), place).items()}), flush=True)
