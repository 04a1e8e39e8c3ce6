"""CAPTIONING: what is shown, how the camera moves, in about a hundred words (Movie Gen 3.2.1, B.2).

base.py       a caption, and what every captioner promises
composed.py   the offline default: a sentence from measured facts
assign.py     which model writes which clip's caption (70 / 30, by hash)
frames.py     what a model is shown
prompt.py     prompts/*.md -> the body of a request
endpoint.py   OpenAI-compatible servers: retries, and no answer at the wrong clip
preflight.py  what can be known of them before the first clip
checks.py     what an answer must pass
vision.py     all of it: clips in, captions out
draft.py      structured drafts that people correct
"""

from rushes.curation.captioning.base import CAMERA_SURE, Caption, Captioner, fps_token, sure_camera
from rushes.curation.captioning.composed import ComposedCaptioner, compose
from rushes.curation.captioning.endpoint import Servers, ServersDown

__all__ = [
    "CAMERA_SURE",
    "Caption",
    "Captioner",
    "ComposedCaptioner",
    "Servers",
    "ServersDown",
    "compose",
    "fps_token",
    "sure_camera",
]
