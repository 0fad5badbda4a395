"""Google's GNM head (Generative aNthropometric Model): `gnm_head.npz` of version 3.

Keys: template_vertex_positions (V, 3), vertex_identity_basis (253, V, 3) and expression_basis (383, V, 3) at one
standard deviation, triangles (F, 3), triangle_uvs (F, 3, 2), vertex_groups (G, V) weights with vertex_group_names,
template_joint_positions (J, 3) with joint_names. Metres, +Y up, facing +Z. Expressions are statistical, so of ARKit's
names only the gaze, which turns on the eyes' joints, is there. The outer shells of the eyes are left out.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from . import licences
from .gaze import gaze_offsets
from .mat_file import require_keys
from .source import REGIONS, SourceHead, unreadable, without_unused

KEYS = ("template_vertex_positions", "vertex_identity_basis", "expression_basis", "triangles",
        "vertex_groups", "vertex_group_names")  # fmt: skip
# Group of vertices -> our region; a later row wins. Gums are what of the two jaws is no tooth.
GROUPS = {
    "mouth_sock": "mouth", "upper_teeth_and_gums": "teeth", "lower_teeth_and_gums": "teeth", "gums": "gums",
    "tongue": "tongue", "left_eye": "eye_left", "right_eye": "eye_right",
}  # fmt: skip
OUTER_EYES = ("eye_exteriors", "eyeball_exterior")
MEMBER = 0.5  # weight from which a vertex belongs to a group


def read_gnm(path: Path) -> SourceHead:
    """Read the .npz file.

    Raises:
        UsageError: it is no such file.
    """
    content = load_archive(path, "gnm")
    require_keys(path, "gnm", content, KEYS)
    groups = {str(n): w >= MEMBER for n, w in zip(content["vertex_group_names"], content["vertex_groups"], strict=True)}
    triangles = content["triangles"].astype(np.int64)
    outer = np.zeros(len(content["template_vertex_positions"]), bool)
    for name in OUTER_EYES:
        outer |= groups.get(name, False)
    kept = ~outer[triangles].all(1)
    region = np.zeros(len(triangles), np.uint8)
    for group, name in GROUPS.items():
        if group in groups:
            region[groups[group][triangles].all(1)] = REGIONS.index(name)
    uv = content.get("triangle_uvs")
    triangles, region = triangles[kept], region[kept]
    used = np.unique(triangles)
    vertices = content["template_vertex_positions"].astype(np.float32)[used]
    triangles = without_unused(used, len(outer))[triangles]
    members = {side: np.unique(triangles[region == REGIONS.index(f"eye_{side.lower()}")]) for side in ("Left", "Right")}
    members = {side: index for side, index in members.items() if len(index)}
    return SourceHead(
        name="gnm-head-" + str(content.get("version", "")),
        vertices=vertices,
        triangles=triangles,
        region=region,
        identity=content["vertex_identity_basis"].astype(np.float32)[:, used],
        expression=content["expression_basis"].astype(np.float32)[:, used],
        licence=licences.GNM,
        blendshapes=gaze_offsets(vertices, members, _pivots(content, members)),
        own_uv=None if uv is None else uv.astype(np.float32)[kept],
    )


def _pivots(content: dict[str, np.ndarray], members: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    names = [str(name) for name in content.get("joint_names", ())]
    wanted = {side: f"{side.lower()}_eye" for side in members}
    if not all(name in names for name in wanted.values()):
        return None
    return {side: content["template_joint_positions"][names.index(name)] for side, name in wanted.items()}


def load_archive(path: Path, format_name: str) -> dict[str, np.ndarray]:
    """All arrays of a NumPy archive; pickled ones are refused.

    Raises:
        UsageError: it is no such archive.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        got = f"{type(error).__name__}: {error}"
        raise unreadable(path, format_name, got, "a NumPy archive without pickled objects") from error
