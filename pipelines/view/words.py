"""How numbers, spans, shares and rules are written, on the terminal and in the report alike."""

from __future__ import annotations

from collections.abc import Sequence

from rushes.curation import rules, signals
from rushes.curation.recipe import Recipe

DIGITS = range(3, 9)  # significant digits tried until a value and its threshold read differently
SECONDS_TO, MINUTES_TO = 120, 2 * 3600  # shorter durations are written in seconds, then in minutes
WHOLE_HOURS_FROM = 100 * 3600


def number(value: float, other: float | None = None) -> str:
    """A value with three significant digits, or as many as it takes to read differently from `other`."""
    for digits in DIGITS:
        text = f"{value:.{digits}g}" if abs(value) < 10 ** (digits - 1) else f"{value:.0f}"
        if other is None or float(text) != other or value == other:
            break
    return text


def span(start_s: float, end_s: float) -> str:
    """Where a clip lies in its source, as 1:02.5–1:10.0."""
    return f"{_clock(start_s)}–{_clock(end_s)}"


def hours(seconds: float) -> str:
    """A duration in the unit that a reader would choose: 12.3 s, 4.5 min, 1,234 h."""
    if seconds < SECONDS_TO:
        return f"{seconds:.1f} s"
    if seconds < MINUTES_TO:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < WHOLE_HOURS_FROM else f"{seconds / 3600:,.0f} h"


def percent(share: float | None) -> str:
    """A share as 12.3 %; three digits are kept below 1 %, where Movie Gen's funnel ends."""
    if share is None:
        return "–"
    return f"{100 * share:.1f} %" if share >= 0.01 or share == 0 else f"{100 * share:.2g} %"


def needs(recipe: Recipe, key: str) -> str:
    """What a rule asks of a clip, e.g. `vmaf_motion > 2`."""
    for rule, threshold in rules.active(recipe):
        if rule.key == key:
            return f"{rule.column} {rule.compare} {threshold:g}"
    for late in signals.LATE_RULES:
        if late.key == key:
            value = None if late.missing else recipe.get(key)
            if isinstance(value, tuple):
                value = ", ".join(value) or None
            if late is signals.DRAW and isinstance(value, float):
                value = percent(value)
            return "off" if value is None and late.missing is None else late.needs.format(value=value)
    return ""


def reason(notes: Sequence[str] | None, column: str) -> str | None:
    """Why `column` is null, from notes written as 'column: reason' (or 'one, other: reason')."""
    for note in notes or ():
        names, colon, why_null = note.partition(":")
        if colon and column in [name.strip() for name in names.split(",")]:
            return why_null.strip()
    return None


def _clock(seconds: float) -> str:
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    clock = f"{minutes // 60}:{minutes % 60:02d}" if minutes >= 60 else str(minutes)
    return f"{clock}:{rest // 10:02d}.{rest % 10}"
