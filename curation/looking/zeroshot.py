"""Questions put to a CLIP in words: is this unsafe, watermarked, rendered; what are people doing?

A score is a softmax over prompts and counter-prompts at the model's own temperature, so 0.5 means "as like the one as
the other". prompts.yaml holds the words; verbs.yaml holds 600 human verbs and expressions, grouped (Movie Gen balances
its sets by "human verbs and expressions", section 3.2.1, and does not list them).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

HERE = Path(__file__).parent
NEAREST = 5  # prompts of each side that are compared: 600 against 20 must not win by their number
PEOPLE_SURE = 0.5  # from here on the nearest verb is named
BATCH = 64  # texts per pass


@dataclass(frozen=True)
class Question:
    """`question(rows)`: embeddings of stills [n, D] -> (score in [0, 1], the nearest prompt's name).

    worst: the still that says yes most counts (a watermark in one is one); otherwise their mean.
    """

    names: tuple[str, ...]
    yes: np.ndarray
    no: np.ndarray
    scale: float
    worst: bool

    def __call__(self, rows: np.ndarray) -> tuple[float, str]:
        yes, no = rows @ self.yes.T, rows @ self.no.T
        gap = self.scale * (_nearest(yes) - _nearest(no))
        scores = 1.0 / (1.0 + np.exp(-np.clip(gap, -50, 50)))
        return float(scores.max() if self.worst else scores.mean()), self.names[int(yes.mean(axis=0).argmax())]


def _nearest(cosines: np.ndarray) -> np.ndarray:
    """Mean of the nearest prompts' cosines per still: [n, P] -> [n]."""
    count = min(NEAREST, cosines.shape[1])
    return np.sort(cosines, axis=1)[:, -count:].mean(axis=1)


@cache
def prompts() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((HERE / "prompts.yaml").read_text(encoding="utf-8"))


@cache
def verbs() -> dict[str, list[str]]:
    """Human verbs and expressions by group."""
    return yaml.safe_load((HERE / "verbs.yaml").read_text(encoding="utf-8"))


def flag_question(tower: Any, name: str) -> Question:
    """name: nsfw, watermark or rendered."""
    words = prompts()[name]
    return _ask(tower, words["for"], words["for"], words["against"], worst=words["worst"])


def people_question(tower: Any) -> Question:
    actions = [verb for group in verbs().values() for verb in group]
    return _ask(tower, actions, [f"a photo of a person {action}" for action in actions], prompts()["people"]["against"])


def _ask(tower: Any, names: list[str], yes: list[str], no: list[str], worst: bool = False) -> Question:
    return Question(tuple(names), texts(tower, yes), texts(tower, no), tower.scale, worst)


def texts(tower: Any, phrases: list[str]) -> np.ndarray:
    """float32 [N, D], rows of length 1, some phrases at a time."""
    return np.concatenate([tower.texts(phrases[i : i + BATCH]) for i in range(0, len(phrases), BATCH)])
