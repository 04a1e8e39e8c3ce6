"""The studio at length: every room by axe at two widths in two themes, two hundred frames, an hour's pace."""

from __future__ import annotations

import random
import time

import pytest

from tests.pipelines.studio.conftest import FRAMES
from tests.pipelines.studio.test_rooms import at_rest, frame, get, shown_number

pytestmark = pytest.mark.heavy
WAIT = "() => document.querySelector('main').innerText.length > 20 && !document.querySelector('.loading')"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_and_nothing_overlaps(studio, browser, theme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra `dev`").Axe()
    clip = next(iter(studio.films))
    look = ["/look/films", *(f"/look/films?tab={tab}" for tab in ("clips", "signals", "runs", "concepts"))]
    compared = f"/compare/{studio.comparison(f'axe-{theme}-{width}')}"
    paths = ["/", *look, f"/look/films/{clip}", "/review/films", studio.queue(f"axe-{theme}-{width}"), "/compare",
             compared, f"{compared}?tab=results"]  # fmt: skip
    context = browser.new_context(base_url=studio.address, viewport={"width": width, "height": 844}, color_scheme=theme)
    page = context.new_page()
    for path in paths:
        page.goto(path)
        page.wait_for_function(WAIT)
        page.wait_for_load_state("networkidle")
        found = [
            (one["id"], [node["html"][:160] for node in one["nodes"]]) for one in axe.run(page).response["violations"]
        ]
        assert found == [], path
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, path
    context.close()


def test_two_hundred_frames_are_marked_exactly_over_rates(page, studio):
    draws = random.Random(3)
    page.goto(studio.queue("exact"))
    marks, wrong = 0, []
    for _ in range(25):
        page.wait_for_selector(".time.exact")
        clip = page.locator(".head code").inner_text()
        page.keyboard.press(",")  # pauses
        at_rest(page)
        for _ in range(4):
            for key in "io":
                wanted = draws.randrange(1, FRAMES - 1)
                page.evaluate(
                    "share => { const t = document.querySelector('.time'), box = t.getBoundingClientRect();"
                    "t.dispatchEvent(new PointerEvent('pointerdown', {clientX: box.left + share * box.width})); }",
                    (wanted + 0.5) / FRAMES,
                )
                page.keyboard.press(",")
                page.keyboard.press(".")
                at_rest(page)
                page.keyboard.press(key)
                mark = page.locator(".where span").nth(1 if key == "i" else 2).inner_text()
                seen = (int(mark.split()[1]), shown_number(page), frame(page))
                wrong += [] if seen == (wanted, wanted, wanted) else [(clip, key, wanted, seen)]
                marks += 1
        page.keyboard.press("r")
        page.wait_for_function(
            "clip => ![undefined, clip].includes(document.querySelector('.head code')?.innerText)", arg=clip
        )
    assert (marks, wrong) == (200, [])


def test_the_next_clip_plays_at_once_and_an_hour_holds_fifteen_hundred_decisions(page, studio):
    page.goto(studio.queue("pace"))
    page.wait_for_selector(".time.exact")
    began, decisions = time.perf_counter(), 40
    for number in range(decisions):
        clip = page.locator(".head code").inner_text()
        page.keyboard.press("r" if number % 2 else "a")
        page.wait_for_function(
            "clip => ![undefined, clip].includes(document.querySelector('.head code')?.innerText)", arg=clip
        )
        page.wait_for_function(
            "n => performance.getEntriesByName('next-clip').length > n && "
            "!document.querySelector('.screen video:not(.waiting)').paused", arg=number,
        )  # fmt: skip
    per_hour = 3600 * decisions / (time.perf_counter() - began)
    waits = page.evaluate("() => performance.getEntriesByName('next-clip').slice(1).map((one) => one.duration)")
    waits.sort()
    middle = waits[len(waits) // 2]
    print(f"{per_hour:.0f} decisions an hour; next clip after {middle:.0f} ms (median), {waits[-1]:.0f} ms at most")
    page.wait_for_function("n => document.querySelector('.beside').innerText.includes(n + ' decisions')", arg=decisions)
    assert get(page, "/runs/films/review/pace/decisions?limit=1")["total"] == decisions
    assert per_hour >= 1_500 and middle < 100
