"""CONTENT: what is in a clip, which clips repeat one another, and how often each concept is kept.

Movie Gen 3.2.1 and B.1, in the order of the stage:

1. ``embed``     stills -> a copy embedding (near-duplicates) and a semantic embedding (concepts)
2. ``groups``    embeddings, over shards -> ``copy_group`` and ``cluster_id``: ``grid`` and ``cells`` say what is near
                 what, ``pairs`` and ``concepts`` what belongs together, ``published`` what an older run already has
3. ``resample``  cluster sizes -> ``keep_prob``; ``decide`` says who is kept

The result depends on the clips and the seed, never on the order of the rows, the shards or the workers.
"""
