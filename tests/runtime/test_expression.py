"""Blendshape weights of an expression."""

import numpy as np

from fitdiff.models.morphable import load_morphable
from fitdiff.runtime.expression import blendshape_weights


def test_known_weights_are_found_again() -> None:
    model, _ = load_morphable()
    shapes = model.blendshapes.numpy()
    names = model.config.blendshape_names
    truth = np.zeros(52, np.float32)
    for name, weight in {"jawOpen": 0.6, "mouthSmileLeft": 0.8, "browInnerUp": 0.4}.items():
        truth[names.index(name)] = weight
    found = blendshape_weights(np.tensordot(truth, shapes, 1), shapes)
    assert np.abs(found - truth)[truth > 0].max() < 0.08
    assert found[truth == 0].max() < 0.12


def test_weights_never_leave_their_range() -> None:
    shapes = np.random.default_rng(0).normal(size=(5, 40, 3))
    found = blendshape_weights(-3 * shapes[0] + 4 * shapes[1], shapes)
    assert found[0] == 0 and found[1] == 1
