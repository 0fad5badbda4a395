"""A training folder of two faces, one of them held out, for the tests of what is measured on it."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.pipeline import FitDiffPipeline
from fitdiff.training.synthetic import FORMAT


@pytest.fixture(scope="session")
def astronaut_crop(small_pipeline: FitDiffPipeline, astronaut: Path) -> FaceCrop:
    return crop_face(load_photo(astronaut), small_pipeline.detector, small_pipeline.models.face_mesh)


@pytest.fixture(scope="session")
def true_maps(small_pipeline: FitDiffPipeline) -> np.ndarray:
    """(9, 512, 512) uint8: the training mean, lighter."""
    mean = small_pipeline.models.autoencoder.chart_mean.numpy()
    return (np.concatenate([mean[:6] * 0.8 + 0.1, mean[6:]]) * 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def held_out_data(tmp_path_factory: pytest.TempPathFactory, true_maps: np.ndarray, astronaut_crop: FaceCrop) -> Path:
    """Two faces of a training folder; the second, held out, has the true maps and the astronaut as its photo."""
    folder = tmp_path_factory.mktemp("data")
    photo = (astronaut_crop.image * 255).round().astype(np.uint8)
    np.save(folder / "maps.npy", np.stack([np.zeros_like(true_maps), true_maps]))
    np.save(folder / "photos.npy", np.stack([np.zeros_like(photo), photo, np.zeros_like(photo)]))
    truth = {
        "map_index": np.array([0, 1, 1], np.int32),
        "identity": np.full((3, 158), [[0.0], [1.0], [1.0]], np.float32),
        "expression": np.full((3, 25), [[0.0], [0.5], [0.7]], np.float32),
        "landmarks": np.repeat(astronaut_crop.landmarks[None, :, :2], 3, 0),
    }
    save_file(truth, str(folder / "faces.safetensors"))
    (folder / "index.json").write_text(json.dumps({"format": FORMAT, "held_out": [1]}))
    return folder
