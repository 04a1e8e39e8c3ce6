"""Claims about buckets, quotas, nested sets and validation sources."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.curation import curriculum as cur

SEEDS = st.integers(0, 2**31 - 1)


# --- buckets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration_s", "name"),
    [
        (3.9, None),
        (4.0, "4-8s"),
        (3.96, "4-8s"),  # 4 s less a frame
        (7.99, "4-8s"),
        (8.0, "8-12s"),
        (10.6, "8-12s"),
        (10.67, "10.67s"),
        (256 / 24, "10.67s"),
        (11.99, "10.67s"),
        (12.0, "12-16s"),
        (15.9, "12-16s"),
        (15.96, "16s"),  # 16 s less a frame
        (16.0, "16s"),
        (60.0, "16s"),
    ],
)
def test_each_length_has_one_duration_bucket(duration_s, name):
    assert cur.bucket_of(1920, 1080, duration_s) == (None if name is None else f"16x9/{name}")


@pytest.mark.parametrize(
    ("width", "height", "aspect"),
    [
        (1920, 1080, "16x9"),
        (1280, 536, "16x9"),
        (640, 480, "4x3"),
        (1008, 756, "4x3"),
        (500, 500, "1x1"),
        (512, 500, "1x1"),
        (480, 640, "3x4"),
        (362, 640, "9x16"),
        (100, 900, "9x16"),
    ],
)
def test_a_clip_goes_to_the_nearest_aspect(width, height, aspect):
    assert cur.bucket_of(width, height, 16.0) == f"{aspect}/16s"


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_turned_clip_goes_to_the_turned_aspect(width, height):
    turned = {name: "x".join(reversed(name.split("x"))) for name in cur.ASPECTS}
    ratio = np.log(width / height)
    distances = sorted(abs(abs(ratio) - np.log(a / b)) for a, b in cur.ASPECTS.values() if a >= b)
    if distances[1] - distances[0] > 1e-9:  # a tie may go either way
        there = cur.bucket_of(width, height, 5.0).split("/")[0]
        assert cur.bucket_of(height, width, 5.0) == f"{turned[there]}/4-8s"


def test_sizes_and_lengths_that_are_unknown_have_no_bucket():
    nan, inf = float("nan"), float("inf")
    found = cur.buckets([0, 640, nan, 640, 640, 640], [480, -1, 480, 480, 480, 480], [5, 5, 5, nan, inf, 5])
    assert found.tolist() == [None, None, None, None, None, "4x3/4-8s"]
    assert cur.buckets([], [], []).shape == (0,)


def test_the_published_frame_rates_follow_from_the_frames():
    by_name = {d.name: d for d in cur.DURATIONS}
    assert [round(by_name["4-8s"].fps(s)) for s in (4, 8)] == [32, 16]
    assert [round(by_name["8-12s"].fps(s)) for s in (8, 12)] == [24, 16]
    assert [round(by_name["12-16s"].fps(s)) for s in (12, 16)] == [21, 16]
    assert by_name["10.67s"].fps(11.5) == pytest.approx(24) and by_name["16s"].fps(40) == 16
    assert all(d.frames == 8 * d.latent_frames for d in cur.DURATIONS)


@pytest.mark.parametrize("resolution", [256, 768])
@pytest.mark.parametrize("aspect", list(cur.ASPECTS))
def test_a_bucket_has_the_area_and_aspect_that_it_says(aspect, resolution):
    w, h, frames = cur.bucket_shape(f"{aspect}/4-8s", resolution)
    wide, high = cur.ASPECTS[aspect]
    assert w % 16 == h % 16 == 0 and frames == 128
    assert w * h == pytest.approx(resolution**2, rel=0.05)
    assert w / h == pytest.approx(wide / high, rel=0.02)


def test_the_published_shapes_are_met():
    assert cur.bucket_shape("16x9/16s", 768) == (1024, 576, 256)
    assert cur.bucket_shape("9x16/16s", 768) == (576, 1024, 256)
    assert cur.bucket_shape("1x1/8-12s", 256) == (256, 256, 192)


@pytest.mark.parametrize("bucket", ["16x9", "2x1/16s", "16x9/5s", ""])
def test_a_bucket_that_does_not_exist_is_refused(bucket):
    with pytest.raises(ValueError, match="no bucket"):
        cur.bucket_shape(bucket, 256)


# --- quotas ------------------------------------------------------------------------------------------------


def within(part: int, total: int, share) -> bool:
    low, high = (0, 100) if share is None else (round(100 * s) for s in share)
    return low * total <= 100 * part <= high * total


def satisfied(take, landscape, people) -> bool:
    total = sum(take)
    return within(take[0] + take[1], total, landscape) and within(take[0] + take[2], total, people)


SHARES = st.one_of(
    st.none(), st.tuples(st.integers(0, 100), st.integers(0, 100)).map(lambda r: (min(r) / 100, max(r) / 100))
)
FEW = st.tuples(*[st.integers(0, 5)] * 4)


@settings(max_examples=300, deadline=None)
@given(FEW, SHARES, SHARES)
def test_a_quota_takes_the_largest_set_there_is(counts, landscape, people):
    found = cur.solve_quota(dict(zip(cur.CELLS, counts)), landscape, people)
    take = tuple(found[c] for c in cur.CELLS)
    every = product(*(range(n + 1) for n in counts))
    largest = max(sum(x) for x in every if satisfied(x, landscape, people))
    assert sum(take) == largest and satisfied(take, landscape, people)
    assert all(0 <= t <= n for t, n in zip(take, counts))


MANY = [(400_000, 300_000, 7, 90_001), (1, 10**6, 10**6, 0), (0, 0, 10**6, 10**6)]


@pytest.mark.parametrize("counts", MANY)
def test_a_quota_is_exact_at_the_scale_of_millions(counts):
    found = cur.solve_quota(dict(zip(cur.CELLS, counts)), (0.58, 0.62), (0.6, 1.0))
    take = tuple(found[c] for c in cur.CELLS)
    assert satisfied(take, (0.58, 0.62), (0.6, 1.0))
    assert all(0 <= t <= n for t, n in zip(take, counts))


def test_a_quota_counts_in_tenths_as_people_write_them():
    # 0.1 * 3 is above 0.3 in binary; one clip of ten is a tenth all the same.
    found = cur.solve_quota({"landscape_other": 3, "portrait_other": 7}, (0.3, 0.3), None)
    assert sum(found.values()) == 10


def test_without_quotas_everything_is_taken():
    counts = dict(zip(cur.CELLS, (3, 1, 4, 1)))
    assert cur.solve_quota(counts, None, None) == counts


def test_what_is_left_out_keeps_the_available_proportions():
    counts = dict(zip(cur.CELLS, (30, 70, 12, 28)))  # 30 % people in both orientations
    found = cur.solve_quota(counts, (0.9, 1.0), None)
    assert sum(found.values()) == 111
    assert [found[c] for c in cur.CELLS] == [30, 70, 3, 8]


def test_a_quota_that_cannot_be_met_takes_nothing():
    assert cur.solve_quota({"landscape_people": 12}, (0.58, 0.62), None) == dict.fromkeys(cur.CELLS, 0)
    assert cur.solve_quota({}, None, None) == dict.fromkeys(cur.CELLS, 0)


@pytest.mark.parametrize("share", [(0.7, 0.6), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 1.0)])
def test_a_range_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="people share must be a range"):
        cur.solve_quota({}, None, share)


def test_an_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="counts must be"):
        cur.solve_quota({"landscape": 3}, None, None)


# --- nested sets -------------------------------------------------------------------------------------------


def pool(seed: int, n: int):
    rng = np.random.default_rng(seed)
    ids = np.array([f"{i:04d}" for i in range(n)])
    wide, people, score = rng.random(n) < 0.7, rng.random(n) < 0.5, rng.random(n)
    specs = [
        cur.SetSpec("pretrain-256", (0.5, 0.7), None),
        cur.SetSpec("pretrain-768", (0.6, 0.9), (0.2, 0.8)),
        cur.SetSpec("pretrain-highres", (0.8, 0.8), (0.6, 1.0)),
    ]
    return ids, wide, people, specs, [score > 0.1, score > 0.3, score > 0.6]


@settings(max_examples=80, deadline=None)
@given(SEEDS, st.integers(0, 120))
def test_each_set_lies_in_the_one_before_and_meets_its_rules_and_quotas(seed, n):
    ids, wide, people, specs, passes = pool(seed, n)
    found = cur.nested_sets(ids, wide, people, specs, passes, seed)
    assert list(found.masks) == [s.name for s in specs]
    outer = np.ones(n, dtype=bool)
    for spec, passing in zip(specs, passes):
        inner = found.masks[spec.name]
        candidates = outer & passing
        assert not (inner & ~candidates).any()
        assert within(wide[inner].sum(), inner.sum(), spec.landscape)
        assert within(people[inner].sum(), inner.sum(), spec.people)
        assert (spec.name in found.notes) == (inner.sum() < candidates.sum() / 2)
        outer = inner


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 100))
def test_the_sets_do_not_depend_on_the_order_of_rows(seed, n):
    ids, wide, people, specs, passes = pool(seed, n)
    mixed = np.random.default_rng(seed + 1).permutation(n)
    turned = [column[mixed] for column in passes]
    found = cur.nested_sets(ids, wide, people, specs, passes, seed)
    again = cur.nested_sets(ids[mixed], wide[mixed], people[mixed], specs, turned, seed)
    assert again.notes == found.notes
    for name, mask in found.masks.items():
        assert (again.masks[name] == mask[mixed]).all()


def test_a_quota_drops_the_clips_that_no_later_set_can_use():
    n = 100
    strict = np.arange(n) % 2 == 0
    specs = [cur.SetSpec("loose", (0.5, 0.5)), cur.SetSpec("strict")]
    wide = np.arange(n) < 75  # 25 portrait clips, so 25 of 75 landscape clips stay
    passes = [np.ones(n, bool), strict]
    found = cur.nested_sets([f"{i:03d}" for i in range(n)], wide, np.zeros(n, bool), specs, passes, seed=3)
    assert found.masks["loose"].sum() == 50
    assert (strict[found.masks["loose"] & wide]).all()


def test_passing_a_set_after_next_is_worth_nothing_where_the_next_is_failed():
    yes, no = [True, True], [False, False]
    specs = [cur.SetSpec("a", (0.5, 0.5)), cur.SetSpec("b"), cur.SetSpec("c")]
    passes = [np.array(p) for p in (yes + yes + yes, [*no, False, True, *yes], [True, True, True, False, *yes])]
    wide = np.array([True] * 4 + [False] * 2)
    for seed in range(20):  # of four landscape clips two stay: the only one in b, and then one by luck
        found = cur.nested_sets(list("uvwxyz"), wide, np.zeros(6, bool), specs, passes, seed)
        assert found.masks["a"].sum() == 4 and found.masks["a"][3]


def test_a_quota_that_empties_a_set_says_which_and_what_to_change():
    specs, everyone = [cur.SetSpec("pretrain-256", (0.58, 0.62))], np.ones(12, bool)
    found = cur.nested_sets([str(i) for i in range(12)], everyone, ~everyone, specs, [everyone], 0)
    assert not found.masks["pretrain-256"].any()
    assert found.notes["pretrain-256"] == (
        "landscape quota 0.58-0.62 cannot be met: 12 landscape clips and 0 portrait clips "
        "(8 more portrait clips would keep all); "
        "widen curriculum.sets.pretrain-256.landscape"
    )


def test_a_quota_that_takes_most_clips_says_how_many_are_left():
    people = np.arange(20) < 3
    specs, everyone = [cur.SetSpec("highres", (0.0, 1.0), (0.6, 1.0))], np.ones(20, bool)
    found = cur.nested_sets([str(i) for i in range(20)], everyone, people, specs, [everyone], 0)
    assert found.notes["highres"] == (
        "people quota 0.6-1 leaves 5 of 20 clips: 3 clips with people and 17 clips without people "
        "(23 more clips with people would keep all); "
        "widen curriculum.sets.highres.people"
    )


def test_columns_of_another_length_and_repeated_names_are_refused():
    flags = np.ones(2, bool)
    with pytest.raises(ValueError, match=r"column 'a' has shape \[3\] for 2 clips"):
        cur.nested_sets(["x", "y"], flags, flags, [cur.SetSpec("a")], [np.ones(3, bool)], 0)
    with pytest.raises(ValueError, match="given once"):
        cur.nested_sets(["x", "x"], flags, flags, [], [], 0)
    with pytest.raises(ValueError, match="given once"):
        cur.nested_sets(["x", "y"], flags, flags, [cur.SetSpec("a")] * 2, [flags] * 2, 0)


def held(ids, fraction, seed):
    return cur.validation_sources(*np.unique(np.array(ids, dtype=str), return_counts=True), fraction, seed)


# --- validation --------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=80), st.floats(0.0, 0.5), SEEDS)
def test_validation_takes_whole_sources_and_never_all(sources, fraction, seed):
    ids = [f"s{i}" for i in sources]
    chosen, note = held(ids, fraction, seed)
    inside = sum(i in chosen for i in ids)
    assert chosen < set(ids)
    assert (inside >= fraction * len(ids)) == (note is None)
    assert held(ids[::-1], fraction, seed) == (chosen, note)


def test_no_more_sources_are_validated_than_needed():
    ids = [f"s{i}" for i in range(100)]
    chosen, note = held(ids, 0.05, seed=1)
    assert len(chosen) == 5 and note is None
    more, _ = held(ids, 0.1, seed=1)
    assert chosen < more


def test_a_source_that_holds_most_clips_stays_for_training():
    for seed in range(20):
        assert held(["big"] * 90 + ["small"] * 10, 0.05, seed)[0] == {"small"}


def test_one_source_is_not_split():
    chosen, note = held(["only"] * 9, 0.1, 0)
    assert chosen == set() and "needs at least 2, got 1" in note
    assert held([], 0.1, 0)[1].endswith("got 0")
    assert held(["only"], 0.0, 0) == (set(), None)


@pytest.mark.parametrize(
    ("bucket", "duration_s", "fps", "expected"),
    [
        ("16x9/4-8s", 4.0, 24.0, (0.0, 4.0, 96)),  # 128 frames would show 32 of its 96 twice
        ("16x9/4-8s", 7.5, 24.0, (0.0, 7.5, 128)),
        ("16x9/4-8s", 4.0, 30000 / 1001, (0.0, 4.0, 96)),
        ("16x9/12-16s", 14.0, 15.0, (0.0, 14.0, 192)),
        ("16x9/10.67s", 11.6, 24.0, ((11.6 - 256 / 24) / 2, (11.6 + 256 / 24) / 2, 256)),  # its centre
        ("16x9/10.67s", 256 / 24 - 1 / 24, 24000 / 1001, (0.0, 255 / 24, 256)),  # a frame short is a repeat of one
        ("16x9/16s", 20.0, 16.0, (2.0, 18.0, 256)),
        ("16x9/4-8s", 4.0, 2.0, (0.0, 4.0, 1)),
    ],
)
def test_a_clip_is_sampled_within_its_bucket_s_span_and_never_faster_than_its_own_rate(
    bucket, duration_s, fps, expected
):
    found = cur.spans(np.array([bucket], object), np.array([duration_s]), np.array([fps]))
    assert [float(part[0]) for part in found] == pytest.approx(expected)
