"""What other thresholds would keep, counted over a whole snapshot while somebody moves them.

Every clip holds a bit for each rule that it fails. A threshold that is moved changes the bits of the clips whose values
lie between where it was and where it is, and every count by those clips alone: the cost of a step is one comparison a
clip, and sums over the few that change. Counts of clips that pass the rules are exact; copies, the draw and what failed
later are taken as published.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from rushes.curation import recipe as recipes
from rushes.curation import rules, signals
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe
from rushes.curation.signals import LOOK_FAILED, Rule
from rushes.pipelines.view.bins import BLOCK, Bins, each
from rushes.pipelines.view.clip_columns import LATE, ClipColumns, stored_of
from rushes.pipelines.view.clips import QueryError
from rushes.pipelines.view.counting import Counter, Parts, Sums, fails
from rushes.pipelines.view.tables import recipe_of, resolved_of, schema_of

READ_AT_ONCE = 4  # columns; more of them take longer to be shown, fewer open every file more often
STATES_HELD = 2  # judgements of all clips that are kept beside the published one: somebody's thresholds each
RECROPPED_MOST = 20_000  # clips whose crop is worked out anew while a threshold is moved


@dataclass
class State:
    """Every clip against thresholds (None: off), in the order of the rules."""

    thresholds: tuple[float | None, ...]
    failed: np.ndarray  # [N]: a bit for each rule that the clip fails
    sums: Sums


class WhatIf:
    """A snapshot's clips and how they are judged, once `read`. Raises QueryError where there are too many.

    bins: the columns that were read so far. progress: the share that was, 0 to 1.
    """

    def __init__(self, run: Run) -> None:
        self.recipe = recipe_of(run)
        self.resolved = resolved_of(run)
        schema = schema_of(run, "clips")
        self.rules = _movable(self.recipe, schema)
        self.held = ClipColumns(run, self.recipe, schema, self.rules)
        self.rows = self.held.rows
        decoded = sum(rule.phase != "look" for rule in self.rules)
        self.order = tuple(rule.key for rule in self.rules)
        self.order = (*self.order[:decoded], LOOK_FAILED.key, *self.order[decoded:])
        self._column = [*(rule.column for rule in self.rules)]
        self._column.insert(decoded, "")
        self._compare = [*(rule.compare for rule in self.rules)]
        self._compare.insert(decoded, ">")
        self._decoded = decoded
        self._bit = np.uint64 if len(self.order) > 32 else np.uint32
        self.columns = list(dict.fromkeys(rule.column for rule in self.rules))
        self.bins = Bins(self.rows, self.columns)
        self.values: dict[str, np.ndarray] = {}
        self.progress = 0.0
        self._states: list[State] = []
        self._lock = threading.RLock()
        self._other: WhatIf | None = None
        self._crops = self._published_crops

    def read(self, first: str | None = None) -> WhatIf:
        """Read all columns, `first` first, and judge the clips as published."""
        for progress in self.reading(first):
            self.progress = progress
        return self

    def reading(self, first: str | None = None) -> Iterator[float]:
        """As `read`, in steps: the share that was read. After the first, `first` is in bins; at 1, all can be asked.

        first: a column; None: that of the first rule.
        """
        held = self.held
        held.read_verdicts()
        yield from self._read_columns(first)
        held.read_facts()
        late = np.where(held.rejected <= len(LATE), held.rejected, 0)
        self._counter = Counter(
            self._bit, self._bit((1 << self._decoded) - 1), self._column_places(), len(LATE), self.bins,
            self._parts(), late, held.looked, held.ms, np.zeros(self.rows, bool),
        )  # fmt: skip
        self.published = self._judge(self.thresholds(self.recipe))
        self._counter.was = self.published.failed == 0
        self.published.sums.odd[0] = 0
        yield 1.0
        held.read_places()

    def _read_columns(self, first: str | None) -> Iterator[float]:
        rest = [name for name in self.held.names if name != first]
        steps = [rest[at : at + READ_AT_ONCE] for at in range(0, len(rest), READ_AT_ONCE)]
        for done, names in enumerate([[first] if first in self.held.names else rest[:1], *steps]):
            self.held.read(names)
            self.values = dict(self.held.values)
            new = [name for name in self.columns if name in self.values and name not in self.bins.binned]
            for name in new:
                self._bin(name)
            yield (done + 1) / (len(steps) + 2)

    def _bin(self, column: str) -> None:
        lines = [threshold for rule, threshold in rules.active(self.recipe) if rule.column == column]
        self.bins.put_all(column, self.values[column], lines)

    def _column_places(self) -> np.ndarray:
        return np.array([self.columns.index(name) if name else 0 for name in self._column])

    # ---- recipes -------------------------------------------------------------------------------------------------

    def recipe_with(self, overrides: Sequence[str]) -> Recipe:
        """The run's recipe with thresholds moved (KEY=VALUE, null: off). Raises RecipeError or QueryError."""
        keys = {rule.key for rule in self.rules}
        for override in overrides:
            if override.partition("=")[0] not in keys:
                raise QueryError(f"'{override[:100]}' moves no threshold of this run; thresholds: {', '.join(keys)}.")
        return recipes.build(self.resolved, list(overrides))

    def thresholds(self, recipe: Recipe) -> tuple[float | None, ...]:
        """Those of `order`."""
        on = {rule.key: threshold for rule, threshold in rules.active(recipe)} | {LOOK_FAILED.key: 0}
        return tuple(on.get(key) for key in self.order)

    @contextmanager
    def judged(self, recipe: Recipe) -> Iterator[State]:
        """Every clip against the recipe's thresholds; the state is the caller's until it is left."""
        wanted = self.thresholds(recipe)
        with self._lock:
            yield self.published if wanted == self.published.thresholds else self._state(wanted)

    def as_cut_by(self, recipe: Recipe) -> tuple[WhatIf, int]:
        """The clips as this recipe cuts them, and how many of them are counted as published all the same.

        Where text is left out of the picture, a clip's crop follows visual.text_max and visual.aspect_max.
        """
        wanted = (recipe.visual.text_max, recipe.visual.aspect_max)
        if not len(self.held.texted) or wanted == self._crops:
            return self, 0
        places = self.held.recropped(recipe, *self._crops)
        if not len(places):
            return self, 0
        if len(places) > RECROPPED_MOST:
            return self, len(places)
        with self._lock:
            if self._other is None or self._other._crops != wanted:
                self._other = self._recropped(recipe, places)
            return self._other, 0

    def _recropped(self, recipe: Recipe, places: np.ndarray) -> WhatIf:
        other = copy.copy(self)
        other.values = dict(self.values)
        other.bins = self.bins.copy()
        for name, values in self.held.values_as_cut(recipe, places).items():
            other.values[name] = self.values[name].copy()
            other.values[name][places] = values
            if name in self.columns:
                edges = self.bins.binned[name].edges
                other.bins.put(name, other.values[name], edges[0], edges[-1])
        other._counter = replace(self._counter, bins=other.bins, parts=other._parts())
        other._crops = (recipe.visual.text_max, recipe.visual.aspect_max)
        other._states, other._lock, other._other = [], threading.RLock(), None
        return other

    # ---- judging -------------------------------------------------------------------------------------------------

    def _state(self, wanted: tuple[float | None, ...]) -> State:
        """The state for these thresholds: the nearest one, moved there."""
        known = [*self._states, self.published] if self._crops == self._published_crops else self._states
        near = min(known, key=lambda state: self._away(state.thresholds, wanted), default=None)
        if near is None or sum(a != b for a, b in zip(near.thresholds, wanted, strict=True)) > len(self.order) // 2:
            near = self._judge(wanted)
        elif near is self.published:
            near = State(near.thresholds, near.failed.copy(), near.sums)
        self._states = [near, *(state for state in self._states if state is not near)][:STATES_HELD]
        for at, (was, new) in enumerate(zip(near.thresholds, wanted, strict=True)):
            if was != new:
                self._move(near, at, was, new)
        return near

    @property
    def _published_crops(self) -> tuple[float | None, float | None]:
        return self.recipe.visual.text_max, self.recipe.visual.aspect_max

    def _away(self, some: tuple[float | None, ...], wanted: tuple[float | None, ...]) -> float:
        """How far thresholds are from those that are wanted: how many differ, and by how much of their range."""
        away = 0.0
        for column, a, b in zip(self._column, some, wanted, strict=True):
            if a != b:
                edges = self.bins.binned[column].edges
                by = 1.0 if a is None or b is None else abs(a - b) / (edges[-1] - edges[0])
                away += 1 + min(by, 1.0)
        return away

    def _move(self, state: State, at: int, was: float | None, new: float | None) -> None:
        """Move one threshold of a state."""
        values, compare = self.values[self._column[at]], self._compare[at]

        def changed(begin: int) -> np.ndarray:
            some = values[begin : begin + BLOCK]
            return np.flatnonzero(fails(some, compare, was) != fails(some, compare, new)) + begin

        places = np.concatenate([np.zeros(0, np.int64), *each(changed, range(0, self.rows, BLOCK))])
        bit = self._bit(1 << at)

        def difference(begin: int) -> Sums:
            some = places[begin : begin + BLOCK]
            before = state.failed[some]
            after = before ^ bit
            state.failed[some] = after
            return self._counter.sums(some, after) - self._counter.sums(some, before)

        for sums in each(difference, range(0, len(places), BLOCK)):
            state.sums = state.sums + sums
        state.thresholds = (*state.thresholds[:at], new, *state.thresholds[at + 1 :])

    def _judge(self, thresholds: tuple[float | None, ...]) -> State:
        """All clips against all rules."""
        failed = np.empty(self.rows, self._bit)

        def work(begin: int) -> Sums:
            some = slice(begin, min(begin + BLOCK, self.rows))
            bits = np.zeros(some.stop - begin, self._bit)
            for at, threshold in enumerate(thresholds):
                values = self.values[self._column[at]] if self._column[at] else self.held.looked
                if threshold is not None:
                    bits |= fails(values[some], self._compare[at], threshold).astype(self._bit) << self._bit(at)
            failed[some] = bits
            return self._counter.sums(np.arange(some.start, some.stop), bits)

        sums = self._counter.sums(np.zeros(0, np.int64), np.zeros(0, self._bit))
        for one in each(work, range(0, self.rows, BLOCK)):
            sums = sums + one
        return State(thresholds, failed, sums)

    def _parts(self) -> Parts:
        """Which clips pass the own rules of each set."""
        members = np.ones((len(self.recipe.curriculum.sets), self.rows), bool)
        asked = [
            (place, rule, threshold)
            for place, spec in enumerate(self.recipe.curriculum.sets.values())
            for rule, threshold in ((rules.BY_KEY[key], threshold) for key, threshold in spec.rules.items())
            if threshold is not None and rule.column in self.values
        ]

        def work(begin: int) -> None:
            some = slice(begin, begin + BLOCK)
            for place, rule, threshold in asked:
                members[place, some] &= ~fails(self.values[rule.column][some], rule.compare, threshold)

        list(each(work, range(0, self.rows, BLOCK)))
        return Parts(self.held.landscape, self.held.people, members)

    # ---- clips ---------------------------------------------------------------------------------------------------

    def passing(self, state: State) -> np.ndarray:
        """Places of the clips that pass every rule."""
        return np.flatnonzero(state.failed == 0)

    def failing_alone(self, state: State, key: str) -> np.ndarray:
        """Places of the clips that fail this rule and no other."""
        return np.flatnonzero(state.failed == self._bit(1 << self.order.index(key)))

    def changes(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Places of the clips that pass and did not as published, and of those that did and do not."""
        was = self._counter.was
        moved = np.flatnonzero((state.failed == 0) != was)
        left = was[moved]
        return moved[~left], moved[left]


def _movable(recipe: Recipe, schema: pa.Schema) -> list[Rule]:
    """The rules whose columns were measured, those that are off included, in the rules' order."""
    own = [rule for rule, _ in rules.active(recipe) if rule.key not in rules.BY_KEY]
    known = [rule for rule in signals.RULES if rule.switch is None or recipe.get(rule.switch)]
    found = [rule for rule in [*known, *own] if set(stored_of(rule.column)) <= set(schema.names)]
    return sorted(found, key=lambda rule: rule.phase)
