"""`rushes fit suitability`: decisions become a file, a column, a rule, and another order of the queue."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("sqlalchemy", reason="the extra `serve`")

from rushes.curation import rules
from rushes.curation.manifest import open_run
from rushes.curation.recipe import build
from rushes.pipelines.cli.main import app
from rushes.pipelines.finetune_queue import queue_settings, reviews_of
from rushes.pipelines.review.filling import NewItem, fill
from rushes.pipelines.review.forms import DecisionForm
from rushes.pipelines.review.queue import ReviewQueue
from rushes.pipelines.view.suitability_section import suitability_section
from rushes.pipelines.view.tables import recipe_of, resolved_of
from tests.pipelines.synthetic_run import make_run

CLIPS, DECIDED = 500, 120


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run of which people like the bright and quiet; the root, what the command said, and clip -> liked."""
    root = tmp_path_factory.mktemp("runs") / "first"
    run = make_run(root, clips=CLIPS)
    rows = [row for row in run.table("clips").to_pylist() if row["kept"]]
    liked = {row["clip_id"]: row["luma_mean"] / 30 - row["vmaf_motion"] / 4 > 1.8 for row in rows}
    recipe = recipe_of(run).model_copy()
    store, name = reviews_of(str(root), None)
    items = [NewItem(row["clip_id"], 384, 24.0, 640, 360, rank=float(n)) for n, row in enumerate(rows)]
    fill(store, name, "finetune", run.snapshot, queue_settings(recipe.finetune), items)
    queue = ReviewQueue(store, name, "finetune")
    asked = queue.lease("mira", min(DECIDED, len(rows) - 20)).items
    for number, item in enumerate(asked):
        span = {"in_frame": 0, "out_frame": 384} if liked[item.clip_id] else {}
        verdict = "accept" if liked[item.clip_id] else "reject"
        queue.decide("mira", DecisionForm(id=f"decision-{number:04d}", clip_id=item.clip_id, verdict=verdict, **span))
    done = CliRunner().invoke(app, ["fit", "suitability", str(root)])
    assert done.exit_code == 0, done.output
    return root, done.output, liked, queue


def test_the_column_tells_what_people_like_and_the_file_holds_the_report(fitted):
    root, said, liked, _ = fitted
    rows = {row["clip_id"]: row["suitability"] for row in open_run(str(root)).table("clips").to_pylist()}
    kept = [(rows[clip], liked[clip]) for clip in liked]
    assert np.mean([(score >= 0.5) == yes for score, yes in kept]) > 0.85
    report = json.loads((root / "models" / "suitability.json").read_text())["report"]
    assert report["auc"] > 0.85 and report["gain"] and f"{report['decisions']} decisions" in said
    assert {"luma_mean", "vmaf_motion"} <= set(list(report["weights"])[:4])


def test_the_report_draws_what_the_decisions_brought(fitted):
    title, page = suitability_section(open_run(str(fitted[0])))
    assert title == "Suitability" and "<polyline" in page and "luma_mean" in page


def test_the_queue_asks_first_about_what_is_least_sure(fitted):
    root, _, _, queue = fitted
    rows = {row["clip_id"]: row["suitability"] for row in open_run(str(root)).table("clips").to_pylist()}
    assert not queue.view(open_run(str(root)).snapshot).republished
    unsure = [abs(rows[item.clip_id] - 0.5) for item in queue.lease("ann", 5).items]
    assert unsure == sorted(unsure) and unsure[0] < 0.3


def test_the_score_is_a_rule_like_any_other_and_goes_to_another_run(fitted, tmp_path):
    root, *_ = fitted
    run = open_run(str(root))
    recipe = build(resolved_of(run), ["rules.suitability.min=0.5"])
    rules.check(recipe, ["flicker", "suitability"])
    table = run.table("clips")
    fate = dict(zip(table["clip_id"].to_pylist(), rules.judge(table, recipe), strict=True))
    scores = dict(zip(table["clip_id"].to_pylist(), table["suitability"].to_pylist(), strict=True))
    by_score = [clip for clip, rule in fate.items() if rule == "rules.suitability.min"]
    assert by_score and all(scores[clip] is None or scores[clip] < 0.5 for clip in by_score)
    other = make_run(tmp_path / "other", clips=400, seed=3)
    model = str(root / "models" / "suitability.json")
    done = CliRunner().invoke(app, ["fit", "suitability", other.root, "--model", model])
    assert done.exit_code == 0, done.output
    assert "suitability" in open_run(other.root).schema("clips").names
