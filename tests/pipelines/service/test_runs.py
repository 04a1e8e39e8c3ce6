"""What the service says of a run is what the commands say; media come by byte ranges."""

from __future__ import annotations

import json

import pytest

from rushes.curation.manifest import open_run, publish
from rushes.pipelines.view.funnel import funnel
from rushes.pipelines.view.story import story


@pytest.fixture(scope="module")
def run(served):
    return open_run(str(served.folder / "runs" / "first"))


def kept_clip(run):
    return next(row for row in run.table("clips").to_pylist() if row["media"])


def test_the_service_says_of_a_run_what_the_views_say(served, run):
    assert "first" in served.get("/runs").json()["runs"]
    assert served.get("/runs/first").json()["tables"]["clips"] == 400
    assert served.get("/runs/first/funnel").json() == json.loads(json.dumps(funnel(run)))
    clip = kept_clip(run)
    assert served.get(f"/runs/first/clips/{clip['clip_id']}").json()["rules"] == story(run, clip["clip_id"])["rules"]
    assert served.get("/runs/first/why", params={"wanted": "zero.mov"}).json()["sources"][0]["status"] == "failed"
    assert served.get("/runs/first/advice").json()
    assert {"name", "meaning", "unit"} <= set(served.get("/runs/first/columns").json()[0])
    assert served.get("/runs/first/sources").json()["rows"][0]["status"] == "failed"


def test_clips_and_histograms_take_the_same_conditions(served):
    where = {"where": ["kept=true", "vmaf_motion>=3"]}
    page = served.get("/runs/first/clips", params={**where, "limit": 3, "sort": "vmaf_motion"}).json()
    spread = served.get("/runs/first/histograms/vmaf_motion", params=where).json()
    assert len(page["rows"]) == 3 and page["total"] == spread["total"] == sum(spread["counts"])
    assert served.get("/runs/first/clips", params={"where": "nothing>3"}).status_code == 422


def test_a_browser_that_has_an_answer_is_told_so_until_a_new_snapshot_is_published(served, run):
    tables = {name: run.table(name) for name in run.tables}
    record = {key: run.record[key] for key in ("recipe", "created", "versions", "times_s", "warnings")}
    root = str(served.folder / "runs" / "again")
    publish(root, tables, record)
    first = served.get("/runs/again/funnel")
    again = served.get("/runs/again/funnel", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304 and not again.content
    publish(root, tables | {"sources": tables["sources"].slice(0, 12)}, record)
    now = served.get("/runs/again/funnel", headers={"if-none-match": first.headers["etag"]})
    assert now.status_code == 200 and now.json()["sources"]["inputs"] == 12


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        (None, 200, (0, 20_000)),
        ("bytes=0-9", 206, (0, 10)),
        ("bytes=19990-", 206, (19_990, 20_000)),
        ("bytes=-5", 206, (19_995, 20_000)),
        ("bytes=19990-99999999", 206, (19_990, 20_000)),
        ("bytes=20000-", 416, (0, 0)),
        ("bytes=-0", 416, (0, 0)),
        ("bytes=9-3", 200, (0, 20_000)),
        ("lines=1-2", 200, (0, 20_000)),
    ],
)
def test_media_come_by_byte_ranges(served, run, asked, status, span):
    clip = kept_clip(run)
    whole = (served.folder / "runs" / "first" / clip["media"]).read_bytes()
    found = served.get(f"/runs/first/clips/{clip['clip_id']}/media", headers={"range": asked} if asked else {})
    assert found.status_code == status and found.content == whole[slice(*span)]
    if status == 206:
        assert found.headers["content-range"] == f"bytes {span[0]}-{span[1] - 1}/20000"


def test_a_small_clip_is_shown_itself_by_ranges_too(served, run):
    clip = kept_clip(run)
    whole = (served.folder / "runs" / "first" / clip["media"]).read_bytes()
    found = served.get(f"/runs/first/clips/{clip['clip_id']}/proxy", headers={"range": "bytes=5-9"})
    assert found.status_code == 206 and found.content == whole[5:10]


def test_stills_are_pictures_and_a_clip_without_media_says_so(served, run):
    clip = next(row for row in run.table("clips").to_pylist() if not row["media"])
    still = served.get(f"/runs/first/clips/{clip['clip_id']}/stills/0")
    assert still.headers["content-type"] == "image/jpeg" and still.content[:2] == b"\xff\xd8"
    assert served.get(f"/runs/first/clips/{clip['clip_id']}/stills/99").status_code == 404
    assert "only kept clips are cut" in served.get(f"/runs/first/clips/{clip['clip_id']}/media").json()["detail"]


def test_a_run_that_is_not_there_is_a_sentence(served):
    found = served.get("/runs/nowhere/funnel")
    assert found.status_code == 404 and "no published run" in found.json()["detail"]


def test_a_run_that_is_not_there_is_answered_with_the_nearest_and_no_place_of_the_server(served):
    answer = served.get("/runs/frist/funnel")
    assert (
        answer.status_code == 404
        and answer.json()["detail"] == "There is no published run 'frist'; did you mean 'first'?"
    )
    (served.folder / "runs" / "begun" / "work").mkdir(parents=True)
    assert "has not finished" in served.get("/runs/begun").json()["detail"]


def test_a_run_of_another_release_or_without_its_tables_is_a_sentence_without_places(served, run):
    record = {key: run.record[key] for key in ("recipe", "created", "versions", "times_s", "warnings")}
    resolved = {**record["recipe"]["resolved"], "gone": {"max": 1}}
    tables = {name: run.table(name) for name in run.tables}
    root = served.folder / "runs" / "old"
    publish(str(root), tables, {**record, "recipe": {**record["recipe"], "resolved": resolved}})
    told = served.get("/runs/old/funnel")
    assert told.status_code == 422 and "old was curated by another release" in told.json()["detail"]
    assert "'gone'" in told.json()["detail"] and "Curate it again" in told.json()["detail"]
    publish(str(root.parent / "hurt"), tables, record)
    for file in open_run(str(root.parent / "hurt")).files("clips"):
        (root.parent / "hurt" / file).unlink()
    hurt = served.get("/runs/hurt/funnel")
    for answer in (told, hurt):
        assert answer.status_code >= 400 and str(served.folder) not in answer.text
