"""Lets torchvision of the package index be imported beside a torch without CUDA; open_clip and peft import it.

Its compiled operators do not load there, and its import dies because two operators that it registers are unknown
("operator torchvision::nms does not exist"). Their schemas are defined here first; a correct install is left alone.
"""

from __future__ import annotations

import importlib
from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # a library is undone when it is collected


def import_open_clip() -> Any:
    """The module open_clip. Raises ImportError where it is not installed."""
    return imported("open_clip")


def imported(module: str) -> Any:
    """A module that imports torchvision. Raises ImportError where it is not installed."""
    import sys

    import torch

    if "torchvision" not in sys.modules and not torch.backends.cuda.is_built() and not _libraries:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in SCHEMAS:
            library.define(schema)
        _libraries.append(library)
    return importlib.import_module(module)
