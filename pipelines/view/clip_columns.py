"""The columns of a snapshot's clips that rules ask for, as plain arrays in memory: one value a clip.

They are read a few columns at a time, by some threads: what is asked for first is there first. Values are those that
are judged: a clip that is cut in a clean rectangle counts as it is cut.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from rushes.curation import manifest, rescue, rules, signals
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe
from rushes.curation.signals import LOOK_FAILED, Rule
from rushes.pipelines.view.clips import QueryError
from rushes.pipelines.view.tables import rows_at

BYTES_MOST = 3 << 30  # of one snapshot's columns
LATE = tuple(rule.key for rule in signals.LATE_RULES if rule is not LOOK_FAILED)
CROPPED = {"size", "aspect", "border_frac", "text_score"}  # columns whose judged values follow a clip's crop
ASKED_OF_CROPS = ("width", "height", "border_frac", "text_score", "picture", "overlays", "heads")
SHOWN_MOST = 5_000  # clips whose places are remembered
OTHER_BYTES = 56  # a clip: what is held beside values and bins
WORDS = ["rejected_by", "orientation", "source_id", "uri", "crop_for"]  # columns of few distinct words
THREADS, THREADS_REMOTE = min(4, os.cpu_count() or 1), 16  # that read row groups of a disk, of an object store


class ClipColumns:
    """values: float32 or float64 [N] by column, once read. Raises QueryError where they would exceed BYTES_MOST.

    rejected: place in `words`, from 1, of the rule that rejected the clip as published; 0: none. Words begin with LATE.
    looked: 0 models failed, 1 seen, 2 not looked at. crop_for: 1 its crop leaves out a border, 2 text, 3 both. texted,
    texted_score: places of the clips with text that stands in the picture, and its sureness.
    """

    def __init__(self, run: Run, recipe: Recipe, schema: pa.Schema, asked: Sequence[Rule]) -> None:
        self.run, self.schema = run, schema
        self.rows = int(run.record["tables"]["clips"]["rows"])
        self.names = list(dict.fromkeys([*(rule.column for rule in asked), "duration_s", "human_score"]))
        self.names = [name for name in self.names if set(stored_of(name)) <= set(schema.names)]
        wide = sum(self._kind(name) == np.float64 for name in self.names)
        if self.rows * (5 * len(self.names) + 4 * wide + OTHER_BYTES) > BYTES_MOST:
            raise QueryError(
                f"{self.rows:,} clips are too many to move thresholds over in memory; try them with "
                f"`rushes judge {run.root} --set KEY=VALUE --dry-run`."
            )
        self.values: dict[str, np.ndarray] = {}
        self.words = list(LATE)
        self.rejected = np.zeros(self.rows, np.uint8)
        self.looked = np.full(self.rows, 2, np.uint8)
        self.landscape = np.zeros(self.rows, bool)
        self.crop_for = np.zeros(self.rows, np.uint8)
        self.uri, self.uris = np.zeros(self.rows, np.int32), list[str]()  # places in uris
        self.source, self.sources = np.zeros(self.rows, np.int32), list[str]()
        self.start_s = np.zeros(self.rows, np.float64)
        self.ms: np.ndarray | None = None
        self.people: np.ndarray | None = None
        self.texted, self.texted_score = np.zeros(0, np.int64), np.zeros(0, np.float32)
        self._follows = recipe.visual.rescue == "crop" and recipe.visual.text and "overlays" in schema.names
        self._people_min = recipe.content.people_min
        self._crops_read = False
        self._shown: dict[str, int] = {}  # places of clips that were shown lately
        self._adding, self._placed = threading.Lock(), Future[None]()
        self._groups = _row_groups(run)
        self._starts = [begin for *_, begin in self._groups]
        self._ids: list[pa.Array] = [pa.array([], pa.string())] * len(self._groups)

    # ---- reading -------------------------------------------------------------------------------------------------

    def read_verdicts(self) -> None:
        """What rejected clips."""
        place = self._added(self.words)

        def put(table: pa.Table, at: int, some: slice) -> None:
            self.rejected[some] = _numbered(table["rejected_by"], place, 1)

        self._read(["rejected_by"], put)

    def _read_crops(self) -> None:
        def put(table: pa.Table, at: int, some: slice) -> None:
            self.crop_for[some] = _by_word(table["crop_for"], _causes, 0)

        self._read(["crop_for"], put)
        self._crops_read = True

    def read(self, names: Sequence[str]) -> None:
        """The values of these columns, as they are judged."""
        stored = {column for name in names for column in stored_of(name)}
        if "crop_for" in self.schema.names and not CROPPED.isdisjoint(names):
            if not self._crops_read:
                self._read_crops()
            if "width" in stored:
                stored |= {"crop_width", "crop_height"}
        read = {name: np.empty(self.rows, self._kind(name)) for name in stored}
        ms = np.empty(self.rows, np.int32) if "duration_s" in stored else None

        def put(table: pa.Table, at: int, some: slice) -> None:
            for name, values in read.items():
                values[some] = _plain(table[name], values.dtype)
            if ms is not None:
                ms[some] = np.rint(read["duration_s"][some] * 1000)

        self._read(list(stored), put)
        if "text_score" in read and self._follows:
            self._read_texts(read["text_score"])
        self._as_cut(read)
        self.values |= {name: read[name] for name in names}
        self.ms = self.ms if ms is None else ms
        if "human_score" in names:
            self.people = self.values["human_score"] >= self._people_min

    def read_facts(self) -> None:
        """Which way the pictures lie, and whether models have seen them."""
        named = [name for name in ("looked", "orientation") if name in self.schema.names]

        def put(table: pa.Table, at: int, some: slice) -> None:
            if "looked" in named:
                self.looked[some] = table["looked"].combine_chunks().cast(pa.uint8()).fill_null(2).to_numpy()
            self.landscape[some] = _by_word(table["orientation"], lambda word: word == "landscape", False)

        self._read(named, put)

    def read_places(self) -> None:
        """Where the clips are: what `shown` and `span` tell; they wait for it."""
        uris, sources = self._added(self.uris), self._added(self.sources)

        def put(table: pa.Table, at: int, some: slice) -> None:
            self.uri[some] = _numbered(table["uri"], uris)
            self.source[some] = _numbered(table["source_id"], sources)
            self.start_s[some] = table["start_s"].to_numpy()
            self._ids[at] = table["clip_id"].combine_chunks()

        try:
            self._read(["uri", "source_id", "start_s", "clip_id"], put, most=1)  # thresholds are moved meanwhile
        except BaseException as error:
            self._placed.set_exception(error)
            raise
        self._placed.set_result(None)

    def _read_texts(self, score: np.ndarray) -> None:
        found: list[np.ndarray] = [np.zeros(0, np.int64)] * len(self._groups)

        def put(table: pa.Table, at: int, some: slice) -> None:
            lengths = pc.fill_null(pc.list_value_length(table["overlays"]), 0).to_numpy()
            found[at] = np.flatnonzero(lengths >= 4) + some.start

        self._read(["overlays"], put)
        self.texted = np.concatenate(found) if found else self.texted
        self.texted_score = score[self.texted].astype(np.float32)

    def _read(
        self, columns: Sequence[str], put: Callable[[pa.Table, int, slice], None], most: int = THREADS_REMOTE
    ) -> None:
        """put(rows, number, place) for every row group, by some threads at once, `most` at most."""
        fs, _ = manifest.resolve(self.run.root)

        def work(at: int) -> None:
            path, metadata, group, begin = self._groups[at]
            with fs.open_input_file(path) as handle:
                parquet = pq.ParquetFile(handle, metadata=metadata, read_dictionary=WORDS, pre_buffer=True)
                table = parquet.read_row_group(group, columns=list(columns), use_threads=False)
            put(table, at, slice(begin, begin + table.num_rows))

        with ThreadPoolExecutor(min(_threads(fs), most)) as threads:
            list(threads.map(work, range(len(self._groups))))

    def _kind(self, name: str) -> Any:
        """The type of a column's values; those of columns that are worked out are float32, aspect's float64."""
        if name in rules.DERIVED:
            return np.float64 if name == "aspect" else np.float32
        return np.float64 if pa.types.is_float64(self.schema.field(name).type) else np.float32

    def _added(self, words: list[str]) -> Callable[[str], int]:
        """A word's place in the list, to which new ones are added."""
        places = {word: at for at, word in enumerate(words)}

        def place(word: str) -> int:
            with self._adding:
                if word not in places:
                    places[word] = len(words)
                    words.append(word)
                return places[word]

        return place

    def _as_cut(self, read: dict[str, np.ndarray]) -> None:
        """size and aspect, and 0 for what a clip's crop leaves out, as `rules.judged` has them."""
        cropped = np.flatnonzero(self.crop_for)
        if "width" in read:
            width, height = read["width"], read["height"]
            for whole, crop in ((width, "crop_width"), (height, "crop_height")):
                if len(cropped):
                    whole[cropped] = read[crop][cropped]
            short, long = np.minimum(width, height), np.maximum(width, height)
            read["size"] = short
            with np.errstate(divide="ignore", invalid="ignore"):
                read["aspect"] = long.astype(np.float64) / short
        for name, bit in (("border_frac", 1), ("text_score", 2)):
            if name in read and len(cropped):
                read[name][cropped[self.crop_for[cropped] & bit > 0]] = 0.0

    # ---- crops that a threshold moves ------------------------------------------------------------------------------

    def recropped(self, recipe: Recipe, text_max: float | None, aspect_max: float | None) -> np.ndarray:
        """Places of the clips that this recipe may cut otherwise than one with these two thresholds."""
        was = self.texted_score >= text_max if text_max is not None else np.zeros(len(self.texted), bool)
        new = recipe.visual.text_max
        now = self.texted_score >= new if new is not None else np.zeros(len(self.texted), bool)
        moved = (was != now) | ((was | now) & (recipe.visual.aspect_max != aspect_max))
        return self.texted[moved]

    def values_as_cut(self, recipe: Recipe, places: np.ndarray) -> dict[str, np.ndarray]:
        """The judged values of CROPPED of some clips, cut as this recipe asks; their rows are read again."""
        columns = [name for name in ASKED_OF_CROPS if name in self.schema.names]
        table = rescue.with_crops(rows_at(self.run, "clips", places.tolist(), columns), recipe)
        return {name: rules.judged(table, name) for name in CROPPED if name in self.values}

    # ---- clips that are shown ----------------------------------------------------------------------------------------

    def shown(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """What a picture's line says of clips, by their place in the table."""
        self._placed.result()
        found = []
        for place in places:
            part = int(np.searchsorted(self._starts, place, "right")) - 1
            clip_id = self._ids[part][int(place) - self._starts[part]].as_py()
            found.append({"clip_id": clip_id, "uri": self.uris[self.uri[place]], "start_s": float(self.start_s[place])})
            self._shown[clip_id] = int(place)
        while len(self._shown) > SHOWN_MOST:
            self._shown.pop(next(iter(self._shown)))
        return found

    def span(self, clip_id: str) -> dict[str, Any] | None:
        """{clip_id, source_id, start_s, end_s} of a clip that was shown lately: its picture is asked for next."""
        place = self._shown.get(clip_id)
        if place is None:
            return None
        start_s = float(self.start_s[place])
        end_s = start_s + float(self.values["duration_s"][place])
        return {"clip_id": clip_id, "source_id": self.sources[self.source[place]], "start_s": start_s, "end_s": end_s}


def stored_of(column: str) -> tuple[str, ...]:
    """The stored columns that one is made of."""
    return ("width", "height") if column in rules.DERIVED else (column,)


def _row_groups(run: Run) -> list[tuple[str, pq.FileMetaData, int, int]]:
    """(file, its metadata, number in it, first row) of every row group of the clips."""
    fs, root = manifest.resolve(run.root)
    files = [f"{root}/{file}" for file in run.record["tables"]["clips"]["files"]]
    with ThreadPoolExecutor(_threads(fs)) as threads:
        opened = list(threads.map(lambda file: pq.read_metadata(file, filesystem=fs), files))
    found, begin = [], 0
    for file, metadata in zip(files, opened, strict=True):
        for group in range(metadata.num_row_groups):
            found.append((file, metadata, group, begin))
            begin += metadata.row_group(group).num_rows
    return found


def _threads(fs: pafs.FileSystem) -> int:
    return THREADS if manifest.is_local(fs) else THREADS_REMOTE


def _plain(column: pa.ChunkedArray, dtype: Any) -> np.ndarray:
    return column.cast(pa.float64() if dtype == np.float64 else pa.float32()).to_numpy()


def _by_word(column: pa.ChunkedArray, value: Callable[[str], Any], null: Any) -> np.ndarray:
    """`value` of every row's word; `null` where there is none."""
    whole = column.combine_chunks()
    whole = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    places = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    values = np.array([*(value(word) for word in whole.dictionary.to_pylist()), null])
    return values.astype(np.min_scalar_type(values.max()))[places]


def _numbered(column: pa.ChunkedArray, place: Callable[[str], int], first: int = 0) -> np.ndarray:
    """Every row's place among the words, counted from `first`; 0 where there is no word."""
    return _by_word(column, lambda word: place(word) + first, 0)


def _causes(word: str) -> int:
    return (rescue.BORDER in word) + 2 * (rescue.TEXT in word)
