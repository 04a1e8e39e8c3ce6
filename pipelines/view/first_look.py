"""A run as it was published, for who opens it while its columns are read: the funnel, and histograms as they come.

No threshold can be moved over columns that are not there yet; what was decided stands in one column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rushes.curation.signals import LOOK_FAILED
from rushes.pipelines.view.bins import BINS, BLOCK, counted, each
from rushes.pipelines.view.clip_columns import LATE
from rushes.pipelines.view.moved import rules_of, still
from rushes.pipelines.view.what_if import WhatIf


class FirstLook:
    """`board` of `moved` for a snapshot that is being read, with `reading`: {share, sentence}.

    What is not there yet is None: charts, the kept seconds; `sets` is empty, and no chart has its `alone`.
    """

    def __init__(self, held: WhatIf) -> None:
        self.held = held
        self._inside: dict[str, list[int]] = {}
        words = counted(held.held.rejected, len(held.held.words) + 1)
        self._rejected = dict(zip(held.held.words, words[1:].tolist(), strict=False))
        self._passing = int(words[: len(LATE) + 1].sum())
        self._kept, self._kept_s = int(words[0]), None

    def board(self, overrides: Sequence[str] = ()) -> dict[str, Any]:
        held = self.held
        recipe = held.recipe_with(overrides)
        part = {"clips": self._kept, "seconds": self._seconds(), "landscape": None, "people": None}
        late = {key: self._rejected[key] for key in (LOOK_FAILED.key, *LATE) if self._rejected.get(key)}
        sentence = f"Reading the columns of {held.rows:,} clips: {100 * held.progress:.0f} %. Counts are as published."
        return {
            "clips": held.rows,
            "rules": rules_of(held, recipe, self._rejected, None),
            "charts": {column: self._chart(column) for column in held.columns},
            "passing": {"clips": self._passing, "before": self._passing},
            "kept": part | {"before": part},
            "enter": 0,
            "leave": 0,
            "late": late,
            "sets": {},
            "said": [],
            "reading": {"share": round(held.progress, 2), "sentence": sentence},
        }

    def _seconds(self) -> float | None:
        ms, rejected = self.held.held.ms, self.held.held.rejected
        if self._kept_s is None and ms is not None:

            def length(begin: int) -> int:
                some = slice(begin, begin + BLOCK)
                return int(ms[some][rejected[some] == 0].sum(dtype=np.int64))

            self._kept_s = sum(each(length, range(0, self.held.rows, BLOCK))) / 1000
        return self._kept_s

    def _chart(self, column: str) -> dict[str, Any] | None:
        binned = self.held.bins.binned.get(column)
        if binned is None:
            return None
        if column not in self._inside:
            codes, rejected = self.held.bins.of(column), self.held.held.rejected

            def count(begin: int) -> np.ndarray:
                some = slice(begin, begin + BLOCK)
                return counted(codes[some][rejected[some] <= len(LATE)])

            found = sum(each(count, range(0, self.held.rows, BLOCK)), np.zeros(BINS + 1, np.int64))
            self._inside[column] = found[:BINS].tolist()
        return {**still(binned), "inside": self._inside[column], "alone": [0] * BINS}
