r"""Measures over all blendshapes what must not cut through what in a finished head, in millimetres.

    python benchmarks/head_clearance.py [--seed N]

Teeth: how far they come out of the skin before them (negative: they stay behind it). Tongue: how deep it lies in
flesh. Eye: share of the open eye that shows, left and right. One row a shape and some combinations; JSON on the last
line. The head is the mean of the embedded morphable model, or a random one.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

from fitdiff.exporter.anatomy.clearance import beyond_surface, depth_in_flesh
from fitdiff.exporter.anatomy.eyeball import SIDES, find_eyeball
from fitdiff.exporter.anatomy.eyelids import open_eye_rays, uncovered
from fitdiff.exporter.anatomy.head import finished_head
from fitdiff.exporter.anatomy.mouth import find_jaws
from fitdiff.models.morphable import load_morphable
from fitdiff.runtime.avatar import Avatar, HeadMaps, ReflectanceMaps

SMILE = ("mouthSmileLeft", "mouthSmileRight")
COMBINATIONS = (("jawOpen", *SMILE), SMILE, ("jawOpen", "mouthFunnel"), ("jawOpen", "tongueOut"))


def bare_avatar(seed: int | None = None) -> Avatar:
    """The embedded model's mean head, or with a seed a random one, without anything in its maps."""
    model, _ = load_morphable()
    generator = torch.Generator().manual_seed(seed or 0)
    identity = torch.zeros(1, 158) if seed is None else torch.randn(1, 158, generator=generator)
    vertices = model(identity)[0].numpy()
    colour, flat = np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), np.float32)
    return Avatar(
        vertices=vertices,
        expression_offset=np.zeros_like(vertices),
        expression_weights={},
        topology=model.topology(),
        face_maps=ReflectanceMaps(colour, colour, colour),
        head_maps=HeadMaps(np.zeros((2, 2, 4), np.float32), flat, colour, flat),
        light={},
        pose=None,
        models=(),
        seed=seed or 0,
    )


def posed(avatar: Avatar, *shapes: str) -> np.ndarray:
    """(V, 3) the head under blendshapes at weight 1."""
    names = avatar.topology.blendshape_names
    return avatar.vertices + sum((avatar.topology.blendshapes[names.index(shape)] for shape in shapes), np.float32(0))


def teeth_out(avatar: Avatar, vertices: np.ndarray) -> float:
    """Millimetres by which teeth come out of the skin at most; negative if all of it covers them."""
    topology = avatar.topology
    jaws = find_jaws(avatar)
    assert jaws is not None
    lips = avatar.vertices[np.concatenate([jaws.upper_lip, jaws.lower_lip])]
    origin = np.array([0, lips[:, 1].mean(), avatar.vertices[jaws.upper, 2].min()])
    corners = vertices[topology.triangles[topology.triangles_of("teeth")]]
    points = np.concatenate([corners.reshape(-1, 3), ((corners + np.roll(corners, 1, axis=1)) / 2).reshape(-1, 3)])
    points = points[points[:, 2] > origin[2] + 0.005]
    skin = vertices[topology.triangles[topology.triangles_of("skin")]]
    near = (np.linalg.norm(skin - origin, axis=2) < 0.11).any(1) & (skin[..., 2] > origin[2] - 0.07).all(1)
    return float(beyond_surface(points, skin[near], origin).max()) * 1000


def tongue_in_flesh(avatar: Avatar, vertices: np.ndarray) -> float:
    """Millimetres that the tongue before its root lies in skin or mouth at most."""
    topology = avatar.topology
    tongue = np.unique(topology.triangles[topology.triangles_of("tongue")])
    depth = avatar.vertices[tongue, 2]
    front = tongue[depth > (depth.min() + depth.max()) / 2]
    flesh = vertices[topology.triangles[topology.triangles_of("skin", "mouth")]].astype(np.float64)
    return float(depth_in_flesh(vertices[front].astype(np.float64), flesh).max()) * 1000


def open_eyes(avatar: Avatar, vertices: np.ndarray) -> list[float]:
    """Share of each neutral eye's opening that still shows, left and right."""
    shares = []
    for side in SIDES:
        eye = find_eyeball(avatar, side)
        assert eye is not None
        shares.append(uncovered(avatar, eye, open_eye_rays(avatar, eye), vertices - avatar.vertices))
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="a random head instead of the mean one")
    head = finished_head(bare_avatar(parser.parse_args().seed))
    rows = []
    print(f"{'teeth out, mm':>14}{'tongue in, mm':>14}{'eye left':>10}{'eye right':>10}  shape")
    for shapes in [(), *((name,) for name in head.topology.blendshape_names), *COMBINATIONS]:
        vertices = posed(head, *shapes)
        teeth, tongue, eyes = teeth_out(head, vertices), tongue_in_flesh(head, vertices), open_eyes(head, vertices)
        name = " + ".join(shapes) or "neutral"
        print(f"{teeth:14.2f}{tongue:14.2f}{eyes[0]:10.2f}{eyes[1]:10.2f}  {name}", flush=True)
        rows.append({"shape": name, "teeth_out_mm": teeth, "tongue_in_flesh_mm": tongue, "open_eyes": eyes})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
