"""Small copies of large clips: the same frames at the same times, and never a reason that a clip is not shown."""

from __future__ import annotations

import asyncio
import threading

import av
import numpy as np
import pytest

from rushes.curation.video.times import frame_times
from rushes.pipelines.service import proxies
from rushes.pipelines.service.proxies import Proxies
from tests.pipelines.studio.conftest import BITS, RATES, write_film


@pytest.fixture
def small_is_large(monkeypatch):
    monkeypatch.setattr(proxies, "LARGE_BYTES", 1_000)
    monkeypatch.setattr(proxies, "SIDE", 72)


def numbers(path) -> list[int]:
    """The number that each frame carries in its stripes."""
    with av.open(str(path)) as container:
        rows = [frame.to_ndarray(format="gray")[frame.height // 2] for frame in container.decode(video=0)]
    middles = (np.arange(BITS) + 0.5) * len(rows[0]) / BITS
    return [int(sum(1 << bit for bit, at in enumerate(middles) if row[int(at)] > 128)) for row in rows]


@pytest.mark.parametrize("rate", RATES)
def test_a_copy_has_every_frame_at_its_time(tmp_path, small_is_large, rate):
    film = tmp_path / "film.mp4"
    write_film(film, RATES[rate])
    copy = asyncio.run(Proxies(tmp_path / "proxies").of(str(film)))
    assert copy != str(film)
    assert numbers(copy) == numbers(film)
    assert np.allclose(frame_times(copy).shown_s, frame_times(str(film)).shown_s, atol=1e-4)
    with av.open(copy) as container:
        assert container.streams.video[0].height == 72


def test_many_who_ask_get_one_copy_and_a_small_clip_is_shown_itself(tmp_path, small_is_large, monkeypatch):
    film, made = tmp_path / "film.mp4", []
    write_film(film, RATES["25"])
    encode = proxies.encode
    monkeypatch.setattr(proxies, "encode", lambda path, to: (made.append(path), encode(path, to)))

    async def ask(kept: Proxies) -> list[str]:
        return await asyncio.gather(*(kept.of(str(film)) for _ in range(5)))

    found = {*asyncio.run(ask(Proxies(tmp_path / "proxies"))), *asyncio.run(ask(Proxies(tmp_path / "proxies")))}
    assert len(found) == 1 and len(made) == 1
    monkeypatch.setattr(proxies, "LARGE_BYTES", 1 << 30)
    assert asyncio.run(Proxies(tmp_path / "proxies").of(str(film))) == str(film)


def test_nobody_waits_long_for_a_copy(tmp_path, small_is_large, monkeypatch):
    film, go = tmp_path / "film.mp4", threading.Event()
    write_film(film, RATES["25"])
    encode = proxies.encode
    monkeypatch.setattr(proxies, "encode", lambda path, to: (go.wait(10), encode(path, to)))
    monkeypatch.setattr(proxies, "PATIENCE_S", 0.05)

    async def ask(kept: Proxies) -> tuple[str | None, str | None]:
        early = await kept.of(str(film))
        go.set()
        monkeypatch.setattr(proxies, "PATIENCE_S", 10.0)
        return early, await kept.of(str(film))

    early, later = asyncio.run(ask(Proxies(tmp_path / "proxies")))
    assert early is None and later.endswith(".mp4") and later != str(film)


def test_what_cannot_be_copied_is_shown_as_it_is(tmp_path, small_is_large):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film" * 1_000)
    kept = Proxies(tmp_path / "proxies")
    assert asyncio.run(kept.of(str(broken))) == str(broken)
    assert list((tmp_path / "proxies").iterdir()) == []
    assert asyncio.run(kept.of(str(tmp_path / "gone.mp4"))) == str(tmp_path / "gone.mp4")


def test_copies_take_no_more_room_than_they_may(tmp_path, small_is_large, monkeypatch):
    monkeypatch.setattr(proxies, "CACHE_BYTES", 1)
    kept, copies = Proxies(tmp_path / "proxies"), []
    for name in ("25", "23.976"):
        write_film(tmp_path / f"{name}.mp4", RATES[name])
        copies.append(asyncio.run(kept.of(str(tmp_path / f"{name}.mp4"))))
    assert [str(path) for path in kept.folder.iterdir()] == [copies[1]]
