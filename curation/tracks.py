"""Stand-in until the tracks land: an observation holds the clips as they were measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation import storage
from rushes.curation.analyze import Analysis, Analyzer
from rushes.curation.recipe import Recipe
from rushes.curation.video.source import Source

OBSERVED = pa.schema(
    [("source_id", pa.string()), ("source", pa.string()), ("rows", pa.binary()), ("stills", pa.binary())]
)


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@dataclass
class Observation:
    analysis: Analysis

    @property
    def source(self) -> Source:
        return self.analysis.source

    @property
    def seconds(self) -> float:
        return self.source.duration_s or 0.0

    @property
    def passing(self) -> bool:
        return "vanished" in (self.source.error or "")

    def batches(self):
        s = self.source
        yield pa.record_batch(
            [[s.source_id], [json.dumps(asdict(s))], [_ipc(self.analysis.clips)], [_ipc(self.analysis.stills)]],
            schema=OBSERVED,
        )


class Observer:
    def __init__(self, recipe: Recipe) -> None:
        self._analyzer = Analyzer(recipe)

    def __call__(self, source, begin_s=0.0, end_s=None, part=0):
        return Observation(self._analyzer(source))


@dataclass
class Tracks:
    source: Source
    seconds: float
    clips: pa.Table


def load(tables: Sequence[pa.Table], source_id: str) -> Tracks:
    table = pa.concat_tables(tables)
    row = table.filter(pc.equal(table["source_id"], source_id)).to_pylist()[-1]
    source = Source(**json.loads(row["source"]))
    return Tracks(source, source.duration_s or 0.0, pa.ipc.open_stream(row["rows"]).read_all())


def measure(source: Source, tracks: Tracks, recipe: Recipe) -> pa.Table:
    clips = tracks.clips
    return clips.set_column(
        clips.schema.get_field_index("uri"), "uri", pa.array([source.uri] * len(clips), pa.string())
    )


def stills_of(records: Sequence[str], source_id: str, row: dict[str, Any], recipe: Recipe) -> pa.Table:
    table = pa.concat_tables([storage.read_table(uri) for uri in dict.fromkeys(records)])
    mine = table.filter(pc.equal(table["source_id"], source_id)).to_pylist()[-1]
    stills = pa.ipc.open_stream(mine["stills"]).read_all()
    return stills.filter(pc.equal(stills["clip_id"], row["clip_id"]))


def analyzed_schema(recipe: Recipe) -> pa.Schema:
    return Analyzer(recipe).schema
