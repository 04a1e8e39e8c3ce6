"""Lets torchvision of the package index be imported beside a torch without CUDA.

Its compiled operators do not load there, and its import dies because two operators that it registers are unknown:
`operator torchvision::nms does not exist`. Here their schemas are defined just before torchvision is imported;
nothing on a correct install changes. `make test-vllm` puts this module and a `.pth` file into its environment, so
that the worker processes of vLLM get it too.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries = []  # a library is undone when it is collected


class _Finder(importlib.abc.MetaPathFinder):
    """Steps aside for good as soon as someone asks for torchvision."""

    def find_spec(self, name, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            _define()
        return None


def _define() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _libraries.append(library)


sys.meta_path.insert(0, _Finder())
