"""The pictures of docs/studio.md, of a served demo run.

    python -m tests.pipelines.studio.pictures ADDRESS QUEUE COMPARISON

ADDRESS: of a service whose runs hold `demo` (`rushes demo`); QUEUE: one of its review queues; COMPARISON: by name, its
folders below a root of the service.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "images"
COLOURS = 256  # of a picture's palette
WITH_TEXT = "?where=kept=true&sort=text_score&descending=true"
ONCE = ("clip", "concepts")  # shown in one theme and width
WIDE, NARROW = (1280, 860), (390, 844)


def main(address: str, queue: str, comparison: str) -> None:
    look = "/look/demo?set=motion.vmaf_min%3D3.6&focus=motion.vmaf_min"
    rooms = {
        "look": look,
        "concepts": "/look/demo?tab=concepts",
        "review": f"/review/demo/{queue}",
        "compare": f"/compare/{comparison}",
    }
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        clip = browser.new_page().request.get(f"{address}/api/v1/runs/demo/clips{WITH_TEXT}").json()["rows"][0]
        rooms["clip"] = f"/look/demo/{clip['clip_id']}"
        for room, path in rooms.items():
            for theme in ("light", "dark"):
                for name, (width, height) in {"": WIDE, "-phone": NARROW}.items():
                    if room in ONCE and (theme, name) != ("light", ""):
                        continue
                    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
                    page = context.new_page()
                    page.goto(address + path)
                    page.wait_for_load_state("networkidle")
                    page.wait_for_timeout(600)
                    _small(page.screenshot(full_page=room in ONCE)).save(
                        FOLDER / f"studio-{room}-{theme}{name}.png", optimize=True
                    )
                    context.close()
        browser.close()


def _small(png: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    return picture.quantize(COLOURS, method=Image.Quantize.MEDIANCUT)


if __name__ == "__main__":
    main(*sys.argv[1:])
