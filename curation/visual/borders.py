"""Borders round a picture: letterboxes, pillarboxes and frames of any colour, and blurred copies.

Movie Gen, appendix B.1: "first-order derivative, large vertical/horizontal pixel differences, scan-line
algorithm locates the border". A border is therefore found by its *line*, not by its darkness:

1. scan every line from each side of the picture inwards until the first pixel that leaves the strip's colour;
2. a border shows as one depth at which most scan lines stop (a straight line parallel to the side);
3. at that depth the first-order derivative must be large along the line (a sky that slowly gets brighter
   stops all scan lines at one depth as well, but without an edge).

A night scene, snow or a title card has flat margins too, but its scan lines stop at many depths.
Over several stills of a clip the border is what all of them share: the shallowest stop of each scan line and
the strongest derivative seen at each place count, so that a dark shot neither hides nor invents a border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

#: A bar whose line is weaker than the ordinary one still counts where the other side has its like at the same depth.
SYMMETRY_PX = 3  # pixels between the two depths
STOP_SHARE_STRONG, STOP_SHARE_WEAK = 0.8, 0.25  # of the better and of the worse side: a subtitle hides one of them
#: Black bars round a dark picture: finer steps, on both sides alike, black only.
DARK_TOLERANCE, DARK_JUMP, DARK_COLOUR = 3, 3, 32
COLOUR_TOLERANCE = 10  # luma levels a strip may stray from its colour: codec ringing stays below this
JUMP = 10  # luma levels between the two sides of the line: weaker than any cut-off picture, above ringing
SOFT_PX = 3  # scaled and coded edges spread over 1-3 px
ALONG_BLUR_PX = 5  # blur along the scan front only: noise goes, the edge across it stays as sharp as it was
COLOUR_ROWS = slice(0, 3)  # rows whose median is the strip's colour: two good ones are enough
MIN_STRIP = 0.008  # of the side: just under the thinnest border of interest (1 %)
MIN_STRIP_PX = 2  # a soft edge takes one of three; row 0 is not trusted
MIN_STRIP_PX_ALONE = 3  # two dark rows at one side only are damage, not a border
MAX_STRIP = 0.45  # of the side, on each side: what is left must still be a picture
MIN_PICTURE = 0.3  # of the other side: a picture narrower than this is an object on a flat ground
STOP_SHARE_PAIR = 0.55  # of scan lines that stop at the line when the opposite side has its like
STOP_SHARE_ALONE = 0.85  # ... when it does not: horizons and table edges are one-sided
EARLY_SHARE_PAIR = 0.35  # of scan lines that may stop earlier (a subtitle inside the bar)
EARLY_SHARE_ALONE = 0.03
MAX_STRIP_ALONE = 0.25  # of the side: a one-sided strip wider than this is a sky or a wall
PICTURE_STD_ALONE = 8.0  # luma spread along the first picture rows: two flat areas meeting are no border
SAME_COLOUR = 12  # luma levels between two opposite strips of one border
BLUR_WORK_SIDE = 320  # px: a blurred copy is a wide strip, half the size finds it at a quarter of the cost
BLUR_JUMP = 6  # luma levels: picture and copy are alike, their line is weaker than that of a flat strip
BLUR_LINE_SHARE = 0.6  # of the line with a derivative above that in some still
BLUR_LINE_SHARE_MEAN = 0.4  # ... and on average over the stills: a line that moves is in the picture
BLUR_MIN_STRIP = 0.06  # of the side: the flatness of a thinner strip cannot be judged
BLUR_LINE_SHARE_WEAK = 0.2  # of a line that a dark picture hides in part, where the other side's is clear
BLUR_FLATTER = 0.3  # fine detail of the strips over that of the picture (twice that in any still) ...
BLUR_FLATTER_WEAK = 0.15  # ... and where one of the lines is weak
BLUR_FLATTER_SHARP = 0.55  # ... times this of second differences: copies leave 0.02 to 0.12, what is out of focus 0.2
BLUR_SHARP_MIN = 4.0  # mean second difference, grey levels: in a softer picture it tells nothing
BLUR_CANDIDATES = 6  # pairs of lines that are tried: the picture may have straight lines of its own
BLUR_SYMMETRY = 0.01  # of the side, between the two strips' widths
BLUR_ASYMMETRY = 0.05  # share of a line that each pixel of asymmetry must be outweighed by
BEND = np.float32([[1], [0], [-2], [0], [1]])  # second difference of rows two apart
BLUR_MAX_STRIP = 0.38  # of the side: a 9:16 picture inside 16:9 has 0.34


@dataclass(frozen=True)
class BorderBox:
    """Where the border lies. Sides are fractions of the height or width, `frac` of the whole area, in [0, 1]."""

    top: float = 0.0
    bottom: float = 0.0
    left: float = 0.0
    right: float = 0.0

    @property
    def frac(self) -> float:
        """Share of the still's area that is border."""
        return 1.0 - (1.0 - self.top - self.bottom) * (1.0 - self.left - self.right)


@dataclass(frozen=True)
class _Strip:
    """One side's candidate: depth of the line in px, how well it is supported, the strip's colour."""

    depth: int
    stop_share: float
    early_share: float
    colour: float
    picture_std: float


def border_frac(gray: np.ndarray) -> BorderBox:
    """Border of one still.

    Args:
        gray: uint8 luma [H, W].

    Returns:
        BorderBox, all zero where there is no border.

    Raises:
        ValueError: not a two-dimensional uint8 array of at least 16 x 16 px.
    """
    return static_border_frac([gray])


def static_border_frac(grays: Sequence[np.ndarray]) -> BorderBox:
    """Border that all stills of one clip share (Movie Gen, appendix B.1).

    Args:
        grays: uint8 luma stills [H, W], all of one size. Stills of one flat colour say nothing and are skipped.

    Returns:
        BorderBox, all zero where there is no border (or every still is flat).

    Raises:
        ValueError: no still, stills of different sizes, or not two-dimensional uint8 of at least 16 x 16 px.
    """
    _check(grays)
    telling = [g for g in grays if _spread(g) > 2 * COLOUR_TOLERANCE]
    if not telling:
        return BorderBox()
    height, width = telling[0].shape
    top, bottom = _solid_pair([cv2.blur(g, (ALONG_BLUR_PX, 1)) for g in telling])
    left, right = _solid_pair([cv2.blur(cv2.transpose(g), (ALONG_BLUR_PX, 1)) for g in telling])
    if top == bottom == left == right == 0:
        return _blurred_box(telling)
    return BorderBox(top / height, bottom / height, left / width, right / width)


def _check(grays: Sequence[np.ndarray]) -> None:
    if len(grays) == 0:
        raise ValueError("a border needs at least one still")
    for gray in grays:
        if gray.ndim != 2 or gray.dtype != np.uint8 or min(gray.shape) < 16:
            raise ValueError(f"a still must be uint8 luma [H, W] of 16 x 16 px or more, not {gray.dtype} {gray.shape}")
        if gray.shape != grays[0].shape:
            raise ValueError(f"stills of one clip must have one size: {grays[0].shape} and {gray.shape}")


def _spread(gray: np.ndarray) -> int:
    low, high, _, _ = cv2.minMaxLoc(gray)
    return int(high - low)


def _solid_pair(stills: list[np.ndarray]) -> tuple[int, int]:
    """Depths in px of the flat strips at the first and the last row of every still; 0 where there is none."""
    turned = [s[::-1] for s in stills]
    first, last = _strip(stills), _strip(turned)
    if _pair(first, last):
        return first.depth, last.depth
    rows = stills[0].shape[0]
    alone = _alone(first, rows), _alone(last, rows)
    if alone == (0, 0) and all(_colour(some[-1]) <= DARK_COLOUR for some in (stills, turned)):
        first, last = (_strip(some, DARK_TOLERANCE, DARK_JUMP) for some in (stills, turned))
        if _pair(first, last, alike_only=True) and max(first.colour, last.colour) <= DARK_COLOUR:
            return first.depth, last.depth
    return alone


def _pair(first: _Strip | None, last: _Strip | None, alike_only: bool = False) -> bool:
    """Whether two opposite strips are those of one border; alike_only: they must be of one depth."""
    if first is None or last is None or abs(first.colour - last.colour) > SAME_COLOUR:
        return False
    symmetric = abs(first.depth - last.depth) <= SYMMETRY_PX
    if all(_supported(s, STOP_SHARE_PAIR, EARLY_SHARE_PAIR) for s in (first, last)):
        return symmetric or not alike_only
    better, worse = sorted((first.stop_share, last.stop_share), reverse=True)
    return symmetric and better >= STOP_SHARE_STRONG and worse >= STOP_SHARE_WEAK


def _supported(strip: _Strip, stop_share: float, early_share: float) -> bool:
    return strip.stop_share >= stop_share and strip.early_share <= early_share


def _alone(strip: _Strip | None, rows: int) -> int:
    """Depth of a strip without its like on the opposite side, held to the stricter rules."""
    if strip is None or strip.picture_std < PICTURE_STD_ALONE:
        return 0
    if not MIN_STRIP_PX_ALONE <= strip.depth <= MAX_STRIP_ALONE * rows:
        return 0
    return strip.depth if _supported(strip, STOP_SHARE_ALONE, EARLY_SHARE_ALONE) else 0


def _strip(stills: list[np.ndarray], tolerance: int = COLOUR_TOLERANCE, jump_least: int = JUMP) -> _Strip | None:
    """The best supported flat strip at the first rows, or None when no line is deep enough."""
    rows, columns = stills[0].shape
    limit = int(MAX_STRIP * rows)
    colour = _middle(np.array([_colour(still) for still in stills]))
    stops = _first_departures(stills, colour, limit, tolerance)
    stopped = np.flatnonzero(stops < limit)
    if stopped.size == 0:
        return None
    begin, end = stopped[0], stopped[-1] + 1  # outside of it: bars on the other two sides
    if end - begin < MIN_PICTURE * columns:
        return None
    inside = stops[begin:end]
    votes = np.convolve(np.bincount(inside[inside < limit], minlength=limit), np.ones(SOFT_PX), "full")
    least = max(MIN_STRIP_PX, int(np.ceil(MIN_STRIP * rows)))
    votes[: least + SOFT_PX - 1] = 0
    last = int(np.argmax(votes[:limit]))  # the window of depths (last - SOFT_PX, last]
    window = inside[(inside > last - SOFT_PX) & (inside <= last)]
    if window.size == 0:
        return None
    depth = int(np.median(window))
    jump, picture_std = _edge(stills, depth, begin, end, jump_least)
    return _Strip(
        depth=depth,
        stop_share=float(np.mean((inside > depth - SOFT_PX) & jump)),
        early_share=float(np.mean(inside <= depth - SOFT_PX)),
        colour=colour,
        picture_std=picture_std,
    )


def _colour(still: np.ndarray) -> float:
    """Median of the first rows."""
    return _middle(still[COLOUR_ROWS, ::4].ravel())


def _middle(values: np.ndarray) -> float:
    """Median of [n]: numpy's own spends more on checks than on so few values."""
    ordered = np.sort(values)
    return (float(ordered[(len(ordered) - 1) // 2]) + float(ordered[len(ordered) // 2])) / 2


def _first_departures(stills: list[np.ndarray], colour: float, limit: int, tolerance: int) -> np.ndarray:
    """Per column the first row, over all stills, that is not of the strip's colour; `limit` for none."""
    stops: np.ndarray | None = None
    for still in stills:
        strip = cv2.transpose(np.ascontiguousarray(still[:limit]))
        strip[:, 0] = strip[:, 1]  # a damaged outermost row is no departure
        away = cv2.inRange(strip, max(0.0, colour - tolerance), colour + tolerance) == 0
        stop = np.where(away.any(axis=1), away.argmax(axis=1), limit)
        stops = stop if stops is None else np.minimum(stops, stop)
    return stops


def _edge(stills: list[np.ndarray], depth: int, begin: int, end: int, least: int) -> tuple[np.ndarray, float]:
    """Columns with a jump across the line in some still, and the luma spread along the picture behind it."""
    rows = stills[0].shape[0]
    before, behind = max(0, depth - SOFT_PX), min(rows - 1, depth + SOFT_PX)
    jump = np.zeros(end - begin, bool)
    spread = 0.0
    for still in stills:
        inner = still[behind, begin:end]
        jump |= cv2.absdiff(inner, still[before, begin:end]).ravel() > least
        spread = max(spread, float(cv2.meanStdDev(inner)[1][0, 0]))
    return jump, spread


def _blurred_box(stills: list[np.ndarray]) -> BorderBox:
    """Pillarbox or letterbox filled with something smooth, such as a blurred copy of the picture."""
    height, width = stills[0].shape
    scale = BLUR_WORK_SIDE / max(height, width)
    if scale < 1:
        size = (round(width * scale), round(height * scale))
        stills = [cv2.resize(s, size, interpolation=cv2.INTER_LINEAR) for s in stills]
    height, width = stills[0].shape
    left, right = _blurred_pair([cv2.transpose(s) for s in stills])
    if left:
        return BorderBox(left=left / width, right=right / width)
    top, bottom = _blurred_pair(stills)
    return BorderBox(top=top / height, bottom=bottom / height)


def _blurred_pair(stills: list[np.ndarray]) -> tuple[int, int]:
    """Depths in px of two smooth strips at the first and the last rows; (0, 0) for none.

    There is no colour to scan for here: the line is where the derivative is large all along, in every still
    at the same place, with far less fine detail outside than inside.
    """
    rows = stills[0].shape[0]
    limit, least = int(BLUR_MAX_STRIP * rows), max(int(BLUR_MIN_STRIP * rows), 3 * SOFT_PX)
    union = np.zeros((rows - SOFT_PX, stills[0].shape[1]), np.uint8)
    mean_share = np.zeros(rows - SOFT_PX, np.float32)
    for still in stills:
        steps = cv2.absdiff(still[SOFT_PX:], still[:-SOFT_PX])
        strong = cv2.threshold(steps, BLUR_JUMP, 1, cv2.THRESH_BINARY)[1]
        union |= strong
        mean_share += _row_means(strong) / len(stills)
    share = _row_means(union)
    lines = np.where(
        (share >= BLUR_LINE_SHARE_WEAK) & (mean_share >= BLUR_LINE_SHARE_WEAK / 2), share + mean_share, 0.0
    )
    lines = np.convolve(lines, np.ones(SOFT_PX) / SOFT_PX, "same")  # a step shows in SOFT_PX rows: its middle counts
    sure = (share >= BLUR_LINE_SHARE) & (mean_share >= BLUR_LINE_SHARE_MEAN)
    pairs = _line_pairs(lines, limit, least, int(BLUR_SYMMETRY * rows) + 1)
    detail = _detail(stills) if pairs else None
    for first, last in pairs:
        both_sure = sure[first] and sure[rows - SOFT_PX - 1 - last]
        flatter = BLUR_FLATTER if both_sure else BLUR_FLATTER_WEAK
        if not both_sure and max(share[first], share[rows - SOFT_PX - 1 - last]) < STOP_SHARE_STRONG:
            continue
        head, tail = first + SOFT_PX // 2 + 1, last + SOFT_PX // 2 + 1  # a step spans SOFT_PX rows
        sharp = float(_between(detail[1], head + 2 * SOFT_PX, rows - tail - 2 * SOFT_PX).mean()) >= BLUR_SHARP_MIN
        if _flatter_outside(detail[int(sharp)], head, rows - tail, flatter * (BLUR_FLATTER_SHARP if sharp else 1.0)):
            return head, tail
    return 0, 0


def _line_pairs(lines: np.ndarray, limit: int, least: int, slack: int) -> list[tuple[int, int]]:
    """Places of lines near one end, counted from it, with their like at the other, the clearest first."""
    head, tail = lines[:limit], lines[::-1][:limit]
    partner = cv2.dilate(tail.copy(), np.ones((2 * slack + 1, 1), np.uint8)).ravel()
    both = np.where(partner > 0, head + partner, 0.0) * (head > 0)
    both[:least] = 0.0
    pairs = []
    while len(pairs) < BLUR_CANDIDATES and both.max() > 0:
        first = int(np.argmax(both))
        near = max(0, first - slack)
        places = np.arange(near, min(first + slack + 1, limit))
        pairs.append((first, int(places[np.argmax(tail[places] - BLUR_ASYMMETRY * np.abs(places - first))])))
        both[max(0, first - 2 * slack) : first + 2 * slack + 1] = 0.0
    return pairs


def _detail(stills: list[np.ndarray]) -> np.ndarray:
    """Mean first and second difference of each row to those around it, summed up from the first row on:
    float64 [2, stills, rows + 1].

    The second passes over slow changes of light in a copy; the first sees what a soft picture has of detail.
    """
    rows = len(stills[0])
    found = np.zeros((2, len(stills), rows + 1))
    for place, still in enumerate(stills):
        found[0, place, 2:] = _row_means(cv2.absdiff(still[1:], still[:-1]))
        bend = cv2.filter2D(still, cv2.CV_16S, BEND)[2:-2]
        found[1, place, 3:-2] = _row_means(cv2.convertScaleAbs(bend))
    return np.cumsum(found, axis=2)


def _between(detail: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Means [stills] of `_detail` over rows [first, stop)."""
    return (detail[:, stop] - detail[:, first]) / max(1, stop - first)


def _row_means(image: np.ndarray) -> np.ndarray:
    return cv2.reduce(image, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()


def _flatter_outside(detail: np.ndarray, first: int, last: int, flatter: float) -> bool:
    """Whether rows outside [first, last) have far less fine detail than those inside, the lines left out.

    detail: float [stills, rows + 1], as `_detail` sums it up. flatter: largest ratio of the two.
    """
    rows, gap = detail.shape[1] - 1, 2 * SOFT_PX
    if first - gap < SOFT_PX or last + gap > rows - SOFT_PX:
        return False
    inside = float(_between(detail, first + gap, last - gap).mean())
    outside = np.stack([_between(detail, 2, first - gap), _between(detail, last + gap, rows - 2)])
    return bool(outside.mean(axis=1).max() < flatter * inside and outside.max() < 2 * flatter * inside)
