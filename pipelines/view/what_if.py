"""What other thresholds would keep, counted over a whole snapshot while somebody moves them.

Every clip holds a bit for each rule that it fails. A threshold that is moved changes the bits of the clips whose values
lie between where it was and where it is, and every count by those clips alone: the cost of a step is one comparison a
clip, and sums over the few that change. Counts of clips that pass the rules are exact; copies, the draw and what failed
later are taken as published.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from rushes.curation import recipe as recipes
from rushes.curation import rules, signals
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe
from rushes.curation.signals import LOOK_FAILED, Rule
from rushes.pipelines.view.clip_columns import LATE, ClipColumns, stored_of
from rushes.pipelines.view.clips import QueryError
from rushes.pipelines.view.histograms import TAIL, drawn_range
from rushes.pipelines.view.tables import recipe_of, resolved_of, schema_of

BINS = 100  # of a histogram; bin BINS holds the nulls
BLOCK = 1 << 16  # clips at a time: their values and bits fit a core's cache
THREADS = min(4, os.cpu_count() or 1)
STATES_HELD = 2  # judgements of all clips that are kept beside the published one: somebody's thresholds each
MOVED_MOST = 0.5  # share of the clips from which counting all anew is cheaper than counting the difference
SAMPLED = 200_000  # clips from which the range of a histogram is taken
RECROPPED_MOST = 20_000  # clips whose crop is worked out anew while a threshold is moved


@dataclass
class Sums:
    """Counts over some clips; those of more or of fewer clips by + and -. All int64.

    first: clips by the first rule that they fail, in the rules' order; the last passes all. alone [rules, BINS + 1]:
    clips that fail one rule only, by the bin of its column (the last: no value). inside [columns, BINS]: those that
    pass all. late: of these, by the later rule that rejected them. parts [1 + sets, 4]: of the kept and of each set:
    clips, milliseconds, landscape ones, ones with people. odd: clips that pass and did not as published, that did and
    do not, that pass the decode's rules and that no model was asked about.
    """

    first: np.ndarray
    alone: np.ndarray
    inside: np.ndarray
    late: np.ndarray
    parts: np.ndarray
    odd: np.ndarray

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def __sub__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, one.name) - getattr(other, one.name) for one in fields(self)))

    @property
    def passing(self) -> int:
        return int(self.first[-1])


@dataclass
class State:
    """Every clip against thresholds (None: off), in the order of the rules."""

    thresholds: tuple[float | None, ...]
    failed: np.ndarray  # [N]: a bit for each rule that the clip fails
    sums: Sums


@dataclass(frozen=True)
class Binned:
    """A column's histogram: edges [BINS + 1], counts [BINS] of all clips, and how many have no value."""

    edges: np.ndarray
    counts: np.ndarray
    nulls: int


class WhatIf:
    """A snapshot's clips and how they are judged. Raises QueryError where there are too many."""

    def __init__(self, run: Run) -> None:
        self.recipe = recipe_of(run)
        self.resolved = resolved_of(run)
        schema = schema_of(run, "clips")
        self.rules = _movable(self.recipe, schema)
        self.held = ClipColumns(run, self.recipe, schema, self.rules)
        self.rows = self.held.rows
        self.values = dict(self.held.values)
        decoded = sum(rule.phase != "look" for rule in self.rules)
        self.order = tuple(rule.key for rule in self.rules)
        self.order = (*self.order[:decoded], LOOK_FAILED.key, *self.order[decoded:])
        self._column = [*(rule.column for rule in self.rules)]
        self._column.insert(decoded, "")
        self._compare = [*(rule.compare for rule in self.rules)]
        self._compare.insert(decoded, ">")
        self._bit = np.uint64 if len(self.order) > 32 else np.uint32
        self._decoded = self._bit((1 << decoded) - 1)  # the bits of the decode's rules
        self.columns = list(dict.fromkeys(rule.column for rule in self.rules))
        self._column_at = np.array([self.columns.index(name) if name else 0 for name in self._column])
        self.binned: dict[str, Binned] = {}
        self._codes = np.empty((self.rows, len(self.columns)), np.uint8)  # a clip's bins lie side by side
        for column in self.columns:
            self._bin(column)
        self._member = self._members()
        self._was = np.zeros(self.rows, bool)  # passes as published
        self._states: list[State] = []
        self._lock = threading.RLock()
        self._other: WhatIf | None = None
        self._crops = (self.recipe.visual.text_max, self.recipe.visual.aspect_max)
        self.published = self._judge(self.thresholds(self.recipe))
        self._was = self.published.failed == 0
        self.published.sums.odd[0] = 0

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
        other.binned = dict(self.binned)
        other._codes = self._codes.copy()
        for name, values in self.held.values_as_cut(recipe, places).items():
            other.values[name] = self.values[name].copy()
            other.values[name][places] = values
            if name in self.columns:
                other._bin(name, self.binned[name].edges)
        other._member = other._members()
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
                edges = self.binned[column].edges
                by = 1.0 if a is None or b is None else abs(a - b) / (edges[-1] - edges[0])
                away += 1 + min(by, 1.0)
        return away

    def _move(self, state: State, at: int, was: float | None, new: float | None) -> None:
        """Move one threshold of a state."""
        values, compare = self.values[self._column[at]], self._compare[at]

        def changed(begin: int) -> np.ndarray:
            some = values[begin : begin + BLOCK]
            return np.flatnonzero(_fails(some, compare, was) != _fails(some, compare, new)) + begin

        places = np.concatenate([np.zeros(0, np.int64), *_each(changed, range(0, self.rows, BLOCK))])
        thresholds = (*state.thresholds[:at], new, *state.thresholds[at + 1 :])
        if len(places) > MOVED_MOST * self.rows:
            found = self._judge(thresholds, state.failed)
            state.thresholds, state.sums = found.thresholds, found.sums
            return
        bit = self._bit(1 << at)

        def difference(begin: int) -> Sums:
            some = places[begin : begin + BLOCK]
            before = state.failed[some]
            after = before ^ bit
            state.failed[some] = after
            return self._sum(some, after) - self._sum(some, before)

        for sums in _each(difference, range(0, len(places), BLOCK)):
            state.sums = state.sums + sums
        state.thresholds = thresholds

    def _judge(self, thresholds: tuple[float | None, ...], failed: np.ndarray | None = None) -> State:
        """All clips against all rules."""
        failed = np.empty(self.rows, self._bit) if failed is None else failed

        def work(begin: int) -> Sums:
            some = slice(begin, min(begin + BLOCK, self.rows))
            bits = np.zeros(some.stop - begin, self._bit)
            for at, threshold in enumerate(thresholds):
                values = self.values[self._column[at]] if self._column[at] else self.held.looked
                fails = _fails(values[some], self._compare[at], threshold)
                bits |= fails.astype(self._bit) << self._bit(at)
            failed[some] = bits
            return self._sum(np.arange(some.start, some.stop), bits)

        found = list(_each(work, range(0, self.rows, BLOCK)))
        sums = found[0] if found else self._sum(np.zeros(0, np.int64), np.zeros(0, self._bit))
        for one in found[1:]:
            sums = sums + one
        return State(thresholds, failed, sums)

    def _sum(self, places: np.ndarray, failed: np.ndarray) -> Sums:
        """Counts over the clips at these places, which fail the rules of these bits."""
        bits = 8 * failed.itemsize
        lowest = np.bitwise_count(
            (failed & (~failed + self._bit(1))) - self._bit(1)
        )  # place of the first 1; bits: none
        counts = np.bincount(lowest, minlength=bits + 1)
        first = np.append(counts[: len(self.order)], counts[bits])
        alone = self._alone(places, failed, lowest)
        inside = places[failed == 0]
        width = BINS + 1
        codes = self._codes[inside] + np.arange(len(self.columns), dtype=np.intp) * width
        histograms = np.bincount(codes.ravel(), minlength=width * len(self.columns)).reshape(-1, width)[:, :BINS]
        late = self.held.late[inside]
        passed = np.count_nonzero(self._was[inside])
        unseen = np.count_nonzero(((failed & self._decoded) == 0) & (self.held.looked[places] == 2))
        odd = np.array([len(inside) - passed, np.count_nonzero(self._was[places]) - passed, unseen])
        late_counts = np.bincount(late, minlength=len(LATE) + 1)[1:]
        return Sums(first, alone, histograms, late_counts, self._parts(inside[late == 0]), odd)

    def _alone(self, places: np.ndarray, failed: np.ndarray, lowest: np.ndarray) -> np.ndarray:
        """int64 [rules, BINS + 1]: clips that fail one rule only, by the bin of its column."""
        single = np.bitwise_count(failed) == 1
        rule = lowest[single].astype(np.intp)
        codes = self._codes[places[single], self._column_at[rule]]
        counts = np.bincount(rule * (BINS + 1) + codes, minlength=len(self.order) * (BINS + 1))
        return counts.reshape(-1, BINS + 1)

    def _parts(self, stay: np.ndarray) -> np.ndarray:
        member, ms = self._member[stay], self.held.ms[stay]
        people = self.held.people
        facts = [self.held.landscape[stay], people[stay] if people is not None else np.zeros(len(stay), bool)]
        masks = [np.ones(len(stay), bool)]
        masks += [(member & np.uint32(1 << place)) > 0 for place in range(len(self.recipe.curriculum.sets))]
        return np.array(
            [[np.count_nonzero(mask), ms[mask].sum(dtype=np.int64), *(np.count_nonzero(mask & fact) for fact in facts)]
             for mask in masks]
        )  # fmt: skip

    def _members(self) -> np.ndarray:
        """uint32 [N]: a bit for each set whose own rules the clip passes."""
        member = np.zeros(self.rows, np.uint32)
        for place, spec in enumerate(self.recipe.curriculum.sets.values()):
            inside = np.ones(self.rows, bool)
            for key, threshold in spec.rules.items():
                rule = rules.BY_KEY[key]
                if threshold is not None and rule.column in self.values:
                    inside &= ~_fails(self.values[rule.column], rule.compare, threshold)
            member |= inside.astype(np.uint32) << np.uint32(place)
        return member

    # ---- histograms ----------------------------------------------------------------------------------------------

    def codes(self, column: str) -> np.ndarray:
        """uint8 [N]: every clip's bin of a column; BINS: it has no value."""
        return self._codes[:, self.columns.index(column)]

    def _bin(self, column: str, edges: np.ndarray | None = None) -> None:
        values = self.values[column]
        low, high = self._range(column) if edges is None else (edges[0], edges[-1])
        scaled = (values - values.dtype.type(low)) * values.dtype.type(BINS / (high - low))
        nulls = np.isnan(scaled)
        np.clip(scaled, 0, BINS - 1, out=scaled)
        scaled[nulls] = BINS
        codes = scaled.astype(np.uint8)
        self._codes[:, self.columns.index(column)] = codes
        counts = np.bincount(codes, minlength=BINS + 1)
        self.binned[column] = Binned(np.linspace(low, high, BINS + 1), counts[:BINS], int(counts[BINS]))

    def _range(self, column: str) -> tuple[float, float]:
        values = self.values[column]
        some = values[:: max(1, self.rows // SAMPLED)]
        some = some[np.isfinite(some)]
        lines = [threshold for rule, threshold in rules.active(self.recipe) if rule.column == column]
        if len(some):
            first, last = np.quantile(some, [TAIL, 1 - TAIL])
            facts = {"min": float(np.nanmin(values)), "max": float(np.nanmax(values)), "first": first, "last": last}
            low, high = drawn_range(facts, lines)
        else:
            low, high = min([0.0, *lines]), max([1.0, *lines])
        return low, high if high > low else low + 1.0

    def pairs(self, x: str, y: str, clips: np.ndarray | None = None) -> np.ndarray:
        """int64 [BINS, BINS]: clips by bin of y, then of x."""
        xs, ys = self.codes(x), self.codes(y)
        if clips is not None:
            xs, ys = xs[clips], ys[clips]
        joined = np.bincount(ys.astype(np.intp) * (BINS + 1) + xs, minlength=(BINS + 1) ** 2)
        return joined.reshape(BINS + 1, BINS + 1)[:BINS, :BINS]

    # ---- clips ---------------------------------------------------------------------------------------------------

    def passing(self, state: State) -> np.ndarray:
        """Places of the clips that pass every rule."""
        return np.flatnonzero(state.failed == 0)

    def failing_alone(self, state: State, key: str) -> np.ndarray:
        """Places of the clips that fail this rule and no other."""
        return np.flatnonzero(state.failed == self._bit(1 << self.order.index(key)))

    def changes(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Places of the clips that pass and did not as published, and of those that did and do not."""
        moved = np.flatnonzero((state.failed == 0) != self._was)
        left = self._was[moved]
        return moved[~left], moved[left]


def _each(work: Callable[[int], object], begins: Sequence[int]) -> Iterator:
    """work(begin) of each, in order, on some threads where there is more than one."""
    if len(begins) < 2:
        yield from map(work, begins)
        return
    with ThreadPoolExecutor(THREADS) as threads:
        yield from threads.map(work, begins)


def _movable(recipe: Recipe, schema: pa.Schema) -> list[Rule]:
    """The rules whose columns were measured, those that are off included, in the rules' order."""
    own = [rule for rule, _ in rules.active(recipe) if rule.key not in rules.BY_KEY]
    known = [rule for rule in signals.RULES if rule.switch is None or recipe.get(rule.switch)]
    found = [rule for rule in [*known, *own] if set(stored_of(rule.column)) <= set(schema.names)]
    return sorted(found, key=lambda rule: rule.phase)


def _fails(values: np.ndarray, compare: str, threshold: float | None) -> np.ndarray:
    """Where a rule says no, as rules.COMPARE in doubles; None: the rule is off.

    No doubles are made: the threshold becomes the nearest number that decides so.
    """
    if threshold is None:
        return np.zeros(len(values), bool)
    if values.dtype == np.float32:
        near = np.float32(threshold)
        if compare in (">=", "<") and near < threshold:
            near = np.nextafter(near, np.float32(np.inf))
        elif compare in (">", "<=") and near > threshold:
            near = np.nextafter(near, np.float32(-np.inf))
        threshold = near
    with np.errstate(invalid="ignore"):
        return ~rules.COMPARE[compare](values, threshold)
