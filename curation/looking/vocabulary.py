"""The words that a text tower names concepts with: topics and verbs, and their vectors."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from rushes.curation.looking.zeroshot import texts, verbs

VOCABULARY = "vocabulary"
"""Name of the table: one row a word, with its vector by the model that made the run's semantic vectors."""


@cache
def phrases() -> dict[str, str]:
    """Every word (topics.yaml, verbs.yaml) and the phrase that it is asked as."""
    topics = yaml.safe_load((Path(__file__).parent / "topics.yaml").read_text(encoding="utf-8"))
    found = {topic: f"a photo of {topic}" for group in topics.values() for topic in group}
    return found | {verb: f"a photo of a person {verb}" for group in verbs().values() for verb in group}


def vocabulary(tower: Any) -> pa.Table:
    """The table of words for a tower that has `texts`: word, vector of length 1."""
    rows = texts(tower, list(phrases().values()))
    flat = pa.array(rows.astype(np.float32).ravel())
    return pa.table({"word": list(phrases()), "vector": pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])})
