"""What the tests of the client share: a recipe that points at a stub, clips with numbered pictures."""

from __future__ import annotations

from typing import Any

from rushes.curation import recipe
from rushes.curation.captioning.base import Caption
from rushes.curation.captioning.endpoint import Servers
from rushes.curation.captioning.frames import encode
from rushes.curation.captioning.preflight import preflight
from rushes.curation.captioning.prompt import load_template
from rushes.curation.captioning.vision import VisionCaptioner
from rushes.curation.sections import Captioning
from tests.curation.captioning.stub import picture

QUICK = {"checks": (), "side": 32, "frames": 2, "timeout_s": 0.6, "concurrency": 16, "patience_s": 20.0}


def captioning(url: str | tuple[str, ...], **changes: Any) -> Captioning:
    models = [{"name": "small", "share": 0.7}, {"name": "large", "share": 0.3}]
    urls = (url,) if isinstance(url, str) else url
    section = {"provider": "endpoint", "endpoints": urls, "models": models, **QUICK, **changes}
    return recipe.build({"captioning": section}).captioning


def servers(spec: Captioning) -> Servers:
    return preflight(spec, spec.endpoints, load_template(spec.prompt), None)


def clips(count: int):
    return ({"clip_id": f"{i:020x}", "duration_s": 4.0, "number": i} for i in range(count))


def frames(row: dict[str, Any]) -> list[bytes]:
    return [encode(picture(row["number"]), 32)] * 2


def caption(url: str | tuple[str, ...], count: int, at: Servers | None = None, **changes: Any) -> dict[int, Caption]:
    """Captions of the first `count` clips, by number; every clip has exactly one."""
    spec = captioning(url, **changes)
    found: list[Caption] = []
    VisionCaptioner(spec, at or servers(spec)).run(clips(count), frames, found.extend)
    by_number = {int(c.clip_id, 16): c for c in found}
    assert sorted(by_number) == list(range(count)) and len(found) == count
    return by_number


def swapped(captions: dict[int, Caption]) -> list[int]:
    """Clips whose caption is not about their own picture."""
    said = {n: f"The number {n} was seen by {c.model}." for n, c in captions.items()}
    return [n for n, c in captions.items() if c.text is not None and c.text != said[n]]
