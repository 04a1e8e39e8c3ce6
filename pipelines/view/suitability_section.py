"""The report's section on the score that people trained: what each hundred decisions brought, and what it goes by."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from rushes.curation import storage
from rushes.curation.finetune.suitability import FILE
from rushes.curation.manifest import Run

WIDE, TALL, MARGIN = 480, 160, 34  # of the drawing, px
WEIGHTS = 6  # signals named, those of most weight
LOWEST = 0.5  # AUC of a score that knows nothing
STYLE = (
    "<style>.gain{width:100%;max-width:480px}.gain polyline{fill:none;stroke:#2a9d68;stroke-width:2}"
    ".gain circle{fill:#2a9d68}.gain text{font-size:10px;fill:currentColor}.gain line{stroke:#8886}</style>"
)


def suitability_section(run: Run) -> tuple[str, str] | None:
    """(title, HTML) of the section; None where no score was trained for the run."""
    try:
        report = json.loads(storage.read_bytes(storage.join(run.root, FILE)))["report"]
        curve = [(row["decisions"], row["auc"]) for row in report["gain"] if row["auc"] is not None]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    said = (
        f"<p>{report['decisions']:,} decisions on {report['sources']:,} sources, {report['accepted']:,} accepted. "
        f"On sources left out the score is wrong {report['error']:.1%} of the time; always the commoner answer: "
        f"{report['error_of_the_commoner']:.1%}. AUC by decisions:</p>"
    )
    weights = ", ".join(f"{escape(name)} {value:+.2f}" for name, value in list(report["weights"].items())[:WEIGHTS])
    return "Suitability", f"{STYLE}{said}{_drawing(curve)}<p>Most weight: {weights}.</p>"


def _drawing(curve: list[tuple[int, float]]) -> str:
    if not curve:
        return ""
    most = max(count for count, _ in curve)

    def place(count: float, auc: float) -> tuple[float, float]:
        height = (max(auc, LOWEST) - LOWEST) / (1 - LOWEST)
        return MARGIN + (WIDE - 2 * MARGIN) * count / most, TALL - MARGIN - (TALL - 2 * MARGIN) * height

    points = [(*place(*one), one) for one in curve]
    parts: list[Any] = []
    for auc in (0.5, 0.75, 1.0):
        _, y = place(0, auc)
        parts.append(f'<line x1="{MARGIN}" x2="{WIDE - MARGIN}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{MARGIN - 4}" y="{y + 3:.1f}" text-anchor="end">{auc:g}</text>')
    parts.append('<polyline points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points) + '"/>')
    for x, y, (count, auc) in points:
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{count:,}: AUC {auc:.3f}</title></circle>')
        parts.append(f'<text x="{x:.1f}" y="{TALL - MARGIN + 14}" text-anchor="middle">{count:,}</text>')
    return (
        f'<svg class="gain" viewBox="0 0 {WIDE} {TALL}" role="img" aria-label="AUC by number of decisions">'
        f"{''.join(parts)}</svg>"
    )
