"""Text is found wherever and whenever it stands, foliage is not text, and few stills are looked at."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from rushes.curation.visual.text import TextMeter, looking_order, stroke_map

REJECT = 0.6


@pytest.fixture(scope="module")
def meter():
    pytest.importorskip("rapidocr")
    return TextMeter()


def written(still, words, at, height=0.7):
    """White letters with a black outline, as subtitles are burnt in."""
    out = still.copy()
    for colour, thickness in ((0, 4), (255, 1)):
        cv2.putText(out, words, at, cv2.FONT_HERSHEY_DUPLEX, height, (colour,) * 3, thickness, cv2.LINE_AA)
    return out


@pytest.fixture(scope="module")
def reads(meter):
    """Counts the stills the meter looked at."""
    seen = []
    original = meter.read

    def read(still, *args):
        seen.append(still.shape)
        return original(still, *args)

    meter.read = read
    return seen


@pytest.mark.parametrize(
    ("words", "at", "height"),
    [
        ("what do you want me to do", (150, 330), 0.7),
        ("breaking news", (20, 280), 0.6),
        ("CHANNEL", (520, 30), 0.7),
        ("OPENING NIGHT", (90, 200), 1.8),
    ],
    ids=["subtitle", "lower third", "corner logo", "title"],
)
def test_burnt_in_text_is_read_wherever_it_stands(meter, bunny, words, at, height):
    result = meter.measure([written(s, words, at, height) for s in bunny])
    assert result.score >= REJECT
    assert words.replace(" ", "").lower()[:5] in result.text.replace(" ", "").lower()


@pytest.mark.parametrize("first", [0, 3, 8])
def test_a_subtitle_of_one_second_is_found_whenever_it_comes(meter, bunny, first):
    clip = list(bunny)
    for i in (first, first + 1):
        clip[i] = written(clip[i], "what do you want me to do", (150, 330))
    result = meter.measure(clip, [i / 2 for i in range(len(clip))])
    assert result.score >= REJECT
    assert result.frame in (first, first + 1)
    assert result.time_s == result.frame / 2


def test_meadow_and_face_without_text_stay_below_the_threshold(meter, bunny, carphone):
    for clip in (bunny, carphone):
        result = meter.measure(clip)
        assert result.score < REJECT
        assert 1 <= len(result.frames_looked) <= meter.max_frames


def test_the_first_deciding_still_ends_the_search(meter, reads, bunny):
    reads.clear()
    result = meter.measure([written(s, "look at this one", (180, 330)) for s in bunny])
    assert len(reads) == 1
    assert result.frames_looked == (result.frame,)


def test_one_still_stands_for_a_clip_that_does_not_change(meter, reads, bunny):
    reads.clear()
    result = meter.measure([bunny[4]] * 12)
    assert len(reads) == 1
    assert result.frames_looked == (6,)


def test_the_score_is_detection_times_recognition_of_the_best_word(meter, bunny):
    words = meter.read(written(bunny[0], "shutter speed", (200, 330)))
    assert words[0].score == words[0].det_score * words[0].rec_score
    assert all(0 < w.det_score <= 1 and 0 < w.rec_score <= 1 for w in words)
    assert [w.score for w in words] == sorted((w.score for w in words), reverse=True)


def test_a_word_lies_where_it_was_written(meter, bunny):
    result = meter.measure([written(bunny[0], "shutter speed", (200, 330))])
    box = np.array(result.words[0].box)
    assert box[:, 0].min() == pytest.approx(200, abs=15)
    assert box[:, 1].max() == pytest.approx(336, abs=15)


@pytest.mark.parametrize("clear_first", [True, False])
def test_scores_belong_to_their_boxes_when_there_are_several(meter, clear_first):
    still = np.full((360, 640, 3), 120, np.uint8)
    rows = (80, 300) if clear_first else (300, 80)
    cv2.putText(still, "clear words", (60, rows[0]), 2, 1.0, (255,) * 3, 2, cv2.LINE_AA)
    cv2.putText(still, "words", (330, rows[1]), 2, 0.4, (180,) * 3, 1, cv2.LINE_AA)
    clear, small = sorted(meter.detect(still), key=lambda pair: -cv2.contourArea(pair[0]))
    assert clear[0][:, 1].mean() == pytest.approx(rows[0], abs=20)
    assert clear[1] > small[1] + 0.1


def test_a_lone_letter_is_no_word(meter):
    still = np.full((360, 640, 3), 90, np.uint8)
    cv2.putText(still, "0", (300, 200), cv2.FONT_HERSHEY_DUPLEX, 2.0, (255, 255, 255), 3, cv2.LINE_AA)
    assert meter.read(still) == ()


def test_asking_twice_gives_the_same_answer(meter, bunny):
    clip = [written(s, "again and again", (180, 330)) for s in bunny[:3]]
    assert meter.measure(clip) == meter.measure(clip)


def test_the_order_begins_with_the_still_that_has_unusual_strokes(bunny):
    clip = [bunny[4]] * 12
    clip[9] = written(bunny[4], "only here", (220, 330))
    order = looking_order(clip, 4)
    assert order[0] == 9
    assert order == [9], "the other eleven show nothing that still 9 does not show"


def test_middle_first_and_last_are_looked_at_where_pictures_differ(bikes):
    assert {0, len(bikes) // 2, len(bikes) - 1} <= set(looking_order(bikes, 5))
    assert len(set(looking_order(bikes, 5))) == 5


def test_stroke_map_sees_letters_and_not_plain_edges():
    plain = np.full((360, 640, 3), 60, np.uint8)
    plain[:, 320:] = 200
    assert stroke_map(plain).max() == 0
    assert stroke_map(written(plain, "letters", (100, 200))).max() > 0.3


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(ModuleNotFoundError, match="pip install rapidocr onnxruntime"):
        TextMeter()


def test_requests_that_make_no_sense_are_refused(meter, bunny):
    with pytest.raises(ValueError, match="at least one still"):
        meter.measure([])
    with pytest.raises(ValueError, match="2 stills but 1 times"):
        meter.measure(bunny[:2], [0.0])
    with pytest.raises(ValueError, match="max_frames"):
        TextMeter(max_frames=0)
