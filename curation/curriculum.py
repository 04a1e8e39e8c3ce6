"""CURRICULUM: who is trained on what - buckets, quotas, nested stage sets and the validation sources.

Movie Gen trains at rising resolution on sets that grow stricter (1.6 of the notes), fixes the share of
landscape and of human videos (B.1), and batches by five aspect and five duration buckets (3.1, Table 2).
Pure functions on columns; all counts are exact integers and nothing depends on the order of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from rushes.curation.content.resample import hash_bits, hash_unit

# --- buckets -----------------------------------------------------------------------------------------------

ASPECTS: dict[str, tuple[int, int]] = {
    "16x9": (16, 9),
    "4x3": (4, 3),
    "1x1": (1, 1),
    "3x4": (3, 4),
    "9x16": (9, 16),
}
"""Five aspect buckets, width : height. 16:9, 9:16 and 1:1 are published (3.1), 4:3 and 3:4 chosen here."""


@dataclass(frozen=True)
class Duration:
    """A row of Table 2: clips of [min_s, max_s), of which the centre ``span_s`` (None: all) is sampled."""

    name: str
    min_s: float
    max_s: float
    span_s: float | None
    frames: int  # sampled uniformly over the span
    latent_frames: int  # after the TAE's 8 x in time

    def fps(self, duration_s: float) -> float:
        """Frames per second at which a clip of ``duration_s`` seconds is sampled, if it holds so many."""
        return self.frames / (self.span_s or duration_s)


FRAME_S = 0.05
"""A clip this much short of 4, 10.67 or 16 s counts as that long: a cut lands on a frame, 1/24 s off."""

LONG_S, CENTRE_S = 16.0, 256 / 24  # 256 frames at 16 and at 24 fps

DURATIONS: tuple[Duration, ...] = (
    Duration("4-8s", 4.0 - FRAME_S, 8.0, None, 128, 16),
    Duration("8-12s", 8.0, CENTRE_S - FRAME_S, None, 192, 24),
    Duration("10.67s", CENTRE_S - FRAME_S, 12.0, CENTRE_S, 256, 32),
    Duration("12-16s", 12.0, LONG_S - FRAME_S, None, 256, 32),
    Duration("16s", LONG_S - FRAME_S, float("inf"), LONG_S, 256, 32),
)
"""Table 2. Its rows overlap: 10.67-12 s is in "8-12 s" as well, and goes to "10.67 s" here, which alone names
it; what is left of 8-12 s is 8-10.67 s. 16 s ends "12-16 s" and begins "16 s", and goes to "16 s"."""

FRAMES_STEP = 32
"""A clip with fewer frames than its row of Table 2 asks for is trained at the next lower multiple of so many: a
repeated frame would show motion that stands still, under a rate that is not the pictures'."""

REPEATS_MAX = 0.01  # share of frames that may be shown twice: a cut lands on a frame, 23.976 counts as 24 fps

SIDE_STEP = 16  # px: the TAE shrinks a side 8 times, the DiT's patches take 2 of what is left
ASPECT_WEIGHT = 2.0  # a wrong aspect crops or stretches; a wrong area only costs or saves compute


def buckets(width: np.ndarray, height: np.ndarray, duration_s: np.ndarray) -> np.ndarray:
    """Bucket of every clip: object [N] of names such as "16x9/12-16s", None where no bucket takes it.

    ``width``, ``height`` in px [N], ``duration_s`` [N]. The aspect is the nearest in log ratio (a tie goes to
    the wider); None for clips under 4 s and for sizes or durations that are not positive numbers.
    """
    w, h, d = (np.asarray(a, dtype=np.float64) for a in (width, height, duration_s))
    measured = (w > 0) & (h > 0) & (d > 0) & np.isfinite(w) & np.isfinite(h) & np.isfinite(d)
    ratio = np.log(np.where(measured, w, 1.0)) - np.log(np.where(measured, h, 1.0))
    centres = np.log([a / b for a, b in ASPECTS.values()])
    aspect = np.abs(ratio[:, None] - centres[None, :]).argmin(axis=1)
    row = np.searchsorted([x.min_s for x in DURATIONS], np.where(measured, d, 0.0), side="right") - 1
    names = np.array([[f"{a}/{x.name}" for x in DURATIONS] for a in ASPECTS], dtype=object)
    return np.where(measured & (row >= 0), names[aspect, np.maximum(row, 0)], None)


def bucket_of(width: int, height: int, duration_s: float) -> str | None:
    """Bucket of one clip (px, px, s), such as "1x1/4-8s", or None; see ``buckets``."""
    return buckets(np.array([width]), np.array([height]), np.array([duration_s]))[0]


def bucket_shape(bucket: str, resolution: int) -> tuple[int, int, int]:
    """(width, height, frames) of a clip of ``bucket`` that holds so many; ``resolution`` is 256 or 768 px.

    The area is about resolution ** 2 and both sides are multiples of 16: 16:9 at 768 px is the published
    1024 x 576. Raises ValueError for a bucket that does not exist or a resolution below 16.
    """
    aspect, _, duration = bucket.partition("/")
    rows = {d.name: d for d in DURATIONS}
    if aspect not in ASPECTS or duration not in rows:
        raise ValueError(f"no bucket {bucket!r}; it is one of {list(ASPECTS)}, a slash, one of {list(rows)}")
    if resolution < SIDE_STEP:
        raise ValueError(f"the resolution must be at least {SIDE_STEP} px, got {resolution}")
    wide, high = ASPECTS[aspect]
    if wide < high:  # the portrait bucket is its landscape twin, turned
        twin = next(name for name, shape in ASPECTS.items() if shape == (high, wide))
        w, h, frames = bucket_shape(f"{twin}/{duration}", resolution)
        return h, w, frames
    sides = SIDE_STEP * np.arange(1, 2 * resolution // SIDE_STEP + 1)
    w, h = np.meshgrid(sides, sides, indexing="ij")
    error = np.abs(np.log(w * h / resolution**2)) + ASPECT_WEIGHT * np.abs(np.log(w * high / (h * wide)))
    at = np.unravel_index(error.argmin(), error.shape)
    return int(w[at]), int(h[at]), rows[duration].frames


def spans(bucket: np.ndarray, duration_s: np.ndarray, fps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(start_s, end_s, frames) of what is sampled of clips [N] of these buckets: seconds inside the clip, int32.

    The centre of Table 2's ``span_s``, else all of the clip; its frames, or fewer in steps of ``FRAMES_STEP`` where
    the clip at its own ``fps`` holds fewer.
    """
    rows = {d.name: d for d in DURATIONS}
    duration_s, fps = np.asarray(duration_s, np.float64), np.asarray(fps, np.float64)
    mine = [rows[name.partition("/")[2]] for name in bucket]
    span_s = np.array([d.span_s or np.inf for d in mine]).reshape(-1)
    span_s = np.minimum(span_s, duration_s)
    frames = np.array([d.frames for d in mine], np.int32).reshape(-1)
    held = np.floor(span_s * fps * (1 + REPEATS_MAX))
    fewer = np.maximum(FRAMES_STEP * np.floor(held / FRAMES_STEP), 1)
    start_s = (duration_s - span_s) / 2
    return start_s, start_s + span_s, np.where(held < frames, fewer, frames).astype(np.int32)


# --- quotas ------------------------------------------------------------------------------------------------

CELLS = ("landscape_people", "landscape_other", "portrait_people", "portrait_other")
"""The four cells of the quotas. Landscape is width >= height, the paper's literal rule."""

Share = tuple[float, float]

SHARE_STEPS = 1_000_000  # a share is taken as the nearest fraction with a denominator up to this: 0.6 is 3/5
SCAN = 65_536  # set sizes tried at a time, from the largest down


def _fractions(share: Share | None, name: str) -> tuple[Fraction, Fraction]:
    low, high = (0.0, 1.0) if share is None else share
    if not 0.0 <= low <= high <= 1.0:
        raise ValueError(f"the {name} share must be a range within 0-1 with min <= max, got {low}-{high}")
    return tuple(Fraction(str(float(x))).limit_denominator(SHARE_STEPS) for x in (low, high))


def _range_at(share: tuple[Fraction, Fraction], total):
    """Fewest and most members that keep the share within range in a set of ``total`` (int or int64 array)."""
    low, high = share
    return -(-low.numerator * total // low.denominator), high.numerator * total // high.denominator


def _landscape_range(total, cells, landscape, people):
    """Fewest and most landscape clips in a feasible set of ``total``; empty (fewest > most) if there is none.

    The four cells with bounds on both margins are a network flow, so integers suffice wherever reals do; the
    number of people clips is eliminated by hand.
    """
    lp, ln, pp, pn = cells
    l_min, l_max = _range_at(landscape, total)
    p_min, p_max = _range_at(people, total)
    l_min, l_max = np.maximum(l_min, total - pp - pn), np.minimum(l_max, lp + ln)
    p_min, p_max = np.maximum(p_min, total - ln - pn), np.minimum(p_max, lp + pp)
    fewest = np.maximum(l_min, np.maximum(p_min - pp, total - pn - p_max))
    most = np.minimum(l_max, np.minimum(total + lp - p_min, p_max + ln))
    return fewest, np.where(p_min > p_max, fewest - 1, most)


def _nearest(numerator: int, denominator: int, low: int, high: int) -> int:
    """The integer in low..high nearest to numerator / denominator (half up)."""
    return max(low, min(high, (2 * numerator + denominator) // (2 * denominator)))


def solve_quota(counts: Mapping[str, int], landscape: Share | None, people: Share | None) -> dict[str, int]:
    """The largest subset whose shares lie within both ranges: how many to take of each cell of ``CELLS``.

    ``counts`` is what there is (a missing cell is 0); ``landscape`` and ``people`` are (min, max) shares of
    the subset, or None for any. Exact: shares are fractions, sizes are tried from the largest down. Of the
    subsets of that size the one is taken whose landscape share is nearest to the available one, then whose
    people share is, then whose landscape_people cell is. Nothing feasible gives zeros. Raises ValueError on
    an unknown cell, a negative count or a range outside 0-1.
    """
    unknown = set(counts) - set(CELLS)
    if unknown or any(n < 0 for n in counts.values()):
        raise ValueError(f"counts must be >= 0 for cells of {CELLS}, got {dict(counts)}")
    l_share, p_share = _fractions(landscape, "landscape"), _fractions(people, "people")
    cells = tuple(int(counts.get(c, 0)) for c in CELLS)
    lp, ln, pp, pn = cells
    everything = sum(cells)
    for top in range(everything, 0, -SCAN):
        totals = np.arange(top, max(top - SCAN, 0), -1, dtype=np.int64)
        fewest, most = _landscape_range(totals, cells, l_share, p_share)
        feasible = np.nonzero(fewest <= most)[0]
        if len(feasible):
            total, low, high = (int(a[feasible[0]]) for a in (totals, fewest, most))
            break
    else:
        return dict.fromkeys(CELLS, 0)
    wide = _nearest(total * (lp + ln), everything, low, high)
    p_low, p_high = _range_at(p_share, total)
    p_low, p_high = max(p_low, total - pn - wide, wide - ln), min(p_high, total + lp - wide, wide + pp)
    human = _nearest(total * (lp + pp), everything, p_low, p_high)
    low, high = (
        max(0, wide - ln, human - pp, wide + human - total),
        min(lp, wide, human, pn - total + wide + human),
    )
    both = _nearest(total * lp, everything, low, high)
    return dict(zip(CELLS, (both, wide - both, human - both, total - wide - human + both)))


# --- nested sets -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SetSpec:
    """A stage set: its name, and the shares its members must have."""

    name: str
    landscape: Share | None = None
    people: Share | None = None


@dataclass(frozen=True)
class NestedSets:
    """Membership by set name (bool [N]), and a sentence for each set that a quota emptied or halved."""

    masks: dict[str, np.ndarray]
    notes: dict[str, str]


MOST_DROPPED = 0.5  # a quota that drops more than this share of a set's candidates is said aloud


def _quota_note(spec: SetSpec, counts: dict[str, int], taken: int) -> str | None:
    """What a person should know about the quota that cut a set from sum(counts) clips to ``taken``."""
    available = sum(counts.values())
    if taken >= (1 - MOST_DROPPED) * available:
        return None
    left = {
        "landscape": sum(solve_quota(counts, spec.landscape, None).values()),
        "people": sum(solve_quota(counts, None, spec.people).values()),
    }
    key = min(left, key=left.__getitem__)  # the quota that alone leaves least
    low, high = getattr(spec, key) or (0.0, 1.0)
    lp, ln, pp, pn = (counts[c] for c in CELLS)
    inside, outside, kinds = (
        (lp + ln, pp + pn, ("landscape clips", "portrait clips"))
        if key == "landscape"
        else (lp + pp, ln + pn, ("clips with people", "clips without people"))
    )
    fate = "cannot be met" if taken == 0 else f"leaves {taken} of {available} clips"
    other = "people" if key == "landscape" else "landscape"
    beside = "" if left[key] == taken else f" beside the {other} quota"
    return (
        f"{key} quota {low:g}-{high:g} {fate}{beside}: {inside} {kinds[0]} and {outside} {kinds[1]}"
        f"{_missing(inside, outside, low, high, kinds)}; widen curriculum.sets.{spec.name}.{key}"
    )


def _missing(inside: int, outside: int, low: float, high: float, kinds: tuple[str, str]) -> str:
    """How many more clips of which kind would let this quota keep all that there are."""
    total = inside + outside
    if inside < low * total and low < 1:
        return f" ({math.ceil(round((low * total - inside) / (1 - low), 6))} more {kinds[0]} would keep all)"
    if inside > high * total and high > 0:
        return f" ({math.ceil(round(inside / high - total, 6))} more {kinds[1]} would keep all)"
    return ""


def signatures(landscape: np.ndarray, people: np.ndarray, passes: Sequence[np.ndarray]) -> np.ndarray:
    """Which cell a clip is in and which sets' rules it passes, as one number: int64 [N], of ``4 << sets`` at most."""
    found = 2 * ~np.asarray(landscape, bool) + ~np.asarray(people, bool)  # the order of CELLS
    found = found.astype(np.int64)
    for place, column in enumerate(passes):
        found |= np.asarray(column, bool).astype(np.int64) << (2 + place)
    return found


def luck(clip_ids: np.ndarray, seed: int) -> np.ndarray:
    """Who is taken first where a quota takes some: uint64 [N], the smallest first."""
    return hash_bits(seed, "nested-sets", clip_ids)


@dataclass(frozen=True)
class Cuts:
    """Set name -> signature -> the largest luck that is in the set; and a sentence for each set that a quota halved."""

    most: dict[str, dict[int, int]]
    notes: dict[str, str]

    def members(self, name: str, signature: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """bool [N]: which clips with these signatures and lucks are in the set."""
        inside = np.zeros(len(signature), bool)
        for kind, most in self.most[name].items():
            inside |= (signature == kind) & (draws <= np.uint64(most))
        return inside


def nested_cuts(signature: np.ndarray, draws: np.ndarray, specs: Sequence[SetSpec]) -> Cuts:
    """Fill the stage sets in the order given, loosest first: each is a subset of the one before.

    The candidates of a set are the members of the one before that pass its rules; ``solve_quota`` says how many of
    each cell stay, and within a cell those stay that pass more of the later sets' rules (in their order: failing the
    next one ends the count), then those with the smaller luck. ``signature`` and ``draws`` [N] are all that is needed
    of a clip, in any order; those of one signature stay up to some luck, which is what is returned.
    """
    result = Cuts({}, {})
    members = np.arange(len(signature))
    for place, spec in enumerate(specs):
        members = members[(signature[members] >> (2 + place)) & 1 == 1]
        kinds, cells = signature[members], signature[members] & 3
        counts = dict(zip(CELLS, np.bincount(cells, minlength=len(CELLS)).tolist()))
        take = solve_quota(counts, spec.landscape, spec.people)
        order = np.lexsort((draws[members], -_depth(kinds, place + 1, len(specs)), cells))
        ends = np.cumsum([0, *counts.values()])
        chosen = np.concatenate([order[start : start + take[cell]] for start, cell in zip(ends, CELLS)])
        members = members[chosen]
        result.most[spec.name] = {
            int(kind): int(draws[members[signature[members] == kind]].max()) for kind in np.unique(signature[members])
        }
        note = _quota_note(spec, counts, len(members))
        if note:
            result.notes[spec.name] = note
    return result


def _depth(signature: np.ndarray, first: int, sets: int) -> np.ndarray:
    """How many sets from ``first`` on each clip can be in: int [N], counted up to the first rule it fails."""
    depth, still = np.zeros(len(signature), dtype=np.int64), np.ones(len(signature), dtype=bool)
    for place in range(first, sets):
        still &= (signature >> (2 + place)) & 1 == 1
        depth += still
    return depth


def nested_sets(
    clip_ids: Sequence[str],
    landscape: np.ndarray,
    people: np.ndarray,
    specs: Sequence[SetSpec],
    passes: Sequence[np.ndarray],
    seed: int,
) -> NestedSets:
    """``nested_cuts`` for clips that are in memory: who is in which set.

    ``landscape`` (width >= height), ``people`` and each of ``passes`` (who passes a set's rules) are bool [N]. Raises
    ValueError on lengths that differ, on ids and on set names that repeat.
    """
    ids = np.asarray(clip_ids, dtype=str)
    if len({spec.name for spec in specs}) != len(specs) or len(np.unique(ids)) != len(ids):
        raise ValueError("clip ids and set names must each be given once")
    columns = {"landscape": landscape, "people": people, **{s.name: p for s, p in zip(specs, passes, strict=True)}}
    for name, column in columns.items():
        if np.shape(column) != ids.shape:
            raise ValueError(f"column {name!r} has shape {list(np.shape(column))} for {len(ids)} clips")
    signature, draws = signatures(landscape, people, passes), luck(ids, seed)
    cuts = nested_cuts(signature, draws, specs)
    return NestedSets({spec.name: cuts.members(spec.name, signature, draws) for spec in specs}, cuts.notes)


# --- validation --------------------------------------------------------------------------------------------

MOST_VALIDATED = 0.5  # validation never takes more clips than training keeps, unless asked for a larger share


def validation_sources(names: np.ndarray, clips: np.ndarray, fraction: float, seed: int) -> tuple[set[str], str | None]:
    """Whole sources for the validation set, so that its loss is on footage never trained on.

    ``names`` [S] are the sources, each once, and ``clips`` [S] how many clips each has. Sources are taken by the
    smallest hash of (seed, source_id) until at least ``fraction`` (in [0, 1)) of the clips are in; one that would take
    validation past half of the clips is passed over, and one source always stays for training. Returns the sources,
    and a sentence where the share could not be reached, else None. Raises ValueError on another fraction.
    """
    if not 0.0 <= fraction < 1.0:
        raise ValueError(f"the share of clips for validation must be in [0, 1), got {fraction}")
    names, clips = np.asarray(names, dtype=str), np.asarray(clips, dtype=np.int64)
    chosen: set[str] = set()
    if fraction == 0.0:
        return chosen, None
    if len(names) < 2:
        return chosen, f"no validation set: it takes whole sources and needs at least 2, got {len(names)}"
    total = int(clips.sum())
    most, taken = max(MOST_VALIDATED, fraction) * total, 0
    for i in np.lexsort((names, hash_unit(seed, "validation", names))):
        if taken >= fraction * total or len(chosen) == len(names) - 1:
            break
        if taken + clips[i] <= most:
            chosen.add(str(names[i]))
            taken += int(clips[i])
    if taken >= fraction * total:
        return chosen, None
    return chosen, (
        f"validation holds {taken} of {total} clips, less than the share of {fraction:g} asked for: "
        f"whole sources are taken, and the next one would leave too few clips to train on"
    )
