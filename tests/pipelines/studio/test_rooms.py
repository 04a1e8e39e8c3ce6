"""The rooms in a real browser: what a person does by hand or key, and what is there afterwards."""

from __future__ import annotations

import re

import pytest

from rushes.curation import manifest
from rushes.pipelines.judge import judge, recipe_for_judging
from tests.pipelines.studio.conftest import FRAMES

pytestmark = pytest.mark.heavy  # a browser
NAME = "<img src=x onerror=window.bad=1>"


def number(page, selector: str) -> int:
    return int(re.sub(r"\D", "", page.locator(selector).first.inner_text().split(" of ")[0]))


def shown_number(page) -> int:
    """The number that the shown frame carries in its stripes."""
    return page.evaluate("""() => {
        const video = document.querySelector(".screen video:not(.waiting)"), canvas = document.createElement("canvas");
        canvas.width = video.videoWidth; canvas.height = video.videoHeight;
        const pen = canvas.getContext("2d"); pen.drawImage(video, 0, 0);
        let found = 0;
        for (let bit = 0; bit < 12; bit++) {
          const [value] = pen.getImageData((bit + 0.5) * canvas.width / 12, canvas.height / 2, 1, 1).data;
          if (value > 128) found += 2 ** bit;
        }
        return found;
    }""")


def get(page, path: str):
    return page.request.get(f"/api/v1{path}").json()


def frame(page) -> int:
    return int(page.locator(".time").get_attribute("aria-valuenow"))


def at_rest(page) -> None:
    """Until the picture that was sought is shown."""
    page.wait_for_function("""() => { const v = document.querySelector(".screen video:not(.waiting)");
        return v && v.paused && !v.seeking && document.querySelector(".time.exact"); }""")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_a_threshold_is_moved_by_key_and_counts_pictures_and_address_follow(page):
    page.goto("/look/films")
    page.wait_for_selector(".big")
    before = number(page, ".big")
    handle = page.get_by_role("slider", name="vmaf motion at least")
    handle.focus()
    page.keyboard.press("PageUp")
    page.wait_for_function(
        "before => document.querySelector('.big').innerText.replace(/ of.*/, '') != before", arg=str(before)
    )
    assert number(page, ".big") < before
    page.wait_for_selector(".edge h3:has-text('Leave')")
    assert page.locator(".edge li").count() > 0
    assert "set=motion.vmaf_min" in page.url
    kept = number(page, ".big")
    page.goto(page.url)  # a colleague follows the link
    page.wait_for_selector(".big")
    assert number(page, ".big") == kept
    page.get_by_role("slider", name="vmaf motion at least").focus()
    page.keyboard.press("Backspace")
    page.wait_for_function(
        "before => document.querySelector('.big').innerText.replace(/ of.*/, '') == before", arg=str(before)
    )


def test_what_publishing_would_keep_is_decided_anew_when_it_is_asked(page, studio):
    moves = ["motion.vmaf_min=2.6", "visual.luma_min=40"]
    run = manifest.open_run(str(studio.folder / "runs" / "films"))
    dry = judge(run, recipe_for_judging(run, None, moves), None).record["funnel"]
    page.goto("/look/films?" + "&".join(f"set={move.replace('=', '%3D')}" for move in moves))
    page.get_by_role("button", name="Decide anew").click()
    page.wait_for_selector(".summary [role=status]")
    told = page.locator(".summary [role=status]").inner_text()
    assert f"Published, {dry['clips'][-1]['remaining']} would be kept" in told
    assert all(f"{name} {count}" in told for name, count in dry["sets"].items())


def test_publishing_over_anothers_snapshot_is_refused_with_what_to_do(page, studio):
    page.goto("/look/moved?set=motion.vmaf_min%3D2.5")
    page.wait_for_selector(".big")
    run = manifest.open_run(str(studio.folder / "runs" / "moved"))
    other = judge(run, recipe_for_judging(run, None, ["motion.vmaf_min=2.2"]), run.root)
    page.get_by_role("button", name="Publish", exact=True).click()
    page.wait_for_selector(".warning")
    assert "published meanwhile" in page.locator(".warning").inner_text()
    assert manifest.open_run(run.root).snapshot == other.snapshot
    page.get_by_role("button", name=f"Look at {other.snapshot}").click()
    page.wait_for_function("() => !document.querySelector('.warning')")
    page.get_by_role("button", name="Publish", exact=True).click()
    page.wait_for_function("() => document.getElementById('said').innerText.startsWith('Published as')")
    assert manifest.open_run(run.root).record["recipe"]["resolved"]["motion"]["vmaf_min"] == 2.5


def test_one_clips_page_tells_its_rules(page, studio):
    clip = next(iter(studio.films))
    page.goto(f"/look/films/{clip}")
    page.wait_for_selector(".rules tbody tr")
    assert page.locator(".rules .pass").count() > 10
    assert page.locator("video").get_attribute("src").endswith(f"/clips/{clip}/proxy")


def test_clips_are_points_of_the_concepts_map_and_a_click_opens_one(page):
    page.goto("/look/films?tab=concepts")
    page.wait_for_selector(".map .pin")
    points = get(page, "/runs/films/concepts")["points"]
    assert len(points) == 400 and {point["kept"] for point in points} == {True, False}
    box = page.locator(".dots").bounding_box()
    lone = min(points, key=lambda point: point["at"][1])["at"]  # the lowest one: no picture lies over it
    page.mouse.click(
        box["x"] + (0.5 + 0.42 * lone[0]) * box["width"], box["y"] + (0.5 - 0.42 * lone[1]) * box["height"]
    )
    page.wait_for_selector(".rules tbody tr")


def test_keys_mark_the_frame_that_is_shown_and_the_decision_holds_it(page, studio):
    page.goto(studio.queue("by-key"))
    page.wait_for_selector(".time.exact")
    clip = page.locator(".head code").inner_text()
    page.keyboard.press("[")
    page.keyboard.press(",")  # pauses
    for _ in range(7):
        page.keyboard.press(".")
    at_rest(page)
    first = shown_number(page)
    assert first == frame(page) == 7
    page.keyboard.press("i")
    page.evaluate(
        "() => document.querySelector('.time').dispatchEvent(new PointerEvent('pointerdown', {clientX: 1e5}))"
    )
    for _ in range(3):
        page.keyboard.press(",")
    at_rest(page)
    last = shown_number(page)
    assert last == FRAMES - 4
    page.keyboard.press("o")
    page.keyboard.press("a")
    page.wait_for_function(
        "clip => ![undefined, clip].includes(document.querySelector('.head code')?.innerText)", arg=clip
    )
    page.wait_for_function("() => /1 accepted/.test(document.querySelector('.beside').innerText)")
    (decision,) = get(page, "/runs/films/review/by-key/decisions")["decisions"]
    assert (decision["clip_id"], decision["in_frame"], decision["out_frame"]) == (clip, first, last + 1)
    page.keyboard.press("u")
    page.wait_for_function("clip => document.querySelector('.head code')?.innerText == clip", arg=clip)
    assert "you: accept" in page.locator(".head").inner_text()


def test_a_lost_connection_loses_no_decision_and_repeats_none(page, studio):
    page.goto(studio.queue("offline"))
    page.wait_for_selector(".time.exact")
    page.context.set_offline(True)
    page.keyboard.press("Shift+Digit2")
    page.wait_for_function("() => /wait/.test(document.getElementById('said').innerText)")
    page.keyboard.press("a")
    page.wait_for_function("() => /2 waiting to be sent/.test(document.querySelector('.beside').innerText)")
    page.context.set_offline(False)
    page.wait_for_function("() => /1 accepted.*1 rejected/s.test(document.querySelector('.beside').innerText)")
    found = get(page, "/runs/films/review/offline/decisions")
    assert found["total"] == 2 and sorted(one["verdict"] for one in found["decisions"]) == ["accept", "reject"]
    assert next(one for one in found["decisions"] if one["verdict"] == "reject")["reasons"] == ["light"]


def test_out_before_in_is_refused_with_a_sentence_and_markup_in_a_caption_is_text(page, studio):
    page.goto(studio.queue("captions"))
    page.wait_for_selector(".time.exact")
    page.locator(".time").focus()
    page.keyboard.press("]")
    page.keyboard.press("i")
    page.keyboard.press("[")
    page.keyboard.press(",")
    for _ in range(3):
        page.keyboard.press(",")
    page.keyboard.press("o")
    page.keyboard.press("a")
    page.wait_for_function("() => /lies before the in point/.test(document.getElementById('said').innerText)")
    page.keyboard.press("x")
    page.keyboard.press("e")
    page.get_by_label("subject").fill(NAME)
    page.wait_for_function("text => document.querySelector('.captions blockquote').innerText.includes(text)", arg=NAME)
    page.keyboard.press("Escape")
    clip = page.locator(".head code").inner_text()
    page.keyboard.press("a")
    page.wait_for_function("() => /1 accepted/.test(document.querySelector('.beside').innerText)")
    assert get(page, f"/runs/films/review/captions/items/{clip}")["caption"]["fields"]["subject"] == NAME
    assert page.evaluate("() => window.bad") is None


def test_a_caption_that_is_too_long_stays_where_it_was_typed_with_a_sentence(page, studio):
    page.goto(studio.queue("long"))
    page.wait_for_selector(".time.exact")
    page.locator("#caption-subject").fill("word " * 2_000)
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    page.wait_for_function("() => /has 10,000 characters/.test(document.getElementById('said').innerText)")
    assert len(page.locator("#caption-subject").input_value()) == 10_000
    assert get(page, "/runs/films/review/long/decisions")["total"] == 0


def test_a_film_that_does_not_come_is_told_and_passed_over_by_key(page, studio):
    clips = list(studio.films)[:2]
    page.route(f"**/clips/{clips[0]}/proxy", lambda route: route.fulfill(status=404, body="{}"))
    page.goto(studio.queue("gone", clips))
    page.wait_for_function("() => /cannot be played/.test(document.getElementById('said').innerText)")
    page.keyboard.press("a")
    page.keyboard.press("s")
    page.wait_for_function("clip => document.querySelector('.head code').innerText == clip", arg=clips[1])
    page.wait_for_selector(".time.exact")
    assert get(page, "/runs/films/review/gone/decisions")["total"] == 0


def test_fingers_have_a_button_for_what_keys_do_to_the_film(page, studio):
    page.goto(studio.queue("fingers"))
    page.wait_for_selector(".time.exact")
    page.get_by_role("button", name="play or pause").click()
    at_rest(page)
    before = frame(page)
    page.get_by_role("button", name="a frame on").click()
    at_rest(page)
    assert frame(page) == before + 1 and shown_number(page) == before + 1
    page.get_by_role("button", name="in: this frame is the first").click()
    assert f"in {before + 1}" in page.locator(".where").inner_text()


def test_pairs_are_blind_and_a_key_is_an_answer(page, studio):
    folder = f"{studio.folder}/samples"
    page.goto("/compare")
    for label, text in (("Name", "tuned"), ("First model", "model-red"), ("Second model", "model-blue")):
        page.get_by_label(label).fill(text)
    for at, side in enumerate("ab"):
        page.get_by_label("Its folder of videos").nth(at).fill(f"{folder}/{side}")
    page.get_by_role("button", name="Begin").click()
    page.wait_for_selector(".panes video")
    assert not re.search("model-red|model-blue", page.locator("main").inner_html())
    left = page.locator("main .muted").first.inner_text()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("left => document.querySelector('main .line .muted').innerText != left", arg=left)
    assert get(page, "/compare/tuned")["votes"] == 1
    page.keyboard.press("u")
    page.wait_for_function("left => document.querySelector('main .line .muted').innerText == left", arg=left)
    page.get_by_role("link", name="Results").click()
    page.wait_for_selector("tbody tr")
    assert page.locator("tbody tr").count() == 4


@pytest.mark.parametrize("path", [f"/look/{NAME}", f"/look/films?tab=clips&where={NAME}=1", f"/review/films/{NAME}"])
def test_a_name_that_is_a_script_is_a_sentence(page, path):
    page.goto(path)
    page.wait_for_selector("[role=alert]")
    assert page.evaluate("() => window.bad") is None and page.locator("main img[src=x]").count() == 0
