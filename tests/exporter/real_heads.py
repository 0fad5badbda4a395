"""Heads of the embedded morphable model as avatars with empty maps: neutral, or of a random identity."""

from __future__ import annotations

import numpy as np
import torch

from fitdiff.models.morphable import load_morphable
from fitdiff.runtime.avatar import Avatar, HeadMaps, ReflectanceMaps

SEEDS = (None, 1, 2)  # the mean face and two people


def real_head(seed: int | None) -> Avatar:
    model, _ = load_morphable()
    generator = torch.Generator().manual_seed(seed or 0)
    identity = torch.zeros(1, 158) if seed is None else torch.randn(1, 158, generator=generator)
    vertices = model(identity)[0].numpy()
    colour, grey = np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), np.float32)
    return Avatar(
        vertices=vertices,
        expression_offset=model.blendshapes[3].numpy() * np.float32(0.5),
        expression_weights={},
        topology=model.topology(),
        face_maps=ReflectanceMaps(colour, colour, colour),
        head_maps=HeadMaps(np.zeros((2, 2, 4), np.float32), grey, colour, grey),
        light={},
        pose=None,
        models=(),
        seed=0,
    )


def posed(head: Avatar, *shapes: str) -> np.ndarray:
    """(V, 3) the head under blendshapes at weight 1."""
    names = head.topology.blendshape_names
    return head.vertices + sum((head.topology.blendshapes[names.index(shape)] for shape in shapes), np.float32(0))


def part_vertices(head: Avatar, *parts: str) -> np.ndarray:
    return np.unique(head.topology.triangles[head.topology.triangles_of(*parts)])
