"""`rushes finetune` on a curated run: candidates, balance, review, and a set of exactly the frames that were chosen."""

from __future__ import annotations

import itertools
import json
import os
import shutil

import av
import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("sqlalchemy", reason="the extra `serve`")

from rushes.curation.finetune.suitability import fit
from rushes.curation.manifest import ManifestError, Run, open_run
from rushes.model.data.table import ClipTable
from rushes.pipelines.cli.main import app
from rushes.pipelines.finetune_queue import reviews_of
from rushes.pipelines.judge import judge, recipe_for_judging
from rushes.pipelines.review.forms import CaptionFields, DecisionForm
from rushes.pipelines.review.queue import ReviewQueue
from tests.curation.captioning.stub import Behaviour, serving

_ids = itertools.count()
CUT_TWICE = 10.0  # mean difference of grey levels (0-255) between two encodes of one frame, at most


def command(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def run(curated, tmp_path_factory) -> Run:
    """A copy of the curated run, with candidates and a queue of its own; in `.service` beside it."""
    root = tmp_path_factory.mktemp("studio") / "first"
    shutil.copytree(curated.root, root, symlinks=True)
    for name in ("candidates", "balance"):
        command("finetune", name, str(root))
    return open_run(str(root))


@pytest.fixture(scope="module")
def queue(run) -> ReviewQueue:
    store, name = reviews_of(run.root, None)
    return ReviewQueue(store, name, "finetune")


@pytest.fixture(scope="module")
def decided(run, queue) -> dict[str, tuple[int, int]]:
    """Everything is decided on: all accepted but one, with odd in and out points; clip -> (in, out)."""
    spans: dict[str, tuple[int, int]] = {}
    items = queue.lease("mira", 20).items
    for number, item in enumerate(items):
        first, after = (3, item.frames - 2) if item.frames / item.fps > 4.5 else (0, item.frames)
        caption = CaptionFields(subject="a <b>rabbit</b>", camera_control="pan left", light="soft light")
        form = DecisionForm(
            id=f"decision-{next(_ids):04d}", clip_id=item.clip_id, verdict="accept", in_frame=first, out_frame=after,
            caption=caption,
        )  # fmt: skip
        if number == 0:
            form = DecisionForm(id=f"decision-{next(_ids):04d}", clip_id=item.clip_id, verdict="reject",
                                reasons=["light"])  # fmt: skip
        else:
            spans[item.clip_id] = (first, after)
        queue.decide("mira", form)
    assert len(spans) >= 2
    return spans


@pytest.fixture(scope="module")
def published(run, decided, tmp_path_factory) -> Run:
    output = str(tmp_path_factory.mktemp("published") / "set")
    said = command("finetune", "publish", run.root, "--output", output)
    assert f"{len(decided)} clips in sets/finetune" in said
    return open_run(output)


def test_candidates_are_kept_clips_with_their_subject_and_none_that_validation_holds(run):
    table = run.table("sets/candidates")
    clips = {row["clip_id"]: row for row in run.table("clips").to_pylist()}
    held = set(run.table("sets/validation", ["source_id"])["source_id"].to_pylist())
    assert table.num_rows >= 2
    for row in table.to_pylist():
        assert clips[row["clip_id"]]["kept"] and row["source_id"] not in held
        assert 0.02 <= row["subject_frac"] <= 1 and row["subject_by"].startswith("saliency")


def test_the_queue_holds_the_balanced_clips_with_a_measured_draft(run, queue):
    clips = set(run.table("sets/balanced", ["clip_id"])["clip_id"].to_pylist())
    assert queue.progress().total == len(clips)
    item = queue.item(next(iter(clips)), "mira")
    assert item.concept == "everything" and item.caption.written_by["light"][0][0] in ("composed", "mira")


def test_judging_and_publishing_keep_what_was_there(run):
    assert {"clips", "sources", "embeddings", "sets/candidates", "sets/balanced"} <= set(run.tables)
    assert run.record["funnel"]["sets"]["candidates"] == run.table("sets/candidates").num_rows


def grey(path: str) -> list[np.ndarray]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="gray").astype(np.float32) for frame in container.decode(video=0)]


def test_what_is_published_holds_the_frames_that_were_chosen(run, decided, published):
    clips = {row["clip_id"]: row for row in run.table("clips").to_pylist()}
    rows = {row["clip_id"]: row for row in published.table("clips").to_pylist()}
    came_of = {row["clip_id"]: row["published"] for row in published.table("decisions").to_pylist() if row["published"]}
    assert set(came_of) == set(decided)
    for clip_id, (first, after) in decided.items():
        whole = grey(run.address(clips[clip_id]["media"]))
        piece = grey(published.address(rows[came_of[clip_id]]["media"]))
        assert len(piece) == after - first == rows[came_of[clip_id]]["frames"]
        for mine, theirs in ((piece[0], whole[first]), (piece[-1], whole[after - 1])):
            assert np.abs(mine - theirs).mean() < CUT_TWICE


def test_the_set_is_one_that_a_trainer_reads_and_its_words_have_writers(published, decided):
    table = published.table("sets/finetune").to_pylist()
    assert len(table) == len(decided) and ClipTable([published.root], "finetune").rows == len(decided)
    for row in table:
        assert row["caption"] == "pan left. A <b>rabbit</b>. The light is soft light."
        assert row["media_end_s"] > row["media_start_s"] >= 0 and row["bucket_frames"] > 0
    words = published.table("caption_words").to_pylist()
    assert {(row["field"], row["person"]) for row in words} >= {("subject", "mira"), ("light", "mira")}
    people = {(row["person"], row["verdict"]) for row in published.table("decisions").to_pylist()}
    assert people == {("mira", "accept"), ("mira", "reject")}


def test_publishing_again_cuts_nothing_anew_and_names_what_is_missing(run, decided, published):
    media = {row["media"]: os.stat(published.address(row["media"])).st_mtime_ns
             for row in published.table("clips").to_pylist()}  # fmt: skip
    lost = next(iter(decided))
    file = run.address({row["clip_id"]: row["media"] for row in run.table("clips").to_pylist()}[lost])
    os.rename(file, file + ".away")  # its source tells its frames as well
    try:
        command("finetune", "publish", run.root, "--output", published.root)
    finally:
        os.rename(file + ".away", file)
    again = open_run(published.root)
    assert again.snapshot != published.snapshot
    assert {row["media"]: os.stat(again.address(row["media"])).st_mtime_ns
            for row in again.table("clips").to_pylist()} == media  # fmt: skip


def test_seeds_make_concepts_and_one_that_is_unknown_is_told(run, tmp_path):
    ids = sorted(run.table("sets/candidates", ["clip_id"])["clip_id"].to_pylist())
    path = tmp_path / "concepts.yaml"
    path.write_text(f"one: {{seeds: [{ids[0]}]}}\nother: {{seeds: [{ids[-1]}]}}\n")
    said = command("finetune", "balance", run.root, "--concepts", str(path), "--each", "50", "--queue", "seeds")
    assert "the concept 'one' lacks" in said
    table = open_run(run.root).table("sets/balanced").to_pylist()
    assert {row["concept"] for row in table} == {"one", "other"} and len(table) == len(ids)
    path.write_text("one: {seeds: [nowhere]}\n")
    with pytest.raises(ManifestError, match="names the clip nowhere"):
        CliRunner().invoke(app, ["finetune", "balance", run.root, "--concepts", str(path)], catch_exceptions=False)
    path.write_text("one: {text: 'a person running'}\n")
    with pytest.raises(ManifestError, match="know no words"):
        CliRunner().invoke(app, ["finetune", "balance", run.root, "--concepts", str(path)], catch_exceptions=False)
    path.write_text("one: [nowhere]\n")
    done = CliRunner().invoke(app, ["finetune", "balance", run.root, "--concepts", str(path)])
    assert done.exit_code == 2


def test_a_models_drafts_stand_in_the_fields_under_its_name(run):
    draft = {
        "camera_control": "pan left", "shot_angle": "wide", "subject": "a rabbit", "background": "a meadow",
        "action": "it wakes up", "light": "morning sun", "style": "animation",
    }  # fmt: skip
    with serving(Behaviour(texts=(json.dumps(draft),))) as stub:
        command(
            "finetune", "balance", run.root, "--draft", "--queue", "drafted", "--set", "captioning.provider=endpoint",
            "--set", f"captioning.endpoints=[{stub.url}]", "--set", "captioning.models=[{name: small, share: 1}]",
        )  # fmt: skip
    store, name = reviews_of(run.root, None)
    caption = ReviewQueue(store, name, "drafted").lease("mira", 1).items[0].caption
    assert caption.fields.action == "it wakes up" and caption.written_by["style"] == [("small", "animation")]


def test_too_few_decisions_for_a_score_are_told(run, decided):
    with pytest.raises(ManifestError, match="too few for a score"):
        CliRunner().invoke(app, ["fit", "suitability", run.root], catch_exceptions=False)


def test_a_score_of_another_run_is_a_column_and_a_rule_of_this_one(run, tmp_path):
    """Bright clips are liked: fitted on made numbers, written into this run, judged by."""
    rng = np.random.default_rng(0)
    luma = rng.uniform(40, 200, 80)
    score, _ = fit(["luma_mean"], luma[:, None], None, luma > 110, [f"{n % 8}" for n in range(80)])
    (tmp_path / "score.json").write_bytes(score.to_json({}))
    command("fit", "suitability", run.root, "--model", str(tmp_path / "score.json"))
    scored = open_run(run.root)
    rows = [row for row in scored.table("clips").to_pylist() if row["suitability"] is not None]
    assert rows and all((row["suitability"] >= 0.5) == (row["luma_mean"] > 110) for row in rows
                        if abs(row["luma_mean"] - 110) > 15)  # fmt: skip
    recipe = recipe_for_judging(scored, None, ["rules.suitability.min=0.5"])
    published = judge(scored, recipe, str(tmp_path / "judged"))
    lost = next(sentence for sentence in published.record["warnings"] if "were chosen from" in sentence)
    assert "candidates" in lost and "balanced" in lost and "sets/candidates" not in published.tables
    judged = published.table("clips").to_pylist()
    assert all(row["suitability"] >= 0.5 for row in judged if row["kept"])
    assert any(row["rejected_by"] == "rules.suitability.min" for row in judged)
