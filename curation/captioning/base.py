"""What a caption is, and what every captioner promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from rushes.curation.signals import CAMERA_SURE


@dataclass(frozen=True)
class Caption:
    """A caption and the model that wrote it; `text` is None where there is none, and `error` says why.

    lasting: False where no answer came (a hang, a broken server): the clip is asked again when the run is started
    again. True for captions, and for answers that failed the checks with every seed.
    """

    clip_id: str
    text: str | None
    model: str
    error: str | None = None
    seed: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    lasting: bool = True


class Captioner(Protocol):
    """`captioner(rows)`: rows of the clips table with their clip_id; one Caption each, in any order, by clip_id."""

    name: str

    def __call__(self, rows: list[dict[str, Any]]) -> list[Caption]: ...


def sure_camera(row: dict[str, Any]) -> str | None:
    """The camera's motion of a clip row where its classifier is confident, else None."""
    return row.get("camera_motion") if (row.get("camera_motion_conf") or 0.0) >= CAMERA_SURE else None


def fps_token(frames: int, duration_s: float) -> str:
    """ "FPS-16" (B.2): the rate at which a trainer samples `frames` (> 0) from a clip of `duration_s` (> 0) seconds."""
    return f"FPS-{round(frames / duration_s)}"
