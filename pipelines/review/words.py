"""Captions in fields: the long text composed of them, a first draft from measured facts, and who wrote which word."""

from __future__ import annotations

import difflib
import unicodedata
from typing import Any

from rushes.curation.captioning.base import sure_camera
from rushes.curation.captioning.composed import PEOPLE_SURE, light_of
from rushes.pipelines.review.forms import CHOICES, FIELD_MOST, FIELDS

MEASURED = "composed"  # who writes a draft that no model has seen, as caption_model says it
END_MARKS = ".!?…"
WrittenBy = dict[str, list[list[str]]]


class BadText(ValueError):
    """A text that cannot be kept: one sentence."""


def clean(fields: dict[str, str]) -> dict[str, str]:
    """Every field, white space as single spaces, NFC. Raises BadText for control characters and halves of letters."""
    cleaned = {}
    for name in FIELDS:
        text = " ".join(unicodedata.normalize("NFC", fields.get(name) or "").split())
        bad = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Co", "Cn")), None)
        if bad is not None:
            raise BadText(f"The field '{name}' holds a character that is no text (U+{ord(bad):04X}): remove it.")
        if len(text) > FIELD_MOST:
            raise BadText(f"The field '{name}' has {len(text):,} characters, and {FIELD_MOST:,} are the most.")
        cleaned[name] = text
    return cleaned


def compose(fields: dict[str, str]) -> str:
    """The long caption of the fields, without the camera's motion, which stands in front of it in a set (B.2)."""
    angle, subject = fields.get("shot_angle", ""), fields.get("subject", "")
    shot = "" if angle in ("", "other") else angle if angle == "close-up" else f"{angle} shot"
    lead = f"{shot} of {_lowered(subject)}" if shot and subject else shot or subject
    parts = [lead, fields.get("action", "")]
    for name, words in (("background", "The background is"), ("light", "The light is"), ("style", "The style is")):
        text = fields.get(name, "")
        parts.append(f"{words} {_lowered(text)}" if text else "")
    return " ".join(_sentence(part) for part in parts if part)


def draft(row: dict[str, Any]) -> dict[str, str]:
    """Fields from what was measured of a clip (its row); what nobody has measured stays empty for people to fill."""
    camera = sure_camera(row)
    return clean({
        "camera_control": camera if camera in CHOICES["camera_control"] else "",
        "light": light_of(row) or "",
        "subject": "people" if (row.get("human_score") or 0) >= PEOPLE_SURE else "",
    })  # fmt: skip


def written_by(before: WrittenBy | None, fields: dict[str, str], person: str) -> WrittenBy:
    """Who wrote which words of each field: words that stood there before stay their writer's."""
    return {name: _runs((before or {}).get(name, []), fields[name], person) for name in FIELDS}


def _runs(before: list[list[str]], text: str, person: str) -> list[list[str]]:
    owners = [(who, word) for who, words in before for word in words.split()]
    words = text.split()
    matcher = difflib.SequenceMatcher(None, [word for _, word in owners], words, autojunk=False)
    whose = [person] * len(words)
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            whose[block.b + offset] = owners[block.a + offset][0]
    runs: list[list[str]] = []
    for who, word in zip(whose, words, strict=True):
        if runs and runs[-1][0] == who:
            runs[-1][1] += f" {word}"
        else:
            runs.append([who, word])
    return runs


def _sentence(text: str) -> str:
    text = text[0].upper() + text[1:]
    return text if text[-1] in END_MARKS else f"{text}."


def _lowered(text: str) -> str:
    """The text inside a sentence: an article at its beginning is no name."""
    first, space, rest = text.partition(" ")
    return f"{first.lower()}{space}{rest}" if first in ("A", "An", "The", "Two", "Three", "Some") else text
