"""From a template, a clip's frames and the recipe to the body of a chat request, the same for every way in."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rushes.curation.recipe import RecipeError
from rushes.curation.sections import Captioning

PROMPT_FOLDER = Path(__file__).parent / "prompts"
HEADS = re.compile(r"^# (system|user)\s*$", flags=re.MULTILINE)
NOTES = re.compile(r"<!--.*?-->", flags=re.DOTALL)
FIELD = re.compile(r"\{(\w+)\}")
SECONDS_MIN = 0.1  # a clip's duration is taken for at least this
ALL_FRAMES = -1  # vLLM's word for: every frame that was sent


@dataclass(frozen=True)
class Template:
    """A prompt as written: the system's part, the user's, and what names its wording in keys of records."""

    name: str
    system: str
    user: str

    @property
    def key(self) -> str:
        return hashlib.blake2b(f"{self.system}\0{self.user}".encode(), digest_size=4).hexdigest()

    def fill(self, **values: Any) -> tuple[str, str]:
        """(system, user) with the fields filled in; braces around anything else stay as they are."""

        def filled(text: str) -> str:
            return FIELD.sub(lambda found: str(values.get(found[1], found[0])), text)

        return filled(self.system), filled(self.user)


def load_template(name_or_path: str) -> Template:
    """A shipped prompt by name, or a file of the same form by path. Raises RecipeError where it cannot be used."""
    path = PROMPT_FOLDER / f"{name_or_path}.md"
    if not path.is_file():
        path = Path(name_or_path).expanduser()
    try:
        text = NOTES.sub("", path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        shipped = ", ".join(sorted(p.stem for p in PROMPT_FOLDER.glob("*.md")))
        raise RecipeError(
            f"Recipe key 'captioning.prompt': '{name_or_path}' is neither a shipped prompt ({shipped}) nor a file "
            f"that can be read."
        ) from error
    parts = HEADS.split(text)
    found = {head: body.strip() for head, body in zip(parts[1::2], parts[2::2], strict=True)}
    if not found.get("user"):
        raise RecipeError(f"Recipe key 'captioning.prompt': {path} has no part '# user' that says what to write.")
    return Template(name_or_path, found.get("system", ""), found["user"])


def pictures(frames: list[bytes], send: str) -> list[dict[str, Any]]:
    """Content parts of a message for JPEG frames: each an image, or all of them one video (`video/jpeg`, vLLM)."""
    encoded = [base64.b64encode(frame).decode("ascii") for frame in frames]
    if send == "images":
        return [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}} for data in encoded]
    return [{"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{','.join(encoded)}"}}]


def chat_body(
    model: str, template: Template, frames: list[bytes], duration_s: float, recipe: Captioning, seed: int, **values: Any
) -> dict[str, Any]:
    """Body of POST /v1/chat/completions. frames: JPEG, in order of time; values: further fields of the template.

    The clip's id goes out with each request (endpoint.py), not in the body: no model is shown it.
    """
    fields = {"words": recipe.words, "seconds": f"{duration_s:.1f}", "frames": len(frames), **values}
    system, user = template.fill(**fields)
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": [*pictures(frames, recipe.send), {"type": "text", "text": user}]})
    body = {
        "model": model, "messages": messages, "max_tokens": recipe.max_tokens, "temperature": recipe.temperature,
        "top_p": recipe.top_p, "seed": seed,
    }  # fmt: skip
    if recipe.send == "video":  # when the frames were taken; and no more than these, no fewer
        rate = len(frames) / max(duration_s, SECONDS_MIN)
        body["media_io_kwargs"] = {"video": {"fps": rate, "num_frames": ALL_FRAMES}}
    return body
