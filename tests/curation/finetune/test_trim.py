"""In and out points are frames: what is cut at them holds those frames and no others, at any rate."""

from __future__ import annotations

import numpy as np
import pytest

from rushes.curation.finetune import trim
from rushes.curation.sections import Cut
from rushes.curation.video.cut import Cutter
from rushes.curation.video.decode import probe
from rushes.curation.video.times import TimesError, frame_times
from tests.curation.finetune.numbered import RATES, numbers_in, write_film

QUICK = Cut(preset="ultrafast", crf=16)


def trims(folder, rate: str, suffix: str, count: int, seed: int) -> tuple[int, int]:
    """(trims that held exactly the frames asked for, trims made) of a clip inside a film of this rate."""
    rng = np.random.default_rng(seed)
    path = folder / f"{rate}{suffix}"
    length = 260
    shown = write_film(path, rate, length, seed)
    source = probe(str(path), f"{seed:016x}")
    begin, stop = 37, 231  # the clip that a run had cut
    ends = np.append(shown, shown[-1] + 1 / 30)
    row = {"clip_id": "whole", "start_s": ends[begin] - ends[0], "end_s": ends[stop] - ends[0], "frames": stop - begin,
           "fps": source.fps}  # fmt: skip
    cutter = Cutter(QUICK, f"{rate}{suffix}", str(folder))
    whole = cutter(source, [row])["whole"]
    assert not isinstance(whole, str), whole
    times = frame_times(str(folder / whole.media))
    exact = 0
    for number in range(count):
        first = int(rng.integers(0, stop - begin - 24))
        after = int(rng.integers(first + 20, stop - begin + 1))
        span = trim.source_span(times, row["start_s"], row["frames"], first, after)
        piece = {**row, "clip_id": f"piece-{number}", **span.__dict__}
        cut = cutter(source, [piece])[piece["clip_id"]]
        if not isinstance(cut, str):
            exact += numbers_in(str(folder / cut.media)) == list(range(begin + first, begin + after))
    return exact, count


@pytest.mark.parametrize(("rate", "suffix"), [("23.976", ".mp4"), ("59.94", ".mkv"), ("variable", ".mp4")])
def test_what_is_cut_holds_exactly_the_frames_that_were_chosen(tmp_path, rate, suffix):
    assert trims(tmp_path, rate, suffix, 4, seed=3) == (4, 4)


@pytest.mark.heavy
def test_in_and_out_are_exact_in_200_of_200(tmp_path):
    films = [(rate, suffix) for rate in RATES for suffix in (".mp4", ".mkv")][: 2 * len(RATES)]
    found = [trims(tmp_path, rate, suffix, 13, seed) for seed, (rate, suffix) in enumerate(films)]
    exact, made = (sum(column) for column in zip(*found))
    assert made >= 200 and exact == made, dict(zip(films, found))


def test_where_a_clips_own_file_is_gone_its_source_tells_the_same_times(tmp_path):
    shown = write_film(tmp_path / "a.mp4", "variable", 120)
    source = frame_times(str(tmp_path / "a.mp4"))
    assert source.shown_s == pytest.approx(shown, abs=1e-4) and source.variable
    times = trim.clip_times(source, float(shown[30]), float(shown[90]), 60)
    assert times.span_s(0, 60) == pytest.approx((0, shown[90] - shown[30]), abs=1e-4)
    with pytest.raises(TimesError, match="60 frames of the clip"):
        trim.clip_times(source, float(shown[30]), float(shown[90]), 59)
    with pytest.raises(TimesError, match="there are 60"):
        times.span_s(10, 61)


def test_16_s_is_sampled_at_16_and_the_rest_at_24_frames_a_second():
    duration = np.array([16.0, 15.98, 12.0, 10.6, 10.68, 14.0, 12.0])
    fps = np.array([24.0, 23.976, 25.0, 30.0, 24.0, 59.94, 12.0])
    start, end, frames = trim.sampled(duration, fps)
    assert frames.tolist() == [256, 256, 288, 256, 256, 320, 128]
    assert (start >= 0).all() and (end <= duration + 1e-9).all()
    rates = frames / (end - start)
    assert rates[:2] == pytest.approx(16.0, rel=0.002) and rates[2:6] == pytest.approx(24.0, rel=0.01)
    assert rates[6] == pytest.approx(12.0, rel=0.12)  # footage of 12 frames a second has no more


def test_half_of_the_set_is_16_s_and_what_is_over_is_of_least_worth():
    ids = [f"{n}" for n in range(10)]
    duration = [16.0] * 7 + [12.0] * 3
    worth = [0.1, 0.9, 0.2, 0.8, None, 0.7, 0.3] + [None] * 3
    assert trim.left_out(ids, duration, 0.5, worth, 0) == {"0", "2", "4", "6"}
    assert trim.left_out(ids, duration[::-1], 0.5, [None] * 10, 0) == trim.left_out(
        ids, duration[::-1], 0.5, [None] * 10, 0
    )
    assert trim.left_out(ids, [16.0] * 10, 0.5, [None] * 10, 0) == set()
