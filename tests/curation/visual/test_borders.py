"""Borders are straight lines with a flat or much flatter strip outside, whatever their colour."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rushes.curation.visual.borders import BorderBox, border_frac, static_border_frac

COLOURS = {"black": 0, "grey": 128, "white": 255, "blue": (180, 60, 20)}


def framed(still, top=0.0, bottom=0.0, left=0.0, right=0.0, colour=0):
    """The still shrunk into a border of these fractions of the sides."""
    height, width = still.shape[:2]
    y0, y1 = round(top * height), height - round(bottom * height)
    x0, x1 = round(left * width), width - round(right * width)
    out = np.empty_like(still)
    out[:] = colour
    out[y0:y1, x0:x1] = cv2.resize(still, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    return out


def luma(still):
    return cv2.cvtColor(still, cv2.COLOR_BGR2GRAY)


def coded(still, quality=60):
    """Softened by scaling down and up, then by lossy coding."""
    height, width = still.shape[:2]
    small = cv2.resize(still, (round(width * 0.66), round(height * 0.66)), interpolation=cv2.INTER_LINEAR)
    soft = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imdecode(cv2.imencode(".jpg", soft, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def sides(box: BorderBox):
    return box.top, box.bottom, box.left, box.right


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS.keys())
@pytest.mark.parametrize(
    "box",
    [(0.12, 0.12, 0, 0), (0, 0, 0.34, 0.34), (0.1, 0.1, 0.15, 0.15), (0.03, 0.03, 0, 0)],
    ids=["letterbox", "pillarbox", "both at once", "thin"],
)
def test_a_border_of_any_colour_is_located(bunny, box, colour):
    stills = [luma(framed(s, *box, colour=colour)) for s in bunny[::3]]
    assert sides(static_border_frac(stills)) == pytest.approx(box, abs=0.006)


@pytest.mark.parametrize("colour", [0, 255], ids=["black", "white"])
def test_soft_and_coded_edges_are_still_lines(bikes, colour):
    box = (0.1, 0.1, 0, 0)
    stills = [luma(coded(framed(s, *box, colour=colour))) for s in bikes]
    assert sides(static_border_frac(stills)) == pytest.approx(box, abs=0.012)


def test_a_border_of_one_percent_is_found(bunny):
    box = static_border_frac([luma(framed(s, top=0.0112, bottom=0.0112)) for s in bunny])
    assert box.top == pytest.approx(4 / 360, abs=1.1 / 360)
    assert box.bottom == pytest.approx(4 / 360, abs=1.1 / 360)


def test_a_border_at_one_side_only_is_found_there(bunny):
    box = static_border_frac([luma(framed(s, bottom=0.15, colour=(30, 30, 200))) for s in bunny])
    assert sides(box) == pytest.approx((0, 0.15, 0, 0), abs=0.006)


def test_frac_is_the_share_of_the_area(bunny):
    box = border_frac(luma(framed(bunny[0], 0.1, 0.1, 0.15, 0.15)))
    assert box.frac == pytest.approx(1 - 0.8 * 0.7, abs=0.02)
    assert BorderBox().frac == 0


def test_a_subtitle_inside_the_lower_bar_does_not_hide_the_letterbox(bunny):
    stills = []
    for still in bunny[::2]:
        boxed = framed(still, 0.15, 0.15)
        cv2.putText(boxed, "where are you", (220, 340), cv2.FONT_HERSHEY_DUPLEX, 0.8, (255, 255, 255), 1)
        stills.append(luma(boxed))
    assert sides(static_border_frac(stills)) == pytest.approx((0.15, 0.15, 0, 0), abs=0.006)


def test_a_letterbox_is_seen_although_some_shots_inside_are_black(bunny):
    stills = [luma(framed(s * (i % 3 == 0), 0.12, 0.12)) for i, s in enumerate(bunny)]
    assert sides(static_border_frac(stills)) == pytest.approx((0.12, 0.12, 0, 0), abs=0.006)


def test_a_pillarbox_of_a_blurred_copy_is_located(bunny):
    stills = []
    for still in bunny[::2]:
        height, width = still.shape[:2]
        zoomed = cv2.resize(still[height // 3 : 2 * height // 3], (width, height))
        boxed = cv2.GaussianBlur(zoomed, (0, 0), 12)
        boxed[:, 219:421] = cv2.resize(still[:, 219:421], (202, height))
        stills.append(luma(boxed))
    assert sides(static_border_frac(stills)) == pytest.approx((0, 0, 219 / 640, 219 / 640), abs=0.012)


def test_a_border_must_be_there_in_every_still(bunny):
    stills = [luma(framed(s, 0.12, 0.12)) for s in bunny[:4]] + [luma(bunny[4])]
    assert static_border_frac(stills) == BorderBox()


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s,
        lambda s: (s * 0.15).astype(np.uint8),
        lambda s: (205 + s * 0.18).astype(np.uint8),
        lambda s: np.ascontiguousarray(np.rot90(s)),
        lambda s: s // 64 * 64,
        lambda s: cv2.GaussianBlur(s, (0, 0), 6),
    ],
    ids=["as it is", "night", "snow", "turned", "few flat colours", "out of focus"],
)
def test_footage_without_a_border_has_none(bunny, bikes, change):
    for clip in (bunny, bikes):
        assert static_border_frac([luma(change(s)) for s in clip]) == BorderBox()
        assert [border_frac(luma(change(s))) for s in clip] == [BorderBox()] * len(clip)


def test_a_lamp_in_a_dark_hall_has_no_border():
    hall = np.zeros((360, 640), np.uint8)
    cv2.circle(hall, (320, 180), 90, 220, -1)
    assert border_frac(hall) == BorderBox()


def test_a_black_title_card_has_no_border():
    card = np.zeros((360, 640), np.uint8)
    cv2.putText(card, "THE END", (230, 190), cv2.FONT_HERSHEY_DUPLEX, 1.5, 255, 2)
    assert border_frac(card) == BorderBox()


def test_a_sky_that_fades_down_to_a_straight_horizon_is_no_border():
    rng = np.random.default_rng(3)
    scene = np.repeat(np.linspace(230, 200, 360)[:, None], 640, axis=1)
    scene[150:] = cv2.GaussianBlur(rng.normal(90, 60, (210, 640)), (0, 0), 1.5)
    assert border_frac(np.clip(scene, 0, 255).astype(np.uint8)) == BorderBox()


def test_two_flat_areas_that_meet_in_a_straight_line_are_a_picture():
    sea = np.full((360, 640), 200, np.uint8)
    sea[80:] = 120
    assert border_frac(sea) == BorderBox()


def test_a_flat_still_has_no_border_and_says_nothing_about_its_clip(bunny):
    flat = np.full((360, 640), 17, np.uint8)
    assert border_frac(flat) == BorderBox()
    clip = [luma(framed(s, 0.12, 0.12)) for s in bunny[:3]]
    assert static_border_frac([*clip, flat]) == static_border_frac(clip) != BorderBox()


def test_what_is_no_luma_still_is_refused(bunny):
    with pytest.raises(ValueError, match="at least one still"):
        static_border_frac([])
    with pytest.raises(ValueError, match="uint8 luma"):
        border_frac(bunny[0])
    with pytest.raises(ValueError, match="one size"):
        static_border_frac([luma(bunny[0]), luma(bunny[0])[:-2]])
