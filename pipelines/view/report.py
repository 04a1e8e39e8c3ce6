"""The report of a run: one HTML page that needs nothing but itself (`rushes report`).

The page shows what went in, where it was lost, how every signal is spread around its threshold, and what the clips
of each fate look like. It is made from the published tables and the stills that the analysis kept; no video is
opened. Its size does not grow with the run's: histograms are counted, and clips are shown by a fixed sample.
"""

from __future__ import annotations

import base64
import os
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rushes.curation import manifest, rules
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe
from rushes.pipelines.view import charts, words
from rushes.pipelines.view.funnel import funnel
from rushes.pipelines.view.story import deciding_value
from rushes.pipelines.view.tables import recipe_of, rows_at

CLIPS_PER_GROUP = 12  # per fate: six rows of two on a laptop
ERRORS_LISTED = 200  # inputs with an error that are listed; the rest are counted
IMAGE_BUDGET = 3_300_000  # bytes of JPEG: 4.4 MB as base64, so that the page stays below 5 MB
STRIP_BYTES = 24_000  # most bytes of a clip's strip: three stills of some 8 KB
STRIP_SIZE = (720, 136)  # pixels, width x height at most: three stills of 240 px, sharp on a phone
STRIP_STILLS = (3, 6)  # as many stills as fill the strip, between these
STRIP_GAP, STRIP_GAP_GREY = 4, 160  # pixels between two stills, and their grey: black would look like a border
JPEG_QUALITIES = (78, 68, 58, 46, 34)  # tried in turn until a strip fits its bytes, then at half the size


def write_report(
    root: str, html: str | os.PathLike[str] | None = None, sections: Sequence[tuple[str, str]] = ()
) -> Path | str:
    """Write the report of a run and return its address (a Path on a local disk, else the URI).

    html: where to write; default RUN/report.html. sections: further (title, HTML) pairs, placed after the sets; the
    HTML is trusted and must bring its pictures along as data URIs. The file appears whole or not at all.
    Raises ManifestError where nothing is published, the tables do not add up, or the page cannot be written.
    """
    run = manifest.open_run(root)
    page = render(run, sections)
    target = os.fspath(html) if html is not None else manifest.join(root, "report.html")
    manifest.write_bytes(target, page.encode("utf-8"))
    return target if "://" in target else Path(target)


def render(run: Run, sections: Sequence[tuple[str, str]] = ()) -> str:
    """The page as text."""
    import jinja2

    recipe = recipe_of(run)
    found = funnel(run)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rushes.pipelines.view", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(hours=words.hours, percent=words.percent, basename=os.path.basename)
    return environment.get_template("report.html.j2").render(
        name=os.path.basename(run.root.rstrip("/")) or run.root,
        root=run.root,
        created=_date(found["created"]),
        found=found,
        errors_listed=ERRORS_LISTED,
        stages=charts.signals(run, recipe),
        chart=charts.CHART,
        groups=clip_groups(run, recipe, found["clips"]),
        matrices=charts.bucket_matrices(found["sets"]),
        sections=[(title, f"extra-{index}", html) for index, (title, html) in enumerate(sections)],
        times=_times(run.record.get("times_s") or {}),
        versions=run.record.get("versions") or {},
        warnings=run.record.get("warnings") or [],
        recipe_yaml=recipe.to_yaml(),
    )


def _date(created: str | None) -> str:
    try:
        return f"{datetime.fromisoformat(created or ''):%d %B %Y, %H:%M}".lstrip("0")
    except ValueError:
        return created or "date unknown"


def _times(times: dict[str, float]) -> list[dict[str, Any]]:
    longest = max(times.values(), default=0.0) or 1.0
    return [{"stage": stage, "text": words.hours(t), "share": t / longest} for stage, t in times.items()]


# --- clips --------------------------------------------------------------------------------------------------------


def clip_groups(run: Run, recipe: Recipe, lost: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A sample of the clips of every fate, kept first, each with a strip of its stills.

    The sample is fixed by the tables. Under a rule with a threshold it is spread evenly from the clips nearest to
    it to those farthest away; clips without a value come last.
    """
    rejected_by = run.table("clips", ["rejected_by"])["rejected_by"]
    groups = [{"rule": None, "needs": "passed every rule", "picked": _spread(_where(pc.is_null(rejected_by)))}]
    for row in lost:
        if row["rejected"]:
            members = _nearest_first(run, recipe, row["rule"], _where(pc.equal(rejected_by, row["rule"])))
            groups.append({"rule": row["rule"], "needs": row["needs"], "picked": _spread(members)})
    counts = [lost[-1]["remaining"], *(row["rejected"] for row in lost if row["rejected"])]
    picked = np.concatenate([group["picked"] for group in groups])
    clips = rows_at(run, "clips", picked)
    twins = _twins(run, clips)
    strips = _strips(run, recipe, pa.concat_tables([clips, twins]))
    named = {row["clip_id"]: row for row in twins.select(["clip_id", "uri", "start_s", "end_s"]).to_pylist()}
    done = 0
    for group, count in zip(groups, counts, strict=True):
        stop = done + len(group.pop("picked"))
        group["count"] = count
        group["sorted"] = any(rule.key == group["rule"] for rule, _ in rules.active(recipe))
        group["clips"] = [_card(clips.slice(at, 1), group["rule"], recipe, strips, named) for at in range(done, stop)]
        done = stop
    return [group for group in groups if group["count"]]


def _where(mask: pa.ChunkedArray) -> np.ndarray:
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))


def _spread(members: np.ndarray) -> np.ndarray:
    """At most CLIPS_PER_GROUP of the members, evenly spaced, the first among them."""
    count = min(len(members), CLIPS_PER_GROUP)
    return members[(np.arange(count) * len(members)) // max(count, 1)].astype(np.int64)


def _nearest_first(run: Run, recipe: Recipe, key: str, members: np.ndarray) -> np.ndarray:
    for rule, threshold in rules.active(recipe):
        if rule.key == key:
            columns = ["width", "height"] if rule.column in ("size", "aspect") else [rule.column]
            values = rules.column(run.table("clips", columns), rule.column)[members]
            return members[np.argsort(np.abs(values - threshold), kind="stable")]  # NaN sorts last
    return members


def _twins(run: Run, clips: pa.Table) -> pa.Table:
    """The rows of the clips whose duplicates are among `clips`."""
    wanted = pc.unique(clips["duplicate_of"].drop_null())
    if not len(wanted):
        return clips.slice(0, 0)
    return rows_at(run, "clips", _where(pc.is_in(run.table("clips", ["clip_id"])["clip_id"], value_set=wanted)))


def _card(
    clip: pa.Table, rule: str | None, recipe: Recipe, strips: dict[str, str], twins: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    row = clip.to_pylist()[0]
    twin = twins.get(row["duplicate_of"])
    return {
        "clip_id": row["clip_id"],
        "uri": row["uri"],
        "span": words.span(row["start_s"], row["end_s"]),
        "seconds": f"{row['duration_s']:.1f} s",
        "size": f"{row['width']} × {row['height']}",
        "value": deciding_value(clip, rule, recipe) if rule else "",
        "text": row["text"] if rule == "visual.text_max" else None,
        "sets": row["sets"] or [],
        "bucket": row["bucket"],
        "caption": row["caption"],
        "strip": strips.get(row["clip_id"]),
        "twin": twin and {"uri": twin["uri"], "span": words.span(twin["start_s"], twin["end_s"])},
        "twin_strip": strips.get(row["duplicate_of"]) if twin else None,
    }


def _strips(run: Run, recipe: Recipe, clips: pa.Table) -> dict[str, str]:
    """clip_id -> data URI of its strip. A clip whose stills are gone (the work folder was cleared) has none."""
    by_source: dict[str, list[str]] = defaultdict(list)
    for row in clips.select(["clip_id", "source_id"]).to_pylist():
        by_source[row["source_id"]].append(row["clip_id"])
    bytes_each = min(STRIP_BYTES, IMAGE_BUDGET // max(clips.num_rows, 1))
    fs, work = manifest.resolve(manifest.join(run.root, "work", "stills"))
    part = recipe.part_hash("analyze")
    strips = {}
    for source_id, ids in by_source.items():
        try:
            stills = pq.read_table(
                f"{work}/{source_id}-{part}.parquet",
                filesystem=fs,
                columns=["clip_id", "t_s", "jpeg"],
                filters=[("clip_id", "in", ids)],
                partitioning=None,
            ).sort_by("t_s")
        except (FileNotFoundError, pa.ArrowInvalid):
            continue
        for clip_id in ids:
            jpegs = stills.filter(pc.equal(stills["clip_id"], clip_id))["jpeg"].to_pylist()
            strip = filmstrip(jpegs, bytes_each)
            if strip is not None:
                strips[clip_id] = "data:image/jpeg;base64," + base64.b64encode(strip).decode("ascii")
    return strips


def filmstrip(jpegs: list[bytes], bytes_most: int) -> bytes | None:
    """Stills of a clip side by side, in order of time: one JPEG of at most STRIP_SIZE and about `bytes_most` bytes.

    jpegs: JPEG pictures of any size. Three are shown, more where they are narrow. None where none can be decoded.
    """
    import cv2

    if not jpegs:
        return None
    first = _decode(jpegs[len(jpegs) // 2])
    if first is None:
        return None
    aspect = first.shape[1] / first.shape[0]
    count = int(np.clip(STRIP_SIZE[0] / (STRIP_SIZE[1] * aspect), *STRIP_STILLS))
    count = min(count, len(jpegs))
    width = int(min(STRIP_SIZE[1] * aspect, (STRIP_SIZE[0] - (count - 1) * STRIP_GAP) / max(count, STRIP_STILLS[0])))
    size = (max(width, 1), max(round(width / aspect), 1))
    frames = [_decode(jpegs[int((index + 0.5) * len(jpegs) / count)]) for index in range(count)]
    frames = [cv2.resize(first if f is None else f, size, interpolation=cv2.INTER_AREA) for f in frames]
    gap = np.full((size[1], STRIP_GAP, 3), STRIP_GAP_GREY, np.uint8)
    strip = np.hstack([part for frame in frames for part in (gap, frame)][1:])
    for scale in (1.0, 0.5):
        small = cv2.resize(strip, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else strip
        for quality in JPEG_QUALITIES:
            data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            if len(data) <= bytes_most:
                return data
    return data


def _decode(jpeg: bytes) -> np.ndarray | None:
    import cv2

    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) if jpeg else None
