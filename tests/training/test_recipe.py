"""The default recipe: what of the chart counts."""

from __future__ import annotations

import numpy as np
import pytest

from fitdiff.models.landmark_indices import LEFT_EYE, LIPS_OUTER
from fitdiff.models.morphable import load_morphable
from fitdiff.training.recipe import chart_importance, default_autoencoder_config
from fitdiff.training.state import Budget


def test_importance_is_highest_on_the_features() -> None:
    morphable, _ = load_morphable()
    weight = chart_importance(morphable)
    assert weight.shape == (512, 512) and weight.dtype == np.float32
    assert weight.mean() == pytest.approx(1, abs=1e-4)
    corners = morphable.corner_uv[morphable.landmark_triangles]
    uv = (corners * morphable.landmark_barycentrics[..., None]).sum(1)
    x, y, _ = morphable.config.face_block
    texels = (uv.numpy() * 1024 - [x, y]).astype(int)
    for contour in (LEFT_EYE, LIPS_OUTER):
        column, row = texels[list(contour)].mean(0).astype(int)
        assert weight[row, column] > 2.5 * np.median(weight)
    assert weight[:8, :8].max() < weight.mean()


def test_the_default_has_all_losses() -> None:
    config = default_autoencoder_config(Budget(steps=1))
    assert config.perceptual_weight > 0 and config.adversarial_weight > 0
