"""Thresholds applied to columns: kept, rejected_by, and the funnel. No video is opened here.

A rule is named by the recipe key that moves it: whoever reads `rejected_by = motion.vmaf_min` knows what to set.
Rules apply in the order of RULES; `rejected_by` is the first that fails. A null fails the rule that needs it: what
could not be measured cannot be vouched for, and the clip's `notes` say why it is null.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation import manifest, rescue, signals
from rushes.curation.nearest import meant
from rushes.curation.recipe import Recipe, RecipeError
from rushes.curation.signals import RULES, Rule

Column = np.ndarray
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt,
}  # fmt: skip


#: Columns that rules may name and that are worked out from width and height.
DERIVED = signals.DERIVED
LOOK_COLUMNS = tuple(signals.schema("look").names)
BY_KEY = {rule.key: rule for rule in RULES}
#: Rules without a threshold column, applied after RULES by the content stage and by the cutting.
LATER_RULES = tuple(rule.key for rule in signals.LATE_RULES)


def active(recipe: Recipe, phase: str | None = None) -> list[tuple[Rule, float]]:
    """The rules that this recipe applies, in order, with their thresholds.

    Its own `rules` come after those of the decode and before those of the models: what they reject is not looked at.
    """
    found: list[tuple[Rule, float]] = []
    for rule in RULES:
        threshold = recipe.get(rule.key)
        if threshold is not None and (rule.switch is None or recipe.get(rule.switch)):
            found.append((rule, threshold))
    for column, bounds in recipe.rules.items():
        phase_of = "look" if column in LOOK_COLUMNS else "analyze"
        if bounds.min is not None:
            found.append((_own(column, "min", ">=", phase_of), bounds.min))
        if bounds.max is not None:
            found.append((_own(column, "max", "<=", phase_of), bounds.max))
    found.sort(key=lambda item: item[0].phase)  # "analyze" before "look"; the sort is stable
    return [(rule, threshold) for rule, threshold in found if phase in (None, rule.phase)]


def _own(column: str, end: str, compare: str, phase: str) -> Rule:
    key = f"rules.{column}.{end}"
    return Rule(key, compare, None, "a rule of your own", column=column, phase=phase)


def check(recipe: Recipe, own: list[str]) -> None:
    """Say before any work what would fail after it: RecipeError for a rule on a column or by a key that is not there.

    own: columns of the recipe's own meters.
    """
    columns = [*manifest.ANALYZED.names, *LOOK_COLUMNS, *own]
    for name in recipe.rules:
        if name not in columns and name not in DERIVED:
            hint = meant(name, [*columns, *DERIVED], "columns")
            raise RecipeError(f"Recipe key 'rules': there is no column '{name}', which no meter writes; {hint}")
    stricter = {f"curriculum.sets.{name}": spec.rules for name, spec in recipe.curriculum.sets.items()}
    for name, keys in (*stricter.items(), ("finetune", recipe.finetune.rules)):
        for key in keys:
            if key not in BY_KEY:
                raise RecipeError(f"{name}.rules has no rule '{key}'; {meant(key, BY_KEY, 'rules')}")
    _not_contradictory(recipe)


def _not_contradictory(recipe: Recipe) -> None:
    """Raises RecipeError where two rules on one column leave no value between them."""
    lower: dict[str, tuple[Rule, float]] = {}
    upper: dict[str, tuple[Rule, float]] = {}
    for rule, threshold in active(recipe):
        side, stricter = (lower, max) if rule.compare in (">=", ">") else (upper, min)
        known = side.get(rule.column)
        if known is None or stricter(threshold, known[1]) == threshold:
            side[rule.column] = (rule, threshold)
    for column in lower.keys() & upper.keys():
        (low, least), (high, most) = lower[column], upper[column]
        strict = low.compare == ">" or high.compare == "<"
        if least > most or (strict and least == most):
            raise RecipeError(
                f"No clip can pass both {low.key}={least:g} and {high.key}={most:g}: {column} would have to be "
                f"{low.compare} {least:g} and {high.compare} {most:g}; lower the first or raise the second."
            )


def column(table: pa.Table, name: str) -> Column:
    """A signal as float64 [N], null as NaN. `size` and `aspect` are derived from width and height, or from the crop's.

    Raises RecipeError with the columns at hand where there is no such signal.
    """
    if name in DERIVED:
        width, height = rescue.size(table)
        short, long = np.fmin(width, height), np.fmax(width, height)
        return short if name == "size" else long / short
    if name not in table.column_names:
        raise RecipeError(
            f"A rule asks for the column '{name}', which no meter writes; columns: {', '.join(table.column_names)}."
        )
    values = table[name]
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        raise RecipeError(f"A rule asks for a number in the column '{name}', which holds {values.type}.")
    return pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False)


def judged(table: pa.Table, name: str) -> Column:
    """`column`, but 0 for what a clip's crop leaves out: its border (border_frac), the text beside it (text_score)."""
    values = column(table, name)
    cause = {"border_frac": rescue.BORDER, "text_score": rescue.TEXT}.get(name)
    if cause is None or "crop_for" not in table.column_names:
        return values
    left_out = pc.fill_null(pc.match_substring(table["crop_for"], cause), False).to_numpy()
    return np.where(left_out, 0.0, values)


def passes(table: pa.Table, key: str, threshold: float) -> np.ndarray:
    """bool [N]: which clips pass the rule `key` at `threshold`; a null never does."""
    rule = BY_KEY[key]
    return COMPARE[rule.compare](judged(table, rule.column), threshold)


def judge(table: pa.Table, recipe: Recipe, phase: str | None = None) -> np.ndarray:
    """First failing rule of every clip: object array [N] of rule keys, None where the clip passes them all.

    A clip that the recipe rescues is judged as it will be cut (`rescue.with_crops`).
    """
    table = rescue.with_crops(table, recipe)
    rejected = np.full(table.num_rows, None, dtype=object)
    open_ = np.ones(table.num_rows, dtype=bool)
    values: dict[str, Column] = {}
    for rule, threshold in active(recipe, phase):
        if rule.phase == "look" and "looked" in table.column_names:
            open_ &= _looked(table, open_, rejected)
        if rule.column not in values:
            values[rule.column] = judged(table, rule.column)
        fails = open_ & ~COMPARE[rule.compare](values[rule.column], threshold)
        rejected[fails] = rule.key
        open_ &= ~fails
    return rejected


def _looked(table: pa.Table, open_: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """bool [N]: all but the open clips at which models failed: LOOK_FAILED rejects them, it is no fault of theirs."""
    failed = open_ & (column(table, "looked") == 0)
    rejected[failed] = signals.LOOK_FAILED.key
    return ~failed


def passes_set(table: pa.Table, recipe: Recipe, name: str) -> np.ndarray:
    """bool [N]: which clips pass the stricter rules of the set `name` (the base rules are not applied again)."""
    ok = np.ones(table.num_rows, dtype=bool)
    for key, threshold in recipe.curriculum.sets[name].rules.items():
        if threshold is not None:
            ok &= passes(table, key, threshold)
    return ok


def funnel(rejected_by: pa.ChunkedArray, recipe: Recipe) -> list[dict[str, Any]]:
    """`funnel_rows` of a column of fates."""
    counts = {row["values"]: row["counts"] for row in pc.value_counts(rejected_by).to_pylist()}
    return funnel_rows(counts, len(rejected_by), recipe)


def funnel_rows(counts: dict[str | None, int], clips: int, recipe: Recipe) -> list[dict[str, Any]]:
    """Rows {rule, rejected, remaining} in the rules' order, from the total of `clips` down to what was kept.

    counts: clips rejected by rule (None: not rejected). The rejected of all rows and the last `remaining` add up to
    the number of clips: every clip has one fate.
    """
    order = [rule.key for rule, _ in active(recipe)] + list(LATER_RULES)
    order += sorted(key for key in counts if key is not None and key not in order)
    rows, remaining = [], clips
    rows.append({"rule": "clips", "rejected": 0, "remaining": remaining})
    for key in order:
        remaining -= counts.get(key, 0)
        rows.append({"rule": key, "rejected": counts.get(key, 0), "remaining": remaining})
    return rows
