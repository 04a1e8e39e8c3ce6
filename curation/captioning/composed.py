"""The embedded default: a sentence composed from measured facts, offline, and named for what it is."""

from __future__ import annotations

from typing import Any

from rushes.curation.captioning.base import Caption

BRIGHTNESS = ((60.0, "dark"), (110.0, "dim"), (170.0, "evenly lit"), (256.0, "bright"))  # mean luma below, word
COLOUR = ((0.08, "nearly colourless"), (0.3, "muted"), (0.55, "colourful"), (1.01, "strongly coloured"))  # saturation
PACE = ((1.0, "hardly any movement"), (3.0, "gentle movement"), (8.0, "steady movement"), (1e9, "fast movement"))
PEOPLE_SURE = 0.6  # human_score from which a caption speaks of people


class ComposedCaptioner:
    """A sentence from measured facts: no model has seen the clip, and caption_model = "composed" says so."""

    name = "composed"

    def __call__(self, rows: list[dict[str, Any]]) -> list[Caption]:
        return [Caption(row["clip_id"], compose(row), self.name) for row in rows]


def compose(row: dict[str, Any]) -> str:
    """Caption of one clip row; facts that are null are left out. The camera's motion has a column of its own."""
    look = light_of(row)
    subject = "people" if (row.get("human_score") or 0) >= PEOPLE_SURE else None
    pace = _word(PACE, row.get("vmaf_motion"))
    what = f"{look} {row['orientation']} shot" if look else f"{row['orientation']} shot"
    text = f"{'An' if what[0] in 'aeiou' else 'A'} {what}"
    text += f" with {subject}" if subject else ""
    text += f" and {pace}" if pace and subject else f" with {pace}" if pace else ""
    return f"{text}, {row['duration_s']:.1f} seconds long."


def light_of(row: dict[str, Any]) -> str:
    """Brightness and colour of a clip row in words; empty where neither was measured."""
    words = [_word(BRIGHTNESS, row.get("luma_mean")), _word(COLOUR, row.get("saturation"))]
    return " and ".join(word for word in words if word)


def _word(steps: tuple[tuple[float, str], ...], value: float | None) -> str | None:
    return None if value is None else next(word for limit, word in steps if value < limit)
