"""A model is shown what the recipe says: so many frames, spread over the clip, so large."""

from __future__ import annotations

import base64

import av
import cv2
import numpy as np
import pytest

from rushes.curation import sections
from rushes.curation.captioning.frames import FrameError, encode, from_media, from_stills, spread
from rushes.curation.captioning.prompt import chat_body, load_template
from rushes.curation.recipe import RecipeError
from rushes.curation.sections import Captioning

GREYS = 40  # frames of the film below, each lighter than the one before


def shape(jpeg: bytes) -> tuple[int, ...]:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape


def level(jpeg: bytes) -> float:
    return float(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE).mean())


def test_frames_are_the_middles_of_equal_parts():
    assert spread(16, 4) == [2, 6, 10, 14]
    assert spread(3, 8) == [0, 1, 2]
    for available in range(1, 60):
        for wanted in range(1, 20):
            found = spread(available, wanted)
            assert len(found) == min(available, wanted) and sorted(set(found)) == found and found[-1] < available


def test_stills_are_taken_in_order_of_time_and_shrunk_only_where_they_are_larger():
    stills = [(t, encode(np.full((90, 160, 3), 10 * t, np.uint8), 640)) for t in (5, 1, 9, 3, 7)]
    shown = from_stills(stills, 3, 80)
    assert [shape(jpeg) for jpeg in shown] == [(45, 80, 3)] * 3
    assert [round(level(jpeg), -1) for jpeg in shown] == [10, 50, 90]
    assert from_stills(stills, 1, 160)[0] == dict(stills)[5]


def test_a_clip_without_stills_and_a_file_that_is_no_film_are_told(tmp_path):
    with pytest.raises(FrameError, match="no still"):
        from_stills([], 4, 80)
    (tmp_path / "a.mp4").write_bytes(b"no film at all")
    for name in ("a.mp4", "missing.mp4"):
        with pytest.raises(FrameError, match="cannot be read"):
            from_media(str(tmp_path / name), 4, 80)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Key frames every five frames, so that eight are enough and nine are not."""
    path = tmp_path_factory.mktemp("film") / "greys.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, width=64, height=48, pix_fmt="yuv420p")
        stream.codec_context.options = {"g": "5", "keyint_min": "5", "sc_threshold": "0", "bf": "0"}
        for i in range(GREYS):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 + 4 * i, np.uint8), format="bgr24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("wanted", [1, 4, 8, 9, 20])
def test_a_cut_clip_gives_as_many_frames_as_asked_evenly_over_its_length(film, wanted):
    shown = [level(jpeg) for jpeg in from_media(str(film), wanted, 32)]
    assert len(shown) == wanted
    places = (np.array(shown) - 40) / 4  # index of the frame that each one shows
    expected = (np.arange(wanted) + 0.5) * GREYS / wanted
    assert np.all(np.abs(places - expected) <= 5)
    assert np.all(np.diff(places) > 0) if wanted > 1 else True


def test_a_request_holds_the_frames_and_the_instructions_and_nothing_that_names_the_clip():
    template, frames = load_template("caption"), [b"one", b"two"]
    body = chat_body("small", template, frames, 4.0, Captioning(words=90), seed=7)
    video, text = body["messages"][-1]["content"]
    assert video["video_url"]["url"] == "data:video/jpeg;base64," + ",".join(
        base64.b64encode(f).decode() for f in frames
    )
    assert "about 90 words" in text["text"] and "4.0 seconds" in text["text"] and "{" not in text["text"]
    assert body["seed"] == 7 and body["model"] == "small" and body["media_io_kwargs"]["video"]["fps"] == 0.5


def test_a_server_of_images_is_sent_images_in_order():
    body = chat_body("m", load_template("caption"), [b"one", b"two"], 4.0, Captioning(send="images"), seed=0)
    parts = body["messages"][-1]["content"]
    assert [part["type"] for part in parts] == ["image_url", "image_url", "text"] and "media_io_kwargs" not in body
    assert base64.b64decode(parts[1]["image_url"]["url"].partition(",")[2]) == b"two"


def test_a_prompt_of_ones_own_is_a_file_and_its_wording_is_part_of_what_is_recorded(tmp_path):
    path = tmp_path / "mine.md"
    path.write_text("# user\n\nSay {words} words about {this}.\n")
    mine = load_template(str(path))
    assert mine.fill(words=5) == ("", "Say 5 words about {this}.")
    path.write_text("# user\n\nSay {words} words.\n")
    assert load_template(str(path)).key != mine.key


@pytest.mark.parametrize("content", [None, "no heading at all", "# system\n\nonly this\n"])
def test_a_prompt_that_cannot_be_used_is_told(tmp_path, content):
    path = tmp_path / "p.md"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecipeError, match=r"captioning\.prompt"):
        load_template(str(path))


def test_the_shipped_prompts_ask_for_what_the_paper_asks():
    system, user = load_template("caption").fill(**{"words": 100, "frames": 8, "seconds": "6.0"})
    for word in ("subject", "background", "order", "light", "style", "camera", "100 words"):
        assert word in user
    assert sections.Captioning().words == 100 and system
