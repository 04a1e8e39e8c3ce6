"""The work store of a run: what each task gave, keyed by content, so that a killed run repeats only what was in flight.

    RUN/work/probe/<hash of uri, size, time>.json
    RUN/work/analyze/<source id>-<hashes of the recipe's observe and measure parts>.parquet   and stills/ beside it
    RUN/work/look/<source id>-<hash of analyze and look>.parquet
    RUN/work/caption/<hashes of what is shown and asked>/<unique>.parquet   a batch of captions, or many merged
    RUN/media/<hash of the cut part>/<..>/<clip id>.mp4

Every record appears whole or not at all. Nothing here is a table of the run: those are published at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from dataclasses import asdict
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from rushes.curation import manifest
from rushes.curation.analyze import Analysis
from rushes.curation.captioning import Caption
from rushes.curation.captioning.prompt import load_template
from rushes.curation.manifest import exists, join, read_table, resolve, write_batches, write_bytes, write_table
from rushes.curation.recipe import Recipe
from rushes.curation.video.source import Source
from rushes.curation.visual.stills import STILLS

CAPTIONS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("text", pa.string()),
        ("model", pa.string()),
        ("error", pa.string()),
        ("seed", pa.int64()),
        ("tokens_in", pa.int64()),
        ("tokens_out", pa.int64()),
        ("lasting", pa.bool_()),
    ]
)


class WorkStore:
    def __init__(self, root: str, recipe: Recipe) -> None:
        self.root = root
        self.analyze_hash = recipe.analysis_hash()
        self.look_hash = f"{self.analyze_hash}-{recipe.part_hash('look')}"
        self.content_hash = f"{self.look_hash}-{recipe.part_hash('content')}"
        self.cut_hash = recipe.part_hash("cut")
        self._recipe = recipe

    def _path(self, kind: str, name: str) -> str:
        return join(self.root, "work", kind, name)

    def probe(self, uri: str) -> Source | None:
        """What an earlier run found of this file, if the file's size and time are what they were then."""
        path = self._probe_path(uri)
        if path is None or not exists(path):
            return None
        fs, local = resolve(path)
        with fs.open_input_stream(local) as stream:
            return Source(**json.loads(stream.read()))

    def put_probe(self, source: Source) -> None:
        path = self._probe_path(source.uri)
        if path is not None and source.status != "failed":
            write_bytes(path, json.dumps(asdict(source)).encode())

    def _probe_path(self, uri: str) -> str | None:
        fs, path = resolve(uri)
        info = fs.get_file_info(path)
        if info.size is None:
            return None
        key = hashlib.blake2b(f"{uri}:{info.size}:{info.mtime_ns}".encode(), digest_size=10).hexdigest()
        return self._path("probe", f"{key}.json")

    def analysis(self, source: Source) -> tuple[Source, pa.Table] | None:
        """The source as its decode left it, and its clips; None where it was not analyzed with this recipe."""
        path = self._path("analyze", f"{source.source_id}-{self.analyze_hash}.parquet")
        if not exists(path):
            return None
        clips = read_table(path)
        stored = Source(**json.loads(clips.schema.metadata[b"source"]))
        uris = pa.array([source.uri] * clips.num_rows, pa.string())  # the file may have another name today
        clips = clips.set_column(clips.schema.get_field_index("uri"), "uri", uris)
        return Source(**{**asdict(stored), "uri": source.uri}), clips.replace_schema_metadata(None)

    def put_analysis(self, analysis: Analysis) -> None:
        """Stills first: who sees the record can rely on them."""
        source = analysis.source
        path = self._path("stills", f"{source.source_id}-{self.analyze_hash}.parquet")
        write_batches(path, STILLS, analysis.still_batches())
        clips = analysis.clips.replace_schema_metadata({b"source": json.dumps(asdict(source)).encode()})
        write_table(self._path("analyze", f"{source.source_id}-{self.analyze_hash}.parquet"), clips)

    def stills(self, source_id: str, clip_ids: list[str]) -> pa.Table:
        """STILLS rows of these clips; only their row groups are read."""
        path = self._path("stills", f"{source_id}-{self.analyze_hash}.parquet")
        return read_table(path, filters=pc.is_in(pc.field("clip_id"), pa.array(clip_ids, pa.string())))

    def looks(self, source_id: str) -> pa.Table | None:
        path = self._path("look", f"{source_id}-{self.look_hash}.parquet")
        return read_table(path) if exists(path) else None

    def put_looks(self, source_id: str, looks: pa.Table) -> None:
        write_table(self._path("look", f"{source_id}-{self.look_hash}.parquet"), looks)

    @property
    def content_folder(self) -> str:
        """Where the measuring of content leaves its files, named by what decides them."""
        return join(self.root, "work", "content", self.content_hash)

    @cached_property
    def _caption_folder(self) -> str:
        """Its name holds what decides a caption: the recipe's part, the prompt's wording, where frames come from."""
        captioning = self._recipe.captioning
        frames = self.cut_hash if captioning.frames_from == "media" else ""
        key = f"{self.analyze_hash}{frames}-{self._recipe.part_hash('caption')}-{load_template(captioning.prompt).key}"
        return self._path("caption", key)

    def captions(self) -> list[Caption]:
        """Every caption that was written down for this recipe; of a clip asked twice the lasting answer comes last."""
        fs, folder = resolve(self._caption_folder)
        found = fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        rows: list[Caption] = []
        for path in sorted(info.path for info in found if info.path.endswith(".parquet")):
            with contextlib.suppress(FileNotFoundError):  # merged into another by its worker just now
                rows += [Caption(**row) for row in pq.read_table(path, filesystem=fs, partitioning=None).to_pylist()]
        return sorted(rows, key=lambda caption: caption.lasting)

    def put_captions(self, captions: list[Caption]) -> str:
        """Write a batch down; its path."""
        path = join(self._caption_folder, f"{uuid.uuid4().hex}.parquet")
        write_table(path, pa.Table.from_pylist([asdict(caption) for caption in captions], CAPTIONS))
        return path

    def merge_captions(self, captions: list[Caption], parts: list[str]) -> None:
        """One record instead of many small ones; a kill in between leaves both, which say the same."""
        if len(parts) < 2:
            return
        self.put_captions(captions)
        for part in parts:
            fs, path = resolve(part)
            fs.delete_file(path)


def record_versions() -> dict[str, Any]:
    """Versions of what decides the result, for the commit record."""
    from importlib.metadata import version

    names = (
        "rushes",
        "av",
        "scenedetect",
        "opencv-python",
        "rapidocr",
        "faiss-cpu",
        "ray",
        "pyarrow",
        "imageio-ffmpeg",
    )
    return {"manifest": manifest.SCHEMA_VERSION, **{name: version(name) for name in names}}
