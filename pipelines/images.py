"""`rushes images`: image files, and single frames of a run's kept clips, to a set of images that training mixes in.

Facts of every image are measured once and recorded (RUN/work/images), so that the same command again looks at what is
new only; what they mean (too small, which bucket, which caption) is decided from the records each time. Image files
stay where they are, frames of clips are written to RUN/media.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from rich.console import Console

from rushes.curation import manifest
from rushes.curation import recipe as recipes
from rushes.curation.curriculum import bucket_shape, buckets
from rushes.curation.manifest import ManifestError, Run, join, resolve
from rushes.curation.names import wrong_name
from rushes.curation.video.inputs import list_inputs
from rushes.curation.video.lists import LIST_SUFFIXES, InputError, short
from rushes.curation.video.source import Source, clip_id
from rushes.pipelines.cli.progress import Terminal
from rushes.pipelines.engine import pool as engine
from rushes.pipelines.engine import ray_start
from rushes.pipelines.engine.cluster import Kind, RayCluster
from rushes.pipelines.engine.events import Bus
from rushes.pipelines.image_facts import ImageWorker, Item, records

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp"))
CAPTION_SUFFIXES = LIST_SUFFIXES  # files beside images that are no images themselves
BUCKET = "{}/4-8s"  # a bucket of clips whose shape an aspect has
PER_TASK = 64  # images looked at in one task: a killed run repeats at most so many per worker
TASK_S, EACH_S = 120.0, 60.0  # seconds that a task may take, and more for each of its images
IMAGES = "images"


@dataclass(frozen=True)
class Request:
    """What is wanted. inputs: files, folders, globs, lists; runs: whose kept clips give `per_clip` frames each."""

    inputs: list[str]
    runs: list[str]
    per_clip: int = 1
    captions: str | None = None  # a table with the columns file and caption
    name: str = "images"
    resolution: int = 256  # pixels, square root of the area that a picture must have


def collect(request: Request, root: str, console: Console) -> Run:
    """Publish sources and sets/NAME at `root`. Raises InputError, ManifestError or StopRun: one sentence each."""
    _refuse_other_runs(root)
    items = list_items(request)
    captions = read_captions(request.captions, [item.uri for item in items]) if request.captions else {}
    with manifest.lock(root), Terminal(console) as terminal:
        found = _examine(items, root, request.per_clip, Bus([terminal]))
        sources, rows = _decide(request, items, found, captions)
        tables = {"sources": pa.Table.from_pylist([source.row() for source in sources], manifest.SOURCES)}
        tables[f"sets/{request.name}"] = pa.Table.from_pylist(sorted(rows, key=lambda r: r["clip_id"]), manifest.SET)
        return manifest.publish(root, tables, _record(request, sources, rows))


def _refuse_other_runs(root: str) -> None:
    if manifest.exists(join(root, "run.json")) and "clips" in manifest.open_run(root).tables:
        raise ManifestError(f"{root} holds a curated run; give the images a folder of their own.")


# ---- what there is -------------------------------------------------------------------------------------------------


def list_items(request: Request) -> list[Item]:
    """Every image and every kept clip that the request names. Raises InputError, ManifestError."""
    wrong = wrong_name(request.name)
    if wrong:
        raise InputError(f"--name {short(request.name)!r} {wrong}.")
    uris = list_inputs(request.inputs, IMAGE_SUFFIXES, "images") if request.inputs else []
    items = [Item(_key(u), u) for u in uris if os.path.splitext(u)[1].lower() not in CAPTION_SUFFIXES]
    for root in request.runs:
        items += _kept_clips(root, request.per_clip)
    if not items:
        raise InputError("No images: name files, folders or globs with --input, or runs with kept clips with --clips.")
    return items


def _key(uri: str, *more: Any) -> str:
    """Name of a file's content as far as its address, size and time tell; a file that is not there has one too."""
    try:
        fs, path = resolve(uri)
        info = fs.get_file_info(path)
        more = (*more, info.size, info.mtime_ns)
    except (OSError, ManifestError):
        pass  # whoever opens it says why
    return hashlib.blake2b(":".join(map(str, (uri, *more))).encode(), digest_size=10).hexdigest()


def _kept_clips(root: str, per_clip: int) -> Iterator[Item]:
    """Kept clips, but for those that are validated on."""
    run = manifest.open_run(root)
    columns = ["clip_id", "source_id", "start_s", "media", "caption", "kept", "sets"]
    base = root if "://" in root else resolve(root)[1]
    for row in run.table("clips", columns).to_pylist():
        if row["kept"] and row["media"] and "validation" not in (row["sets"] or []):
            away = "://" in row["media"] or row["media"].startswith("/")
            uri = row["media"] if away else join(base, row["media"])
            yield Item(_key(uri, row["clip_id"], per_clip), uri, row["source_id"], row["start_s"], row["caption"])


def read_captions(table: str, uris: list[str]) -> dict[str, str]:
    """uri -> caption, from a .csv, .jsonl or .parquet with the columns file and caption.

    A file is an address, a path, or a path relative to the table's folder. Raises InputError where the table cannot
    be read, lacks a column, or names none of the images.
    """
    fs, path = resolve(table)
    suffix = os.path.splitext(path)[1].lower()
    try:
        with fs.open_input_file(path) as stream:
            if suffix == ".parquet":
                rows = pq.read_table(stream).to_pylist()
            elif suffix in (".csv", ".jsonl"):
                text = stream.read().decode("utf-8-sig")
                lines = [line for line in text.splitlines() if line.strip()]
                rows = list(csv.DictReader(io.StringIO(text))) if suffix == ".csv" else [json.loads(x) for x in lines]
            else:
                raise InputError(f"--captions {table}: a table of captions is a .csv, .jsonl or .parquet file.")
    except (OSError, ValueError, pa.ArrowInvalid, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"--captions {table} cannot be read: {error}.") from error
    if any(not isinstance(row, dict) or not {"file", "caption"} <= row.keys() for row in rows):
        raise InputError(f"--captions {table}: every row needs the columns 'file' and 'caption'.")
    folder = os.path.dirname(path) if "://" not in table else table.rpartition("/")[0]
    by_uri = {_beside(folder, str(row["file"])): str(row["caption"] or "").strip() for row in rows}
    named = {uri: by_uri[uri] for uri in uris if by_uri.get(uri)}
    if not named:
        raise InputError(f"--captions {table} names none of the images: its files are relative to its own folder.")
    return named


def _beside(folder: str, file: str) -> str:
    return file if "://" in file else os.path.normpath(os.path.join(folder, os.path.expanduser(file)))


def _sidecar(uri: str) -> str | None:
    """Text of the .txt file of the same stem, None where there is none."""
    fs, path = resolve(os.path.splitext(uri)[0] + ".txt")
    try:
        with fs.open_input_stream(path) as stream:
            return " ".join(stream.read().decode("utf-8-sig", "replace").split()) or None
    except OSError:
        return None


# ---- all of it -----------------------------------------------------------------------------------------------------


def _known(root: str) -> dict[str, dict[str, Any]]:
    """Records of earlier runs by key; those whose written frames are gone are left out."""
    fs, folder = resolve(records(root))
    found = fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
    rows = [row for info in found if info.path.endswith(".parquet") for row in manifest.read_table(info.path if
            manifest.is_local(fs) else records(root, info.base_name)).to_pylist()]  # fmt: skip
    return {row["key"]: row for row in rows if all(_there(root, picture["media"]) for picture in row["pictures"])}


def _there(root: str, media: str) -> bool:
    return "://" in media or media.startswith("/") or manifest.exists(join(root, media))


def _examine(items: list[Item], root: str, per_clip: int, bus: Bus) -> dict[str, dict[str, Any]]:
    """A row of RECORDS for every item, by key: from the records, or from workers."""
    from rushes.pipelines.stages.worker import stop_reason

    found = _known(root)
    todo = [item for item in items if item.key not in found]
    stage = bus.stage(IMAGES, len(items), "images")
    stage.step(len(items) - len(todo))
    if not todo:
        stage.end()
        return found
    settings = recipes.build({}).engine
    tasks = [todo[start : start + PER_TASK] for start in range(0, len(todo), PER_TASK)]
    workers = min(ray_start.start(settings), len(tasks))
    kind = Kind(engine.CPU, lambda: ImageWorker(root, per_clip), most=workers)
    pool = engine.Pool(RayCluster(), [kind], settings.attempts, stop_reason)
    try:
        for some in tasks:
            _submit(pool, some)
        for task, result in pool.completed():
            some = task.args[0]
            if isinstance(result, engine.Failure) and len(some) > 1:  # one of them; the others lose nothing by it
                for item in some:
                    _submit(pool, [item])
                continue
            if isinstance(result, engine.Failure):
                failed = Source(some[0].uri, some[0].source_id).failed(result.reason)
                result = [{"key": some[0].key, **failed.row(), "pictures": []}]
            for row in result:
                found[row["key"]] = row
                stage.step()
    finally:
        pool.close()
    stage.end()
    return found


def _submit(pool: engine.Pool, items: list[Item]) -> None:
    pool.submit("examine", items[0].key, items, timeout_s=TASK_S + EACH_S * len(items))


def _decide(
    request: Request, items: list[Item], found: dict[str, dict[str, Any]], captions: dict[str, str]
) -> tuple[list[Source], list[dict[str, Any]]]:
    """The row of every item in `sources`, and the rows of the set."""
    limit = recipes.build({}).visual.aspect_max
    sources, rows, first = [], [], {}
    for item in items:
        record = dict(found[item.key])
        pictures, _ = record.pop("pictures"), record.pop("key")
        source = replace(Source(**record), uri=item.uri)
        if item.source_id is None and source.status == "ok" and source.source_id in first:
            same = first[source.source_id]
            source = replace(source, status="duplicate", error=f"duplicate: the same content as {same}")
        good, why = [], None
        for picture in pictures if source.status == "ok" else []:
            shape = _shape(picture, request.resolution)
            why = _unfit(picture, shape, limit)
            if why is None:
                good.append({"set": request.name, **_set_row(item, source, picture, shape)})
        if source.status == "ok" and not good:
            source = source.failed(why or "no frame: none was taken")
        if good and item.source_id is None:
            first[source.source_id] = item.uri
        caption = item.caption if item.source_id else captions.get(item.uri) or (_sidecar(item.uri) if good else None)
        rows += [{**row, "caption": caption} for row in good]
        sources.append(replace(source, clips=len(good)))
    return sources, rows


def _shape(picture: dict[str, Any], resolution: int) -> tuple[str, int, int]:
    """(aspect such as 16x9, width, height in pixels) that a picture is trained at."""
    sides = (np.array([picture[side]]) for side in ("width", "height"))
    aspect = buckets(*sides, np.array([4.0]))[0].partition("/")[0]
    return aspect, *bucket_shape(BUCKET.format(aspect), resolution)[:2]


def _unfit(picture: dict[str, Any], shape: tuple[str, int, int], aspect_max: float | None) -> str | None:
    """Why a picture cannot be in the set, or None."""
    width, height = picture["width"], picture["height"]
    if width < shape[1] or height < shape[2]:
        return f"too small: {width}x{height}, the set's {shape[0]} pictures are {shape[1]}x{shape[2]}"
    ratio = max(width, height) / min(width, height)
    if aspect_max and ratio > aspect_max:
        return f"too long: {width}x{height}, the longer side may be {aspect_max:g} times the shorter"
    return None


def _set_row(item: Item, source: Source, picture: dict[str, Any], shape: tuple[str, int, int]) -> dict[str, Any]:
    """A row of manifest.SET: one frame, shown for a second, without a frame rate in front of its caption."""
    at = (item.start_s or 0.0) + picture["time_s"]
    return {
        "clip_id": clip_id(source.source_id, at, at), "media": picture["media"], "source_id": source.source_id,
        "media_start_s": 0.0, "media_end_s": 1.0, "fps": 1.0, "sample_fps": 1.0, "weight": 1.0,
        "bucket": shape[0], "bucket_frames": 1, "bucket_width": shape[1], "bucket_height": shape[2],
    }  # fmt: skip


def _record(request: Request, sources: list[Source], rows: list[dict[str, Any]]) -> dict[str, Any]:
    status = Counter(source.status for source in sources)
    why = Counter(source.error.partition(":")[0] for source in sources if source.error)
    silent = sum(not row["caption"] for row in rows)
    warnings = [f"{silent} of {len(rows)} images have no caption."] if silent else []
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "images": {"inputs": request.inputs, "runs": request.runs, "per_clip": request.per_clip,
                   "captions": request.captions, "resolution": request.resolution, "left_out": dict(why)},
        "funnel": {"sources": {"inputs": len(sources), **status}, "sets": {request.name: len(rows)}},
        "warnings": warnings,
    }  # fmt: skip


def print_outcome(run: Run, console: Console) -> None:
    """What became of every input, in a few lines."""
    counts, facts = run.record["funnel"], run.record["images"]
    console.print(f"\n{counts['sources']['inputs']} images and clips", highlight=False)
    for why, count in sorted(facts["left_out"].items()):
        console.print(f"  {count} left out: {why}", highlight=False, markup=False)
    for name, rows in counts["sets"].items():
        console.print(f"sets/{name}: {rows} images", highlight=False)
