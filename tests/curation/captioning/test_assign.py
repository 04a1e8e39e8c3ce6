"""Two models share the clips as told, in every subset, in every run."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from rushes.curation.captioning.assign import assign_models, sampling_seed
from rushes.curation.sections import CaptionModel

TWO = (CaptionModel(name="small", share=0.7), CaptionModel(name="large", share=0.3))
IDS = [hashlib.blake2b(str(i).encode(), digest_size=10).hexdigest() for i in range(20_000)]
FOUR_SIGMA = 4.0


def share(ids: list[str]) -> float:
    return float(np.mean([name == "large" for name in assign_models(ids, TWO, 0)]))


def test_thirty_per_cent_of_any_thousand_clips_go_to_the_large_model_within_sampling_error():
    sigma = (0.3 * 0.7 / 1000) ** 0.5
    for start in range(0, 20_000, 1000):
        assert abs(share(IDS[start : start + 1000]) - 0.3) < FOUR_SIGMA * sigma
    assert abs(share(sorted(IDS)[:1000]) - 0.3) < FOUR_SIGMA * sigma
    assert abs(share([i for i in IDS if i.endswith("7")][:1000]) - 0.3) < FOUR_SIGMA * sigma


def test_the_shares_hold_in_every_part_and_not_only_in_the_whole():
    spread = np.std([share(IDS[start : start + 1000]) for start in range(0, 20_000, 1000)])
    assert 0.005 < spread < 0.03  # of independent draws: 0.0145


def test_a_clip_keeps_its_model_whatever_stands_beside_it():
    whole = dict(zip(IDS, assign_models(IDS, TWO, 0), strict=True))
    some = IDS[::-7]
    assert assign_models(some, TWO, 0) == [whole[i] for i in some]
    assert assign_models([IDS[3]], TWO, 0) == [whole[IDS[3]]]


def test_another_seed_is_another_split():
    assert assign_models(IDS[:200], TWO, 0) != assign_models(IDS[:200], TWO, 1)


def test_one_model_takes_all_and_none_is_assigned_of_none():
    assert set(assign_models(IDS[:100], (CaptionModel(name="m"),), 0)) == {"m"}
    assert assign_models([], TWO, 0) == []


@pytest.mark.parametrize("attempt", [0, 1, 2])
def test_every_attempt_has_a_seed_of_its_own_that_is_the_same_in_every_run(attempt):
    assert sampling_seed("abc", 0, attempt) == sampling_seed("abc", 0, attempt)
    others = {sampling_seed("abc", 0, a) for a in range(3)} | {sampling_seed("abd", 0, a) for a in range(3)}
    assert len(others) == 6 and all(0 <= seed < 2**31 for seed in others)
