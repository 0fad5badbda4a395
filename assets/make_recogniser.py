"""Make `assets/recogniser.*` from dlib's face recogniser: `python -m fitdiff.assets.make_recogniser`.

The source is a dump of dlib's own serialisation. Only what this network uses of that format is read here.
"""

import re
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..models.checkpoint import ModelCard, assets_dir, save_checkpoint
from ..models.recogniser import DlibResNet, DlibResNetConfig, json_from_config
from .source_package import SourceFile

WEIGHTS = SourceFile(
    package="face-recognition-models",
    version="0.3.0",
    member="face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
)
LICENCE = """\
dlib_face_recognition_resnet_model_v1, by Davis King (https://github.com/davisking/dlib-models).

Its author has released the file into the public domain; where that has no effect, CC0 1.0 Universal applies:
https://creativecommons.org/publicdomain/zero/1.0/legalcode

Taken from the Python package face-recognition-models 0.3.0, whose own licence is CC0 1.0 Universal. No other
file of that package is used: the 68-point shape predictor beside it is not for commercial use.
Changed: scale layers are folded into the convolutions before them.
"""


class DlibArchive:
    """A cursor over dlib's serialisation: variable-length integers, and tensors of float32."""

    def __init__(self, data: bytes, offset: int) -> None:
        self.data = data
        self.offset = offset

    def integer(self) -> int:
        """A control byte (sign in bit 7, length in the low four), then that many bytes, the lowest first."""
        control = self.data[self.offset]
        start = self.offset + 1
        self.offset = start + (control & 0x0F)
        magnitude = int.from_bytes(self.data[start : self.offset], "little")
        return -magnitude if control & 0x80 else magnitude

    def tensor(self) -> Tensor | None:
        """Flat float32, or None where no tensor of version 2 begins."""
        if self.integer() != 2:
            return None
        count = 1
        for _ in range(4):  # samples, channels, rows, columns
            count *= self.integer()
        values = np.frombuffer(self.data, "<f4", count, self.offset)
        self.offset += values.nbytes
        return torch.from_numpy(values.copy())


def state_from_dlib(data: bytes, config: DlibResNetConfig) -> dict[str, Tensor]:
    """The state of a `DlibResNet` with each scale layer folded into the convolution before it.

    dlib writes its layers from the output to the input, parameters before the layer's shape, and repeats of a
    block in order; what counts here is that convolutions and their scale layers come in the network's order.
    """
    convolutions: list[Tensor] = []
    scales: list[Tensor] = []
    embed: Tensor | None = None
    for layer in re.finditer(rb"con_\d|affine_|fc_\d", data):
        archive = DlibArchive(data, layer.end())
        if layer.group().startswith(b"fc_"):
            for _ in ("outputs", "inputs"):
                archive.integer()
            embed = archive.tensor()
        elif (tensor := archive.tensor()) is not None:  # the same bytes can occur inside weights
            (convolutions if layer.group().startswith(b"con_") else scales).append(tensor)

    state = DlibResNet(config).state_dict()
    names = [name.removesuffix(".weight") for name in state if state[name].ndim == 4]
    if embed is None or not len(names) == len(convolutions) == len(scales):
        got = f"{len(convolutions)} convolutions, {len(scales)} scale layers"
        expected = f"{len(names)} of each and an output"
        raise UsageError("dlib network", got, expected, "give the file of the pinned hash")
    for name, flat, scale in zip(names, convolutions, scales, strict=True):
        weight = state[f"{name}.weight"]
        gain, offset = scale.view(2, -1)
        bias = flat[weight.numel() :]
        state[f"{name}.weight"] = flat[: weight.numel()].view_as(weight) * gain.view(-1, 1, 1, 1)
        state[f"{name}.bias"] = bias * gain + offset
    state["embed.weight"] = embed.view(-1, config.embedding_size).t().contiguous()
    return state


def make_recogniser(target: Path, source: Path | None = None, centre: Path | None = None) -> ModelCard:
    """Write the asset at `target` (no suffix). `centre` is a .npy of 128 numbers for `Recogniser.centre`."""
    config = DlibResNetConfig()
    state = state_from_dlib(WEIGHTS.read(source), config)
    if centre is not None:
        state["centre"] = torch.from_numpy(np.load(centre).astype(np.float32)).reshape(config.embedding_size)
    card = ModelCard("recogniser", "dlib ResNet v1", WEIGHTS.description, "CC0-1.0", commercial=True)
    return save_checkpoint(target, state, json_from_config(config), card, LICENCE)


@click.command(help=__doc__)
@click.option("--source", type=click.Path(exists=True, path_type=Path), help="File, package or folder.")
@click.option("--centre", type=click.Path(exists=True, path_type=Path), help="Mean embedding (.npy).")
def main(source: Path | None, centre: Path | None) -> None:
    click.echo(make_recogniser(assets_dir() / "recogniser", source, centre))


if __name__ == "__main__":
    main()
