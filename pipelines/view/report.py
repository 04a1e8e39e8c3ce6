"""The report of a run: one HTML page that needs nothing but itself (`rushes report`).

The page shows what went in, where it was lost, how every signal is spread around its threshold, and what the clips
of each fate look like. It is made from the published tables and the stills that the analysis kept; no video is
opened. Its size does not grow with the run's: histograms are counted, and clips are shown by a fixed sample.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation import manifest, rules
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe
from rushes.pipelines.view import charts, words
from rushes.pipelines.view.advice import advise, sentences
from rushes.pipelines.view.concept_section import concept_section
from rushes.pipelines.view.funnel import funnel
from rushes.pipelines.view.pair import compared, sentence
from rushes.pipelines.view.stills import stills_of
from rushes.pipelines.view.story import deciding_value
from rushes.pipelines.view.suitability_section import suitability_section
from rushes.pipelines.view.tables import query, recipe_of, rows_at

CLIPS_PER_GROUP = 12  # per fate at first sight: six rows of two on a laptop
CLIPS_LISTED = 1_000  # of all fates together, behind "show all"
ERRORS_LISTED = 200  # inputs with an error that are listed; the rest are counted
IMAGE_BUDGET = 2_400_000  # bytes of JPEG of the clips at first sight, and of the others: 4 MB as base64, so that ...
IMAGE_BUDGET_MORE = 600_000  # ... the page stays below 5 MB
STRIP_BYTES_LEAST = 4_000  # a strip that may have no more tells nothing
STRIP_BYTES = 24_000  # most bytes of a clip's strip: three stills of some 8 KB
STRIP_SIZE = (720, 136)  # pixels, width x height at most: three stills of 240 px, sharp on a phone
STRIP_STILLS = (3, 6)  # as many stills as fill the strip, between these
STRIP_GAP, STRIP_GAP_GREY = 4, 160  # pixels between two stills, and their grey: black would look like a border
REST = "starting, listing, publishing"  # what is no stage's time
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
    target = os.fspath(html) if html is not None else manifest.join(root, "report.html")
    page = render(run, sections, os.path.dirname(target) or ".")
    manifest.write_bytes(target, page.encode("utf-8"))
    return target if "://" in target else Path(target)


def render(run: Run, sections: Sequence[tuple[str, str]] = (), folder: str | None = None) -> str:
    """The page as text. folder: where it will lie, so that it finds the clips' files; default: the run's own."""
    import jinja2

    recipe = recipe_of(run)
    found = funnel(run)
    further = [
        section
        for section in (*sections, concept_section(run, recipe), suitability_section(run))
        if section is not None
    ]
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
        groups=clip_groups(run, recipe, found["clips"], folder or run.root),
        sortable=charts.sortable(run),
        advice=sentences(advise(run, recipe), run.root),
        matrices=charts.bucket_matrices(found["sets"]),
        sections=[(title, f"extra-{index}", html) for index, (title, html) in enumerate(further)],
        times=times(run.record.get("times_s") or {}),
        versions=run.record.get("versions") or {},
        warnings=run.record.get("warnings") or [],
        recipe_yaml=recipe.to_yaml(),
    )


def _date(created: str | None) -> str:
    try:
        return f"{datetime.fromisoformat(created or ''):%d %B %Y, %H:%M}".lstrip("0")
    except ValueError:
        return created or "date unknown"


def times(record: dict[str, float]) -> dict[str, Any]:
    """Rows {stage, text, share of the longest}, and in words how they make up the whole (`total`, where recorded)."""
    stages = {stage: seconds for stage, seconds in record.items() if stage != "total"}
    longest = max(stages.values(), default=0.0) or 1.0
    rows = [{"stage": stage, "text": words.hours(t), "share": t / longest} for stage, t in stages.items()]
    if "total" not in record:
        return {"rows": rows, "said": ""}
    rest = record["total"] - sum(stages.values())
    if rest >= 0:
        rows.append({"stage": REST, "text": words.hours(rest), "share": min(rest / longest, 1.0)})
        return {"rows": rows, "said": f"Together {words.hours(record['total'])}."}
    return {
        "rows": rows,
        "said": f"From the beginning to the end {words.hours(record['total'])}: stages run beside each other, and so "
        f"{words.hours(-rest)} are counted twice.",
    }


# --- clips --------------------------------------------------------------------------------------------------------


def clip_groups(
    run: Run, recipe: Recipe, lost: list[dict[str, Any]], folder: str | None = None
) -> list[dict[str, Any]]:
    """A sample of the clips of every fate, kept first, each with a strip of its stills.

    The sample is fixed by the tables. Under a rule with a threshold it is spread evenly from the clips nearest to
    it to those farthest away; clips without a value come last. `clips` are shown at once, `more` when asked for.
    folder: where the page will lie.
    """
    rejected_by = run.table("clips", ["rejected_by"])["rejected_by"]
    fates = [(None, "passed every rule", _where(pc.is_null(rejected_by)))]
    for row in lost:
        if row["rejected"]:
            members = _nearest_first(run, recipe, row["rule"], _where(pc.equal(rejected_by, row["rule"])))
            fates.append((row["rule"], row["needs"], members))
    fates = [fate for fate in fates if len(fate[2])]
    listed = max(CLIPS_LISTED // max(len(fates), 1), CLIPS_PER_GROUP)
    first = [_spread(members, CLIPS_PER_GROUP) for _, _, members in fates]
    others = [
        _spread(members[~np.isin(members, shown)], listed - CLIPS_PER_GROUP)
        for (_, _, members), shown in zip(fates, first, strict=True)
    ]
    shown = _cards(run, recipe, fates, first, folder or run.root, IMAGE_BUDGET)
    hidden = _cards(run, recipe, fates, others, folder or run.root, IMAGE_BUDGET_MORE)
    ruled = {rule.key for rule, _ in rules.active(recipe)}
    return [
        {"rule": rule, "needs": needs, "count": len(members), "sorted": rule in ruled, "clips": clips, "more": more}
        for (rule, needs, members), clips, more in zip(fates, shown, hidden, strict=True)
    ]


def _cards(
    run: Run, recipe: Recipe, fates: list[tuple[str | None, str, np.ndarray]], picked: list[np.ndarray], folder: str,
    budget: int,
) -> list[list[dict[str, Any]]]:  # fmt: skip
    """The cards of the picked rows, fate by fate, with pictures of `budget` bytes together."""
    clips = rows_at(run, "clips", np.concatenate([np.zeros(0, np.int64), *picked]))
    twins = _twins(run, clips)
    pictured = pa.concat_tables([clips, twins])
    most = max(budget // STRIP_BYTES_LEAST, 1)
    strips = _strips(run, recipe, pictured.slice(0, most), budget)
    named = {name: twins.slice(at, 1) for at, name in enumerate(twins["clip_id"].to_pylist())}
    signals, made, done = charts.sortable(run), [], 0
    for (rule, _, _), rows in zip(fates, picked, strict=True):
        stop = done + len(rows)
        made.append(
            [_card(clips.slice(at, 1), rule, recipe, strips, named, signals, run, folder) for at in range(done, stop)]
        )
        done = stop
    return made


def _where(mask: pa.ChunkedArray) -> np.ndarray:
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))


def _spread(members: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the members, evenly spaced, the first among them."""
    count = min(len(members), most)
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
    found = query(run, "SELECT * FROM {clips} WHERE list_contains(?, clip_id)", [wanted.to_pylist()])
    return found.select(clips.column_names).cast(clips.schema)


def _card(
    clip: pa.Table, rule: str | None, recipe: Recipe, strips: dict[str, str], twins: dict[str, pa.Table],
    signals: list[str], run: Run, folder: str,
) -> dict[str, Any]:  # fmt: skip
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
        "values": {
            name: float(f"{row[name]:.4g}") for name in signals if row[name] is not None and row[name] == row[name]
        },
        "media": media_link(run.root, row["media"], folder),
        "strip": strips.get(row["clip_id"]),
        "twin": twin and _twin(clip, twin, recipe),
        "twin_strip": strips.get(row["duplicate_of"]) if twin else None,
    }


def _twin(clip: pa.Table, twin: pa.Table, recipe: Recipe) -> dict[str, str]:
    pair = compared(clip, twin, recipe)
    return {"uri": pair["uri"], "span": pair["span"], "decided": sentence(pair)}


def media_link(root: str, media: str | None, folder: str) -> str | None:
    """The relative link from a page in `folder` to a clip's file, quoted; None where there is no such link.

    media: as the table says: below the run's root, or an address of its own.
    """
    if media is None or "://" in media:
        return None
    if folder.rstrip("/") == root.rstrip("/") and not os.path.isabs(media):
        return quote(media)
    if "://" in folder or "://" in root:
        return None
    return quote(os.path.relpath(os.path.join(os.path.abspath(root), media), os.path.abspath(folder)))


def _strips(run: Run, recipe: Recipe, clips: pa.Table, budget: int) -> dict[str, str]:
    """clip_id -> data URI of its strip. A clip whose stills are gone has none."""
    bytes_each = min(STRIP_BYTES, budget // max(clips.num_rows, 1))
    strips = {}
    for clip_id, jpegs in stills_of(run, recipe, clips["clip_id"].to_pylist()).items():
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
