"""Gradual transitions in a stream of tiny pictures: dissolves, fades, wipes and pushes, found by what they are.

With A a picture before, B one after and M those between, a dissolve or fade is M = (1 - w) A + w B with a growing w; a
wipe shows B in a growing part of the picture and A in the rest; a push is a window that moves over A and B side by
side. Nearly all pictures of a shot are passed over by arithmetic on scalar products alone (the Gram matrix of the last
2 s); the few that are left are looked at as pictures, where motion and a change of the light are told apart.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from rushes.curation.video.batch import Batch
from rushes.curation.video.decode import shrink_stack

SHRINK = 2  # by which the tiny luma is shrunk once more: about 40 x 22 pixels
HALF_S = (0.17, 0.35, 0.6, 1.0)  # half lengths looked for, seconds (transitions of about 0.4 to 2 s)
STEP_S = 0.08  # between the pictures that are kept, seconds
LOOK_STEPS = 2  # all but the shortest are looked for at one in so many of them
CHANGE_MIN = 3.0  # grey levels, root mean square, by which the pictures before and after must differ at least
WEIGHT = (0.2, 0.8)  # weight of the later picture in the middle of a transition ...
WEIGHT_EDGE = (-0.05, 1.05)  # ... and anywhere within it
MIXED = (0.1, 0.9)  # weights between which a picture counts as mixed when a transition's ends are sought
#: Share of the change that a weighted sum may leave unexplained, both root mean square, by the correlation of the two
#: pictures: where they have nothing in common, motion in them may leave more.
ALIKE = (0.4, 0.75)
RESIDUAL_MAX = (0.3, 0.2, 0.22)
#: Of two pictures that are alike, a dissolve within one take: a residual above this asks for more that is unexplained.
TAKE_RESIDUAL, TAKE_CHANGE, TAKE_UNEXPLAINED, TAKE_LEVELS = 0.1, 12.0, 0.39, 3.0
UNEXPLAINED_MIN = 0.35  # share of the change that neither motion nor light may explain, if it is a transition ...
UNEXPLAINED_LEVELS = 1.2  # ... and its mean over the picture, grey levels
BAR_RANGE = 12  # grey levels within the bars, before and after ...
BAR_LEAVES = 0.3  # ... which leave more than this share of the height or width
BLACK_STD = 4.0  # a picture with less spread than this is a plain colour: a fade goes to or from it, grey levels
GAIN = (0.4, 2.5)  # a change of the light multiplies the picture's spread by no more than this ...
LIT_ALIKE = 0.5  # ... and leaves so much correlation
LEVELS = 16  # steps of grey by which a change of the light is told
BLOCKS = (2, 4)  # rows, columns of blocks that may each have moved ...
REACH = 4  # ... by so many pixels of the tiny picture, either way
CUT_SHARE = 0.75  # a single step that is this share of the whole change is a hard cut, no transition
UNLIKE = 0.6  # correlation of before and after below which a wipe or a push is looked for
WIPE_SUM = (0.82, 1.22)  # |M-A|^2 + |M-B|^2 over |A-B|^2: 1 where each pixel is of A or of B, 2 for a third picture
WIPE_ERROR_MAX = 0.06  # share of the change that a mask leaves unexplained
PUSH_ERROR_MAX = 0.2  # share of the change that a window over A and B leaves unexplained
EDGED = (0.02, 0.98)  # shares of B between which a picture of a wipe or a push is one of both
EDGED_HALF = 3  # shortest half, in pictures, for which a wipe or a push is looked for
WIPE_STEPS = 3  # pictures that a wipe takes at least
WIPE_BACK = 0.06  # share of the change that becomes A again in a wipe, at most
WIPE_EDGE = 0.3  # length of the edge between A and B, as the share of 5 x 5 pixels that are of both
WIPE_NEW = 1.3  # what is new in the middle half, over the change
WIPE_UNEXPLAINED = 0.25  # share of the change from quarter to quarter that no motion explains
PUSH_CALM = 0.6  # steps before and after a push are no larger than this share of those in it
PUSH_PROFILE_MAX = 0.22  # the same of the pictures' profiles, which is looked at first
PUSH_STEPS = 4  # a window that crosses faster, in pictures that are looked at, is a whip pan
PUSH_SEAM = -0.05  # what lies on either side of a push's seam is less alike than elsewhere, in correlation
NAMES = ("blend_first", "blend_stop", "blend_strength")


class Transitions:
    """Finds transitions in batches; a ring of the last 2 s of pictures is kept.

    observe leaves, for a frame once which was seen a transition was found, its frames counted from this one (below 0)
    and its strength 0-1: three arrays of float32 [n], NaN where nothing was found.
    """

    def __init__(self, fps: float) -> None:
        self._step = max(1, round(STEP_S * fps))  # frames; everything below counts in steps
        halves = [max(2, round(half * fps / self._step)) for half in HALF_S]
        self._halves = sorted(set(halves))
        self._ring: _Ring | None = None

    def observe(self, batch: Batch) -> dict[str, np.ndarray]:
        found = {name: np.full(len(batch), np.nan, np.float32) for name in NAMES}
        places = np.flatnonzero(batch.every(self._step))
        if not len(places):
            return found
        ring = _Ring.grown(self._ring, shrink_stack(batch.tiny_luma[places], SHRINK), 2 * self._halves[-1])
        old = len(ring) - len(places)
        looked = np.append(np.zeros(old, bool), batch.every(LOOK_STEPS * self._step)[places])
        for end, first, stop, strength in self._finds(ring, old, looked):
            place = places[end - old]
            if not found["blend_strength"][place] >= strength:
                values = (first - end) * self._step, (stop - end) * self._step + 1, strength
                for name, value in zip(NAMES, values, strict=True):
                    found[name][place] = value
        self._ring = ring.last(2 * self._halves[-1])
        return found

    def _finds(self, ring: _Ring, old: int, looked: np.ndarray) -> list[tuple[int, int, int, float]]:
        """(place of the end, first and last place of the transition, strength)."""
        shortest = self._halves[0]
        ends = [end for end in range(max(old, 2 * shortest), len(ring)) if looked[end]]
        pairs = [(end, half) for half in self._halves[1:] for end in ends if end >= 2 * half]
        pairs += [(end, shortest) for end in range(max(old, 2 * shortest), len(ring))]
        if not pairs:
            return []
        triples = _Triples(ring, *np.array(pairs).T)
        triples = triples.those(triples.change >= CHANGE_MIN)
        finds: list[tuple[int, int, int, float]] = []
        if len(triples):
            for candidates, look, tries in KINDS:
                for number in _best(triples.ends, candidates(triples), tries):
                    end = int(triples.ends[number])
                    span = look(ring, end, int(triples.halves[number]))
                    if span is not None:
                        finds.append((end, *span))
        return finds


def _best(ends: np.ndarray, errors: np.ndarray, tries: int) -> list[int]:
    """Of the triples with one and the same end the `tries` with the least errors, of those that are finite."""
    counts: dict[int, int] = {}
    chosen = []
    for number in np.argsort(errors, kind="stable").tolist():
        if not np.isfinite(errors[number]):
            break
        counts[ends[number]] = counts.get(ends[number], 0) + 1
        if counts[ends[number]] <= tries:
            chosen.append(number)
    return chosen


@dataclass(frozen=True)
class _Ring:
    """Pictures uint8 [n, h, w]; without their mean [n, p]; means [n]; band [n, k]: product with the k-th before."""

    luma: np.ndarray
    values: np.ndarray
    means: np.ndarray
    band: np.ndarray

    @classmethod
    def grown(cls, ring: _Ring | None, luma: np.ndarray, reach: int) -> _Ring:
        values = luma.reshape(len(luma), -1).astype(np.float32)
        means = values.mean(axis=1)
        values -= means[:, None]
        if ring is not None:
            luma, means = np.concatenate([ring.luma, luma]), np.concatenate([ring.means, means])
            whole = np.concatenate([ring.values, values])
        else:
            whole = values
        products = values @ whole.T  # [fresh, n]
        old = len(whole) - len(values)
        backs = old + np.arange(len(values))[:, None] - np.arange(reach + 1)
        band = np.take_along_axis(products, np.maximum(backs, 0), axis=1)
        return cls(luma, whole, means, band if ring is None else np.concatenate([ring.band, band]))

    def __len__(self) -> int:
        return len(self.luma)

    def last(self, count: int) -> _Ring:
        return _Ring(self.luma[-count:], self.values[-count:], self.means[-count:], self.band[-count:])

    @cached_property
    def profiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Means of columns [n, w] and of rows [n, h]."""
        return self.luma.mean(axis=1, dtype=np.float32), self.luma.mean(axis=2, dtype=np.float32)

    def products(self, later: np.ndarray, back: int | np.ndarray) -> np.ndarray:
        """Scalar product of whole pictures: at `later` and `back` places before, float64."""
        size = self.values.shape[1]
        return self.band[later, back] + size * self.means[later].astype(float) * self.means[later - back]


class _Triples:
    """Scalars of pictures A (2 halves before the end), M (a half before) and B (the end); ends, halves: int [n]."""

    def __init__(self, ring: _Ring, ends: np.ndarray, halves: np.ndarray) -> None:
        self.ring, self.ends, self.halves = ring, ends, halves
        self.begins = ends - 2 * halves
        self.change2 = np.maximum(self._distance2(ends, 2 * halves), 1e-6)
        self.change = np.sqrt(self.change2 / ring.values.shape[1])

    def __len__(self) -> int:
        return len(self.ends)

    def those(self, chosen: np.ndarray) -> _Triples:
        return _Triples(self.ring, self.ends[chosen], self.halves[chosen])

    def _distance2(self, later: np.ndarray, back: np.ndarray) -> np.ndarray:
        one = self.ring.products
        return one(later, 0) + one(later - back, 0) - 2 * one(later, back)

    @cached_property
    def alike(self) -> np.ndarray:
        """Correlation of A and B."""
        norms = self.ring.band[self.ends, 0] * self.ring.band[self.begins, 0]
        return self.ring.band[self.ends, 2 * self.halves] / np.sqrt(np.maximum(norms, 1e-6))

    def between(self, forward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances of the picture `forward` places behind A: to A and to B, over that of A and B."""
        places = self.begins + forward
        to_a = self._distance2(places, forward)
        to_b = self._distance2(self.ends, 2 * self.halves - forward)
        return to_a / self.change2, to_b / self.change2

    @cached_property
    def quarters(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """`between` for the pictures a quarter, a half and three quarters of the way."""
        return tuple(self.between(forward) for forward in _quarters(self.halves))

    @cached_property
    def path(self) -> np.ndarray:
        """Sum of the squared distances from quarter to quarter over that of A and B."""
        early, half, late = _quarters(self.halves)
        steps = ((early, early), (half, half - early), (late, late - half), (2 * self.halves, 2 * self.halves - late))
        return sum(self._distance2(self.begins + place, back) for place, back in steps) / self.change2

    def gradual(self, chosen: np.ndarray, calm: bool) -> np.ndarray:
        """Whether more than one step makes the change of a triple: bool [n]; False for those that are not chosen.

        calm: and the first and last steps are small beside those in the middle.
        """
        places = np.arange(1, len(self.ring))
        steps = np.sqrt(np.maximum(self._distance2(places, np.ones_like(places)), 0))
        found = np.zeros(len(self), bool)
        for half in sorted(set(self.halves[chosen].tolist())):
            which = np.flatnonzero(chosen & (self.halves == half))
            within = np.lib.stride_tricks.sliding_window_view(steps, 2 * half)[self.begins[which]]
            second, first = np.partition(within, -2, axis=1)[:, -2:].T
            found[which] = (first < CUT_SHARE * np.sqrt(self.change2[which])) | (second > CUT_SHARE * first)
            if calm:
                edge = max(1, half // 4)
                outer = np.minimum(within[:, :edge].mean(axis=1), within[:, -edge:].mean(axis=1))
                found[which] &= outer < PUSH_CALM * np.median(within[:, half // 2 : -(half // 2)], axis=1)
        return found


def _quarters(half: np.ndarray | int) -> tuple:
    """Places of the pictures that are looked at, counted from A."""
    early = np.maximum(1, half // 2)
    return early, half, 2 * half - early


def _weight_and_residual(to_a: np.ndarray, to_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares weight of B in a picture, and what it leaves over the change; from squared distances."""
    weight = (1 + to_a - to_b) / 2
    return weight, np.sqrt(np.maximum(to_a - weight**2, 0))


# --- dissolves and fades -----------------------------------------------------------------------------------------


def _blend_errors(triples: _Triples) -> np.ndarray:
    """What a weighted sum leaves of the change, inf for a triple that can be no dissolve: float [n]."""
    (early, at_early), (weight, residual), (late, at_late) = (_weight_and_residual(*q) for q in triples.quarters)
    most = np.array(RESIDUAL_MAX)[np.digitize(triples.alike, ALIKE)]
    good = (np.maximum(np.maximum(residual, at_early), at_late) < most) & (early < weight) & (weight < late)
    good &= (weight > WEIGHT[0]) & (weight < WEIGHT[1]) & (early > WEIGHT_EDGE[0]) & (late < WEIGHT_EDGE[1])
    good &= (triples.alike < ALIKE[1]) | (residual < TAKE_RESIDUAL) | (triples.change > TAKE_CHANGE)
    return np.where(good, residual, np.inf)


def _blend(ring: _Ring, end: int, half: int) -> tuple[int, int, float] | None:
    begin = end - 2 * half
    forward = np.arange(2 * half + 1)
    triples = _Triples(ring, np.full(len(forward), end), np.full(len(forward), half))
    weights, residuals = _weight_and_residual(*triples.between(forward))
    a, b = ring.luma[begin], ring.luma[end]
    box = active_box(a, b)
    share, level = unexplained(a[box], b[box])
    wanted = UNEXPLAINED_MIN, UNEXPLAINED_LEVELS
    if triples.alike[0] > ALIKE[1] and residuals[half] > TAKE_RESIDUAL:
        wanted = TAKE_UNEXPLAINED, TAKE_LEVELS
    if share < wanted[0] or level < wanted[1]:
        return None
    return (*_extent(weights, begin), max(0.0, 1 - float(residuals[half]) / RESIDUAL_MAX[0]))


def _extent(weights: np.ndarray, begin: int, within: tuple[float, float] = MIXED) -> tuple[int, int]:
    """Places of the first and the last picture that is mixed, and one more on either side."""
    mixed = np.flatnonzero((weights > within[0]) & (weights < within[1]))
    mixed = mixed if len(mixed) else np.array([len(weights) // 2])
    return begin + max(0, int(mixed[0]) - 1), begin + min(len(weights) - 1, int(mixed[-1]) + 1)


def active_box(a: np.ndarray, b: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of two tiny pictures without their bars: one grey at two opposite sides, in both pictures."""
    sides = []
    low, high = np.minimum(a, b), np.maximum(a, b)
    for axis in (1, 0):
        lows, highs = low.min(axis), high.max(axis)
        lively = np.flatnonzero(highs.astype(np.int16) - lows > BAR_RANGE)
        whole = slice(0, len(lows))
        if len(lively) and lively[0] > 0 and lively[-1] < len(lows) - 1 and np.ptp(lively) > BAR_LEAVES * len(lows):
            first, stop = int(lively[0]), int(lively[-1]) + 1
            bars = np.r_[0:first, stop : len(lows)]
            if int(highs[bars].max()) - int(lows[bars].min()) <= BAR_RANGE:
                whole = slice(first, stop)
        sides.append(whole)
    return sides[0], sides[1]


def unexplained(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """What of the change from a to b (uint8 [h, w]) neither light nor motion explains: its share, and its mean level.

    Light: one gain and offset for the picture. Motion: each of BLOCKS may have moved by REACH pixels, and each pixel
    within it by one more. The worse of both directions counts.
    """
    before, level = max(cv2.norm(a, b, cv2.NORM_L1) / a.size, 1e-6), 0.0
    for one, other in ((a, b), (b, a)):
        lit = _relit(one, other)
        left = float(_outside(other, _envelope(lit)).mean())
        if left >= UNEXPLAINED_LEVELS and left >= UNEXPLAINED_MIN * before:
            left = min(left, _unmoved(lit, other))
        level = max(level, left)
        if level >= UNEXPLAINED_LEVELS and level >= UNEXPLAINED_MIN * before:
            break
    return level / before, level


def _relit(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a in the light of b: each of its greys becomes what b has there on the mean; a itself where that is no light."""
    one, other = a.astype(np.float32) - a.mean(), b.astype(np.float32) - b.mean()
    spread, spread_b = float(np.sqrt((one * one).mean())), float(np.sqrt((other * other).mean()))
    if min(spread, spread_b) < BLACK_STD or not GAIN[0] <= spread_b / spread <= GAIN[1]:
        return a
    if float((one * other).mean()) < LIT_ALIKE * spread * spread_b:
        return a
    grey = (a.ravel() // LEVELS).astype(int)
    counts = np.bincount(grey, minlength=256 // LEVELS)
    known = np.flatnonzero(counts)
    means = [np.bincount(grey, picture.ravel(), 256 // LEVELS)[known] / counts[known] for picture in (a, b)]
    return np.interp(np.arange(256), *means)[a].astype(np.uint8)


def _unmoved(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of what lies outside of what a's pixels around show, over the blocks, each at its best displacement."""
    rows, columns = a.shape
    size = (2 * REACH + 1) ** 2
    stacks = []
    for side in _envelope(a):
        around = cv2.copyMakeBorder(side, REACH, REACH, REACH, REACH, cv2.BORDER_REPLICATE)
        windows = np.lib.stride_tricks.sliding_window_view(around, (rows, columns))
        stacks.append(windows.reshape(size * rows, columns))
    outside = _outside(cv2.repeat(b, size, 1), (stacks[0], stacks[1])).astype(np.float32)
    sums = _sums(rows, BLOCKS[0]).T @ (outside @ _sums(columns, BLOCKS[1])).reshape(size, rows, -1)
    return float(sums.min(axis=0).sum()) / (rows * columns)


@lru_cache(maxsize=256)
def _sums(length: int, blocks: int) -> np.ndarray:
    """float32 [length, blocks]: a product with it sums up the blocks."""
    return (np.arange(length)[:, None] * blocks // length == np.arange(blocks)).astype(np.float32)


def _outside(picture: np.ndarray, around: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """By how much each pixel (uint8) lies below or above what is around it."""
    return cv2.max(cv2.subtract(around[0], picture), cv2.subtract(picture, around[1]))


_KERNEL = np.ones((3, 3), np.uint8)


def _envelope(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest value within a pixel."""
    return cv2.erode(picture, _KERNEL), cv2.dilate(picture, _KERNEL)


# --- wipes -------------------------------------------------------------------------------------------------------


def _wipe_errors(triples: _Triples) -> np.ndarray:
    """How far the pictures between are from sharing their pixels between A and B, inf where it is no wipe."""
    good, last, error = (triples.alike < UNLIKE) & (triples.halves >= EDGED_HALF), 0.0, 0.0
    for to_a, to_b in triples.quarters:
        total = to_a + to_b
        good &= (total > WIPE_SUM[0]) & (total < WIPE_SUM[1]) & (to_a > last)
        last, error = to_a, error + np.abs(total - 1)
    good &= (triples.path > WIPE_SUM[0]) & (triples.path < WIPE_SUM[1])
    return np.where(triples.gradual(good, calm=False), error, np.inf)


def _wipe(ring: _Ring, end: int, half: int) -> tuple[int, int, float] | None:
    begin = end - 2 * half
    a, b = ring.luma[begin], ring.luma[end]
    around_a, around_b = _envelope(a), _envelope(b)
    apart = cv2.min(_outside(a, around_b), _outside(b, around_a))
    change = float(apart.mean())
    if change < UNEXPLAINED_LEVELS:
        return None
    looked = _quarters(half)
    outside = [[_outside(picture, around) for around in (around_a, around_b)] for picture in ring.luma[begin : end + 1]]
    error = max(float(cv2.min(*outside[place]).mean()) / change for place in looked)
    if error > WIPE_ERROR_MAX:
        return None
    masks = np.array([to_b < to_a for to_a, to_b in outside])  # where a picture is B
    weights = apart / (apart.size * change)
    shares = (masks * weights).sum(axis=(1, 2))
    one, two, three = (shares[place] for place in looked)
    if not (one < two < three and WEIGHT[0] < two < WEIGHT[1]):
        return None
    if ((shares > MIXED[0]) & (shares < MIXED[1])).sum() < WIPE_STEPS or not _one_edge(masks, weights, looked):
        return None
    if not _new_things(ring.luma, [begin + place for place in looked], change):
        return None
    return (*_extent(shares, begin, EDGED), 1 - error)


def _one_edge(masks: np.ndarray, weights: np.ndarray, looked: tuple[int, ...]) -> bool:
    """Whether B only ever grows, and has a short edge."""
    if float(((masks[:-1] & ~masks[1:]) * weights).sum()) > WIPE_BACK:
        return False
    for place in looked:
        around = cv2.blur(masks[place].astype(np.float32), (5, 5))
        if float((np.minimum(around, 1 - around) * weights).sum()) > WIPE_EDGE:
            return False
    return True


def _new_things(luma: np.ndarray, places: list[int], change: float) -> bool:
    """Whether from each of these pictures to the next something comes that is no motion, and not too much."""
    levels = []
    for one, other in itertools.pairwise(places):
        share, level = unexplained(luma[one], luma[other])
        if share < WIPE_UNEXPLAINED or level < UNEXPLAINED_LEVELS / 4:
            return False
        levels.append(level)
    return sum(levels) < WIPE_NEW * change


# --- pushes ------------------------------------------------------------------------------------------------------


def _push_errors(triples: _Triples) -> np.ndarray:
    """What the best window over the profiles of A and B leaves of their difference, inf where that is too much."""
    weight, _ = _weight_and_residual(*triples.quarters[1])
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


def _push(ring: _Ring, end: int, half: int) -> tuple[int, int, float] | None:
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
    return None if found is None else (*_extent(found[0], begin, EDGED), 1 - found[1])


def _pushed(stack: np.ndarray, pair: tuple[int, int], half: int) -> tuple[np.ndarray, float] | None:
    """Share of B in every picture, and the error, where a window slides over the pair; None where none does."""
    a, b = stack[0], stack[-1]
    change = float(_outside(b, _envelope(a)).mean() + _outside(a, _envelope(b)).mean()) / 2
    if change < UNEXPLAINED_LEVELS:
        return None
    around = _envelope(np.concatenate([stack[pair[0]], stack[pair[1]]], axis=1))
    columns = a.shape[1]
    windows = [
        np.lib.stride_tricks.sliding_window_view(side, columns, axis=1).transpose(1, 0, 2).reshape(-1, columns)
        for side in around
    ]

    def best(picture: np.ndarray) -> tuple[float, int]:
        outside = _outside(cv2.repeat(picture, columns + 1, 1), windows).reshape(columns + 1, -1)
        errors = outside.mean(axis=1)
        return float(errors.min()) / change, int(errors.argmin())

    error = 0.0
    for number in _quarters(half)[1], *_quarters(half)[::2]:
        error = max(error, best(stack[number])[0])
        if error > PUSH_ERROR_MAX:
            return None
    shares = np.array([best(picture)[1] for picture in stack]) / columns
    shares = shares if pair[0] == 0 else 1 - shares
    early, middle, late = (shares[number] for number in _quarters(half))
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


#: What is looked for: errors of all triples, the look at one as pictures, and how many are looked at for one end.
KINDS = ((_blend_errors, _blend, 1), (_wipe_errors, _wipe, 1), (_push_errors, _push, 3))
