"""The funnel and the story of one clip, on a synthetic run with every fate."""

from __future__ import annotations

import io
import itertools
import json

import pyarrow as pa
import pytest
from rich.console import Console

from rushes.curation import manifest, rules, storage
from rushes.curation.manifest import ManifestError
from rushes.curation.recipe import build
from rushes.curation.signals import STATUSES
from rushes.pipelines.cli.show import print_funnel, print_story
from rushes.pipelines.view import words
from rushes.pipelines.view.funnel import funnel
from rushes.pipelines.view.pair import compared, sentence
from rushes.pipelines.view.story import clip_named, explain, story
from rushes.pipelines.view.tables import recipe_of, rows_at
from tests.pipelines.synthetic_run import SYNTHETIC, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "shown")


def printed(function, *args, width=140):
    console = Console(file=io.StringIO(), width=width, no_color=True)
    function(*args, console)
    return console.file.getvalue()


def clip_with(run, fate):
    return next(row for row in run.table("clips").to_pylist() if row["rejected_by"] == fate)


def republish(run, root, **tables):
    return manifest.publish(
        str(root), {name: run.table(name) for name in run.tables} | tables, {"recipe": run.record["recipe"]}
    )


def test_the_funnel_accounts_for_every_input_and_every_clip(run):
    found = funnel(run)
    sources, clips = found["sources"], found["clips"]
    assert sources["inputs"] == 16 == sum(sources[status] for status in STATUSES)
    assert clips[0]["remaining"] == 400 == found["kept"] + sum(row["rejected"] for row in clips)
    assert clips[-1]["remaining"] == found["kept"]
    assert found["kept_s"] == pytest.approx(clips[-1]["remaining_s"])


def test_every_rule_of_the_recipe_and_every_later_one_rejects_somebody_in_this_run(run):
    rejected = {row["rule"] for row in funnel(run)["clips"] if row["rejected"]}
    assert rejected >= {rule.key for rule, _ in rules.active(recipe_of(run))} | set(rules.LATER_RULES)


def test_the_funnel_is_json(run):
    again = json.loads(json.dumps(funnel(run)))
    assert again["sets"]["pretrain-256"]["clips"] == again["kept"]
    assert sum(again["sets"]["pretrain-256"]["buckets"].values()) == again["kept"]


def test_people_and_orientation_of_a_set_are_those_of_its_clips(run):
    facts = funnel(run)["sets"]["pretrain-768"]
    mine = [row for row in run.table("clips").to_pylist() if "pretrain-768" in row["sets"]]
    assert facts["people"] == sum(row["human_score"] >= 0.6 for row in mine) / len(mine)
    assert facts["orientation"]["portrait"] == sum(row["orientation"] == "portrait" for row in mine) / len(mine)


@pytest.mark.parametrize("swap", ["all kept", "one for one"])
def test_a_clip_that_is_kept_and_rejected_at_once_does_not_add_up(run, tmp_path, swap):
    clips = run.table("clips")
    kept = clips["kept"].to_pylist()
    if swap == "all kept":
        kept = [True] * len(kept)
    else:  # the totals still agree, the rows do not
        here, there = kept.index(True), kept.index(False)
        kept[here], kept[there] = False, True
    wrong = clips.set_column(clips.schema.get_field_index("kept"), "kept", pa.array(kept))
    with pytest.raises(ManifestError, match="do not add up"):
        funnel(republish(run, tmp_path, clips=wrong))


def test_an_input_of_no_known_status_does_not_add_up(run, tmp_path):
    sources = run.table("sources")
    status = pa.array(["lost", *sources["status"].to_pylist()[1:]])
    wrong = sources.set_column(sources.schema.get_field_index("status"), "status", status)
    with pytest.raises(ManifestError, match=r"sources .* do not add up"):
        funnel(republish(run, tmp_path, sources=wrong))


def test_a_run_without_clips_or_sets_still_has_a_funnel(run, tmp_path):
    tables = {"sources": manifest.SOURCES.empty_table(), "clips": manifest.CLIPS.empty_table()}
    empty = manifest.publish(str(tmp_path), tables, {"recipe": run.record["recipe"]})
    assert funnel(empty)["kept"] == 0
    assert "0 of 0 clips kept" in printed(print_funnel, empty)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_printed_funnel_names_failed_inputs_and_what_the_rules_need(run, width):
    text = printed(print_funnel, run, width=width)
    assert "16 sources" in text and "2 failed" in text
    assert "shot list <day 3>.mp4" in text and "not a video" in text
    assert "of 400 clips kept" in text
    assert "motion.vmaf_min" in text if width > 60 else "motion" in text


def test_why_marks_the_first_rule_that_failed(run):
    clip = clip_with(run, "motion.mv_min")
    text = printed(print_story, run, clip["clip_id"])
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "fail  <- rejected here" in lines["motion.mv_min"]
    assert "mv_mean > 0.5" in lines["motion.mv_min"]
    assert text.count("rejected here") == 1
    assert lines["visual.text_max"].rstrip().endswith("not reached")
    assert lines["content.keep"].rstrip().endswith("not reached")


@pytest.mark.parametrize("fate", [*(rule.key for rule, _ in rules.active(build(SYNTHETIC))), *rules.LATER_RULES])
def test_the_explanation_agrees_with_the_judgement_for_every_fate(run, fate):
    recipe = recipe_of(run)
    row = clip_with(run, fate)
    clip = run.table("clips").filter(pa.array([c == row["clip_id"] for c in run.table("clips")["clip_id"].to_pylist()]))
    lines = explain(clip, recipe)
    failing = [key for key, _, _, verdict in lines if verdict in ("fail", "not measured")]
    assert failing[0] == fate


def test_why_says_what_could_not_be_measured_and_why(run):
    clip = next(row for row in run.table("clips").to_pylist() if row["mv_mean"] is None)
    text = printed(print_story, run, clip["clip_id"])
    assert "not measured: vp9 exports no motion vectors" in text


def test_a_line_break_in_a_name_stays_in_its_line(run, tmp_path):
    sources = run.table("sources").to_pylist()
    odd = next(row for row in sources if row["status"] == "failed")
    odd["uri"] = "/footage/new\nline\x1b[31m.mp4"
    table = pa.Table.from_pylist(sources, schema=run.table("sources").schema)
    text = printed(print_funnel, republish(run, tmp_path / "odd", sources=table))
    assert "new\\nline\\x1b[31m.mp4" in text and "\x1b" not in text


def test_brackets_in_names_and_reasons_are_printed_as_they_are(run, tmp_path):
    clips = run.table("clips").slice(0, 1).to_pylist()
    clips[0].update(vmaf_motion=None, rejected_by="motion.vmaf_min", notes=["vmaf_motion: [bold] failed [/x]"])
    table = pa.Table.from_pylist(clips, schema=run.table("clips").schema)
    odd = republish(run, tmp_path / "take [2]", clips=table, sources=run.table("sources"))
    assert "[bold] failed [/x]" in printed(print_story, odd, clips[0]["clip_id"])
    none = {name: odd.table(name).slice(0, 0) for name in odd.tables if name.startswith("sets/")}
    assert "take [2]" in printed(print_funnel, republish(odd, tmp_path / "take [2]", **none))


def test_why_tells_of_which_clip_a_duplicate_is(run):
    clip = clip_with(run, "content.copy_threshold")
    text = printed(print_story, run, clip["clip_id"])
    assert f"duplicate of {clip['duplicate_of']}" in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert lines["scenes.clips_per_source"].rstrip().endswith("pass")
    assert lines["content.keep"].rstrip().endswith("not reached")


@pytest.mark.parametrize("fate", ["cut.failed", "captioning.failed"])
def test_why_gives_the_reason_for_a_clip_that_could_not_be_made(run, fate):
    text = printed(print_story, run, clip_with(run, fate)["clip_id"])
    (line,) = [line for line in text.splitlines() if line.strip().startswith(fate)]
    assert "the encoder said no" in line


def test_why_tells_which_sets_a_kept_clip_is_in_and_what_keeps_it_out_of_the_others(run):
    rows = run.table("clips").to_pylist()
    clip = next(row for row in rows if row["kept"] and row["duration_s"] < 12 and row["height"] < 768)
    lines = {line.split()[0]: line for line in printed(print_story, run, clip["clip_id"]).splitlines() if line.strip()}
    assert "in the set" in lines["pretrain-256"]
    assert "visual.size_min >= 768" in lines["pretrain-768"]
    assert clip["caption"] in lines["caption"] and clip["media"] in lines["media"]


def test_a_unique_prefix_is_enough(run):
    clip = clip_with(run, None)
    assert printed(print_story, run, clip["clip_id"][:9]) == printed(print_story, run, clip["clip_id"])
    assert clip_named(run, clip["clip_id"][:9]) == clip["clip_id"] and clip_named(run, "nobody") == "nobody"


def test_a_prefix_of_several_clips_is_refused_with_their_names(run):
    ids = sorted(run.table("clips")["clip_id"].to_pylist())
    prefix = next(a[:1] for a, b in itertools.pairwise(ids) if a[:1] == b[:1])
    with pytest.raises(ManifestError, match=rf"'{prefix}' begins \d+ clips"):
        print_story(run, prefix, Console(file=io.StringIO()))


@pytest.mark.parametrize("name", ["film-003.mp4", "/footage/film-003.mp4", f"{3:032x}"])
def test_a_source_is_answered_with_the_fates_of_its_clips(run, name):
    mine = [row for row in run.table("clips").to_pylist() if row["uri"] == "/footage/film-003.mp4"]
    text = printed(print_story, run, name)
    assert all(row["clip_id"] in text for row in mine)
    assert text.count("kept") == sum(row["kept"] for row in mine)


def test_a_failed_source_is_answered_with_its_error(run):
    assert "the file is empty" in printed(print_story, run, "zero.mov")


@pytest.mark.parametrize("wanted", ["film-03.mp4", "film-003.mp"])
def test_an_unknown_name_is_answered_with_the_nearest(run, wanted):
    with pytest.raises(ManifestError, match=r"did you mean 'film-0\d3\.mp4'"):
        print_story(run, wanted, Console(file=io.StringIO()))


def test_a_mistyped_clip_id_is_answered_with_the_nearest(run):
    clip_id = clip_with(run, None)["clip_id"]
    with pytest.raises(ManifestError, match=f"did you mean '{clip_id}'"):
        print_story(run, clip_id[:-2] + "zz", Console(file=io.StringIO()))


def test_rows_are_fetched_in_the_order_asked_for_across_files_and_groups(run, monkeypatch, tmp_path):
    monkeypatch.setattr(manifest, "ROWS_PER_FILE", 150)
    monkeypatch.setattr(storage, "ROWS_PER_GROUP", 40)
    split = republish(run, tmp_path)
    ids = run.table("clips")["clip_id"].to_pylist()
    wanted = [399, 0, 151, 149, 41, 0]
    assert rows_at(split, "clips", wanted, ["clip_id"])["clip_id"].to_pylist() == [ids[i] for i in wanted]
    assert rows_at(split, "clips", []).num_rows == 0


@pytest.mark.parametrize(
    ("value", "other", "text"),
    [
        (768, None, "768"),
        (12345.6, None, "12346"),
        (1.9996, 2.0, "1.9996"),
        (2.0, 2.0, "2"),
        (0.00041, None, "0.00041"),
    ],
)
def test_a_value_never_reads_like_a_threshold_that_it_misses(value, other, text):
    assert words.number(value, other) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (119.96, "120.0 s"), (600, "10.0 min"), (9000, "2.5 h"), (3.6e7, "10,000 h")]
)
def test_durations_are_written_in_a_fitting_unit(seconds, text):
    assert words.hours(seconds) == text


def test_spans_are_written_as_clock_times():
    assert words.span(59.96, 3725.0) == "1:00.0–1:02:05.0"


def test_shares_below_one_percent_keep_their_digits():
    assert [words.percent(share) for share in (0.5, 0.0094, 0.0, None)] == ["50.0 %", "0.94 %", "0.0 %", "–"]


def test_why_puts_a_copy_and_the_clip_that_stays_side_by_side_and_names_what_decided(run, tmp_path):
    rows = run.table("clips").to_pylist()
    copies = [row for row in rows if row["rejected_by"] == "content.copy_threshold"]
    gone = min(copies, key=lambda row: row["clip_id"])  # only some are named
    stays = next(row for row in rows if row["clip_id"] == gone["duplicate_of"])
    for row, bits in ((gone, 0.05), (stays, 0.21)):
        row |= {"width": 1920, "height": 1080, "fps": 24.0, "bits_per_pixel": bits}
    odd = republish(run, tmp_path, clips=pa.Table.from_pylist(rows, run.table("clips").schema))
    text = printed(print_story, odd, gone["clip_id"])
    lines = {line.strip().split("  ")[0]: line for line in text.splitlines() if line.strip()}
    assert "bits per pixel decided" in lines and stays["clip_id"] in lines["bits per pixel decided"]
    assert "0.05" in lines["bits per pixel <-"] and "0.21" in lines["bits per pixel <-"]
    assert "1920 × 1080" in lines["resolution"]
    pair = story(odd, gone["clip_id"])["pair"]
    assert pair["decided_by"] == "bits_per_pixel" and sentence(pair) == "bits per pixel: 0.21 against 0.05"
    assert gone["clip_id"] in printed(print_story, odd, stays["clip_id"])
    assert story(odd, stays["clip_id"])["pair"] is None


def test_copies_that_are_equal_in_everything_are_told_apart_by_their_ids(run):
    clip = run.table("clips").slice(0, 1)
    assert compared(clip, clip, recipe_of(run))["decided_by"] == "the order of the ids"
