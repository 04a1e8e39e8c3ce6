"""Claims about `rushes concepts` and `rushes near` on a curated run, and about the words that name a concept."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from rushes.curation import manifest
from rushes.curation.content import SEMANTIC_DIM
from rushes.curation.content.names import names
from rushes.curation.content.near import neighbours, vector_of
from rushes.curation.manifest import ManifestError
from rushes.pipelines.cli.main import app
from rushes.pipelines.view.concepts import concepts
from rushes.pipelines.view.near import near


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


# --- words -------------------------------------------------------------------------------------------------


def test_a_concept_is_named_by_what_its_captions_say_and_others_do_not():
    found = names([
        ["A surfer rides a wave by the beach.", "A wave breaks; a surfer falls."],
        ["A chef cuts onions by the window.", "Onions fry in a pan while the chef waits."],
        ["A train by a platform.", "The train leaves the platform by night."],
        ["A dog by a fence."],
        [],
    ])  # fmt: skip
    assert {"surfer", "wave"} <= set(found[0].split(", "))
    assert {"chef", "onions"} <= set(found[1].split(", "))
    assert "train" in found[2] and found[4] == ""


def test_words_that_all_concepts_share_are_better_than_none():
    assert names([["red car"], ["red car"], ["red car"], ["red car"]]) == ["car, red"] * 4
    assert names([["of the and"], ["12 34"]]) == ["", ""]
    assert names([]) == []


# --- the commands ------------------------------------------------------------------------------------------

CLIPS = 24


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A published run of three concepts; every fourth clip is rejected, every sixth was not looked at."""
    rng = np.random.default_rng(0)
    place = np.arange(CLIPS)
    rows = np.repeat(rng.normal(size=(3, SEMANTIC_DIM)), 8, axis=0) + 0.05 * rng.normal(size=(CLIPS, SEMANTIC_DIM))
    seen, kept = place % 6 != 5, place % 4 != 3
    ids = [f"clip-{i:02d}" for i in place]
    words = ("a surfer on a wave", "a chef with onions", "a train at night")
    clips = {
        "clip_id": ids, "source_id": ["s"] * CLIPS,
        "uri": ["/films/one.mp4"] * CLIPS, "start_s": 4.0 * place, "end_s": 4.0 * place + 4,
        "kept": kept & seen, "rejected_by": [None if k else "motion.vmaf_min" for k in kept & seen],
        "media": [f"media/{i}.mp4" for i in ids], "caption": [words[i // 8] if k else None for i, k in enumerate(kept)],
        "cluster_id": pa.array(place // 8, pa.int64(), mask=~seen),
        "cluster_size": pa.array([5] * CLIPS, pa.int64(), mask=~(kept & seen)),
    }  # fmt: skip
    vectors = pa.array(
        [row.tolist() if s else None for row, s in zip(rows, seen)], pa.list_(pa.float32(), SEMANTIC_DIM)
    )
    tables = {
        "clips": pa.table(clips),
        "embeddings": pa.table({"clip_id": ids, "semantic": vectors}),
        "sets/pretrain-256": pa.table({"clip_id": ids[:8]}),
    }
    return manifest.publish(str(tmp_path_factory.mktemp("runs") / "made"), tables, {})


def test_concepts_of_a_run_count_every_clip_that_was_measured(run):
    found = concepts(run)
    assert [(one.cluster_id, one.measured) for one in found] == [(0, 7), (1, 7), (2, 6)]
    assert sum(one.sampled for one in found) == 16
    assert "surfer" in found[0].words and "chef" in found[1].words and "train" in found[2].words
    told = json.loads(said("concepts", run.root, "--json"))
    assert [row["cluster_id"] for row in told] == [0, 1, 2]
    assert "surfer" in said("concepts", run.root, "--limit", "1")


def test_the_report_draws_the_sizes_of_concepts_before_and_after(run, monkeypatch):
    import cv2

    from rushes.curation.recipe import build
    from rushes.pipelines.view import concept_section

    jpeg = cv2.imencode(".jpg", np.zeros((360, 640, 3), np.uint8))[1].tobytes()
    monkeypatch.setattr(concept_section, "stills_of", lambda *_: {"clip-00": [jpeg] * 3})
    title, html = concept_section.concept_section(run, build({}))
    assert title == "Concepts" and html.count("data:image/jpeg") == 1 and html.count('class="kept"') == 3
    assert "surfer" in html and "5 clips, 6 kept" in html


def test_the_clips_near_a_clip_are_the_nearest_of_all(run):
    rows = np.array([v for v in run.table("embeddings")["semantic"].to_pylist() if v is not None])
    cosine = rows @ vector_of(run, "clip-01") / np.linalg.norm(rows, axis=1) / np.linalg.norm(rows[1])
    found = near(run, 3, clip="clip-01")
    assert "clip-01" not in [row["clip_id"] for row in found]
    assert [row["cosine"] for row in found] == pytest.approx(np.sort(cosine)[::-1][1:4].tolist(), abs=1e-4)
    told = json.loads(said("near", run.root, "--clip", "clip-01", "-n", "3", "--json"))
    assert [row["clip_id"] for row in told] == [row["clip_id"] for row in found]


def test_near_keeps_to_a_set(run):
    found = near(run, 50, clip="clip-00", among="pretrain-256")
    assert {row["clip_id"] for row in found} == {f"clip-{i:02d}" for i in (1, 2, 3, 4, 6, 7)}


def test_a_picture_is_compared_with_the_clips(run, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "still.png"), np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8))
    found = near(run, 3, image=str(tmp_path / "still.png"))
    assert len(found) == 3 and found[0]["cosine"] >= found[1]["cosine"]


def test_what_cannot_be_looked_for_is_a_sentence(run, tmp_path):
    with pytest.raises(ManifestError, match="know no words"):
        near(run, 3, text="a beach")
    with pytest.raises(ManifestError, match="no semantic vector of clip nobody"):
        near(run, 3, clip="nobody")
    with pytest.raises(ManifestError, match="no semantic vector of clip clip-05"):
        near(run, 3, clip="clip-05")
    with pytest.raises(ManifestError, match="no picture that can be read"):
        near(run, 3, image=str(tmp_path / "gone.png"))
    with pytest.raises(ManifestError, match="has 7: they come from different models"):
        neighbours(run, np.ones(7), 3)
    assert CliRunner().invoke(app, ["near", run.root]).exit_code == 2
