"""The report's section on concepts: a picture of each, its words, and its size before and after the sampling."""

from __future__ import annotations

import base64
from html import escape

import cv2
import numpy as np

from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe
from rushes.pipelines.view.concepts import Concept, concepts
from rushes.pipelines.view.stills import stills_of

SHOWN = 24  # concepts drawn, the largest
THUMB_PX, JPEG_QUALITY = 96, 70
STYLE = (
    "<style>.concepts{display:grid;grid-template-columns:auto minmax(0,1fr);gap:.5rem .8rem;align-items:center}"
    ".concepts img,.concepts i{width:96px;height:54px;object-fit:cover;background:#8883;display:block}"
    ".concepts b{display:block;height:7px;margin-top:2px;background:#8886;min-width:1px}"
    ".concepts b.kept{background:#2a9d68}</style>"
)


def concept_section(run: Run, recipe: Recipe) -> tuple[str, str] | None:
    """(title, HTML) of the section, None where no concept was measured; pictures are brought along as data URIs."""
    found = concepts(run)
    if not any(one.clips for one in found):
        return None
    shown = [one for one in found if one.clips][:SHOWN]
    stills = stills_of(run, recipe, [one.example for one in shown if one.example])
    largest = max(one.clips for one in shown)
    rows = "".join(_row(one, stills.get(one.example or "", []), largest) for one in shown)
    rest = len([one for one in found if one.clips]) - len(shown)
    more = f"<p>{rest:,} smaller ones: <code>rushes concepts {escape(run.root)}</code></p>" if rest > 0 else ""
    said = (
        "<p>Clips of each concept before the sampling (grey) and after it (green): large concepts keep in proportion "
        "to the root of their size.</p>"
    )
    return "Concepts", f'{STYLE}{said}<div class="concepts">{rows}</div>{more}'


def _row(one: Concept, stills: list[bytes], largest: int) -> str:
    words = escape(one.title)
    picture = f'<img alt="" src="{_thumb(stills[len(stills) // 2])}">' if stills else "<i></i>"
    bars = "".join(
        f'<b{css} style="width:{100 * count / largest:.1f}%"></b>'
        for css, count in (("", one.clips), (' class="kept"', one.sampled))
    )
    return f"{picture}<div>{words}: {one.clips:,} clips, {one.sampled:,} kept{bars}</div>"


def _thumb(jpeg: bytes) -> str:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    scale = THUMB_PX / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture
    data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
