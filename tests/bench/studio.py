"""The studio over a run of a million clips: the first page, and a threshold that is moved, in a real browser.

    python -m tests.bench.studio [--clips 1000000] [--moves 20] [--run FOLDER]

The service and Chromium share the machine. `drawn` is from the key to the end of the drawing, `answered` the service's
part of it; `first page` is a browser's first visit after the service's first (which reads the columns).
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
REST_MS = 400  # between two moves: pictures of the one before are loaded


def _browser(address: str, name: str, moves: int) -> dict[str, object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{address}/look")  # the browser itself is warm
        began = time.perf_counter()
        page.goto(f"{address}/look/{name}")
        page.wait_for_selector(".big")
        first = time.perf_counter() - began
        page.get_by_role("slider", name="vmaf motion at least").focus()
        page.wait_for_timeout(1_000)
        drawn = []
        for _ in range(moves):
            page.evaluate(MOVE)
            page.keyboard.press("ArrowRight")
            drawn.append(page.evaluate("() => window.drawn"))
            page.wait_for_timeout(REST_MS)
        chromium.close()
    return {"first_page_s": round(first, 2), "drawn_ms": _spread(drawn)}


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
            began = time.perf_counter()
            urllib.request.urlopen(f"{address}/api/v1/runs/{run.name}/board").read()
            cold = round(time.perf_counter() - began, 2)
            found = {"cold_s": cold, "answered_ms": _answered(address, run.name, chosen.moves)}
            found |= _browser(address, run.name, chosen.moves)
            print(json.dumps(found | {"load": round(os.getloadavg()[0], 1)}))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
