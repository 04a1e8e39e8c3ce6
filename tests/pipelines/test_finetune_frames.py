"""In and out points read back from what `rushes finetune publish` published: frames that carry their number."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

pytest.importorskip("sqlalchemy", reason="the extra `serve`")

from rushes.curation import manifest, recipe
from rushes.curation.manifest import Run, open_run
from rushes.curation.recipe import Recipe
from rushes.curation.video.cut import Cutter
from rushes.curation.video.decode import probe
from rushes.curation.video.source import clip_id
from rushes.pipelines.cli.main import app
from rushes.pipelines.finetune_queue import queue_settings, reviews_of
from rushes.pipelines.review.filling import NewItem, fill
from rushes.pipelines.review.forms import DecisionForm
from rushes.pipelines.review.queue import ReviewQueue
from tests.curation.finetune.numbered import BITS, CELL, HEIGHT, RATES, numbers_in, write_film

FILM_S, CLIP_S = 10.0, 6.0  # lengths of a film and of its clips
LEAST_S = 4.05  # between two points: no bucket takes less than 4 s
QUICK = ("cut.preset=ultrafast", "cut.crf=16", "finetune.span_min_s=0.1", "visual.size_min=null")
Marks = dict[str, tuple[int, int]]  # clip -> frames of the clip, [in, out)
Places = dict[
    str, tuple[int, np.ndarray]
]  # clip -> its first frame in its film, and when its frames are shown, and end


def made_run(root: Path, films: list[tuple[str, str]], each: int, chosen: Recipe) -> tuple[Run, Places]:
    """A run of `each` clips of every film, cut by the cutter of the pipeline; and where they lie in their films."""
    rows, sources, places = [], [], {}
    cutter = Cutter(chosen.cut, chosen.part_hash("cut"), str(root))
    for number, (rate, suffix) in enumerate(films):
        rng = np.random.default_rng(number)
        path = root.parent / f"{rate}{suffix}"
        mean_s = 1 / float(RATES[rate]) if RATES[rate] else 0.0345
        shown = write_film(path, rate, round(FILM_S / mean_s), number)
        source = probe(str(path), f"{number:032x}")
        sources.append({**asdict(source), "status": "ok", "clips": each})
        mine = []
        for begin in rng.choice(round((FILM_S - CLIP_S) / mean_s) - 3, each, replace=False).tolist():
            stop = begin + round((CLIP_S - rng.uniform(0, 1)) / mean_s)
            start_s, end_s = (float(shown[at] - shown[0]) for at in (begin, stop))
            name = clip_id(source.source_id, start_s, end_s)
            places[name] = (begin, shown[begin : stop + 1] - shown[begin])
            mine.append({
                "clip_id": name, "source_id": source.source_id, "uri": str(path), "start_s": start_s, "end_s": end_s,
                "duration_s": end_s - start_s, "frames": stop - begin, "fps": source.fps, "width": BITS * CELL,
                "height": HEIGHT, "orientation": "landscape", "kept": True, "caption": "a number",
            })  # fmt: skip
        for row in mine:
            cut = cutter(source, [row])[row["clip_id"]]
            assert not isinstance(cut, str), cut
            rows.append({**row, "media": cut.media, "media_bytes": cut.media_bytes, "media_hash": cut.media_hash})
    tables = {
        "sources": pa.Table.from_pylist(sources, manifest.SOURCES), "clips": pa.Table.from_pylist(rows, manifest.CLIPS)
    }  # fmt: skip
    record = {"recipe": {"name": chosen.name, "hash": chosen.full_hash(), "resolved": chosen.model_dump(mode="json")}}
    return manifest.publish(str(root), tables, record), places


def reviewed(run: Run, chosen: Recipe, places: Places, least_s: float = LEAST_S, most_s: float = CLIP_S) -> Marks:
    """Everything is accepted, with in and out points by a draw, so far from each other."""
    rng = np.random.default_rng(11)
    store, name = reviews_of(run.root, None)
    rows = run.table("clips", ["clip_id", "frames", "fps"]).to_pylist()
    items = [NewItem(row["clip_id"], row["frames"], row["fps"], BITS * CELL, HEIGHT, float(at))
             for at, row in enumerate(rows)]  # fmt: skip
    fill(store, name, "finetune", run.snapshot, queue_settings(chosen.finetune), items)
    queue, marks = ReviewQueue(store, name, "finetune"), {}
    while held := queue.lease("mira", 20).items:
        for item in held:
            _, shown = places[item.clip_id]
            first = int(rng.integers(0, np.searchsorted(shown, shown[-1] - least_s)))
            least, most = np.searchsorted(shown, [shown[first] + least_s, shown[first] + most_s])
            after = int(rng.integers(least, min(most, item.frames) + 1))
            marks[item.clip_id] = (first, after)
            form = DecisionForm(id=f"decision-{item.clip_id}", clip_id=item.clip_id, verdict="accept", in_frame=first,
                                out_frame=after)  # fmt: skip
            queue.decide("mira", form)
    store.close()
    return marks


def read_back(root: Path, films: list[tuple[str, str]], each: int) -> tuple[int, int]:
    """(clips of the published set that hold exactly the frames between the points, points that were set)."""
    chosen = recipe.load("demo", list(QUICK))
    run, places = made_run(root / "run", films, each, chosen)
    marks = reviewed(run, chosen, places)
    done = CliRunner().invoke(app, ["finetune", "publish", run.root, "--output", str(root / "set")])
    assert done.exit_code == 0, done.output
    published = open_run(str(root / "set"))
    clips = {row["clip_id"]: row for row in published.table("clips").to_pylist()}
    sets = {row["clip_id"] for row in published.table("sets/finetune", ["clip_id"]).to_pylist()}
    exact = 0
    for row in published.table("decisions").to_pylist():
        first, after = marks[row["clip_id"]]
        begin, _ = places[row["clip_id"]]
        shown = numbers_in(published.address(clips[row["published"]]["media"])) if row["published"] in sets else []
        same = (row["in_frame"], row["out_frame"]) == (first, after)
        exact += same and shown == list(range(begin + first, begin + after))
    return exact, len(marks)


def test_a_published_set_holds_exactly_the_frames_that_were_chosen(tmp_path):
    films = [("23.976", ".mp4"), ("59.94", ".mkv"), ("variable", ".mp4")]
    assert read_back(tmp_path, films, 1) == (3, 3)


@pytest.mark.heavy
def test_200_of_200_in_and_out_points_are_exact_in_a_published_set(tmp_path):
    films = [(rate, suffix) for rate in RATES for suffix in (".mp4", ".mkv")]
    exact, made = read_back(tmp_path, films, 13)
    assert made >= 200 and exact == made


def test_a_span_that_no_bucket_takes_is_left_out_and_named(tmp_path):
    chosen = recipe.load("demo", list(QUICK))
    run, places = made_run(tmp_path / "run", [("24", ".mp4")], 1, chosen)
    (short,) = reviewed(run, chosen, places, 2.0, 3.5)
    done = CliRunner().invoke(app, ["finetune", "publish", run.root, "--output", str(tmp_path / "set")])
    assert isinstance(done.exception, manifest.ManifestError)
    assert short in str(done.exception) and "no bucket takes less than" in str(done.exception)
