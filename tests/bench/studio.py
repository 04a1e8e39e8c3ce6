"""The studio over a run of a million clips: the first page, and a threshold that is moved, in a real browser.

    python -m tests.bench.studio [--clips 1000000] [--moves 20] [--run FOLDER]

The service and Chromium share the machine. `first_visitor` opens the page of a snapshot that nobody asked for since the
service began: seconds to the first page with its first histogram, and to all of them. `first_page` is the same page for
whoever comes later. `drawn` is from the key to the end of the drawing, `answered` the service's part of it, `switched`
a rule that is switched off or on, as drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.service import _free_port
from tests.pipelines.large_run import make_large_run

#: From the key to the frame that shows the new counts and histograms.
MOVE = """() => { window.drawn = new Promise((done) => {
    let began = 0;
    addEventListener("keydown", (event) => { began = event.timeStamp; }, { once: true, capture: true });
    const seen = new PerformanceObserver((list) => {
        const [mark] = list.getEntriesByName("board-drawn");
        if (mark && began) { seen.disconnect(); done(mark.startTime - began); }
    });
    seen.observe({ type: "mark" });
}); }"""
SWITCHED = ("text score at most", "vmaf motion at least", "aesthetic at least")  # many, some and fewer clips fail it
SWITCHES = 4
REST_MS = 400  # between two moves: pictures of the one before are loaded


def _browser(address: str, name: str, moves: int) -> dict[str, object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{address}/look")  # the browser itself is warm
        times = {}
        for visitor in ("first_visitor_s", "first_page_s"):
            began = time.perf_counter()
            page.goto(f"{address}/look/{name}")
            page.wait_for_selector(".chart:not(.unread) canvas")
            times[visitor] = [round(time.perf_counter() - began, 2)]
            page.wait_for_selector(".summary:not(:has(progress)) .big", timeout=120_000)
            times[visitor].append(round(time.perf_counter() - began, 2))
        page.get_by_role("slider", name="vmaf motion at least").focus()
        page.wait_for_timeout(1_000)
        times["drawn_ms"] = _spread([_drawn(page, "ArrowRight") for _ in range(moves)])
        switched = {}
        for name in SWITCHED:
            page.get_by_role("slider", name=name).focus()
            switched[name] = _spread([_drawn(page, key) for _ in range(SWITCHES) for key in ("Delete", "Backspace")])
        chromium.close()
    return times | {"switched_ms": switched}


def _drawn(page: Any, key: str) -> float:
    """Milliseconds from the key to the picture of what follows from it."""
    page.evaluate(MOVE)
    page.keyboard.press(key)
    drawn = page.evaluate("() => window.drawn")
    page.wait_for_timeout(REST_MS)
    return drawn


def _spread(times: list[float]) -> dict[str, int]:
    p50, p95 = np.percentile(times, [50, 95])
    return {"median": round(float(p50)), "p95": round(float(p95))}


def _answered(address: str, name: str, moves: int) -> dict[str, int]:
    times = []
    for number in range(moves):
        began = time.perf_counter()
        urllib.request.urlopen(f"{address}/api/v1/runs/{name}/board?set=motion.vmaf_min={2.113 + number / 50}").read()
        times.append(1000 * (time.perf_counter() - began))
    return _spread(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--run", type=Path, help="A run that is there already.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = chosen.run or Path(folder) / "runs" / "large"
        if chosen.run is None:
            make_large_run(run, chosen.clips)
        port = _free_port()
        command = [sys.executable, "-m", "rushes.pipelines.cli", "serve", str(run.parent), "--port", str(port)]
        server = subprocess.Popen([*command, "--state", f"{folder}/state"], stdout=subprocess.DEVNULL)
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{address}/api/v1/health")
                    break
                except OSError:
                    time.sleep(0.1)
            found = _browser(address, run.name, chosen.moves)
            found |= {"answered_ms": _answered(address, run.name, chosen.moves)}
            print(json.dumps(found | {"load": round(os.getloadavg()[0], 1)}))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
