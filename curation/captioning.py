"""Captions: about what is shown and how the camera moves, for the text side of the trainer (Movie Gen B.2).

A captioner takes clips and gives a caption for each, or the reason why there is none. The embedded default composes
a sentence from measured facts and is named for what it is; models stand behind the same interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

BRIGHTNESS = ((60.0, "dark"), (110.0, "dim"), (170.0, "evenly lit"), (256.0, "bright"))  # mean luma below, word
COLOUR = ((0.08, "nearly colourless"), (0.3, "muted"), (0.55, "colourful"), (1.01, "strongly coloured"))  # saturation
PACE = ((1.0, "hardly any movement"), (3.0, "gentle movement"), (8.0, "steady movement"), (1e9, "fast movement"))
PEOPLE_SURE = 0.6  # human_score from which a caption speaks of people
CAMERA_SURE = (
    0.6  # confidence from which the camera's motion is named in front (B.2: high confidence; cut-off not told)
)


@dataclass(frozen=True)
class Caption:
    """A caption and the model that wrote it; text is None where it failed, and `error` says why."""

    clip_id: str
    text: str | None
    model: str
    error: str | None = None


class Captioner(Protocol):
    """`captioner(rows)`: rows of the clips table with their clip_id; one Caption each, in any order, by clip_id."""

    name: str

    def __call__(self, rows: list[dict[str, Any]]) -> list[Caption]: ...


class ComposedCaptioner:
    """A sentence from measured facts: no model has seen the clip, and caption_model = "composed" says so."""

    name = "composed"

    def __call__(self, rows: list[dict[str, Any]]) -> list[Caption]:
        return [Caption(row["clip_id"], compose(row), self.name) for row in rows]


def compose(row: dict[str, Any]) -> str:
    """Caption of one clip row; facts that are null are left out."""
    camera = row.get("camera_motion") if (row.get("camera_motion_conf") or 0) >= CAMERA_SURE else None
    words = [_word(BRIGHTNESS, row.get("luma_mean")), _word(COLOUR, row.get("saturation"))]
    look = " and ".join(word for word in words if word)
    subject = "people" if (row.get("human_score") or 0) >= PEOPLE_SURE else None
    pace = _word(PACE, row.get("vmaf_motion"))
    what = f"{look} {row['orientation']} shot" if look else f"{row['orientation']} shot"
    text = f"{'An' if what[0] in 'aeiou' else 'A'} {what}"
    text += f" with {subject}" if subject else ""
    text += f" and {pace}" if pace and subject else f" with {pace}" if pace else ""
    lead = f"{camera.capitalize()}. " if camera else ""
    return f"{lead}{text}, {row['duration_s']:.1f} seconds long."


def _word(steps: tuple[tuple[float, str], ...], value: float | None) -> str | None:
    return None if value is None else next(word for limit, word in steps if value < limit)


def build(model: str) -> Captioner:
    """The captioner a recipe names."""
    return {"composed": ComposedCaptioner}[model]()
