"""Words for concepts: what the captions of a concept say that those of the others do not (TF-IDF)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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


def _top(row, vocabulary: np.ndarray, words: int) -> str:
    order = np.lexsort((vocabulary[row.indices], -np.round(row.data, 9)))[:words]
    return ", ".join(vocabulary[row.indices[order]])
