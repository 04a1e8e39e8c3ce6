"""Words for concepts: what their captions say that those of the others do not (TF-IDF), what a text tower sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rushes.curation.content.grid import unit

CAPTIONS_PER_CONCEPT = 64  # more of them name a concept no better
WORDS = 3
COMMON = 0.5  # a word that more than this share of the concepts have names none of them
LETTERS = r"(?u)\b[^\W\d_]{3,}\b"  # words of three letters or more, in any script; no numbers


def names(captions: Sequence[Sequence[str]], words: int = WORDS) -> list[str]:
    """For the captions of each concept its `words` most telling words, as "surf, wave, board"; "" without captions.

    A concept is one document: the weight of a word is its frequency there (sublinear) times the logarithm of how few
    concepts have it. Equal weights go by the alphabet.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    documents = [" ".join(sorted(some)[:CAPTIONS_PER_CONCEPT]) for some in captions]
    told = [place for place, text in enumerate(documents) if text.strip()]
    found = [""] * len(documents)
    if not told:
        return found
    rare = max(1, int(COMMON * len(told))) if len(told) > 3 else len(told)
    for most in (rare, len(told)):  # where all say the same, common words are better than none
        vectorizer = TfidfVectorizer(stop_words="english", token_pattern=LETTERS, sublinear_tf=True, max_df=most)
        try:
            weights = vectorizer.fit_transform([documents[place] for place in told])
        except ValueError:  # no word is left
            continue
        vocabulary = vectorizer.get_feature_names_out()
        for row, place in enumerate(told):
            if not found[place]:
                found[place] = _top(weights[row], vocabulary, words)
    return found


def seen(centres: np.ndarray, words: Sequence[str], vectors: np.ndarray, count: int = WORDS) -> list[str]:
    """For centres [K, D] the `count` words whose vectors [W, D] say most of each, as "a dog, a meadow".

    A word says as much as the centre is nearer to it than the concepts are on the whole (where there are several): some
    words are near to all pictures.
    """
    if not len(centres) or not len(words):
        return [""] * len(centres)
    cosine = unit(np.asarray(centres, np.float32)) @ unit(np.asarray(vectors, np.float32)).T
    if len(centres) > 1:
        cosine -= cosine.mean(axis=0)
    best = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
    return [", ".join(words[place] for place in row) for row in best]


def _top(row, vocabulary: np.ndarray, words: int) -> str:
    order = np.lexsort((vocabulary[row.indices], -np.round(row.data, 9)))[:words]
    return ", ".join(vocabulary[row.indices[order]])
