"""Only files that hold their own footage are opened: no other file, no address of the network, whatever a name says."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest

from rushes.curation.captioning.frames import FrameError, from_media
from rushes.curation.sections import Cut
from rushes.curation.video import containers
from rushes.curation.video.cut import Cutter
from rushes.curation.video.decode import probe
from rushes.curation.video.source import Source
from rushes.model.frames import ClipError, read_clip

ROW = {"clip_id": "ab" * 10, "start_s": 0.0, "end_s": 1.0, "frames": 24, "fps": 24.0}


@pytest.fixture
def listener():
    """A port of this machine that somebody listens at; `connected()` says whether anyone came."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)

        def connected() -> bool:
            try:
                server.accept()[0].close()
            except TimeoutError:
                return False
            return True

        yield server.getsockname()[1], connected


def playlists(video: Path, port: int) -> dict[str, str]:
    away = f"http://127.0.0.1:{port}/a.ts"
    m3u8 = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    mpd = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
        'bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>'
    )
    sdp = f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
    return {
        "concat.mp4": f"ffconcat version 1.0\nfile '{video}'\n",
        "concat_http.mp4": f"ffconcat version 1.0\nfile '{away}'\n",
        "local.m3u8": m3u8.format(video), "named.mp4": m3u8.format(video), "away.m3u8": m3u8.format(away),
        "local.mpd": mpd.format(video), "away.mpd": mpd.format(away), "session.sdp": sdp, "session.mp4": sdp,
        "away.asx": f"<asx version='3.0'><entry><ref href='{away}'/></entry></asx>",
        "rtsp.mp4": f"rtsp://127.0.0.1:{port}/a", "list.pls": f"[playlist]\nFile1={away}\n",
    }  # fmt: skip


def test_a_text_that_names_other_files_opens_none_of_them_wherever_media_are_read(bunny_video, tmp_path, listener):
    port, connected = listener
    for name, text in playlists(bunny_video, port).items():
        path = tmp_path / name
        path.write_text(text)
        found = probe(str(path))
        assert found.status == "failed" and "names other files" in found.error, (name, found.error)
        cut = Cutter(Cut(), "hash", str(tmp_path / "run"))(Source(str(path), "id"), [ROW])[ROW["clip_id"]]
        assert isinstance(cut, str), name
        with pytest.raises(FrameError):
            from_media(str(path), 2, 64)
        with pytest.raises(ClipError):
            read_clip(str(path), [0.0], 16, 16)
        assert not connected(), name


def test_a_pattern_of_names_reads_no_other_file(bunny_video, tmp_path):
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    frames = [ffmpeg, "-loglevel", "error", "-i", str(bunny_video), "-frames:v", "3", str(tmp_path / "%03d.png")]
    subprocess.run(frames, check=True, stdin=subprocess.DEVNULL)
    shutil.copy(tmp_path / "001.png", tmp_path / "x%03d.png")
    shutil.copy(tmp_path / "001.png", tmp_path / "100%.png")
    assert "pattern" in probe(str(tmp_path / "x%03d.png")).error
    assert probe(str(tmp_path / "100%.png")).status == "ok"


def test_a_recipe_may_allow_a_format_that_reads_other_files_but_never_the_network(bunny_video, tmp_path, listener):
    port, connected = listener
    texts = playlists(bunny_video, port)
    path, away = tmp_path / "a.m3u8", tmp_path / "b.m3u8"
    path.write_text(texts["local.m3u8"].replace(str(bunny_video), "a.ts"))
    away.write_text(texts["away.m3u8"])
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(bunny_video), "-c", "copy"]
    subprocess.run([*command, str(tmp_path / "a.ts")], check=True, stdin=subprocess.DEVNULL)
    containers.allow(("hls",))
    try:
        assert probe(str(path)).status == "ok"
        assert probe(str(away)).status == "failed" and not connected()
    finally:
        containers.allow(())
    assert probe(str(path)).status == "failed"


def test_an_unknown_format_of_a_recipe_is_answered_with_the_nearest():
    assert containers.unknown_format(("hls", "concat")) is None
    assert "did you mean 'hls'" in containers.unknown_format(("hlss",))


def test_what_is_no_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "sock.mp4"))
        (tmp_path / "folder.mp4").mkdir()
        (tmp_path / "zero.mp4").symlink_to("/dev/zero")
        said = {name: probe(str(tmp_path / f"{name}.mp4")).error for name in ("pipe", "sock", "folder", "zero")}
    assert said == {"pipe": "this is a FIFO, not a file", "sock": "this is a socket, not a file",
                    "folder": "this is a folder, not a file", "zero": "this is a device, not a file"}  # fmt: skip


def test_media_are_opened_for_reading_in_one_place_only():
    top = Path(containers.__file__).parents[2]
    own = {"curation/video/containers.py", "model/frames.py", "pipelines/demo/film.py"}  # film: of the package's data
    found = {
        str(path.relative_to(top))
        for room in ("curation", "pipelines", "model")
        for path in (top / room).rglob("*.py")
        if any("av.open(" in line and '"w"' not in line for line in path.read_text().splitlines())
    }
    assert found <= own
