"""The one table of `make accuracy`, printed and written into docs/accuracy.md; confusion matrices as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "accuracy.md"
IMAGES = ROOT / "docs" / "images"
BEGIN, END = "<!-- accuracy: begin -->", "<!-- accuracy: end -->"
HEAD = ("signal", "figure", "asked", "measured", "n", "beside", "its value")
CELL, MARGIN = 44, 150  # of a confusion picture, drawing units


@dataclass(frozen=True)
class Row:
    """One figure. asked: as people write it (>= 0.98), "" where nothing is; n: on how many things it was measured.

    beside, theirs: the tool that a user would pick otherwise, and its value on the same files.
    """

    signal: str
    figure: str
    value: float | str | None
    asked: str = ""
    n: int | str = ""
    beside: str = ""
    theirs: float | str | None = None

    def cells(self) -> tuple[str, ...]:
        return (
            self.signal, self.figure, self.asked, f"**{shown(self.value)}**", str(self.n), self.beside,
            shown(self.theirs) if self.beside else "",
        )  # fmt: skip


def shown(value: float | str | None) -> str:
    if value is None:
        return "not measured"
    return value if isinstance(value, str) else f"{value:.3f}"


def lines(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A Markdown table."""
    return [_line(HEAD), _line(("---",) * len(HEAD)), *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write(rows: Sequence[Row], order: Sequence[str], page: Path = PAGE) -> None:
    """Put the rows between the markers of the page: they replace those of their signals, others stay."""
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{page} has no markers {BEGIN} and {END}: put them where the table goes")
    before, rest = text.split(BEGIN, 1)
    old, after = rest.split(END, 1)
    cells_of = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in old.splitlines() if "|" in line]
    kept = cells_of[2:]  # behind the head and its rule
    fresh = {row.signal for row in rows}
    cells = [row for row in kept if row[0] not in fresh] + [row.cells() for row in rows]
    place = {signal: number for number, signal in enumerate(order)}
    cells.sort(key=lambda row: place.get(row[0], len(place)))
    page.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines(cells)) + f"\n\n{END}{after}", encoding="utf-8")


def confusion(name: str, classes: Sequence[str], truth: Sequence[str], told: Sequence[str]) -> Path:
    """Draw who was taken for whom as docs/images/NAME.svg: rows are the truth, columns what was told."""
    others = [label for label in dict.fromkeys(told) if label not in classes]
    columns = [*classes, *others]
    counts = np.zeros((len(classes), len(columns)), int)
    for a, b in zip(truth, told, strict=True):
        counts[list(classes).index(a), columns.index(b)] += 1
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    width, height = MARGIN + CELL * len(columns) + 10, MARGIN + CELL * len(classes) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{width}" height="{height}" fill="#fff"/>'
    ]
    for i, label in enumerate(columns):
        x = MARGIN + CELL * i + CELL / 2 + 4
        parts.append(f'<text x="{x}" y="{MARGIN - 8}" transform="rotate(-60 {x} {MARGIN - 8})">{label}</text>')
    for j, label in enumerate(classes):
        y = MARGIN + CELL * j
        parts.append(f'<text x="{MARGIN - 8}" y="{y + CELL / 2 + 4}" text-anchor="end">{label}</text>')
        for i in range(len(columns)):
            share, x = shares[j, i], MARGIN + CELL * i
            hue = "#2166ac" if j == i else "#b2182b"
            parts.append(
                f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="{hue}" fill-opacity="{share:.2f}" '
                f'stroke="#ccc"/>'
            )
            if counts[j, i]:
                ink = "#fff" if share > 0.6 else "#222"
                parts.append(
                    f'<text x="{x + CELL / 2}" y="{y + CELL / 2 + 4}" text-anchor="middle" fill="{ink}">'
                    f"{counts[j, i]}</text>"
                )
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / f"{name}.svg"
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")
    return path
