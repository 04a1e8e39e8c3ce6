"""Which model writes which caption: 70 % by the small one, 30 % by the large one (B.2), decided by each clip's id.

The draw depends on the clip and the seed alone: the split holds within every subset of the clips, and a run that is
resumed, or judged anew, gives every clip to the model that it had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from rushes.curation.content.resample import hash_unit
from rushes.curation.sections import CaptionModel

SEED_BYTES = 4  # every server that takes a sampling seed takes a non-negative signed 32-bit number


def assign_models(clip_ids: Sequence[str], models: Sequence[CaptionModel], seed: int) -> list[str]:
    """Name of the model for each clip id; shares are taken in the recipe's order and sum to 1."""
    draws = hash_unit(seed, "caption-model", clip_ids)
    edges = np.cumsum([model.share for model in models])[:-1]
    return [models[index].name for index in np.searchsorted(edges, draws, side="right")]


def sampling_seed(clip_id: str, seed: int, attempt: int) -> int:
    """Seed of the sampling for one attempt (0, 1, ...) at one clip: another for each, the same in every run."""
    digest = hashlib.blake2b(f"{seed}\0{attempt}\0{clip_id}".encode(), digest_size=SEED_BYTES).digest()
    return int.from_bytes(digest, "big") >> 1
