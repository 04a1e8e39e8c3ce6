"""Small models of random numbers, written to disk in the very forms that real weights come in."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from rushes.curation.recipe import build

MODEL, WIDTH = "tiny-for-tests", 16


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Folder with a CLIP (clip.pt), heads, a TorchScript (copies.pt) and two ONNX detectors."""
    import torch

    from rushes.curation.looking.torchvision_schemas import import_open_clip

    folder = tmp_path_factory.mktemp("weights")
    open_clip = import_open_clip()
    for name, width in ((MODEL, WIDTH), (f"{MODEL}-wide", 2 * WIDTH)):
        config = {
            "embed_dim": width,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
            "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        }
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    torch.save(open_clip.create_model(MODEL).state_dict(), folder / "clip.pt")
    torch.save({"weight": torch.randn(1, WIDTH), "bias": torch.tensor([5.0])}, folder / "linear.pth")
    torch.save({"weight": torch.full((1, WIDTH), float("nan")), "bias": torch.zeros(1)}, folder / "nan.pth")
    torch.save({"weight": torch.randn(1, 768), "bias": torch.zeros(1)}, folder / "wide.pth")
    torch.save(_mlp(), folder / "mlp.pth")
    torch.jit.script(_copies()).save(str(folder / "copies.pt"))
    _detectors(folder)
    return folder


def _mlp():
    """LAION's form: linear layers with dropout between them, numbered in a Sequential."""
    from torch import nn

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(WIDTH, 8), nn.Dropout(0.2), nn.Linear(8, 4), nn.Linear(4, 1))

    return Head().state_dict()


def _copies():
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 8, 16, stride=16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()).eval()


def _detectors(folder):
    """A graph in YOLOv8's form whose score of a person is the mean brightness, and one that answers one number."""
    from onnx import TensorProto, helper, save

    picture = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])
    zeros = helper.make_tensor("zeros", TensorProto.FLOAT, [1, 4, 20], [0.0] * 80)
    ones = helper.make_tensor("ones", TensorProto.FLOAT, [1, 1, 20], [1.0] * 20)
    rest = helper.make_tensor("rest", TensorProto.FLOAT, [1, 3, 20], [0.9] * 60)
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [2])
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [1, 1, 1])
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["cell"]),
        helper.make_node("Mul", ["ones", "cell"], ["person"]),
        helper.make_node("Concat", ["zeros", "person", "rest"], ["output0"], axis=1),
    ]
    found = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 8, 20])
    graph = helper.make_graph(nodes, "yolo", [picture], [found], [zeros, ones, rest, axes, shape])
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "person.onnx")
    number = helper.make_tensor_value_info("mean", TensorProto.FLOAT, [])
    graph = helper.make_graph(nodes[:1], "mean", [picture], [number])
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "strange.onnx")


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Four stills of real footage, far apart."""
    import av

    from rushes.pipelines.demo.film import clip_path

    with av.open(str(clip_path("bikes"))) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    return [cv2.resize(frame, (320, 136), interpolation=cv2.INTER_AREA) for frame in frames[10::60][:4]]


@pytest.fixture
def recipe(weights):
    """A recipe with the small CLIP, and whatever else is set."""

    def make(*overrides: str):
        named = [f"models.clip={MODEL}", f"models.clip_weights={weights / 'clip.pt'}"]
        return build({}, ["visual.text=false", *named, *overrides])

    return make
