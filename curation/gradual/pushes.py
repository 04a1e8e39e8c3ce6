"""Pushes: a window that slides over the picture before and the one after, side by side."""

from __future__ import annotations

import cv2
import numpy as np

from rushes.curation.gradual.explained import UNEXPLAINED_LEVELS, envelope, outside
from rushes.curation.gradual.pictures import (
    EDGED,
    EDGED_HALF,
    MIXED,
    UNLIKE,
    WEIGHT,
    Ring,
    Triples,
    extent,
    quarters,
    weight_and_residual,
)

PUSH_ERROR_MAX = 0.2  # share of the change that a window over A and B leaves unexplained
PUSH_PROFILE_MAX = 0.22  # the same of the pictures' profiles, which is looked at first
PUSH_STEPS = 4  # a window that crosses faster, in pictures that are looked at, is a whip pan
PUSH_SEAM = -0.05  # what lies on either side of a push's seam is less alike than elsewhere, in correlation


def push_errors(triples: Triples) -> np.ndarray:
    """What the best window over the profiles of A and B leaves of their difference, inf where that is too much."""
    weight, _ = weight_and_residual(*triples.quarters[1])
    good = (
        (triples.alike < UNLIKE)
        & (triples.halves >= EDGED_HALF)
        & (weight > WEIGHT[0] / 2)
        & (weight < 1 - WEIGHT[0] / 2)
    )
    places = np.flatnonzero(triples.gradual(good, calm=True))
    errors = np.full(len(triples), np.inf)
    if len(places):
        three = triples.begins[places], triples.ends[places] - triples.halves[places], triples.ends[places]
        found = np.minimum(*(_slid(*(profile[place] for place in three)) for profile in triples.ring.profiles))
        errors[places] = np.where(found < PUSH_PROFILE_MAX, found, np.inf)
    return errors


def _slid(a: np.ndarray, m: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Error of the best window over profiles a and b side by side, either way, over their difference: float [n]."""
    change = np.maximum(np.abs(a - b).mean(axis=1), 1e-6)
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([a, b, a], axis=1), a.shape[1], axis=1)
    return np.abs(windows - m[:, None]).mean(axis=2).min(axis=1) / change


def push(ring: Ring, end: int, half: int) -> tuple[int, int, float] | None:
    begin = end - 2 * half
    pictures = ring.luma[begin : end + 1]
    ways = []
    for turned, profile in enumerate(ring.profiles):
        for pair in ((0, -1), (-1, 0)):
            one, other = (profile[(begin, end)[number]] for number in pair)
            windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([one, other]), len(one))
            ways.append((float(np.abs(windows - profile[end - half]).mean(axis=1).min()), turned, pair))
    _, turned, pair = min(ways)
    found = _pushed(np.ascontiguousarray(pictures.transpose(0, 2, 1)) if turned else pictures, pair, half)
    return None if found is None else (*extent(found[0], begin, EDGED), 1 - found[1])


def _pushed(stack: np.ndarray, pair: tuple[int, int], half: int) -> tuple[np.ndarray, float] | None:
    """Share of B in every picture, and the error, where a window slides over the pair; None where none does."""
    a, b = stack[0], stack[-1]
    change = float(outside(b, envelope(a)).mean() + outside(a, envelope(b)).mean()) / 2
    if change < UNEXPLAINED_LEVELS:
        return None
    around = envelope(np.concatenate([stack[pair[0]], stack[pair[1]]], axis=1))
    columns = a.shape[1]
    windows = [
        np.lib.stride_tricks.sliding_window_view(side, columns, axis=1).transpose(1, 0, 2).reshape(-1, columns)
        for side in around
    ]

    def best(picture: np.ndarray) -> tuple[float, int]:
        left_out = outside(cv2.repeat(picture, columns + 1, 1), windows).reshape(columns + 1, -1)
        errors = left_out.mean(axis=1)
        return float(errors.min()) / change, int(errors.argmin())

    error = 0.0
    for number in quarters(half)[1], *quarters(half)[::2]:
        error = max(error, best(stack[number])[0])
        if error > PUSH_ERROR_MAX:
            return None
    shares = np.array([best(picture)[1] for picture in stack]) / columns
    shares = shares if pair[0] == 0 else 1 - shares
    early, middle, late = (shares[number] for number in quarters(half))
    if not (early < middle < late and WEIGHT[0] < middle < WEIGHT[1]):
        return None
    mixed = int(((shares > MIXED[0]) & (shares < MIXED[1])).sum())
    return (shares, error) if mixed >= PUSH_STEPS and _seam(stack, shares, pair) > PUSH_SEAM else None


def _seam(stack: np.ndarray, shares: np.ndarray, pair: tuple[int, int]) -> float:
    """By how much less the columns on either side of the seam are alike than other columns so far apart, -1 to 2."""
    found = []
    for picture, share in zip(stack, shares, strict=True):
        columns = picture.shape[1]
        place = round((1 - share if pair[0] == 0 else share) * columns)
        if not 3 <= place <= columns - 3:
            continue
        values = picture - picture.mean(axis=0)
        lengths = np.sqrt((values * values).sum(axis=0)) + 1e-6
        alike = (values[:, :-3] * values[:, 3:]).sum(axis=0) / (lengths[:-3] * lengths[3:])
        found.append(float(np.median(alike)) - float(alike[place - 2]))
    return float(np.mean(found)) if found else 0.0
