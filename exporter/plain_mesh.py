"""The neutral head without rig and materials of an engine: PLY and Wavefront OBJ, for scanning and sculpting tools.

Metres, +Y up, facing +Z, as in the glTF file. Vertices are welded and keep the order of the head. It knows nothing
of glTF.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .assembly import AssembledHead, AssembledLevel
from .material import CORNEA_COLOR
from .tangents import vertex_normals
from .targets import Names
from .textures.texture_set import TextureSet


def ply_bytes(head: AssembledHead) -> bytes:
    """Binary PLY of the first level: positions, normals, sRGB colours by vertex from the texture, triangles."""
    level = head.levels[0].avatar
    topology = level.topology
    used, triangles = _used_vertices(topology.triangles)
    rows = np.zeros(len(used), np.dtype([("position", "<f4", 3), ("normal", "<f4", 3), ("color", "u1", 3)]))
    rows["position"] = level.vertices[used]
    rows["normal"] = vertex_normals(level.vertices, topology.triangles)[used]
    corner = np.zeros(topology.vertex_count, np.int64)
    corner[topology.triangles.ravel()] = np.arange(topology.triangles.size)  # any of its corners gives its texel
    uv = topology.corner_uv.reshape(-1, 2)[corner[used]]
    pixels = head.textures.base_color
    column, row = np.clip((uv * len(pixels)).astype(int), 0, len(pixels) - 1).T
    rows["color"] = pixels[row, column, :3]
    faces = np.zeros(len(triangles), np.dtype([("count", "u1"), ("vertices", "<i4", 3)]))
    faces["count"], faces["vertices"] = 3, triangles
    properties = [f"float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")]
    properties += [f"uchar {name}" for name in ("red", "green", "blue")]
    header = ["ply", "format binary_little_endian 1.0", "comment FitDiff, metres, +Y up, facing +Z"]
    header += [f"element vertex {len(rows)}", *(f"property {line}" for line in properties)]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    return ("\n".join(header) + "\n").encode() + rows.tobytes() + faces.tobytes()


def obj_files(head: AssembledHead, textures: TextureSet, names: Names) -> dict[str, bytes]:
    """An OBJ of the first level, its MTL and its textures, by file name.

    One object with a group and a material for each part; texture coordinates run upwards, as OBJ has them.

    Args:
        textures: colours in PNG or JPEG files.
    """
    stem = names.mesh
    images = {
        role: f"{stem}_{role}.{'jpg' if image.format == 'jpeg' else image.format}"
        for role, image in textures.images.items()
        if role in ("base_color", "lashes")
    }
    library = ["# FitDiff"]
    for material in head.materials:
        library += ["", f"newmtl {material.name(names)}", "Ks 0 0 0", "illum 1"]
        if material.surface == "film":
            library += [f"Kd {' '.join(map(str, CORNEA_COLOR[:3]))}", f"d {CORNEA_COLOR[3]}"]
        else:
            image = images["lashes" if material.surface == "cut_out" else "base_color"]
            library += ["Kd 1 1 1", f"map_Kd {image}"]
            library += [f"map_d -imfchan m {image}"] if material.surface == "cut_out" else []
    return {
        f"{stem}.obj": _obj_text(head.levels[0], textures, names).encode(),
        f"{stem}.mtl": ("\n".join(library) + "\n").encode(),
        **{name: textures.images[role].data for role, name in images.items()},
    }


def _obj_text(level: AssembledLevel, textures: TextureSet, names: Names) -> str:
    avatar = level.avatar
    used, _ = _used_vertices(avatar.topology.triangles)
    number = np.zeros(avatar.topology.vertex_count, np.int64)
    number[used] = np.arange(1, len(used) + 1)
    normals = vertex_normals(avatar.vertices, avatar.topology.triangles)[used]
    lines = ["# FitDiff: metres, +Y up, facing +Z", f"mtllib {names.mesh}.mtl", f"o {names.mesh}"]
    lines += [f"v {x:.7f} {y:.7f} {z:.7f}" for x, y, z in avatar.vertices[used].tolist()]
    lines += [f"vn {x:.5f} {y:.5f} {z:.5f}" for x, y, z in normals.tolist()]
    start = 1
    for material, primitive in level.primitives:
        window, uv = textures.window, primitive.uv.astype(np.float64)
        if material.surface == "cut_out":
            uv = (uv - [window.u, window.v]) / window.size
        lines += [f"vt {u:.6f} {1 - v:.6f}" for u, v in uv.tolist()]
        vertex = number[primitive.source_vertex[primitive.triangles]]
        place = primitive.triangles.astype(np.int64) + start
        lines += [f"g {material.part}", f"usemtl {material.name(names)}"]
        for corners, places in zip(vertex.tolist(), place.tolist(), strict=True):
            lines.append("f " + " ".join(f"{v}/{t}/{v}" for v, t in zip(corners, places, strict=True)))
        start += len(uv)
    return "\n".join(lines) + "\n"


def _used_vertices(triangles: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.intp]]:
    """(N,) vertices that a triangle uses, and the triangles over those."""
    used, flat = np.unique(triangles, return_inverse=True)
    return used, flat.reshape(-1, 3)
