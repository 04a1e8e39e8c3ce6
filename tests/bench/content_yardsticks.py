"""Yardsticks of content: scikit-learn on the same vectors, and a small new run against a large published one.

`python -m tests.bench.content_yardsticks sklearn CLIPS FOLDER`, `... against NEW OLD FOLDER`, `... grown OLD NEW
FOLDER`.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.bench import vectors
from tests.bench.content import RULES_OFF, SHARD_ROWS, cpu_s, one_thread

ASKED = 20  # clips whose neighbours are asked of `rushes near`, which reads the run for each
QUERIES = 2_000  # rows whose neighbours scikit-learn looks for; its time grows with their number


def sklearn(clips: int, folder: Path) -> dict:
    """CPU seconds and inertia (mean 1 - cosine to the centre) of both, with the same number of centres."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.neighbors import NearestNeighbors

    from rushes.curation.content.grid import vectors_of
    from rushes.curation.content.groups import measure
    from rushes.curation.content.shards import clip_hash
    from rushes.curation.manifest import read_table
    from rushes.curation.recipe import build

    one_thread()
    uris = vectors.write(folder / f"shards-{clips}", clips, max(2, -(-clips // SHARD_ROWS)))
    work = folder / f"work-{clips}"
    shutil.rmtree(work, ignore_errors=True)
    began = cpu_s()
    measure(uris, str(work), build(RULES_OFF))
    ours = cpu_s() - began
    cosines = np.concatenate([np.load(path) for path in _newest(work, "cosines")])
    k = len(read_table(str(work / "concepts.parquet")))
    table = pa.concat_tables([pq.read_table(uri, columns=["semantic", "copy"]) for uri in uris])
    semantic, copy = vectors_of(table["semantic"]), vectors_of(table["copy"])
    began = cpu_s()
    model = MiniBatchKMeans(k, random_state=0, n_init=1, batch_size=4096).fit(semantic)
    label = model.predict(semantic)
    clustered = cpu_s() - began
    centre = model.cluster_centers_ / np.linalg.norm(model.cluster_centers_, axis=1, keepdims=True)
    theirs = 1 - float(np.mean(np.einsum("ij,ij->i", semantic, centre[label])))
    began = cpu_s()
    rows = np.arange(clips)[:: max(1, clips // QUERIES)][:QUERIES]
    index = NearestNeighbors(radius=np.sqrt(2 - 2 * 0.9), algorithm="brute").fit(copy)
    near = index.radius_neighbors(copy[rows], return_distance=False)
    searched = (cpu_s() - began) * clips / QUERIES
    ids = pa.concat_tables([pq.read_table(uri, columns=["clip_id"]) for uri in uris])["clip_id"].combine_chunks()
    recall = _found_again(work, clip_hash(ids, 0), rows, near)
    return {
        "clips": clips,
        "centres": k,
        "ours_cpu_s": ours,
        "minibatch_cpu_s": clustered,
        "neighbours_cpu_s": searched,
        "times": (clustered + searched) / ours,
        "inertia": float(1 - cosines.mean()),
        "sklearn_inertia": theirs,
        "copies_recall": recall,
        **_neighbours(semantic, ids, folder),
    }


def _found_again(work: Path, names: np.ndarray, rows: np.ndarray, near: np.ndarray) -> float:
    """Share of scikit-learn's pairs within the radius that are among ours."""
    pairs = np.concatenate([np.load(path) for path in work.glob("content/near-*.npy")])
    same = [np.load(path) for kind in ("same", "drawn") for path in work.glob(f"content/{kind}-*.npy")]
    stands = {int(pair["b"]): int(pair["a"]) for some in same for pair in some}
    ours = set(zip(pairs["a"].tolist(), pairs["b"].tolist()))
    hits = total = 0
    for row, others in zip(rows, near):
        for other in others[others != row]:
            a, b = (stands.get(name, name) for name in (int(names[row]), int(names[other])))
            hits += a == b or (min(a, b), max(a, b)) in ours
            total += 1
    return hits / total


def _neighbours(semantic: np.ndarray, ids: pa.Array, folder: Path) -> dict:
    """`rushes near` beside NearestNeighbors: share of ten neighbours that is the same, CPU seconds a query."""
    from sklearn.neighbors import NearestNeighbors

    from rushes.curation import manifest
    from rushes.curation.content.near import neighbours

    flat = pa.FixedSizeListArray.from_arrays(pa.array(semantic.ravel()), semantic.shape[1])
    run = manifest.publish(str(folder / "near"), {"embeddings": pa.table({"clip_id": ids, "semantic": flat})}, {})
    began = cpu_s()
    _, theirs = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(semantic).kneighbors(semantic[:ASKED])
    sklearn_s = (cpu_s() - began) / ASKED
    began = cpu_s()
    ours = [[one.clip_id for one in neighbours(run, semantic[row], 10)] for row in range(ASKED)]
    known = ids.to_pylist()
    hits = sum(len(set(mine) & {known[place] for place in some}) for mine, some in zip(ours, theirs))
    return {
        "near_recall": hits / (10 * ASKED),
        "near_cpu_s": (cpu_s() - began) / ASKED,
        "sklearn_near_cpu_s": sklearn_s,
    }


def _newest(work: Path, kind: str) -> list[Path]:
    """Files of the last round over all rows: those with the key of the last labels."""
    files = sorted(work.glob(f"content/{kind}-*.npy"), key=lambda path: path.stat().st_mtime_ns)
    last = files[-1].stem.rsplit("-", 1)[1]
    return [path for path in files if path.stem.endswith(last)]


def against(new: int, old: int, folder: Path) -> dict:
    """CPU and wall seconds of finding copies of `new` clips in a published run of `old`, one process, one thread."""
    from rushes.curation.content.published import matched, open_published
    from rushes.curation.content.shards import opened, parts_of, prepare

    one_thread()
    shards = folder / f"shards-{old}"
    uris = vectors.write(shards, old, max(2, -(-old // SHARD_ROWS)))
    ids = pa.concat_tables([pq.read_table(uri, columns=["clip_id"]) for uri in uris])
    pq.write_table(ids.append_column("kept", pa.array(np.ones(len(ids), bool))), shards / "clips.parquet.all")
    tables = {"embeddings": {"files": [Path(uri).name for uri in uris], "rows": old},
              "clips": {"files": ["clips.parquet.all"], "rows": old}}  # fmt: skip
    (shards / "run.json").write_text(json.dumps({"schema_version": 1, "snapshot": "000001-bench", "tables": tables}))
    some = pq.read_table(uris[0]).slice(0, new)
    some = some.set_column(0, "clip_id", pc.binary_join_element_wise("new", some["clip_id"], "-"))
    pq.write_table(some, folder / "new.parquet")
    began, wall = cpu_s(), time.perf_counter()
    published = [open_published(str(shards), 256)]
    parts = parts_of([opened(str(folder / "new.parquet"))], str(folder / "against"), 131_072, "bench")
    for part in parts:
        prepare(part, {"copy": 256, "semantic": 168}, 0)
    clips, names = matched(parts, published, 0.9, 512 << 20, map)
    same = len(clips)
    return {"new": new, "old": old, "found": same, "named": len(names.drop_null()), "cpu_s": cpu_s() - began,
            "wall_s": time.perf_counter() - wall}  # fmt: skip


def grown(old: int, new: int, folder: Path) -> dict:
    """Shares of the `old` clips whose fate or probability changes when `new` are added, with content.join and without.

    moved: mean change of the probability; changed: clips kept before and not after, or the other way round.
    """
    from rushes.curation import manifest
    from rushes.curation.decide import decide_all
    from rushes.curation.recipe import build

    def measured(table: pa.Table, name: str, **content) -> tuple[pa.Table, pa.Table, np.ndarray, np.ndarray]:
        recipe = build({**RULES_OFF, "content": {**RULES_OFF["content"], **content}})
        found, concepts = measure_table(table.select(["clip_id", "semantic", "copy"]), str(folder / name), recipe)
        for column in found.column_names[1:]:
            table = table.append_column(column, found[column])
        decisions, _ = decide_all(table, recipe)
        return table, concepts, decisions.kept, decisions.keep_prob

    from rushes.curation.content.groups import measure_table

    one_thread()
    uris = vectors.write(folder / f"shards-{old + new}", old + new, 2)
    both = pa.concat_tables([pq.read_table(uri) for uri in uris])
    table, concepts, kept, prob = measured(both.slice(0, old), "first")
    rows = table.select(["clip_id", "cluster_id"]).append_column("kept", pa.array(kept))
    manifest.publish(str(folder / "run"), {"clips": rows, "concepts": concepts}, {})
    found = {"old": old, "new": new, "kept": float(kept.mean())}
    for name, content in (("join", {"join": str(folder / "run")}), ("fresh", {})):
        more, _, again, after = measured(both, name, **content)
        open_ = ~np.isnan(prob) & ~np.isnan(after[:old])  # neither is the copy of another
        found[f"{name} changed"] = float((again[:old] != kept).mean())
        found[f"{name} moved"] = float(np.abs(after[:old] - prob)[open_].mean())
        found[f"{name} relabelled"] = float(
            (more["cluster_id"].to_numpy()[:old] != table["cluster_id"].to_numpy()).mean()
        )
        found[f"{name} drawn otherwise"] = float((again[:old] != kept)[open_].mean())
    return found


if __name__ == "__main__":
    what, *numbers, place = sys.argv[1:]
    found = {"sklearn": sklearn, "against": against, "grown": grown}[what](*map(int, numbers), Path(place))
    print(json.dumps({key: round(value, 4) for key, value in found.items()}), flush=True)
