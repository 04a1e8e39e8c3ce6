"""Which rules cost most, and what loosening each would bring: counted from the stored signals, no video is opened."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation import recipe as recipes
from rushes.curation import rules
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe, RecipeError
from rushes.pipelines.view.words import hours, needs

RULES_NAMED = 2
DIGITS = 3  # significant digits of a threshold that is proposed
#: Rules of the content stage and the value that switches each off; what they reject passes all rules before them.
SWITCHES = {
    "scenes.clips_per_source": "null",
    "content.against": "[]",
    "content.copy_threshold": "null",
    "content.semantic_threshold": "null",
    "content.keep": "1",
}


@dataclass(frozen=True)
class Change:
    """A looser value of a recipe's key, and the clips that pass every rule with it and did not before.

    unseen: of these, clips that no model has looked at yet; `rushes curate` would look at them.
    """

    setting: str  # KEY=VALUE, as --set takes it
    clips: int
    seconds: float
    unseen: int


@dataclass(frozen=True)
class Advice:
    """A rule that costs much: what it asks, how many clips it rejected, what a looser value and none would bring."""

    rule: str
    needs: str
    rejected: int
    changes: tuple[Change, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def advise(run: Run, recipe: Recipe) -> list[Advice]:
    """The rules that cost a run most, costliest first; those that nobody can loosen are left out.

    What a rule costs are the clips that fail it and no other: loosening it brings those and nobody else. The looser
    value is the one at which half of them pass. Duplicates and the sampling come after that and are not foreseen.
    """
    if not len(run.table("clips", ["rejected_by"])["rejected_by"].drop_null()):
        return []
    table = _rejected(run, recipe)
    rejected_by = table["rejected_by"].to_numpy(zero_copy_only=False)
    counts = Counter(rejected_by)
    active = {rule.key: (rule, threshold) for rule, threshold in rules.active(recipe)}
    unseen = np.asarray(table["aesthetic"].is_null())
    alone = _alone(table, recipe, unseen)
    seconds = rules.column(table, "duration_s")
    cost = {key: int(alone[rejected_by == key].sum()) for key in active if counts[key]}
    cost |= {key: counts[key] for key in SWITCHES if counts[key]}

    def change(key: str, value: str, passed: np.ndarray) -> Change:
        late = passed & unseen & (key not in SWITCHES)
        return Change(f"{key}={value}", int(passed.sum()), float(seconds[passed].sum()), int(late.sum()))

    found = []
    for key in sorted(cost, key=lambda key: (-cost[key], -counts[key]))[:RULES_NAMED]:
        mine = rejected_by == key
        if key in SWITCHES:
            changes = [change(key, SWITCHES[key], mine)]
        else:
            mine &= alone
            half = _half(table.filter(pa.array(mine)), recipe, *active[key])
            loose = [] if half is None else [change(key, f"{half:g}", mine & _passes(table, active[key][0], half))]
            off = change(key, "null", mine)
            changes = [*loose, off] if [one.clips for one in loose] != [off.clips] else loose
        found.append(Advice(key, needs(recipe, key), counts[key], tuple(changes)))
    return found


def _rejected(run: Run, recipe: Recipe) -> pa.Table:
    """The clips that were rejected, with the columns that rules ask for."""
    asked = {rule.column for rule, _ in rules.active(recipe)} - set(rules.DERIVED)
    crop = {"width", "height", "crop_width", "crop_height", "crop_for"}
    columns = sorted(asked | crop | {"rejected_by", "duration_s", "aesthetic"})
    table = run.table("clips", columns)
    return table.filter(pc.is_valid(table["rejected_by"]))


def _alone(table: pa.Table, recipe: Recipe, unseen: np.ndarray) -> np.ndarray:
    """bool [N]: which clips fail one rule only; what models have yet to say counts as passed."""
    fails = np.zeros(table.num_rows, np.int32)
    for rule, threshold in rules.active(recipe):
        fails += ~_passes(table, rule, threshold) & ~(unseen & (rule.phase == "look"))
    return fails == 1


def _passes(table: pa.Table, rule: rules.Rule, threshold: float) -> np.ndarray:
    return rules.COMPARE[rule.compare](rules.judged(table, rule.column), threshold)


def _half(lost: pa.Table, recipe: Recipe, rule: rules.Rule, threshold: float) -> float | None:
    """The threshold at which half of the clips pass, rounded to the loose side; None where a recipe may not have it."""
    values = rules.column(lost, rule.column)
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    middle = float(np.median(values))
    unit = 10.0 ** (math.floor(math.log10(abs(middle))) + 1 - DIGITS) if middle else 10.0**-DIGITS
    down = ">" in rule.compare
    half = (math.floor(middle / unit) if down else math.ceil(middle / unit)) * unit
    if len(rule.compare) == 1 and half == middle:
        half += -unit if down else unit
    half = float(f"{half:.{DIGITS}g}")
    try:
        recipes.build(recipe.model_dump(mode="json"), [f"{rule.key}={half:g}"])
    except RecipeError:
        return None
    return None if half == threshold else half


def sentences(found: list[Advice], root: str) -> list[str]:
    """The advice in words, a line per rule, and a last one with the command that tries it."""
    lines = []
    for advice in found:
        told = [
            f"{change.setting.partition('=')[2].replace('null', 'off')} brings {change.clips:,} "
            f"({hours(change.seconds)})" + (f", {change.unseen:,} of them not looked at yet" if change.unseen else "")
            for change in advice.changes
            if change.clips
        ]
        more = "; ".join(told) or "loosening it alone brings none, they fail other rules too"
        lines.append(f"{advice.rule} ({advice.needs}) rejected {advice.rejected:,}: {more}")
    changes = [change for advice in found for change in advice.changes if change.clips]
    if changes:
        later = " (models have yet to look at some: `rushes curate` with it)" if changes[0].unseen else ""
        lines.append(f"To try one: rushes judge {root} --set {changes[0].setting} --dry-run{later}")
    return lines
