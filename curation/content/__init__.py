"""CONTENT: what is in a clip, which clips repeat one another, and how often each concept is kept.

Movie Gen 3.2.1 and B.1, in the order of the stage:

1. ``embed``     stills -> a copy embedding (near-duplicates) and a semantic embedding (concepts)
2. ``groups``    embeddings, over shards -> ``copy_group`` and ``cluster_id``: ``grid`` and ``cells`` say what is near
                 what, ``pairs`` and ``concepts`` what belongs together, ``published`` what an older run already has
3. ``resample``  cluster sizes -> ``keep_prob``; ``decide`` says who is kept

The result depends on the clips and the seed, never on the order of the rows, the shards or the workers.
"""

from rushes.curation.content.copies import COPY_DIM, COPY_THRESHOLD, copy_embedding
from rushes.curation.content.embed import (
    SEMANTIC_DIM,
    SEMANTIC_MERGE_THRESHOLD,
    MeasuredCopyEmbedder,
    MeasuredSemanticEmbedder,
    semantic_embedding,
)
from rushes.curation.content.groups import RESULT, measure, measure_table
from rushes.curation.content.resample import hash_unit, keep_probability, solve_keep

__all__ = [
    "COPY_DIM",
    "COPY_THRESHOLD",
    "RESULT",
    "SEMANTIC_DIM",
    "SEMANTIC_MERGE_THRESHOLD",
    "MeasuredCopyEmbedder",
    "MeasuredSemanticEmbedder",
    "copy_embedding",
    "hash_unit",
    "keep_probability",
    "measure",
    "measure_table",
    "semantic_embedding",
    "solve_keep",
]
