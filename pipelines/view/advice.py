"""Which rules cost most, and what loosening each would bring: counted from the stored signals, no video is opened."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rushes.curation import recipe as recipes
from rushes.curation import rescue, rules
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe, RecipeError
from rushes.pipelines.view.clips import quoted
from rushes.pipelines.view.tables import records, schema_of
from rushes.pipelines.view.words import hours, needs

RULES_NAMED = 2
SIDES = "coalesce(crop_width, width), coalesce(crop_height, height)"
#: Columns of which a clip's crop leaves something out, in SQL.
CROPPED = {
    "border_frac": f"CASE WHEN contains(crop_for, '{rescue.BORDER}') THEN 0 ELSE border_frac END",
    "text_score": f"CASE WHEN contains(crop_for, '{rescue.TEXT}') THEN 0 ELSE text_score END",
    "size": f"least({SIDES})",
    "aspect": f"greatest({SIDES}) / least({SIDES})::DOUBLE",
}
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
    (some,) = records(run, "SELECT count(rejected_by) AS n FROM {clips}")
    if not some["n"]:
        return []
    alone, values = _alone(run, recipe)
    rejected = f"(SELECT *, {alone} AS alone FROM {{clips}} WHERE rejected_by IS NOT NULL)"
    counted = records(
        run,
        f"SELECT rejected_by, count(*) AS n, count(*) FILTER (alone) AS alone FROM {rejected} GROUP BY rejected_by",
        values,
    )
    active = {rule.key: (rule, threshold) for rule, threshold in rules.active(recipe)}
    counts = {row["rejected_by"]: row["n"] for row in counted}
    cost = {row["rejected_by"]: row["alone"] for row in counted if row["rejected_by"] in active}
    cost |= {key: counts[key] for key in SWITCHES if key in counts}

    def change(key: str, value: str, where: str, more: list[Any]) -> Change:
        (row,) = records(
            run,
            f"""SELECT count(*) AS n, coalesce(sum(duration_s), 0) AS seconds, count(*) - count(aesthetic) AS unseen
                FROM {rejected} WHERE rejected_by = ? AND {where}""",
            [*values, key, *more],
        )
        return Change(f"{key}={value}", row["n"], row["seconds"], 0 if key in SWITCHES else row["unseen"])

    found = []
    for key in sorted(cost, key=lambda key: (-cost[key], -counts[key]))[:RULES_NAMED]:
        if key in SWITCHES:
            changes = [change(key, SWITCHES[key], "true", [])]
        else:
            rule, threshold = active[key]
            middle = records(
                run,
                f"SELECT median({_value(rule)}) AS v FROM {rejected} WHERE rejected_by = ? AND alone",
                [*values, key],
            )[0]["v"]
            half = _half(middle, recipe, rule, threshold)
            loose = [] if half is None else [change(key, f"{half:g}", f"alone AND {_passes(rule)}", [half])]
            off = change(key, "null", "alone", [])
            changes = [*loose, off] if [one.clips for one in loose] != [off.clips] else loose
        found.append(Advice(key, needs(recipe, key), counts[key], tuple(changes)))
    return found


def _alone(run: Run, recipe: Recipe) -> tuple[str, list[Any]]:
    """SQL and its parameters: whether a clip fails one rule only; what models have yet to say counts as passed."""
    schema, terms, values = schema_of(run, "clips"), ["0"], []
    for rule, threshold in rules.active(recipe):
        if rule.column not in schema.names and rule.column not in rules.DERIVED:
            raise RecipeError(
                f"A rule asks for the column '{rule.column}', which no meter of {run.root} wrote: curate it again."
            )
        unseen = " AND aesthetic IS NOT NULL" if rule.phase == "look" else ""
        terms.append(f"(NOT {_passes(rule)}{unseen})::INT")
        values.append(float(threshold))
    return f"({' + '.join(terms)}) = 1", values


def _value(rule: rules.Rule) -> str:
    """A rule's column in SQL, as it is judged (`rules.judged`); null where it is no finite number.

    isnan is never true of a Parquet column: its statistics leave NaN out, and DuckDB 2.0 believes them.
    """
    column = f"({CROPPED.get(rule.column, quoted(rule.column))})::DOUBLE"
    return f"CASE WHEN isfinite({column}) THEN {column} END"


def _passes(rule: rules.Rule) -> str:
    """SQL with the threshold as its parameter: a null never passes."""
    return f"coalesce({_value(rule)} {rule.compare} ?, false)"


def _half(middle: float | None, recipe: Recipe, rule: rules.Rule, threshold: float) -> float | None:
    """A threshold at which half of the clips pass whose values have this median, rounded to the loose side.

    None where there is no value, or a recipe may not have it.
    """
    if middle is None:
        return None
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
