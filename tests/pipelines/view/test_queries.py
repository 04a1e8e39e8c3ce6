"""Questions to a run: pages of clips and histograms agree with the whole table, which they never read."""

from __future__ import annotations

import numpy as np
import pytest

from rushes.curation import manifest
from rushes.pipelines.view.clips import QueryError, clips
from rushes.pipelines.view.histograms import histogram
from tests.pipelines.synthetic_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "odd 'name' [a] *")


@pytest.fixture(scope="module")
def rows(run):
    return run.table("clips").to_pylist()


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ("kept=true", lambda row: row["kept"]),
        ("vmaf_motion>=3", lambda row: row["vmaf_motion"] >= 3),
        ("mv_mean=null", lambda row: row["mv_mean"] is None),
        ("rejected_by!=motion.mv_min", lambda row: row["rejected_by"] != "motion.mv_min"),
        ("rejected_by = motion.mv_min", lambda row: row["rejected_by"] == "motion.mv_min"),
        ("sets=pretrain-768", lambda row: "pretrain-768" in row["sets"]),
        ("caption~LANDSCAPE", lambda row: row["caption"] is not None and "landscape" in row["caption"]),
        ("size<720", lambda row: min(row["width"], row["height"]) < 720),
        ("caption=x' OR '1'='1", lambda row: False),
    ],
)
def test_a_filter_finds_the_clips_that_the_condition_names(run, rows, where, holds):
    wanted = sorted(row["clip_id"] for row in rows if holds(row))
    found = clips(run, [where], limit=500)
    assert found["total"] == len(wanted)
    assert [row["clip_id"] for row in found["rows"]] == wanted


def test_pages_in_an_order_give_every_clip_once(run, rows):
    pages = [clips(run, sort="mv_mean", descending=True, limit=150, offset=at)["rows"] for at in (0, 150, 300)]
    ids = [row["clip_id"] for page in pages for row in page]
    assert sorted(ids) == sorted(row["clip_id"] for row in rows)
    by_id = {row["clip_id"]: row["mv_mean"] for row in rows}
    values = [by_id[i] for i in ids if by_id[i] is not None]
    assert values == sorted(values, reverse=True) and by_id[ids[-1]] is None


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("vmaf_motoin>3", "did you mean 'vmaf_motion'"),
        ("vmaf_motion>fast", "is no number"),
        ("vmaf_motion>nan", "is no number"),
        ("caption>3", "cannot be compared"),
        ("1=1; DROP TABLE clips", "no column '1'"),
        ("", "is no condition"),
    ],
)
def test_a_condition_that_cannot_be_asked_is_refused_in_a_sentence(run, where, said):
    with pytest.raises(QueryError, match=said):
        clips(run, [where])


def test_a_histogram_counts_every_value_once_and_the_kept_ones_apart(run, rows):
    found = histogram(run, "mv_mean", bins=20)
    values = np.array([row["mv_mean"] for row in rows if row["mv_mean"] is not None])
    kept = sum(row["kept"] for row in rows if row["mv_mean"] is not None)
    assert found["total"] == len(values) == sum(found["counts"]) and found["nulls"] == len(rows) - len(values)
    assert sum(found["kept"]) == kept
    middle = slice(1, 19)
    expected, _ = np.histogram(values, found["edges"])
    assert found["counts"][middle] == expected[middle].tolist()
    assert {line["key"] for line in found["thresholds"]} == {"motion.mv_min", "motion.mv_max"}


def test_a_histogram_of_words_counts_them(run, rows):
    found = histogram(run, "camera_motion")
    assert {row["value"]: row["count"] for row in found["values"]}["pan left"] == sum(
        row["camera_motion"] == "pan left" for row in rows
    )
    sets = histogram(run, "sets", where=["kept=true"])
    assert {row["value"] for row in sets["values"]} == {"pretrain-256", "pretrain-768"}


def test_a_histogram_of_nothing_and_of_one_value_has_a_form(run):
    assert histogram(run, "mv_mean", where=["kept=true", "kept=false"])["counts"] == []
    one = histogram(run, "fps", bins=4)
    assert sum(one["counts"]) == one["total"]


def test_a_table_of_many_files_is_one_table(run, monkeypatch, tmp_path):
    monkeypatch.setattr(manifest, "ROWS_PER_FILE", 130)
    tables = {name: run.table(name) for name in run.tables}
    split = manifest.publish(str(tmp_path / "split"), tables, {"recipe": run.record["recipe"]})
    assert len(split.record["tables"]["clips"]["files"]) > 2
    assert clips(split, ["kept=true"])["total"] == clips(run, ["kept=true"])["total"]
