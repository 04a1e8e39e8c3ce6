"""CONTENT: what is in a clip, which clips repeat one another, and how often each concept is kept.

Movie Gen 3.2.1 and B.1, in the order of the stage:

1. ``embed``     stills -> a copy embedding (near-duplicates) and a semantic embedding (concepts)
2. ``group``     embeddings -> ``duplicate_of`` and ``cluster_id``
3. ``resample``  cluster sizes -> ``keep_prob`` and who is kept

Pure functions on arrays: the result depends on the clips and the seed, never on the order of the rows.
"""

from rushes.curation.content.copies import COPY_DIM, COPY_THRESHOLD, copy_embedding
from rushes.curation.content.embed import (
    SEMANTIC_DIM,
    SEMANTIC_MERGE_THRESHOLD,
    MeasuredCopyEmbedder,
    MeasuredSemanticEmbedder,
    semantic_embedding,
)
from rushes.curation.content.group import cluster, find_duplicates
from rushes.curation.content.resample import hash_unit, keep_probability, sample, solve_keep

__all__ = [
    "COPY_DIM",
    "COPY_THRESHOLD",
    "SEMANTIC_DIM",
    "SEMANTIC_MERGE_THRESHOLD",
    "MeasuredCopyEmbedder",
    "MeasuredSemanticEmbedder",
    "cluster",
    "copy_embedding",
    "find_duplicates",
    "hash_unit",
    "keep_probability",
    "sample",
    "semantic_embedding",
    "solve_keep",
]
