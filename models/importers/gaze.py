"""Eyeballs that follow the eight `eyeLook` shapes, for models whose eyes turn on joints or not at all."""

from __future__ import annotations

import numpy as np

# Degrees at full weight: as far as people look without turning the head.
UP, DOWN, SIDEWAYS = 25.0, 30.0, 30.0


def eye_rotation(degrees: float, axis: str) -> np.ndarray:
    """(3, 3) right-handed turn about "x" (positive looks down) or "y" (positive looks to the character's left)."""
    angle = np.radians(degrees)
    c, s = np.cos(angle), np.sin(angle)
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def gaze_offsets(
    vertices: np.ndarray, members: dict[str, np.ndarray], pivots: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Offsets (V, 3) of the eyeballs alone, by blendshape; +Y up, facing +Z, +X the character's left.

    members: "Left" and "Right" -> indices of the eyeball's vertices; pivots: what each turns about, by default the
    middle of its bounding box.
    """
    found: dict[str, np.ndarray] = {}
    for side, index in members.items():
        ball = vertices[index].astype(np.float64)
        pivot = pivots[side] if pivots else (ball.min(0) + ball.max(0)) / 2
        outward = 1.0 if side == "Left" else -1.0
        turns = {
            "Up": (-UP, "x"), "Down": (DOWN, "x"), "Out": (SIDEWAYS * outward, "y"), "In": (-SIDEWAYS * outward, "y"),
        }  # fmt: skip
        for direction, (degrees, axis) in turns.items():
            offsets = np.zeros_like(vertices, dtype=np.float32)
            offsets[index] = (ball - pivot) @ eye_rotation(degrees, axis).T + pivot - ball
            found[f"eyeLook{direction}{side}"] = offsets
    return found
