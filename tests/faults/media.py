"""Damaged and hostile media in one run: `python -m tests.faults media [--files N]`.

Damaged: bits flipped, ends cut, headers broken, sizes in them raised, stretches zeroed or moved; seeded, from small
files of many formats. Hostile: texts that name other files, references inside containers, claims of size, rate and
duration. Beside them lie sound films, whose rows must be those of a run without the others.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc

from rushes.curation.manifest import open_run
from tests.faults.runs import KEYS
from tests.footage import make_video, timed_cuts
from tests.pipelines.commands import alive, command_line, descendants

ENDS_S = 900.0
SMALL = (128, 96)
WORKER_BYTES_MAX = 1_500 << 20  # of one process; a sound run takes about 500 MB
HEADER = 4096
#: name -> (codec, options) of the files that are damaged, one second each.
FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    "h264.mp4": ("libx264", {}), "h264-front.mp4": ("libx264", {"-movflags": "+faststart"}),
    "h264.mkv": ("libx264", {}), "h264.ts": ("libx264", {}), "h264.flv": ("libx264", {}), "h264.mov": ("libx264", {}),
    "hevc.mp4": ("libx265", {}), "vp9.webm": ("libvpx-vp9", {}), "av1.mp4": ("libsvtav1", {}),
    "mpeg4.avi": ("mpeg4", {}), "mjpeg.avi": ("mjpeg", {"-q:v": 5}), "raw.y4m": ("rawvideo", {}),
    "fragments.mp4": ("libx264", {"-movflags": "+frag_keyframe+empty_moov"}),
}  # fmt: skip


# ---- damage ----------------------------------------------------------------------------------------------------------


def flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 10, 100, 1_000))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def header(data: bytearray, chance: random.Random) -> None:
    """Some bytes at the beginning are others."""
    for _ in range(chance.choice((1, 4, 64))):
        data[chance.randrange(min(HEADER, len(data)))] = chance.randrange(256)


def sizes(data: bytearray, chance: random.Random) -> None:
    """Four bytes in a header (or in the index at the end) become a number that promises much."""
    for _ in range(chance.choice((1, 2, 8))):
        near = chance.choice((0, max(0, len(data) - HEADER)))
        at = near + chance.randrange(min(HEADER, len(data) - near - 4))
        data[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\x01\0\0"))


def zeroed(data: bytearray, chance: random.Random) -> None:
    at, length = chance.randrange(len(data)), chance.randrange(1, len(data) // 2)
    data[at : at + length] = bytes(len(data[at : at + length]))


def moved(data: bytearray, chance: random.Random) -> None:
    """A stretch stands elsewhere."""
    at, length = chance.randrange(len(data)), chance.randrange(1, len(data) // 4)
    part = bytes(data[at : at + length])
    del data[at : at + length]
    to = chance.randrange(len(data))
    data[to:to] = part


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, cut, header, sizes, zeroed, moved)


def damaged(folder: Path, formats: dict[str, Path], count: int, seed: int) -> None:
    """`count` files, each a format with a damage; which, by turns; how, by chance."""
    names = sorted(formats)
    for number in range(count):
        chance = random.Random(f"{seed}-{number}")
        name, damage = names[number % len(names)], DAMAGES[number // len(names) % len(DAMAGES)]
        data = bytearray(formats[name].read_bytes())
        damage(data, chance)
        (folder / f"{number:03d}-{damage.__name__}-{name}").write_bytes(bytes(data))


# ---- hostility -------------------------------------------------------------------------------------------------------


def hostile(folder: Path, formats: dict[str, Path], port: int) -> None:
    """Texts that name other files or addresses, references inside containers, claims of size, rate and duration."""
    secret, away = formats["h264.mp4"], f"http://127.0.0.1:{port}/a.mp4"
    m3u8 = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    texts = {
        "concat.mp4": f"ffconcat version 1.0\nfile '{secret}'\n",
        "concat-away.mp4": f"ffconcat version 1.0\nfile '{away}'\n",
        "list.m3u8.mp4": m3u8.format(secret), "list-away.mp4": m3u8.format(away),
        "dash.mp4": f"<?xml version='1.0'?><MPD><Period><BaseURL>{away}</BaseURL></Period></MPD>",
        "session.mp4": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
        "asx.mp4": f"<asx version='3.0'><entry><ref href='{away}'/></entry></asx>",
        "rtsp.mp4": f"rtsp://127.0.0.1:{port}/a", "playlist.mp4": f"[playlist]\nFile1={away}\n",
        "subtitles.mp4": "1\n00:00:00,000 --> 00:00:09,000\nno picture\n", "empty.mp4": "", "svg.mp4":
        f"<svg xmlns='http://www.w3.org/2000/svg'><image href='{away}'/></svg>",
    }  # fmt: skip
    for name, text in texts.items():
        (folder / f"hostile-{name}").write_text(text)
    for name, data in {**_references(formats, away), **_claims(formats)}.items():
        (folder / f"hostile-{name}").write_bytes(data)
    os.mkfifo(folder / "hostile-fifo.mp4")
    (folder / "hostile-device.mp4").symlink_to("/dev/zero")
    with open(folder / "hostile-sparse.mp4", "wb") as file:  # a terabyte of nothing
        file.write(secret.read_bytes())
        file.truncate(1 << 40)


def _references(formats: dict[str, Path], away: str) -> dict[str, bytes]:
    """A QuickTime film whose pictures are said to lie at an address, and one in a file of this machine."""
    found = {}
    for name, target in (("reference-away.mov", away), ("reference-file.mov", str(formats["h264.mp4"]))):
        data = bytearray(formats["h264.mov"].read_bytes())
        at = data.find(b"dref")
        entry = data.find(b"alis", at) if data.find(b"alis", at) > 0 else data.find(b"url ", at)
        data[entry : entry + 8] = b"url \0\0\0\0"  # not in this file, it says
        found[name] = bytes(data) + target.encode() + b"\0"
    return found


def _claims(formats: dict[str, Path]) -> dict[str, bytes]:
    """Headers that promise what no machine holds."""
    avi, mp4 = formats["mpeg4.avi"].read_bytes(), formats["h264-front.mp4"].read_bytes()
    at = avi.find(b"avih") + 8
    wide = avi[: at + 32] + struct.pack("<II", 65_535, 65_535) + avi[at + 40 :]
    fast = avi[:at] + struct.pack("<I", 0) + avi[at + 4 :]
    frame = b"FRAME\n" + bytes(64)
    png = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0) + bytes(4)
    return {
        "wide.avi": wide, "fast.avi": fast, "wide.png.mp4": png + bytes(100),
        "wide.y4m": b"YUV4MPEG2 W60000 H60000 F25:1 C420jpeg\n" + frame * 9,
        "fast.y4m": b"YUV4MPEG2 W64 H64 F1000000000:1 C420jpeg\n" + (b"FRAME\n" + bytes(64 * 96)) * 9,
        "long.mp4": _long(mp4), "wide.mp4": _sized(mp4, 65_535), "many.mp4": _many(mp4),
    }  # fmt: skip


def _long(mp4: bytes) -> bytes:
    """One second that says it is years."""
    data = bytearray(mp4)
    for name, offset in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        at = data.find(name) + offset
        data[at : at + 4] = b"\x7f\xff\xff\xff"
    return bytes(data)


def _sized(mp4: bytes, side: int) -> bytes:
    data = bytearray(mp4)
    at = data.find(b"avc1") + 28
    data[at : at + 4] = struct.pack(">HH", side, side)
    at = data.find(b"tkhd") + 80
    data[at : at + 8] = struct.pack(">II", side << 16, side << 16)
    return bytes(data)


def _many(mp4: bytes) -> bytes:
    """A table of samples that says it has two thousand million entries."""
    data = bytearray(mp4)
    for name in (b"stts", b"stsz", b"stco", b"ctts"):
        at = data.find(name)
        if at > 0:
            place = at + (12 if name == b"stsz" else 8)
            data[place : place + 4] = b"\x7f\xff\xff\xff"
    return bytes(data)


# ---- the run ---------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What was seen of a run: its exit code, seconds, what it said, the largest process, addresses that were asked."""

    code: int
    seconds: float
    said: str
    largest: int
    connected: int
    files: int
    statuses: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def examine(folder: Path, count: int, seed: int) -> Seen:
    """Make the files, curate them beside sound ones, and check what is promised."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "sound").mkdir(parents=True)
    (folder / "bad").mkdir()
    (folder / "formats").mkdir()
    formats = {
        name: make_video(folder / "formats" / name, codec=codec, size=SMALL, seconds=1, options=options)
        for name, (codec, options) in FORMATS.items()
    }
    for number in range(3):
        timed_cuts(folder / "sound" / f"sound-{number}.mp4", [5.0 + number], seconds=11.0, size=(320, 240))
    with listening() as (port, connected):
        damaged(folder / "bad", formats, count, seed)
        hostile(folder / "bad", formats, port)
        alone = curate([folder / "sound"], folder / "alone", folder / "alone.log")
        seen = curate([folder / "sound", folder / "bad"], folder / "run", folder / "run.log")
        seen.connected = len(connected)
    seen.files = len(list((folder / "bad").iterdir())) + 3
    _check(seen, alone, folder)
    return seen


def curate(inputs: list[Path], root: Path, log: Path) -> Seen:
    words = [sys.executable, "-m", "rushes.pipelines.cli", "curate", "-r", "cpu", "-o", str(root)]
    words += [word for one in inputs for word in ("-i", str(one))]
    keys = (*KEYS, "engine.error_budget=1", "engine.num_cpus=2", "visual.size_min=64")
    words += [word for key in keys for word in ("--set", key)]
    began, largest = time.monotonic(), 0
    with open(log, "wb") as file:
        run = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    while run.poll() is None:
        if time.monotonic() - began > ENDS_S:
            run.kill()
        largest = max([largest, *(_peak(pid) for pid, _ in alive(descendants(run.pid)) if _is_worker(pid))])
        time.sleep(0.3)
    return Seen(run.returncode, time.monotonic() - began, log.read_text(errors="replace"), largest, 0, 0)


def _check(seen: Seen, alone: Seen, folder: Path) -> None:
    if seen.code or alone.code:
        seen.wrong.append(f"exit codes {alone.code} and {seen.code}: {seen.said[-300:]}")
        return
    run, by_itself = open_run(str(folder / "run")), open_run(str(folder / "alone"))
    sources, clips = run.table("sources"), run.table("clips")
    seen.statuses = Counter(sources["status"].to_pylist())
    if sources.num_rows != seen.files:
        seen.wrong.append(f"{sources.num_rows} rows of {seen.files} inputs")
    silent = [row["uri"] for row in sources.to_pylist() if row["status"] in ("failed", "partial") and not row["error"]]
    if silent:
        seen.wrong.append(f"no reason for {silent[:3]}")
    for row in sources.to_pylist():
        if row["error"] and "worker" in row["error"]:
            seen.wrong.append(f"{Path(row['uri']).name} ended its worker: {row['error']}")
    for name in ("start_s", "end_s", "kept", "rejected_by", "media_hash"):
        sound = clips.filter(pc.match_substring(clips["uri"], "/sound/"))[name]
        if sound.to_pylist() != by_itself.table("clips")[name].to_pylist():
            seen.wrong.append(f"the sound films' {name} differ")
    if seen.largest > WORKER_BYTES_MAX:
        seen.wrong.append(f"a process took {seen.largest >> 20} MB")
    if seen.connected:
        seen.wrong.append("an address was asked")
    if list((folder / "run" / "logs").glob("*.log")):
        told = "".join(path.read_text(errors="replace") for path in (folder / "run" / "logs").glob("*.log"))
        if "Fatal Python error" in told:
            seen.wrong.append("a worker crashed: " + told[told.find("Fatal Python error") :][:200])


@contextmanager
def listening() -> Iterator[tuple[int, list[object]]]:
    """A port of the loopback, and who has connected to it."""
    connected: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connected.append(server.accept()[1])

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], connected


def _is_worker(pid: int) -> bool:
    return command_line(pid).startswith("ray::Host")


def _peak(pid: int) -> int:
    """The most memory that a process has held, bytes."""
    with suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10
    return 0


def main(folder: Path, count: int, seed: int) -> int:
    seen = examine(folder / "media", count, seed)
    told = ", ".join(f"{number} {status}" for status, number in sorted(seen.statuses.items()))
    print(f"{seen.files} files in {seen.seconds:.0f} s, exit code {seen.code}: {told}; "
          f"the largest worker took {seen.largest >> 20} MB; {seen.connected} connections")  # fmt: skip
    for one in seen.wrong:
        print(f"WRONG: {one}")
    return int(bool(seen.wrong))
