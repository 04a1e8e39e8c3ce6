"""`rushes fit suitability`: decisions -> a score, a column of the run's clips, and another order of the queue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation import manifest, rules, storage
from rushes.curation.content.near import semantic, unit
from rushes.curation.finetune.suitability import COLUMN, FILE, FitError, Report, Score, fit, gain, uncertainty
from rushes.curation.manifest import ManifestError, Run, Snapshot, TableFiles
from rushes.curation.signals import SIGNALS
from rushes.curation.table import with_column
from rushes.pipelines.finetune import record_with
from rushes.pipelines.review.outcome import ACCEPTED, REJECTED
from rushes.pipelines.review.said import Reviewed
from rushes.pipelines.view.tables import query

FIELD = pa.field(
    COLUMN, pa.float32(),
    metadata={"meaning": "how likely people accept the clip for fine-tuning, by `rushes fit suitability`",
              "unit": "0-1", "null": "models did not look at the clip"},
)  # fmt: skip
#: Signals that a score is made of: numbers of the decode and of models; none that follow from who else is in the run.
USED = tuple(
    s.name for s in SIGNALS if s.chart in ("range", "counts") and s.part in ("measure", "look") and not s.derived
)


def fit_suitability(run: Run, reviewed: Reviewed) -> tuple[Score, Report, list[dict[str, float]]]:
    """A score of what people decided, its report, and what each hundred decisions brought. Raises ManifestError."""
    decided = {one.clip_id: one.state == ACCEPTED for one in reviewed.verdicts if one.state in (ACCEPTED, REJECTED)}
    table = query(run, "SELECT * FROM {clips} WHERE list_contains(?, clip_id) ORDER BY clip_id", [list(decided)])
    table = table.take(pa.array(_in_order(table["clip_id"].to_pylist(), reviewed), pa.int64()))
    ids = table["clip_id"].to_pylist()
    names = [name for name in USED if name in table.column_names]
    values, vectors = _values(table, names), _vectors(run, ids)
    accepted = np.array([decided[clip_id] for clip_id in ids], bool)
    sources = table["source_id"].to_pylist()
    try:
        score, report = fit(names, values, vectors, accepted, sources)
        return score, report, gain(names, values, vectors, accepted, sources)
    except FitError as error:
        raise ManifestError(str(error)) from error


def _in_order(ids: list[str], reviewed: Reviewed) -> list[int]:
    """Places of the clips in the order in which people decided on them."""
    last = {row["clip_id"]: row["number"] for row in reviewed.decisions}
    return sorted(range(len(ids)), key=lambda place: last.get(ids[place], 0))


def _values(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Signals float64 [N, S], NaN where there is none."""
    columns = [rules.column(table, name) if name in table.column_names else np.full(table.num_rows, np.nan)
               for name in names]  # fmt: skip
    return np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0))


def _vectors(run: Run, ids: list[str]) -> np.ndarray | None:
    """Unit embeddings [N, D] of some clips, NaN where there is none; None where the run has none at all."""
    place = {clip_id: number for number, clip_id in enumerate(ids)}
    found = None
    try:
        for some, rows in semantic(run):
            if found is None:
                found = np.full((len(ids), rows.shape[1]), np.nan, np.float32)
            for clip_id, row in zip(some, unit(rows), strict=True):
                if clip_id in place:
                    found[place[clip_id]] = row
    except ManifestError:
        return None
    return found


def keep(run: Run, score: Score, report: dict[str, Any]) -> str:
    """Write the score as a file of the run: its path below it."""
    storage.write_bytes(storage.join(run.root, FILE), score.to_json(report))
    return FILE


def as_report(report: Report, curve: list[dict[str, float]]) -> dict[str, Any]:
    return {**asdict(report), "gain": curve}


def load(path: str) -> tuple[Score, dict[str, Any]]:
    """A score that was kept, and its report. Raises ManifestError."""
    try:
        data = storage.read_bytes(path)
        return Score.from_json(data), json.loads(data).get("report", {})
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ManifestError(f"There is no score at {path}: `rushes fit suitability RUN` makes one.") from error
    except FitError as error:
        raise ManifestError(f"{path}: {error}") from error


def write_column(run: Run, score: Score) -> tuple[Run, dict[str, float]]:
    """Publish the run with the column `suitability` (a file in memory at a time): (the run, clip -> score).

    `rushes judge RUN --set rules.suitability.min=0.5` judges by it, as by any other column.
    """
    ids, projected = _projected(run, score)
    place = {clip_id: number for number, clip_id in enumerate(ids)}
    scores: dict[str, float] = {}
    with manifest.lock(run.root):
        snapshot = Snapshot.begin(run.root)
        try:
            files, rows = [], []
            for number, file in enumerate(run.files("clips")):
                table = storage.read_table(file)
                found = _scored(table, score, place, projected)
                scores |= {key: value for key, value in zip(table["clip_id"].to_pylist(), found) if value is not None}
                if COLUMN in table.column_names:
                    table = table.drop_columns([COLUMN])
                table = with_column(table, FIELD, pa.array(found, FIELD.type))
                path = snapshot.file("clips", number)
                storage.write_table(storage.join(run.root, path), table, storage.ROWS_PER_GROUP)
                files.append(path)
                rows.append(table.num_rows)
            listed = {name: run.entry(name) for name in run.tables if name != "clips"}
            listed["clips"] = TableFiles(tuple(files), tuple(rows))
            return manifest.publish_files(snapshot, listed, record_with(run, {}), run.snapshot), scores
        except BaseException:
            snapshot.discard()
            raise


def _scored(table: pa.Table, score: Score, place: dict[str, int], projected: np.ndarray) -> list[float | None]:
    """Scores of clips that models looked at, None for the others."""
    seen = [place.get(clip_id) for clip_id in table["clip_id"].to_pylist()]
    rows = np.array([projected[one] if one is not None else np.zeros(projected.shape[1]) for one in seen])
    looked = rules.column(table, "looked") == 1 if "looked" in table.column_names else np.ones(len(seen), bool)
    found = score.of(_values(table, score.signals), rows.reshape(len(seen), projected.shape[1]))
    return [float(value) if ok else None for value, ok in zip(found, looked, strict=True)]


def _projected(run: Run, score: Score) -> tuple[list[str], np.ndarray]:
    """Clip ids and their embeddings along the score's directions. Raises ManifestError for those of another model."""
    ids: list[str] = []
    parts = [np.zeros((0, len(score.directions)))]
    if len(score.directions):
        for some, rows in semantic(run):
            if rows.shape[1] != len(score.centre):
                raise ManifestError(
                    f"The score was fitted on embeddings of {len(score.centre)} numbers, and {run.root} has "
                    f"{rows.shape[1]}: fit one on this run."
                )
            ids += some
            parts.append(score.project(unit(rows), len(rows)))
    return ids, np.concatenate(parts)


def ranks(scores: dict[str, float]) -> dict[str, tuple[float, float | None]]:
    """Rank and score of clips, for a queue that asks first about what is least sure."""
    least_sure = uncertainty(np.array(list(scores.values())))
    return {clip_id: (float(rank), scores[clip_id]) for clip_id, rank in zip(scores, least_sure)}
