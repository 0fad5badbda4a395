"""FLAME: `generic_model.pkl`, `flame2023.pkl` and their kin, read without running the pickle.

Keys: v_template (V, 3), shapedirs (V, 3, 400: identity from 0, expression from 300), posedirs (V, 3, 36),
J_regressor (5, V), weights (V, 5), f (F, 3). Metres. The joints are root, neck, jaw, and the two eyes: what the jaw and
the eyes do on theirs becomes blendshapes, as far as ARKit names them. FLAME has no teeth and no tongue.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import licences
from .gaze import eye_rotation, gaze_offsets
from .mat_file import require_keys
from .restricted_pickle import load_arrays
from .source import REGIONS, SourceHead, unreadable

KEYS = ("v_template", "shapedirs", "J_regressor", "weights", "f")
IDENTITY = 300  # components before the expression's, in files that hold both
JAW, EYES = 2, (3, 4)  # joints
JAW_OPEN, JAW_SIDEWAYS = 18.0, 6.0  # degrees at full weight


def read_flame(path: Path) -> SourceHead:
    """Read the .pkl file.

    Raises:
        UsageError: it is no such file, or its pickle names anything but arrays.
    """
    content = load_arrays(path)
    require_keys(path, "flame", content, KEYS)
    vertices = np.asarray(content["v_template"], np.float64)
    directions = np.asarray(content["shapedirs"], np.float32)
    weights = np.asarray(content["weights"], np.float64)
    count = len(vertices)
    if vertices.shape != (count, 3) or directions.shape[:2] != (count, 3) or weights.shape != (count, 5):
        got = f"v_template {vertices.shape}, shapedirs {directions.shape}, weights {weights.shape}"
        raise unreadable(path, "flame", got, "(V, 3), (V, 3, K), (V, 5)")
    components = np.moveaxis(directions, 2, 0)
    triangles = np.asarray(content["f"], np.int64)
    joints = np.asarray(content["J_regressor"], np.float64) @ vertices
    eyes = _eyes(weights, joints)
    region = np.zeros(len(triangles), np.uint8)
    for side, (index, _) in eyes.items():
        region[np.isin(triangles, index).all(1)] = REGIONS.index(f"eye_{side.lower()}")
    members = {side: index for side, (index, _) in eyes.items()}
    pivots = {side: joint for side, (_, joint) in eyes.items()}
    return SourceHead(
        name=path.stem.lower(),
        vertices=vertices.astype(np.float32),
        triangles=triangles,
        region=region,
        identity=np.ascontiguousarray(components[:IDENTITY]),
        expression=np.ascontiguousarray(components[IDENTITY:]),
        licence=licences.FLAME,
        blendshapes=gaze_offsets(vertices.astype(np.float32), members, pivots)
        | _jaw_offsets(content, vertices, weights, joints),
    )


def _eyes(weights: np.ndarray, joints: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Side of the character -> the eyeball's vertices and its joint."""
    found = {}
    for joint in EYES:
        side = "Left" if joints[joint, 0] > 0 else "Right"
        found[side] = (np.flatnonzero(weights[:, joint] > 0.5), joints[joint])
    return {side: eye for side, eye in found.items() if len(eye[0])}


def _jaw_offsets(
    content: dict[str, Any], vertices: np.ndarray, weights: np.ndarray, joints: np.ndarray
) -> dict[str, np.ndarray]:
    """What the jaw's joint does at full weight, with FLAME's pose correctives: (V, 3) by name."""
    turns = {
        "jawOpen": eye_rotation(JAW_OPEN, "x"),
        "jawLeft": eye_rotation(JAW_SIDEWAYS, "y"),
        "jawRight": eye_rotation(-JAW_SIDEWAYS, "y"),
    }
    found = {}
    for name, rotation in turns.items():
        moved = vertices.copy()
        if "posedirs" in content:
            directions = np.asarray(content["posedirs"], np.float64)  # (V, 3, 9 for each joint but the root)
            block = slice(9 * (JAW - 1), 9 * JAW)
            moved += directions[:, :, block] @ (rotation - np.eye(3)).ravel()
        about = moved - joints[JAW]
        moved += weights[:, JAW, None] * (about @ rotation.T - about)
        found[name] = (moved - vertices).astype(np.float32)
    return found
