"""What an ablation has shown: a table for the terminal, a picture, a section of the run's report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

from rushes.pipelines.ablate.plan import AblationError

CONFIDENCE = 0.9  # that all intervals of an ablation hold at once
COLOURS = {"pays": "#2f7d4f", "costs": "#b5482f", "nothing seen": "#777777"}
MEANING = {
    "pays": "without the rule the models get worse",
    "costs": "without the rule they get better",
    "nothing seen": "the interval holds 0",
}


@dataclass(frozen=True)
class Change:
    """By how much the loss rises where the rule is left out, %: mean over seeds, and its interval.

    verdict: "pays" where all of the interval is above 0, "costs" where all is below, "nothing seen" otherwise.
    """

    question: str
    validated_on: str
    clips: int
    share: float
    change: float
    low: float
    high: float
    seeds: int

    @property
    def verdict(self) -> str:
        return "pays" if self.low > 0 else "costs" if self.high < 0 else "nothing seen"


def table(changes: Sequence[Change]) -> Any:
    """The changes as a rich table."""
    from rich.table import Table

    made = Table(title="Without the rule, at the same number of clips, the loss rises by", title_justify="left")
    for name, side in (("rule", "left"), ("validated on", "left"), ("clips it costs", "right"), ("change", "right"),
                       (f"{CONFIDENCE:.0%} interval", "right"), ("", "left"), ("verdict", "left")):  # fmt: skip
        made.add_column(name, justify=side)
    reach = max((abs(value) for one in changes for value in (one.low, one.high)), default=1.0) or 1.0
    for one in changes:
        made.add_row(
            one.question, one.validated_on, f"{one.share:.0%}", f"{one.change:+.2f} %",
            f"{one.low:+.2f} to {one.high:+.2f}", _bar(one, reach), one.verdict,
        )  # fmt: skip
    return made


def _bar(one: Change, reach: float, width: int = 21) -> str:
    """The interval as a line of characters around 0."""

    def place(value: float) -> int:
        return round((value / reach + 1) / 2 * (width - 1))

    cells = [" "] * width
    for at in range(place(one.low), place(one.high) + 1):
        cells[at] = "─"
    cells[width // 2] = "│"
    cells[place(one.change)] = "●"
    return "".join(cells)


def picture(changes: Sequence[Change]) -> str:
    """The changes and their intervals as an SVG, for a report."""
    row, left, wide = 26, 260, 360
    reach = max((abs(value) for one in changes for value in (one.low, one.high)), default=1.0) or 1.0

    def x(value: float) -> float:
        return left + wide * (value / reach + 1) / 2

    tall = row * len(changes) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + wide + 150} {tall}" font-family="sans-serif" '
        f'fill="currentColor" font-size="12" role="img" aria-label="What each rule is worth">',
        f'<line x1="{x(0)}" y1="4" x2="{x(0)}" y2="{tall - 24}" stroke="#999"/>',
    ]
    for number, one in enumerate(changes):
        y, colour = row * number + 18, COLOURS[one.verdict]
        low, high, name = x(one.low), x(one.high), escape(f"{one.question} · {one.validated_on}")
        parts += [
            f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{name}</text>',
            f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="3"/>',
            f'<circle cx="{x(one.change):.1f}" cy="{y}" r="5" fill="{colour}"/>',
            f'<text x="{left + wide + 12}" y="{y + 4}" fill="{colour}">{one.change:+.2f} % {one.verdict}</text>',
        ]
    parts.append(
        f'<text x="{x(0)}" y="{tall - 8}" text-anchor="middle">change of the loss without the rule, {CONFIDENCE:.0%} '
        "intervals</text></svg>"
    )
    return "\n".join(parts)


def section(folder: str) -> tuple[str, str]:
    """(title, HTML) for `write_report`: the ablation in `folder`. Raises AblationError where there is none."""
    try:
        told = json.loads((Path(folder) / "ablation.json").read_text(encoding="utf-8"))
        names = {field.name for field in fields(Change)}
        changes = [Change(**{k: v for k, v in one.items() if k in names}) for one in told["changes"]]
        learner, confidence = told["learner"], told["confidence"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AblationError(f"{folder} holds no ablation; name the folder that `rushes ablate` wrote.") from error
    rows = "".join(
        f"<tr><td>{escape(one.question)}</td><td>{escape(one.validated_on)}</td><td>{one.share:.0%}</td>"
        f"<td>{one.change:+.2f} %</td><td>{one.low:+.2f} to {one.high:+.2f}</td><td>{one.seeds}</td>"
        f"<td title='{MEANING[one.verdict]}'>{one.verdict}</td></tr>"
        for one in changes
    )
    heads = ("rule", "validated on", "clips it costs", "change", f"{confidence:.0%} interval", "seeds", "verdict")
    return "What rules are worth", (
        f"<p>Small models (learner <code>{escape(learner)}</code>) are trained with and without each rule, "
        "on as many clips. "
        f"The change is that of their loss without the rule; all intervals hold together.</p>"
        f"<div style='max-width:760px'>{picture(changes)}</div>"
        f"<table><thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead><tbody>{rows}</tbody></table>"
    )
