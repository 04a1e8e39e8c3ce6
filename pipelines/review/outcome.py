"""What several people's decisions on one clip come to, and how far people agree. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ACCEPT, REJECT = "accept", "reject"
OPEN, DISPUTED, ACCEPTED, REJECTED = "open", "disputed", "accepted", "rejected"
GONE = "gone"  # the run no longer has the clip
WITHDRAWN = "withdrawn"  # the queue was filled anew without it
ASKED = (OPEN, DISPUTED)  # states of clips that are still asked about


@dataclass(frozen=True)
class Said:
    """A decision that stands, in the order in which decisions were made."""

    person: str
    verdict: str
    reasons: tuple[str, ...] = ()
    in_frame: int | None = None
    out_frame: int | None = None


def needed(state: str, reviewers: int) -> int:
    """How many people are to decide on a clip: one more breaks a tie."""
    return reviewers + (state == DISPUTED)


def state_of(said: Sequence[Said], reviewers: int) -> str:
    """State of a clip: open until all have spoken; disputed while as many accept it as reject it."""
    if len(said) < reviewers:
        return OPEN
    accepted = sum(one.verdict == ACCEPT for one in said)
    if 2 * accepted == len(said):
        return DISPUTED
    return ACCEPTED if 2 * accepted > len(said) else REJECTED


def span_of(said: Sequence[Said]) -> tuple[int, int]:
    """In and out point of an accepted clip: those of the last person who accepted it, who broke the tie if there was
    one. Raises ValueError where nobody accepted it.
    """
    for one in reversed(said):
        if one.verdict == ACCEPT and one.in_frame is not None and one.out_frame is not None:
            return one.in_frame, one.out_frame
    raise ValueError("nobody accepted the clip")


def agreement(pairs: Sequence[tuple[Said, Said]], reasons: Sequence[str]) -> list[dict[str, Any]]:
    """Cohen's kappa of the verdict (`accept`) and of each reason, over clips that two people decided on.

    Kappa is None where it is not defined: no pairs, or both always said the same one thing.
    """
    rows = []
    for name in ("accept", *reasons):
        both = [tuple(_has(one, name) for one in sorted(pair, key=lambda one: one.person)) for pair in pairs]
        agreed = sum(a == b for a, b in both) / len(both) if both else None
        rows.append({"reason": name, "pairs": len(both), "agreed": agreed, "kappa": kappa(both)})
    return rows


def kappa(both: Sequence[tuple[bool, bool]]) -> float | None:
    """Cohen's kappa of two raters' yes and no: (observed - chance agreement) / (1 - chance agreement)."""
    if not both:
        return None
    first, second = (sum(pair[rater] for pair in both) / len(both) for rater in (0, 1))
    chance = first * second + (1 - first) * (1 - second)
    agreed = sum(a == b for a, b in both) / len(both)
    return (agreed - chance) / (1 - chance) if chance < 1 else None


def _has(one: Said, name: str) -> bool:
    return one.verdict == ACCEPT if name == "accept" else name in one.reasons
