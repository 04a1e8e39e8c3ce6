"""Claims about `rushes concepts` and `rushes near` on a curated run, and about the words that name a concept."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from rushes.curation import manifest, storage
from rushes.curation.content.embed import SEMANTIC_DIM, MeasuredSemanticEmbedder
from rushes.curation.content.groups import measure_table
from rushes.curation.content.names import names, seen
from rushes.curation.content.near import neighbours, vector_of
from rushes.curation.manifest import ManifestError
from rushes.curation.recipe import build
from rushes.pipelines.cli.main import app
from rushes.pipelines.engine.events import Bus
from rushes.pipelines.engine.pool import CPU
from rushes.pipelines.stages.deciding import measure_content
from rushes.pipelines.stages.job import Inputs, Job
from rushes.pipelines.stages.keys import Keys
from rushes.pipelines.view.concepts import concepts
from rushes.pipelines.view.near import near
from rushes.pipelines.view.tables import recipe_of
from tests.curation.looking.conftest import MODEL, weights  # noqa: F401 - a fixture


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
    looked, kept = place % 6 != 5, place % 4 != 3
    ids = [f"clip-{i:02d}" for i in place]
    words = ("a surfer on a wave", "a chef with onions", "a train at night")
    clips = {
        "clip_id": ids, "source_id": ["s"] * CLIPS,
        "uri": ["/films/one.mp4"] * CLIPS, "start_s": 4.0 * place, "end_s": 4.0 * place + 4,
        "kept": kept & looked, "rejected_by": [None if k else "motion.vmaf_min" for k in kept & looked],
        "media": [f"media/{i}.mp4" for i in ids], "caption": [words[i // 8] if k else None for i, k in enumerate(kept)],
        "cluster_id": pa.array(place // 8, pa.int64(), mask=~looked),
        "cluster_size": pa.array([5] * CLIPS, pa.int64(), mask=~(kept & looked)),
        "look_models": [[f"semantic: {MeasuredSemanticEmbedder.name}"] if s else None for s in looked],
    }  # fmt: skip
    vectors = pa.array(
        [row.tolist() if s else None for row, s in zip(rows, looked)], pa.list_(pa.float32(), SEMANTIC_DIM)
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
    with pytest.raises(ManifestError, match="clip-"):
        near(run, 3, clip="clip-")
    with pytest.raises(ManifestError, match="no semantic vector of clip clip-05"):
        near(run, 3, clip="clip-05")
    with pytest.raises(ManifestError, match="no picture that can be read"):
        near(run, 3, image=str(tmp_path / "gone.png"))
    with pytest.raises(ManifestError, match="has 7: they come from different models"):
        neighbours(run, np.ones(7), 3)
    assert CliRunner().invoke(app, ["near", run.root]).exit_code == 2


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("content.against=[{old}]", "content.against: {old} holds no published run"),
        ("content.join={old}", "content.join: {old} holds no published run"),
        ("content.prefer=[length]", "Recipe key 'content.prefer.0'"),
        ("content.clusters=0", "Recipe key 'content.clusters'"),
        ("content.keep=2", "wants a share above 0 and up to 1"),
    ],
)
def test_what_content_cannot_use_is_refused_before_a_file_is_opened(tmp_path, setting, said):
    (tmp_path / "film.mp4").write_bytes(b"no film at all")
    old, out = tmp_path / "old", tmp_path / "out"
    command = [
        "curate",
        "-i",
        str(tmp_path / "film.mp4"),
        "-o",
        str(out),
        "--dry-run",
        "--set",
        setting.format(old=old),
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code != 0 and not out.exists()
    assert said.format(old=old) in str(result.exception) + result.output


# --- a text tower ------------------------------------------------------------------------------------------


def test_a_concept_is_what_its_centre_is_nearer_to_than_the_others_are():
    words = ["a dog", "a picture", "a train"]
    vectors = np.array([[1, 0, 0.2], [0.6, 0.6, 0.6], [0, 1, 0.2]])
    found = seen(np.array([[1, 0.1, 0.5], [0.1, 1, 0.5]]), words, vectors, count=1)
    assert found == ["a dog", "a train"]
    assert seen(np.array([[1, 0.1, 0.5]]), words, vectors, count=3)[0].startswith("a dog")
    assert seen(np.empty((0, 3)), words, vectors) == [] and seen(np.ones((1, 3)), [], vectors[:0]) == [""]


@pytest.fixture(scope="module")
def tower_run(weights, tmp_path_factory):  # noqa: F811
    """A run whose vectors come from a small CLIP of random numbers: two clips each of what four words say."""
    from rushes.curation.looking.clip import tower_of
    from rushes.curation.looking.vocabulary import vocabulary

    folder = tmp_path_factory.mktemp("runs") / "clip"
    recipe = build({}, [f"models.clip={MODEL}", f"models.clip_weights={weights / 'clip.pt'}", "models.semantic=clip",
                        "content.merge_threshold=0.999", "content.clusters=4"])  # fmt: skip
    tower = tower_of(recipe)
    words = vocabulary(tower)
    chosen = ["a lion", "a train", "kissing", "lightning"]
    rows = tower.texts([f"a photo of {word}" if word[0] != "k" else f"a photo of a person {word}" for word in chosen])
    ids = [f"clip-{i}" for i in range(16)]
    vectors = pa.array(np.repeat(rows, 4, axis=0).tolist(), pa.list_(pa.float32(), rows.shape[1]))
    embeddings = pa.table({"clip_id": ids, "semantic": vectors})
    groups, concepts = measure_table(embeddings, str(folder / "work"), recipe)
    clips = {
        "clip_id": ids, "source_id": ["s"] * 16, "uri": ["/films/one.mp4"] * 16, "start_s": [0.0] * 16,
        "end_s": [4.0] * 16, "kept": [True] * 16, "rejected_by": pa.nulls(16, pa.string()),
        "media": pa.nulls(16, pa.string()), "caption": pa.nulls(16, pa.string()), "cluster_id": groups["cluster_id"],
        "cluster_size": pa.array([4] * 16, pa.int64()), "look_models": [[f"semantic: {tower.name}"]] * 16,
    }  # fmt: skip
    tables = {"clips": pa.table(clips), "embeddings": embeddings, "concepts": concepts, "vocabulary": words}
    return manifest.publish(str(folder), tables, {"recipe": {"resolved": recipe.model_dump(mode="json")}})


def test_a_text_finds_the_clips_that_the_model_takes_for_it(tower_run):
    told = json.loads(said("near", tower_run.root, "--text", "a photo of a train", "-n", "4", "--json"))
    assert {row["clip_id"] for row in told} == {f"clip-{i}" for i in range(4, 8)}
    assert told[0]["cosine"] == pytest.approx(1.0, abs=1e-3)
    assert MODEL in said("near", tower_run.root, "--text", "a photo of a train", "-n", "1")


def test_a_picture_is_looked_at_by_the_model_of_the_run(tower_run, tmp_path):
    import cv2

    from rushes.pipelines.view.near import tower

    picture = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "still.png"), picture)
    rows = np.array(tower_run.table("embeddings")["semantic"].to_pylist())
    best = (rows @ tower(tower_run).pictures([picture])[0]).max()
    assert near(tower_run, 1, image=str(tmp_path / "still.png"))[0]["cosine"] == pytest.approx(best, abs=1e-3)


def test_concepts_of_a_run_with_a_text_tower_are_named_by_what_it_sees(tower_run):
    known = set(tower_run.table("vocabulary")["word"].to_pylist())
    found = concepts(tower_run)
    assert len(found) == 4 and all(set(one.seen.split(", ")) <= known for one in found)
    assert len({one.seen for one in found}) == 4 and found[0].title == found[0].seen
    assert found[0].seen.split(", ")[0] in said("concepts", tower_run.root)


def test_the_content_stage_asks_a_worker_for_the_words_once(tower_run, tmp_path):
    recipe, asked = recipe_of(tower_run), []

    def on_workers(function, values, kind=CPU):
        asked.extend([kind] * len(values))
        return map(function, values)

    for expected in (["look"], []):
        asked.clear()
        pool = SimpleNamespace(map=on_workers, kind=lambda kind: kind)
        job = Job(recipe, str(tmp_path), pool, Bus([]), Inputs(pa.array([])), Keys.of(recipe))
        job.vectors, job.survivors = tower_run.files("embeddings"), 16
        measure_content(job)
        assert [kind for kind in asked if kind != CPU] == expected
        assert storage.read_table(job.vocabulary)["word"].equals(tower_run.table("vocabulary")["word"])


def test_weights_that_are_gone_or_of_another_model_are_a_sentence(tower_run, weights, tmp_path):  # noqa: F811
    import torch

    other = torch.load(weights / "clip.pt")
    torch.save({name: value + 0.5 for name, value in other.items()}, tmp_path / "other.pt")
    with pytest.raises(ManifestError, match=r"come from tiny-for-tests/clip.pt@.*other.pt holds .*other.pt@"):
        near(tower_run, 3, text="a beach", weights=str(tmp_path / "other.pt"))
    with pytest.raises(ManifestError, match=r"cannot be loaded here.*--weights FILE"):
        near(tower_run, 3, text="a beach", weights=str(tmp_path / "gone.pt"))
    with pytest.raises(ManifestError, match="--text is empty"):
        near(tower_run, 3, text=" ")
