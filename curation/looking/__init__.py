"""Lookers: what looks at the stills of clips, measured by hand or by a learned model named in the recipe."""

from rushes.curation.looking.base import Clip, Looker, ModelError
from rushes.curation.looking.registry import LOOKERS, check, chosen, gpu_share

__all__ = ["LOOKERS", "Clip", "Looker", "ModelError", "check", "chosen", "gpu_share"]
