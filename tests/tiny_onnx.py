"""A network of a few operations as an ONNX file and its Artifact, made in milliseconds and without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vitscope.export.artifact import Artifact

SHAPE = (1, 3, 8, 8)


def tiny_onnx(path: Path, *, convolutions: int = 2, model: str = "tiny") -> Artifact:
    """`convolutions` 3×3 convolutions of 3 channels, each followed by a ReLU, with weights that are written in the file."""
    from onnx import TensorProto, checker, helper, numpy_helper, save_model

    random = np.random.default_rng(0)
    nodes, weights = [], []
    name = "image"
    for index in range(convolutions):
        weights.append(numpy_helper.from_array(random.normal(0, 0.3, (3, 3, 3, 3)).astype(np.float32), f"w{index}"))
        nodes.append(helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], f"stages.{index}/Conv", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], f"stages.{index}/Relu"))
        name = f"r{index}"
    graph = helper.make_graph(
        nodes, model,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE)],
        weights,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(made)
    save_model(made, path)
    scopes = {node.name: node.name.partition("/")[0] for node in nodes}
    scopes |= {node.output[0]: node.name.partition("/")[0] for node in nodes}
    return Artifact(
        path=path, format="onnx", model=model, digest=f"{convolutions} convolutions", form="deploy", precision="fp32",
        input_shape=SHAPE, blocks=tuple(f"stages.{index}" for index in range(convolutions)), weights="random, seed 0",
        tools="onnx", scopes=scopes,
    )  # fmt: skip
