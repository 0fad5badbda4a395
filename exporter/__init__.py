"""Writes an avatar as glTF, textures and a report."""

from .gltf import GltfSummary, write_glb
from .maps import write_face_maps
from .validate import InvalidGltfError, check_glb

__all__ = ["GltfSummary", "InvalidGltfError", "check_glb", "write_face_maps", "write_glb"]
