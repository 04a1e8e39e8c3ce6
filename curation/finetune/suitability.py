"""A score that people train by deciding: how likely they accept a clip, from its signals and embedding.

A logistic regression on standardised signals and the leading directions of the embeddings, calibrated by Platt's
method (a logistic function over scores of clips that the model was not fitted on). Small on purpose: some hundred
decisions are all there is. Its strength of regularisation and its error are told by cross-validation over sources, so
that clips of one film never stand on both sides. Kept as JSON: a file that is read runs no code.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

VERSION = 1
COLUMN = "suitability"  # of the clips, which `rushes fit suitability` writes
FILE = "models/suitability.json"  # below the run that it was fitted on
FOLDS = 5
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # inverse regularisation that is tried
DIRECTIONS = 8  # of the embeddings that are used, at most
PER_DIRECTION = 25  # decisions for each
LEAST = 20  # decisions with which a score is fitted, and LEAST_EACH of either kind
LEAST_EACH = 5
FAR = 6.0  # standard deviations beyond which a signal says no more


class FitError(ValueError):
    """A score that cannot be fitted: one sentence."""


@dataclass(frozen=True)
class Score:
    """signals: columns in order; middle, spread: of each, NaN counts as the middle; centre [D], directions [K, D] of
    the embeddings and their spread [K]; weights [S + K], bias; slope, offset: of the calibration.
    """

    signals: tuple[str, ...]
    middle: np.ndarray
    spread: np.ndarray
    centre: np.ndarray
    directions: np.ndarray
    direction_spread: np.ndarray
    weights: np.ndarray
    bias: float
    slope: float
    offset: float

    def __call__(self, values: np.ndarray, vectors: np.ndarray | None) -> np.ndarray:
        """Probability of being accepted, float64 [N], of clips with `values` [N, S] (NaN: not measured) and `vectors`
        [N, D] (NaN rows: none; None: no clip has any).
        """
        return self.of(values, self.project(vectors, len(values)))

    def of(self, values: np.ndarray, projected: np.ndarray) -> np.ndarray:
        """The same, where the embeddings were projected before."""
        raw = self.features(values, projected) @ self.weights + self.bias
        return 1 / (1 + np.exp(-(self.slope * raw + self.offset)))

    def project(self, vectors: np.ndarray | None, count: int) -> np.ndarray:
        """Embeddings [N, D] along the directions, float64 [N, K]; 0 where there is none."""
        if vectors is None or not len(self.directions):
            return np.zeros((count, len(self.directions)))
        return np.nan_to_num((vectors - self.centre) @ self.directions.T / self.direction_spread)

    def features(self, values: np.ndarray, projected: np.ndarray) -> np.ndarray:
        scaled = np.nan_to_num((values - self.middle) / self.spread)
        return np.hstack([np.clip(scaled, -FAR, FAR), projected])

    def to_json(self, report: dict[str, Any]) -> bytes:
        fields = {
            key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in asdict(self).items()
        }
        return json.dumps({"version": VERSION, "score": fields, "report": report}, indent=1).encode()

    @staticmethod
    def from_json(data: bytes) -> Score:
        """Raises FitError where it is no such file."""
        try:
            whole = json.loads(data)
            fields = whole["score"]
            arrays = ("middle", "spread", "centre", "directions", "direction_spread", "weights")
            made = Score(**{
                **fields, "signals": tuple(fields["signals"]),
                **{name: np.asarray(fields[name], np.float64) for name in arrays},
            })  # fmt: skip
            whole_size = len(made.weights) == len(made.signals) + len(made.direction_spread)
            if whole["version"] != VERSION or not whole_size or not np.isfinite(made.weights).all():
                raise ValueError("of another form")
        except (ValueError, KeyError, TypeError) as error:
            raise FitError(f"This is no file of `rushes fit suitability`: {error}.") from error
        return made


@dataclass(frozen=True)
class Report:
    """What is known of a score: decisions, AUC and Brier score by cross-validation over sources, and its error rate
    at one half beside that of always giving the commoner answer.
    """

    decisions: int
    accepted: int
    sources: int
    auc: float | None
    brier: float | None
    error: float | None
    error_of_the_commoner: float
    strength: float
    weights: dict[str, float]


def fit(
    signals: Sequence[str], values: np.ndarray, vectors: np.ndarray | None, accepted: np.ndarray, sources: Sequence[str]
) -> tuple[Score, Report]:
    """A score of decisions: `values` [N, S], `vectors` [N, D] or None, `accepted` bool [N], `sources` [N].

    Raises FitError where there are too few decisions, or all are alike.
    """
    accepted = np.asarray(accepted, bool)
    few = min(int(accepted.sum()), int((~accepted).sum()))
    if len(accepted) < LEAST or few < LEAST_EACH:
        raise FitError(
            f"{len(accepted)} decisions, {int(accepted.sum())} of them accepted, are too few for a score: it wants "
            f"{LEAST}, and {LEAST_EACH} of each kind."
        )
    values = np.asarray(values, np.float64)
    blank = _scaling(tuple(signals), values, vectors)
    features = blank.features(values, blank.project(vectors, len(values)))
    folds = _folds(sources, accepted)
    strength, held_out = _best(features, accepted, folds)
    model = _regression(strength).fit(features, accepted)
    slope, offset = _platt(held_out, accepted)
    made = Score(**{
        **blank.__dict__, "weights": model.coef_[0], "bias": float(model.intercept_[0]), "slope": slope,
        "offset": offset,
    })  # fmt: skip
    names = [*signals, *(f"embedding {number}" for number in range(len(made.directions)))]
    weights = dict(sorted(zip(names, made.weights.tolist()), key=lambda one: -abs(one[1])))
    calibrated = 1 / (1 + np.exp(-(slope * held_out + offset)))
    share = accepted.mean()
    return made, Report(
        len(accepted), int(accepted.sum()), len(set(sources)), _auc(accepted, held_out),
        float(np.mean((calibrated - accepted) ** 2)), float(np.mean((calibrated >= 0.5) != accepted)),
        float(min(share, 1 - share)), strength, weights,
    )  # fmt: skip


def gain(
    signals: Sequence[str], values: np.ndarray, vectors: np.ndarray | None, accepted: np.ndarray,
    sources: Sequence[str], every: int = 100,
) -> list[dict[str, float]]:  # fmt: skip
    """What each hundred decisions brought: a score of the first n, in the order in which they were made, judged by AUC
    on the decisions that came after on other sources (None for the last n).
    """
    accepted = np.asarray(accepted, bool)
    curve = []
    for count in sorted({*range(every, len(accepted), every), len(accepted)}):
        first, later = slice(0, count), np.arange(len(accepted)) >= count
        later &= ~np.isin(np.asarray(sources), np.unique(np.asarray(sources)[first]))
        try:
            part = None if vectors is None else vectors[first]
            score, report = fit(signals, values[first], part, accepted[first], list(sources[first]))
        except FitError:
            continue
        rest = None if vectors is None else vectors[later]
        ahead = _auc(accepted[later], score(values[later], rest)) if later.any() else None
        curve.append({"decisions": count, "auc": report.auc, "error": report.error, "auc_later": ahead})
    return curve


def uncertainty(score: np.ndarray) -> np.ndarray:
    """Rank in which clips are asked: the nearer the score is to one half, the lower."""
    return np.abs(np.asarray(score) - 0.5)


def _scaling(signals: tuple[str, ...], values: np.ndarray, vectors: np.ndarray | None) -> Score:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a signal that no clip has: 0 everywhere
        middle = np.nan_to_num(np.nanmedian(values, axis=0)) if values.size else np.zeros(values.shape[1])
        spread = np.nan_to_num(np.nanstd(values, axis=0)) if values.size else np.ones(values.shape[1])
    spread = np.where(spread > 1e-9, spread, 1.0)
    none = np.zeros((0, 0))
    centre, directions, scale = np.zeros(0), none, np.zeros(0)
    if vectors is not None:
        there = vectors[np.isfinite(vectors).all(axis=1)].astype(np.float64)
        most = min(DIRECTIONS, len(there) // PER_DIRECTION)
        if most:
            centre = there.mean(axis=0)
            _, singular, rows = np.linalg.svd(there - centre, full_matrices=False)
            directions = (
                rows[:most] * np.sign(rows[:most][np.arange(most), np.abs(rows[:most]).argmax(axis=1)])[:, None]
            )
            scale = np.maximum(singular[:most] / np.sqrt(len(there)), 1e-9)
    size = values.shape[1] + len(scale)
    return Score(signals, middle, spread, centre, directions, scale, np.zeros(size), 0.0, 1.0, 0.0)


def _folds(sources: Sequence[str], accepted: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Train and test indices, whole sources on one side; one fold per source where there are fewer than five."""
    from sklearn.model_selection import GroupKFold

    groups = np.unique(np.asarray(sources), return_inverse=True)[1]
    count = min(FOLDS, int(groups.max()) + 1)
    if count < 2:
        raise FitError("All decisions are on clips of one source: decide on clips of others too.")
    found = GroupKFold(count).split(groups, groups=groups)
    return [(train, test) for train, test in found if 0 < accepted[train].sum() < len(train)]


def _best(features: np.ndarray, accepted: np.ndarray, folds: list[Any]) -> tuple[float, np.ndarray]:
    """The strength with the least log loss on sources that were left out, and the scores they had then."""
    from sklearn.metrics import log_loss

    best: tuple[float, float, np.ndarray] | None = None
    for strength in STRENGTHS:
        raw = np.zeros(len(accepted))
        for train, test in folds:
            raw[test] = _regression(strength).fit(features[train], accepted[train]).decision_function(features[test])
        loss = log_loss(accepted, 1 / (1 + np.exp(-raw)), labels=[False, True])
        if best is None or loss < best[0]:
            best = (loss, strength, raw)
    if best is None:
        raise FitError("There is nothing to fit.")
    return best[1], best[2]


def _regression(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=1_000)


def _platt(raw: np.ndarray, accepted: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the logistic function that maps scores to shares of accepted clips; it never turns round."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10.0).fit(raw[:, None], accepted)
    slope = float(model.coef_[0, 0])
    return (
        (slope, float(model.intercept_[0]))
        if slope > 0
        else (1e-6, float(np.log(accepted.mean() / (1 - accepted.mean()))))
    )


def _auc(accepted: np.ndarray, score: np.ndarray) -> float | None:
    """Area under the curve; None where only one answer is there."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(accepted, score)) if 0 < accepted.sum() < len(accepted) else None
