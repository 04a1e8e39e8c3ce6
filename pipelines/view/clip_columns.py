"""The columns of a snapshot's clips that rules ask for, as plain arrays in memory: one value a clip.

Values are those that are judged: a clip that is cut in a clean rectangle counts as it is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rushes.curation import manifest, rescue, rules, signals
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe
from rushes.curation.signals import LOOK_FAILED, Rule
from rushes.pipelines.view.clips import QueryError
from rushes.pipelines.view.tables import rows_at

BYTES_MOST = 3 << 30  # of one snapshot's columns
LATE = tuple(rule.key for rule in signals.LATE_RULES if rule is not LOOK_FAILED)
CROPPED = ("size", "aspect", "border_frac", "text_score")  # columns whose judged values follow a clip's crop
ASKED_OF_CROPS = ("width", "height", "border_frac", "text_score", "picture", "overlays", "heads")
SHOWN_MOST = 5_000  # clips whose places are remembered
OTHER_BYTES = 56  # a clip: what is held beside values and bins


class ClipColumns:
    """values: float32 or float64 [N] by column. Raises QueryError where they would take more than BYTES_MOST.

    looked: 0 models failed, 1 seen, 2 not looked at. late: place in LATE, from 1, of the rule that rejected the clip as
    published. texted, texted_score: places of the clips with text that stands in the picture, and its sureness.
    """

    def __init__(self, run: Run, recipe: Recipe, schema: pa.Schema, asked: Sequence[Rule]) -> None:
        self.run = run
        self.rows = int(run.record["tables"]["clips"]["rows"])
        crops = {"crop_width", "crop_height"} if "crop_for" in schema.names else set()
        stored = {column for rule in asked for column in stored_of(rule.column)} | {"duration_s", "human_score"} | crops
        stored &= set(schema.names)
        wide = {name for name in stored if pa.types.is_float64(schema.field(name).type)}
        if self.rows * (5 * len(stored) + 4 * len(wide) + OTHER_BYTES) > BYTES_MOST:
            raise QueryError(
                f"{self.rows:,} clips are too many to move thresholds over in memory; try them with "
                f"`rushes judge {run.root} --set KEY=VALUE --dry-run`."
            )
        self.values = {name: np.empty(self.rows, np.float64 if name in wide else np.float32) for name in stored}
        self.looked = np.full(self.rows, 2, np.uint8)
        self.late = np.zeros(self.rows, np.uint8)
        self.landscape = np.zeros(self.rows, bool)
        self.uri = np.zeros(self.rows, np.int32)  # place in uris
        self.uris: list[str] = []
        self.source = np.zeros(self.rows, np.int32)  # place in sources
        self.sources: list[str] = []
        self.start_s = np.zeros(self.rows, np.float64)
        self._shown: dict[str, int] = {}  # places of clips that were shown lately
        self._ids: list[pa.Array] = []
        self._starts: list[int] = []
        follows = recipe.visual.rescue == "crop" and recipe.visual.text and "overlays" in schema.names
        self._texted: list[np.ndarray] = []
        self._read(schema, ("overlays",) if follows else ())
        self.texted = np.concatenate(self._texted) if self._texted else np.zeros(0, np.int64)
        self.texted_score = self.values["text_score"][self.texted].copy() if follows else np.zeros(0, np.float32)
        self._as_cut(schema)
        self.ms = np.rint(self.values["duration_s"] * 1000).astype(np.int32)
        people = self.values.get("human_score")
        self.people = None if people is None else people >= recipe.content.people_min

    def _read(self, schema: pa.Schema, more: Sequence[str]) -> None:
        wanted = ("looked", "rejected_by", "orientation", "clip_id", "source_id", "uri", "start_s", "crop_for", *more)
        named = [name for name in wanted if name in schema.names]
        self.crop_for = np.zeros(self.rows, np.uint8)  # 1: it leaves out a border, 2: text, 3: both
        uris: dict[str, int] = {}
        sources: dict[str, int] = {}
        begin = 0
        for table in _row_groups(self.run, [*self.values, *named]):
            stop = begin + table.num_rows
            for name, values in self.values.items():
                values[begin:stop] = _plain(table[name], values.dtype)
            if "looked" in named:
                self.looked[begin:stop] = table["looked"].combine_chunks().cast(pa.uint8()).fill_null(2).to_numpy()
            self.late[begin:stop] = _by_word(table["rejected_by"], _late, 0)
            self.landscape[begin:stop] = _by_word(table["orientation"], lambda word: word == "landscape", False)
            self.uri[begin:stop] = _numbered(table["uri"], uris)
            self.source[begin:stop] = _numbered(table["source_id"], sources)
            self.start_s[begin:stop] = table["start_s"].to_numpy()
            if "crop_for" in named:
                self.crop_for[begin:stop] = _by_word(table["crop_for"], _causes, 0)
            if more:
                lengths = pc.fill_null(pc.list_value_length(table["overlays"]), 0).to_numpy()
                self._texted.append(np.flatnonzero(lengths >= 4) + begin)
            self._ids.append(table["clip_id"].combine_chunks())
            self._starts.append(begin)
            begin = stop
        self.uris, self.sources = list(uris), list(sources)

    def _as_cut(self, schema: pa.Schema) -> None:
        """size and aspect, and 0 for what a clip's crop leaves out, as `rules.judged` has them."""
        width, height = self.values.get("width"), self.values.get("height")
        cropped = np.flatnonzero(self.crop_for)
        if width is not None and height is not None:
            for whole, crop in ((width, "crop_width"), (height, "crop_height")):
                if len(cropped):
                    whole[cropped] = self.values[crop][cropped]
            short, long = np.minimum(width, height), np.maximum(width, height)
            self.values["size"] = short
            with np.errstate(divide="ignore", invalid="ignore"):
                self.values["aspect"] = long.astype(np.float64) / short
        for name in ("width", "height", "crop_width", "crop_height"):
            self.values.pop(name, None)
        for name, bit in (("border_frac", 1), ("text_score", 2)):
            if name in self.values and len(cropped):
                self.values[name][cropped[self.crop_for[cropped] & bit > 0]] = 0.0

    def recropped(self, recipe: Recipe, text_max: float | None, aspect_max: float | None) -> np.ndarray:
        """Places of the clips that this recipe may cut otherwise than one with these two thresholds."""
        was = self.texted_score >= text_max if text_max is not None else np.zeros(len(self.texted), bool)
        new = recipe.visual.text_max
        now = self.texted_score >= new if new is not None else np.zeros(len(self.texted), bool)
        moved = (was != now) | ((was | now) & (recipe.visual.aspect_max != aspect_max))
        return self.texted[moved]

    def values_as_cut(self, recipe: Recipe, places: np.ndarray) -> dict[str, np.ndarray]:
        """The judged values of CROPPED of some clips, cut as this recipe asks; their rows are read again."""
        columns = [name for name in ASKED_OF_CROPS if name in self.run.schema("clips").names]
        table = rescue.with_crops(rows_at(self.run, "clips", places.tolist(), columns), recipe)
        return {name: rules.judged(table, name) for name in CROPPED if name in self.values}

    def shown(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """What a picture's line says of clips, by their place in the table."""
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


def _row_groups(run: Run, columns: Sequence[str]) -> Iterator[pa.Table]:
    words = ["rejected_by", "orientation", "source_id", "uri", "crop_for"]
    fs, root = manifest.resolve(run.root)
    for file in run.record["tables"]["clips"]["files"]:
        with fs.open_input_file(f"{root}/{file}") as handle:
            parquet = pq.ParquetFile(handle, read_dictionary=words, pre_buffer=True)
            for group in range(parquet.num_row_groups):
                yield parquet.read_row_group(group, columns=list(columns))


def _plain(column: pa.ChunkedArray, dtype: Any) -> np.ndarray:
    return column.cast(pa.float64() if dtype == np.float64 else pa.float32()).to_numpy()


def _by_word(column: pa.ChunkedArray, value: Any, null: Any) -> np.ndarray:
    """`value` of every row's word; `null` where there is none."""
    whole = column.combine_chunks()
    whole = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    places = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.array([*(value(word) for word in whole.dictionary.to_pylist()), null])[places]


def _numbered(column: pa.ChunkedArray, places: dict[str, int]) -> np.ndarray:
    """Every row's place among the words; new ones are added to them."""
    return _by_word(column, lambda word: places.setdefault(word, len(places)), 0)


def _late(word: str) -> int:
    return LATE.index(word) + 1 if word in LATE else 0


def _causes(word: str) -> int:
    return (rescue.BORDER in word) + 2 * (rescue.TEXT in word)
