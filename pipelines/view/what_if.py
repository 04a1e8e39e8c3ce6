"""What other thresholds would keep, counted over a whole snapshot while somebody moves them.

The columns that rules ask for are held as plain arrays, one value a clip, and every rule is one comparison of such an
array. Counts of clips that pass the rules are exact; copies, the draw and what failed later are taken as published.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rushes.curation import manifest, rules, signals
from rushes.curation import recipe as recipes
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe
from rushes.curation.signals import LOOK_FAILED, Rule
from rushes.pipelines.view.clips import QueryError
from rushes.pipelines.view.histograms import TAIL, drawn_range
from rushes.pipelines.view.tables import recipe_of, resolved_of, schema_of

BINS = 100  # of a histogram; bin BINS holds the nulls
BLOCK = 1 << 16  # clips compared at a time: their values and marks fit a core's cache
THREADS = min(4, os.cpu_count() or 1)
ANSWERS_HELD = 4  # judgements of all clips that are kept, two bytes a clip each
SAMPLED = 200_000  # clips from which the range of a histogram is taken
BYTES_MOST = 3 << 30  # of one snapshot's columns
DIGITS = 4  # significant digits of a value beside a picture

LATE = tuple(rule.key for rule in signals.LATE_RULES if rule is not LOOK_FAILED)


@dataclass(frozen=True)
class Judged:
    """Every clip against one recipe's rules, which stand in `order`."""

    order: tuple[str, ...]
    inside: np.ndarray  # bool [N]: passes all
    first: np.ndarray  # int64 [rules]: clips for which each is the first that fails
    alone: np.ndarray  # int64: places of the clips that fail one rule only ...
    alone_at: np.ndarray  # uint8: ... and its place in `order`
    unseen: int  # clips that pass the decode's rules and that no model was asked about


@dataclass(frozen=True)
class Tally:
    """Sums over some clips that pass the rules; sums of more or fewer clips by + and -.

    bins: by column, int64 [BINS]. late: clips by the later rule that rejected them. parts: int64 [1 + sets, 4], of the
    kept and of each set: clips, milliseconds, landscape ones, ones with people.
    """

    inside: int
    bins: dict[str, np.ndarray]
    late: np.ndarray
    parts: np.ndarray

    def __add__(self, other: Tally) -> Tally:
        return self._with(other, 1)

    def __sub__(self, other: Tally) -> Tally:
        return self._with(other, -1)

    def _with(self, other: Tally, sign: int) -> Tally:
        bins = {name: counts + sign * other.bins[name] for name, counts in self.bins.items()}
        return Tally(
            self.inside + sign * other.inside, bins, self.late + sign * other.late, self.parts + sign * other.parts
        )


class WhatIf:
    """A snapshot's columns in memory. Raises QueryError where they would take more than BYTES_MOST."""

    def __init__(self, run: Run) -> None:
        self.recipe = recipe_of(run)
        self.resolved = resolved_of(run)
        schema = schema_of(run, "clips")
        self.rows = int(run.record["tables"]["clips"]["rows"])
        self.rules = _movable(self.recipe, schema)
        stored = {column for rule in self.rules for column in _stored(rule.column)} & set(schema.names)
        stored |= {"duration_s", "human_score"} & set(schema.names)
        wide = {name for name in stored if pa.types.is_float64(schema.field(name).type)}
        if self.rows * (4 * len(stored) + 4 * len(wide) + len(self.rules) + 40) > BYTES_MOST:
            raise QueryError(
                f"{self.rows:,} clips are too many to move thresholds over in memory; try them with "
                f"`rushes judge {run.root} --set KEY=VALUE --dry-run`."
            )
        self.values = {name: np.empty(self.rows, np.float64 if name in wide else np.float32) for name in stored}
        self.looked = np.full(self.rows, 2, np.uint8)  # 0 models failed, 1 seen, 2 not looked at
        self.late = np.zeros(self.rows, np.uint8)  # place in LATE from 1, of the rule that rejected it as published
        self.landscape = np.zeros(self.rows, bool)
        self.uri = np.zeros(self.rows, np.int32)  # place in uris
        self.uris: list[str] = []
        self.start_s = np.zeros(self.rows, np.float32)
        self._ids: list[pa.Array] = []
        self._starts: list[int] = []
        self._read(run, schema)
        self.ms = np.rint(self.values["duration_s"] * 1000).astype(np.int32)
        self._codes: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, int]] = {}
        self._answers: OrderedDict[tuple[Any, ...], Judged] = OrderedDict()
        self._lock = threading.Lock()
        self._derive()
        self.base = self.judge(self.recipe)

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _read(self, run: Run, schema: pa.Schema) -> None:
        wanted = ("looked", "rejected_by", "orientation", "clip_id", "uri", "start_s")
        named = [name for name in wanted if name in schema.names]
        places: dict[str, int] = {}
        begin = 0
        for table in _row_groups(run, [*self.values, *named]):
            stop = begin + table.num_rows
            for name, values in self.values.items():
                values[begin:stop] = _plain(table[name], values.dtype)
            if "looked" in named:
                self.looked[begin:stop] = table["looked"].combine_chunks().cast(pa.uint8()).fill_null(2).to_numpy()
            fates, words = _words(table["rejected_by"])
            self.late[begin:stop] = np.array([*(_late(word) for word in words), 0], np.uint8)[fates]
            shapes, words = _words(table["orientation"])
            self.landscape[begin:stop] = np.array([*(word == "landscape" for word in words), False])[shapes]
            sources, words = _words(table["uri"])
            self.uri[begin:stop] = np.array([places.setdefault(word, len(places)) for word in words])[sources]
            self.start_s[begin:stop] = table["start_s"].to_numpy()
            self._ids.append(table["clip_id"].combine_chunks())
            self._starts.append(begin)
            begin = stop
        self.uris = list(places)

    def _derive(self) -> None:
        width, height = self.values.get("width"), self.values.get("height")
        if width is not None and height is not None:
            short, long = np.minimum(width, height), np.maximum(width, height)
            self.values["size"] = short
            with np.errstate(divide="ignore", invalid="ignore"):
                self.values["aspect"] = long.astype(np.float64) / short
        people = self.values.get("human_score")
        self.people = None if people is None else people >= self.recipe.content.people_min
        self.member = np.zeros(self.rows, np.uint32)  # a bit for each set whose own rules the clip passes
        for place, spec in enumerate(self.recipe.curriculum.sets.values()):
            inside = np.ones(self.rows, bool)
            for key, threshold in spec.rules.items():
                rule = rules.BY_KEY[key]
                if threshold is not None and rule.column in self.values:
                    inside &= _holds(self.values[rule.column], rule.compare, threshold)
            self.member |= inside.astype(np.uint32) << np.uint32(place)

    # ---- what a recipe would keep ----------------------------------------------------------------------------------

    def recipe_with(self, overrides: Sequence[str]) -> Recipe:
        """The run's recipe with thresholds moved (KEY=VALUE, null: off). Raises RecipeError or QueryError."""
        keys = {rule.key for rule in self.rules}
        for override in overrides:
            if override.partition("=")[0] not in keys:
                raise QueryError(f"'{override[:100]}' moves no threshold of this run; thresholds: {', '.join(keys)}.")
        return recipes.build(self.resolved, list(overrides))

    def judge(self, recipe: Recipe) -> Judged:
        """Every clip against the recipe's thresholds; an answer that was given lately is at hand."""
        active = [(rule, threshold) for rule, threshold in rules.active(recipe) if rule.column in self.values]
        key = tuple((rule.key, threshold) for rule, threshold in active)
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                return self._answers[key]
        found = self._judge(active)
        with self._lock:
            self._answers[key] = found
            if len(self._answers) > ANSWERS_HELD:
                self._answers.popitem(last=False)
        return found

    def _judge(self, active: list[tuple[Rule, float]]) -> Judged:
        steps = [(rule.key, rule.compare, self.values[rule.column], threshold) for rule, threshold in active]
        decoded = sum(rule.phase != "look" for rule, _ in active)
        steps.insert(decoded, (LOOK_FAILED.key, ">", self.looked, 0))
        inside = np.empty(self.rows, bool)

        def work(begin: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
            stop = min(begin + BLOCK, self.rows)
            open_ = np.ones(stop - begin, bool)
            deep, passed = np.zeros(stop - begin, np.uint8), np.zeros(stop - begin, np.uint8)
            for _, compare, values, threshold in steps:
                ok = _holds(values[begin:stop], compare, threshold)
                open_ &= ok
                deep += open_.view(np.uint8)  # rules passed before the first that fails
                passed += ok.view(np.uint8)
            inside[begin:stop] = open_
            alone = np.flatnonzero(passed == len(steps) - 1)
            unseen = np.count_nonzero((deep >= decoded) & (self.looked[begin:stop] == 2))
            return np.bincount(deep, minlength=len(steps) + 1), alone + begin, deep[alone], int(unseen)

        with ThreadPoolExecutor(THREADS) as threads, np.errstate(invalid="ignore"):
            counts, alone, alone_at, unseen = zip(*threads.map(work, range(0, self.rows, BLOCK)), strict=True)
        order = tuple(step[0] for step in steps)
        first = np.sum(counts, axis=0)[: len(steps)]
        return Judged(order, inside, first, np.concatenate(alone), np.concatenate(alone_at), sum(unseen))

    # ---- parts of an answer ----------------------------------------------------------------------------------------

    def codes(self, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """A column as bins: (uint8 [N], edges [BINS + 1], counts [BINS], nulls)."""
        held = self._codes.get(column)
        if held is None:
            held = self._codes[column] = self._binned(column)
        return held

    def _binned(self, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
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
        high = high if high > low else low + 1.0
        scaled = (values - values.dtype.type(low)) * values.dtype.type(BINS / (high - low))
        nulls = np.isnan(scaled)
        np.clip(scaled, 0, BINS - 1, out=scaled)
        scaled[nulls] = BINS
        codes = scaled.astype(np.uint8)
        counts = np.bincount(codes, minlength=BINS + 1)
        return codes, np.linspace(low, high, BINS + 1), counts[:BINS], int(counts[BINS])

    @property
    def columns(self) -> list[str]:
        """Columns that a rule asks for, in the rules' order."""
        return list(dict.fromkeys(rule.column for rule in self.rules))

    @cached_property
    def tally_of_base(self) -> Tally:
        """Of the clips that pass as published: what is told of moved thresholds is a difference to it."""
        return self.tally(np.flatnonzero(self.base.inside))

    def tally(self, clips: np.ndarray) -> Tally:
        """Sums over the clips at these places, which pass the rules."""
        bins = {name: np.bincount(self.codes(name)[0][clips], minlength=BINS + 1)[:BINS] for name in self.columns}
        late = self.late[clips]
        stay = clips[late == 0]
        member, ms = self.member[stay], self.ms[stay].astype(np.float64)
        facts = [self.landscape[stay], self.people[stay] if self.people is not None else np.zeros(len(stay), bool)]
        masks = [np.ones(len(stay), bool)]
        masks += [(member & np.uint32(1 << place)) > 0 for place in range(len(self.recipe.curriculum.sets))]
        parts = [
            [np.count_nonzero(mask), ms @ mask, *(np.count_nonzero(mask & fact) for fact in facts)] for mask in masks
        ]
        late_counts = np.bincount(late, minlength=len(LATE) + 1)[1:]
        return Tally(len(clips), bins, late_counts, np.rint(parts).astype(np.int64))

    def pairs(self, x: str, y: str, clips: np.ndarray | None = None) -> np.ndarray:
        """int64 [BINS, BINS]: clips by bin of y, then of x."""
        xs, ys = self.codes(x)[0], self.codes(y)[0]
        if clips is not None:
            xs, ys = xs[clips], ys[clips]
        joined = np.bincount(ys.astype(np.intp) * (BINS + 1) + xs, minlength=(BINS + 1) ** 2)
        return joined.reshape(BINS + 1, BINS + 1)[:BINS, :BINS]

    def shown(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """What a picture's line says of clips, by their place in the table."""
        found = []
        for place in places:
            part = int(np.searchsorted(self._starts, place, "right")) - 1
            clip_id = self._ids[part][int(place) - self._starts[part]].as_py()
            found.append({"clip_id": clip_id, "uri": self.uris[self.uri[place]], "start_s": float(self.start_s[place])})
        return found


def _movable(recipe: Recipe, schema: pa.Schema) -> list[Rule]:
    """The rules whose columns were measured, those that are off included, in the rules' order."""
    own = [rule for rule, _ in rules.active(recipe) if rule.key not in rules.BY_KEY]
    known = [rule for rule in signals.RULES if rule.switch is None or recipe.get(rule.switch)]
    found = [rule for rule in [*known, *own] if set(_stored(rule.column)) <= set(schema.names)]
    return sorted(found, key=lambda rule: rule.phase)


def _stored(column: str) -> tuple[str, ...]:
    return ("width", "height") if column in rules.DERIVED else (column,)


def _row_groups(run: Run, columns: Sequence[str]) -> Iterator[pa.Table]:
    fs, root = manifest.resolve(run.root)
    for file in run.record["tables"]["clips"]["files"]:
        with fs.open_input_file(f"{root}/{file}") as handle:
            parquet = pq.ParquetFile(handle, read_dictionary=["rejected_by", "orientation", "uri"], pre_buffer=True)
            for group in range(parquet.num_row_groups):
                yield parquet.read_row_group(group, columns=list(columns))


def _plain(column: pa.ChunkedArray, dtype: Any) -> np.ndarray:
    return column.cast(pa.float64() if dtype == np.float64 else pa.float32()).to_numpy()


def _words(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Places into the words, -1 for null (the last of a table that has one more), and the words."""
    whole = column.combine_chunks()
    whole = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    return whole.indices.fill_null(-1).to_numpy(zero_copy_only=False), whole.dictionary.to_pylist()


def _late(word: str) -> int:
    return LATE.index(word) + 1 if word in LATE else 0


def _holds(values: np.ndarray, compare: str, threshold: float) -> np.ndarray:
    """As rules.COMPARE in doubles, without making doubles: the threshold becomes the nearest number that decides so."""
    if values.dtype == np.float32:
        near = np.float32(threshold)
        if compare in (">=", "<") and near < threshold:
            near = np.nextafter(near, np.float32(np.inf))
        elif compare in (">", "<=") and near > threshold:
            near = np.nextafter(near, np.float32(-np.inf))
        threshold = near
    return rules.COMPARE[compare](values, threshold)
