"""A small head on a CLIP's embedding: linear, or LAION's aesthetic MLP.

A file of `torch.save` or safetensors that holds a state dict of linear layers: `weight` [1, D] and `bias` [1]
(LAION's sa_0_4_vit_l_14_linear.pth), or `layers.0.weight` [1024, D], `layers.0.bias`, `layers.2.weight` ... down to one
output (sac+logos+ava1-l14-linearMSE.pth). The layers follow one another without anything between them, as there.
"""

from __future__ import annotations

import os
import re

import numpy as np

from rushes.curation.looking.base import ModelError, file_name


class Head:
    """`head(rows)`: embeddings float32 [N, width], rows of length 1 -> [N].

    key: the recipe key that names the file; of: the model whose embeddings it reads.
    Raises ModelError where the file is missing, holds no linear layers, or reads embeddings of another width.
    """

    def __init__(self, path: str, width: int, key: str, of: str) -> None:
        if not os.path.isfile(path):
            raise ModelError(f"{key}={path}: there is no such file; give the head's weights, or 'measured'.")
        self.name = file_name(path)
        layers = _layers(path, key)
        read = layers[0][0].shape[1]
        if read != width:
            raise ModelError(f"{key}={path} reads embeddings of {read} numbers, and {of} writes {width}: take its own.")
        # linear layers in a row are one
        weight, bias = layers[0]
        for next_weight, next_bias in layers[1:]:
            weight, bias = next_weight @ weight, next_weight @ bias + next_bias
        if weight.shape[0] != 1:
            raise ModelError(f"{key}={path} answers {weight.shape[0]} numbers a picture; one is needed.")
        self._weight, self._bias = weight[0], float(bias[0])

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return rows @ self._weight + self._bias


def _layers(path: str, key: str) -> list[tuple[np.ndarray, np.ndarray]]:
    state = _state(path, key)
    weights = sorted((name for name in state if name.split(".")[-1] == "weight"), key=_order)
    layers = []
    for name in weights:
        weight = state[name]
        bias = state.get(name[: -len("weight")] + "bias", np.zeros(len(weight), np.float32))
        if weight.ndim != 2 or bias.shape != (len(weight),) or (layers and layers[-1][0].shape[0] != weight.shape[1]):
            raise ModelError(f"{key}={path} is no head of linear layers: '{name}' has the shape {list(weight.shape)}.")
        layers.append((weight, bias))
    if not layers:
        raise ModelError(f"{key}={path} holds no 'weight': it is no head of linear layers.")
    return layers


def _order(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def _state(path: str, key: str) -> dict[str, np.ndarray]:
    try:
        if path.endswith(".safetensors"):
            from safetensors.numpy import load_file

            return {name: value.astype(np.float32) for name, value in load_file(path).items()}
        import torch

        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value.float().numpy() for name, value in state.items()}
    except ImportError as error:
        raise ModelError(f"{key}={path} needs torch ({error}): pip install 'rushes[models]'.") from error
    except Exception as error:  # pickle, zip and torch each have errors of their own
        raise ModelError(f"{key}={path} is no state dict of torch: {' '.join(str(error).split())[:200]}.") from error
