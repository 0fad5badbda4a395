"""Made-up skins for the tests of synthetic faces."""

from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def skins_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two skins of 1536 pixels: a light and a dark colour with fine noise."""
    folder = tmp_path_factory.mktemp("skins")
    rng = np.random.default_rng(0)
    for name, rgb in (("young_lightskinned_male", (205, 160, 135)), ("old_darkskinned_female", (95, 62, 45))):
        noise = rng.normal(0, 6, (1536, 1536, 1))
        image = np.clip(np.array(rgb)[::-1] + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{name}_diffuse.png"), image)
    return folder
