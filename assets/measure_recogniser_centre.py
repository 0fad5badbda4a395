"""The recogniser's mean embedding over synthetic faces, for `make_recogniser --centre`.

    python -m fitdiff.assets.measure_recogniser_centre DATA centre.npy

DATA is a folder made by `fitdiff synthesize`. No real person's face takes part.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from ..models.recogniser import load_recogniser
from ..runtime.face_chip import chip_transform, warp_chip

EVERY = 8  # photos of the folder: neighbours show the same face


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    recogniser, _ = load_recogniser()
    points = load_file(arguments.data / "faces.safetensors")["five_points"]
    photos = np.load(arguments.data / "photos.npy", mmap_mode="r")
    embeddings = []
    with torch.no_grad():
        for index in range(0, len(photos), EVERY):
            crop = torch.from_numpy(np.array(photos[index])).permute(2, 0, 1)[None].float() / 255
            transform = chip_transform(points[index], recogniser.chip_template)
            chip = warp_chip(crop, torch.from_numpy(transform).float()[None], recogniser.chip_size)
            embeddings.append(recogniser(chip).embedding)
    np.save(arguments.out, torch.cat(embeddings).mean(0).numpy())


if __name__ == "__main__":
    main()
