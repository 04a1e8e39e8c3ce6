"""The report of a synthetic run: one page that holds everything and asks nobody for anything."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from rushes.curation import manifest, rules
from rushes.curation.manifest import ManifestError
from rushes.pipelines.view import charts, report
from rushes.pipelines.view.funnel import funnel
from rushes.pipelines.view.tables import recipe_of
from tests.pipelines.synthetic_run import film_stills, make_run

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Elements of a page with their attributes, its text, and tags that are not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.crossed, self.text = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "reported", stills=film_stills(12, side=320))


@pytest.fixture(scope="module")
def html(run):
    return report.write_report(run.root).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_report_stands_in_the_run_folder_and_is_well_formed(run, page):
    assert not page.open and not page.crossed
    assert not list(report.Path(run.root).glob("*.tmp"))


def test_the_page_asks_for_nothing_outside_itself(html, page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "poster", "data", "action", "srcset"):
            allowed = ("#", "data:image/", "media/") if tag == "video" else ("#", "data:image/")
            assert attributes.get(name, "#").startswith(allowed), (tag, attributes)
    assert not re.search(r"url\(|@import|https?://", html)
    assert "link" not in {tag for tag, _ in page.elements}


def test_the_page_can_be_read_without_scripts(html):
    without = re.sub(r"<script>.*?</script>", "", html, flags=re.S)
    assert html.count("<script") == 1
    assert re.search(r'<form id="tools" hidden', without), "sorting and filtering, which need one, are not shown"


def test_every_fate_has_its_group_and_its_line_in_the_funnel(run, html):
    for row in funnel(run)["clips"][1:]:
        if row["rejected"]:
            assert html.count(f'<span class="mono">{row["rule"]}</span>') >= 2, row["rule"]


def test_the_numbers_of_the_page_are_those_of_the_funnel(run, page):
    text = " ".join(" ".join(page.text).split())
    found = funnel(run)
    assert f"of 400 clips kept, {report.words.percent(found['kept'] / 400)}" in text
    assert "from 13 of 16 inputs" in text
    assert "41 % of the clips show people" in text  # the warning


def test_every_threshold_stands_under_the_histogram_of_its_signal(run, html):
    figures = dict(re.findall(r'<figcaption><b class="mono"[^>]*>(\w+)</b>(.*?)</figure>', html, flags=re.S))
    for rule, threshold in rules.active(recipe_of(run)):
        line = rf"{re.escape(rule.key)}</span>\s*<b>{re.escape(rule.compare.replace('<', '&lt;').replace('>', '&gt;'))}"
        assert re.search(rf"{line} {threshold:g}</b>", figures[rule.column]), rule.key
    assert "vp9 exports no motion vectors" in figures["mv_mean"]
    assert "flicker" in figures  # a column that no built-in meter writes


def test_every_null_has_one_reason(run):
    for _, items in charts.signals(run, recipe_of(run)):
        for chart in items:
            assert chart["total"] + chart["nulls"]["count"] == 400
            named = sum(count for _, count in chart["nulls"]["reasons"])
            assert "categories" in chart or named == chart["nulls"]["count"], chart["name"]


def test_names_from_the_footage_are_text_and_never_markup(page, html):
    assert "shot list <day 3>.mp4" in " ".join(page.text)
    assert "<day" not in html


def test_every_clip_shows_stills_of_real_pictures(page):
    strips = [a["src"] for tag, a in page.elements if tag == "img"]
    clips = [a for tag, a in page.elements if tag == "article"]
    assert len(strips) >= len(clips) > 100
    for data in strips[:: len(strips) // 8]:
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[1] <= report.STRIP_SIZE[0] and picture.shape[0] <= report.STRIP_SIZE[1]
        assert picture.std() > 5


def test_the_page_of_a_run_without_stills_says_so(tmp_path):
    bare = make_run(tmp_path / "bare", clips=60, sources=3)
    html = report.write_report(bare.root).read_text(encoding="utf-8")
    assert "no stills kept" in html and "<img" not in html


def test_an_empty_run_has_a_report(tmp_path, run):
    tables = {"sources": manifest.SOURCES.empty_table(), "clips": manifest.CLIPS.empty_table()}
    manifest.publish(str(tmp_path), tables, {"recipe": run.record["recipe"]})
    assert "This run has no sets" in report.write_report(str(tmp_path)).read_text(encoding="utf-8")


def test_a_folder_without_a_run_is_a_sentence(tmp_path):
    with pytest.raises(ManifestError, match="no published run"):
        report.write_report(str(tmp_path))


def test_the_same_run_gives_the_same_page(run, html, tmp_path):
    assert report.write_report(run.root, f"{run.root}/again.html").read_text(encoding="utf-8") == html


def test_kept_clips_play_from_where_they_lie_and_nothing_is_loaded_before(run, page, tmp_path):
    films = [attributes for tag, attributes in page.elements if tag == "video"]
    media = {path for path in run.table("clips", ["media"])["media"].to_pylist() if path}
    assert films and {film["src"] for film in films} <= media
    assert all(film["preload"] == "none" and "controls" in film for film in films)
    away = Page(report.write_report(run.root, tmp_path / "away.html").read_text(encoding="utf-8"))
    links = [attributes["src"] for tag, attributes in away.elements if tag == "video"]
    assert {str((tmp_path / link).resolve()) for link in links} <= {
        f"{report.Path(run.root).resolve()}/{m}" for m in media
    }


@pytest.mark.parametrize(
    ("root", "media", "folder", "link"),
    [
        ("s3://bucket/run", "media/a.mp4", "s3://bucket/run", "media/a.mp4"),
        ("s3://bucket/run", "media/a.mp4", "/home/me", None),
        ("/runs/b", "/runs/a/media/a b#1.mp4", "/runs/b", "../a/media/a%20b%231.mp4"),
        ("/runs/b", "s3://bucket/run/media/a.mp4", "/runs/b", None),
        ("/runs/b", None, "/runs/b", None),
    ],
)
def test_a_clip_is_linked_where_a_page_can_reach_it(root, media, folder, link):
    assert report.media_link(root, media, folder) == link


def test_behind_show_all_are_the_others_of_a_fate_and_every_card_has_its_signals(run, html, page):
    groups = {g["rule"]: g for g in report.clip_groups(run, recipe_of(run), funnel(run)["clips"])}
    for group in groups.values():
        ids = [clip["clip_id"] for clip in [*group["clips"], *group["more"]]]
        assert len(set(ids)) == len(ids) == min(group["count"], report.CLIPS_LISTED // len(groups)), group["rule"]
    many = next(group for group in groups.values() if len(group["clips"]) + len(group["more"]) == group["count"] > 12)
    assert f"show all {many['count']}</summary>" in html
    rows = {row["clip_id"]: row for row in run.table("clips").to_pylist()}
    for clip in groups[None]["clips"]:
        assert clip["values"]["vmaf_motion"] == pytest.approx(rows[clip["clip_id"]]["vmaf_motion"], rel=1e-3)
    assert {"<option>vmaf_motion</option>", "<option>flicker</option>"} <= set(re.findall("<option>.*?</option>", html))


def test_stage_times_add_up():
    apart = report.times({"probe": 1.0, "analyze": 5.0, "total": 8.0})
    assert [row["text"] for row in apart["rows"]] == ["1.0 s", "5.0 s", "2.0 s"] and "8.0 s" in apart["said"]
    beside = report.times({"analyze": 5.0, "look": 4.0, "total": 7.0})
    assert "2.0 s are counted twice" in beside["said"] and len(beside["rows"]) == 2


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.013, 9.7), (-3, 1e6), (0.0001, 0.00023), (5, 5), (719, 2160)])
def test_ticks_are_round_and_few(low, high):
    found = charts.ticks(low, high)
    assert (
        1 <= len(found) <= charts.TICKS
        and found == sorted(found)
        and low - 1e-9 <= found[0] <= found[-1] <= high + 1e-9
    )
    assert all(len(f"{value:g}".strip("-0.").replace(".", "").rstrip("0").split("e")[0]) <= 3 for value in found)


def test_further_sections_are_placed_on_the_page_and_in_its_index(run, tmp_path):
    html = report.write_report(run.root, tmp_path / "more.html", [("Training", "<p id='loss'>loss</p>")]).read_text()
    assert "<p id='loss'>loss</p>" in html and 'href="#extra-0">Training</a>' in html


def test_the_sample_of_a_fate_begins_with_the_clip_nearest_the_threshold(run):
    recipe = recipe_of(run)
    groups = {g["rule"]: g for g in report.clip_groups(run, recipe, funnel(run)["clips"])}
    values = [float(clip["value"]) for clip in groups["motion.vmaf_min"]["clips"]]
    column = [row for row in run.table("clips").to_pylist() if row["rejected_by"] == "motion.vmaf_min"]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(max(row["vmaf_motion"] for row in column), abs=0.01)
    assert len(values) == report.CLIPS_PER_GROUP < groups["motion.vmaf_min"]["count"] == len(column)


def test_a_duplicate_is_shown_beside_the_clip_that_it_repeats(run):
    groups = {g["rule"]: g for g in report.clip_groups(run, recipe_of(run), funnel(run)["clips"])}
    assert all(clip["twin"] and clip["twin_strip"] for clip in groups["content.copy_threshold"]["clips"])


def test_pictures_stay_within_their_bytes_even_for_noise():
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)
    jpeg = cv2.imencode(".jpg", noise)[1].tobytes()
    assert len(report.filmstrip([jpeg] * 3, 20_000)) <= 20_000
    assert report.filmstrip([], 20_000) is None
    assert report.filmstrip([b"not a picture"], 20_000) is None


def test_narrow_stills_fill_the_strip_with_more_of_them():
    def strip_of(width, height):
        stills = [cv2.imencode(".jpg", np.full((height, width, 3), 40 * i, np.uint8))[1].tobytes() for i in range(6)]
        return cv2.imdecode(np.frombuffer(report.filmstrip(stills, 24_000), np.uint8), cv2.IMREAD_COLOR)

    wide, tall = strip_of(640, 360), strip_of(360, 640)
    assert wide.shape[1] == pytest.approx(report.STRIP_SIZE[0], abs=4)
    assert tall.shape[1] > 5 * tall.shape[0] * 360 / 640  # more than five side by side


def bars_of(values, kept=None, base=(), sets=(), whole=False):
    values = np.asarray(values, dtype=float)
    kept = np.ones(len(values), bool) if kept is None else np.asarray(kept)
    present = values[~np.isnan(values)]
    first, last = np.percentile(present, [0.5, 99.5]) if len(present) else (None, None)
    low, high = (present.min(), present.max()) if len(present) else (None, None)

    def count(edges):
        inside = np.clip(values, edges[0], edges[-1])
        return tuple(np.histogram(inside[~np.isnan(values) & some], edges)[0] for some in (True, kept))

    facts = {"total": len(present), "min": low, "max": high, "first": first, "last": last}
    return charts.histogram(facts, count, list(base), list(sets), whole)


def counts(chart):
    return sum(int(re.search(r": ([\d,]+) clips", bar["text"])[1].replace(",", "")) for bar in chart["bars"])


def test_a_histogram_counts_every_value_and_no_null():
    values = np.r_[np.random.default_rng(1).normal(0, 1, 5_000), 1e9, np.nan, np.nan]
    chart = bars_of(values)
    assert chart["total"] == 5_001 == counts(chart)
    assert len(chart["bars"]) > 20  # the outlier did not squeeze the rest into one bar


def test_no_bar_stands_on_both_sides_of_a_threshold():
    line = {"key": "motion.vmaf_min", "value": 2.0, "compare": ">", "sets": []}
    chart = bars_of(np.linspace(0.013, 9.7, 4_000), base=[line])
    x = chart["lines"][0]["x"]
    assert not [bar for bar in chart["bars"] if bar["x"] < x - 1e-6 and bar["x"] + bar["width"] > x + 1e-6]
    assert chart["failing"] == [(0.0, x)]


def test_kept_clips_are_a_part_of_each_bar():
    values = np.random.default_rng(2).uniform(0, 1, 1_000)
    chart = bars_of(values, kept=values > 0.5)
    assert all(bar["kept_height"] <= bar["height"] <= charts.CHART[1] + 1e-6 for bar in chart["bars"])
    assert all((bar["kept_height"] > 0) == (bar["x"] > 0.49 * charts.CHART[0]) for bar in chart["bars"])


@pytest.mark.parametrize("values", [[3.0, 3.0], [0.0], [np.nan], [], [-2.0, -1.0]])
def test_odd_columns_have_a_histogram_too(values):
    chart = bars_of(values)
    assert counts(chart) == chart["total"] == int(np.sum(~np.isnan(values)))
    assert all(0 <= bar["x"] <= charts.CHART[0] for bar in chart["bars"])


def test_whole_numbers_have_one_bar_each():
    chart = bars_of([0, 0, 0, 1, 2], whole=True)
    assert [bar["text"].split(": ")[1] for bar in chart["bars"]] == [
        "3 clips, 3 kept",
        "1 clips, 1 kept",
        "1 clips, 1 kept",
    ]


def test_buckets_are_laid_out_five_by_five_and_strangers_come_last():
    sets = {"a": {"clips": 7, "buckets": {"9x16/12-16s": 1, "16x9/4-8s": 2, "16x9/16s": 3, None: 1}}}
    (matrix,) = charts.bucket_matrices(sets)
    assert matrix["columns"] == ["4-8s", "8-12s", "10.67s", "12-16s", "16s", "none"]
    rows = {aspect: [cell["count"] for cell in cells] for aspect, cells in matrix["rows"]}
    assert list(rows) == ["16x9", "4x3", "1x1", "3x4", "9x16", "none"]
    assert rows["16x9"] == [2, 0, 0, 0, 3, 0] and rows["9x16"] == [0, 0, 0, 1, 0, 0] and rows["none"][-1] == 1
