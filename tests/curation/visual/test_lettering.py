"""A box of burnt-in text ends where its letters do, whatever moves behind them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rushes.curation.visual.lettering import lettering, overlap, standing

AT, LINE = (150, 330), "what do you want"
FONT = cv2.FONT_HERSHEY_DUPLEX


def stamped(stills, line=LINE, strength=1.0):
    """(stills as luma with a line on them, its true box)."""
    mask = np.zeros(stills[0].shape[:2], np.uint8)
    cv2.putText(mask, line, AT, FONT, 0.8, 255, 1, cv2.LINE_AA)
    edge = cv2.dilate(mask, np.ones((3, 3), np.uint8)) / 255 * strength
    lumas = [cv2.cvtColor(still, cv2.COLOR_BGR2GRAY) for still in stills]
    shown = [((g * (1 - edge) + 15 * edge) * (1 - mask / 255) + 240 * mask / 255).astype(np.uint8) for g in lumas]
    y, x = np.nonzero(mask > 96)
    return shown, (x.min(), y.min(), x.max() + 1, y.max() + 1)


def padded(box, by=8):
    """Corners as a reader gives them, some pixels around the letters."""
    left, top, right, bottom = box[0] - by, box[1] - by, box[2] + by, box[3] + by
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def test_the_box_is_that_of_the_letters_over_moving_grass(bunny):
    shown, truth = stamped(bunny[:4])
    found = lettering(shown, 1, padded(truth))
    assert overlap(found.letters, truth) > 0.9
    assert found.stills == (0, 1, 2, 3)


def test_a_word_that_the_reader_missed_at_the_end_of_a_line_belongs_to_it(bunny):
    shown, truth = stamped(bunny[:4])
    short = (truth[0], truth[1], truth[2] - 65, truth[3])
    assert lettering(shown, 1, padded(short, 4)).letters[2] == pytest.approx(truth[2], abs=2)


def test_stills_without_the_text_are_not_named(bunny):
    with_text, truth = stamped(bunny[:2])
    without = [cv2.cvtColor(still, cv2.COLOR_BGR2GRAY) for still in bunny[2:4]]
    assert lettering([*with_text, *without], 0, padded(truth)).stills == (0, 1)


def test_two_lines_that_take_turns_stand_nowhere_in_the_mean(bunny):
    first, truth = stamped(bunny[:2])
    second, _ = stamped(bunny[2:4], "nobody told them")
    stills = [*first, *second]
    mean = standing([cv2.cvtColor(still, cv2.COLOR_GRAY2BGR) for still in stills])[..., 0]
    assert lettering([*stills, mean], 4, padded(truth), mean=True).stills == ()
    steady, truth = stamped(bunny[:4], strength=0.5)
    mean = standing([cv2.cvtColor(still, cv2.COLOR_GRAY2BGR) for still in steady])[..., 0]
    assert lettering([*steady, mean], 4, padded(truth), mean=True).stills == (0, 1, 2, 3)


def test_words_written_downwards_get_a_box_of_their_own_shape(bunny):
    shown, truth = stamped(bunny[:4])
    turned = [np.ascontiguousarray(luma.T) for luma in shown]
    left, top, right, bottom = truth
    found = lettering(turned, 0, padded((top, left, bottom, right)))
    assert overlap(found.letters, (top, left, bottom, right)) > 0.9
