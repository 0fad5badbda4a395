"""What engines make of a GLB file's textures and alpha, and of normal maps that lie beside it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from .facts import EngineFacts
from .finding import EVERY, Finding
from .glb_file import GlbFile, image_header

_NORMAL_STEMS = ("_n", "_normal", "normal")  # how the name of a normal map's file ends
_SIDE = 256  # pixels at which two normal maps are compared
_ALIKE = 0.3  # correlation of their green channels from which on they count as one map
_COMPARED = ("L", "LA", "RGB", "RGBA", "I;16", "P")  # modes that Pillow turns into RGB without losing the sign


def texture_findings(glb: GlbFile, engines: Mapping[str, EngineFacts]) -> list[Finding]:
    """Sizes, bits and formats of the images, and alpha modes of the materials."""
    findings: list[Finding] = []
    normals = _images_of(glb, "normalTexture")
    for number, about in enumerate(glb.items("images")):
        name = about.get("name", f"image {number}")
        data = glb.image_bytes(number)
        if data is None:
            findings.append(Finding(EVERY, "warning", name, f"lies outside the file: {about.get('uri', '')[:60]}"))
            continue
        header = image_header(data)
        if header.format == "unknown":
            findings.append(Finding(EVERY, "error", name, "is neither PNG nor JPEG, WebP or KTX2"))
            continue
        if header.format == "jpeg" and number in normals:
            findings.append(Finding(EVERY, "note", name, "a normal map as JPEG: its blocks show in highlights"))
        odd = any(side & (side - 1) for side in (header.width, header.height))
        for engine, facts in engines.items():
            if odd and facts.wants_powers_of_two:
                text = f"{header.width} x {header.height} is no power of two: {facts.wants_powers_of_two}"
                findings.append(Finding(engine, "warning", name, text))
            if header.bits == 16 and not facts.sixteen_bit:
                findings.append(Finding(engine, "note", name, "16 bits a channel, read as 8: nothing is gained"))
    for number, material in enumerate(glb.items("materials")):
        mode = material.get("alphaMode", "OPAQUE")
        if mode == "BLEND":
            name = material.get("name", f"material {number}")
            text = "blended: drawn after all else and unsorted against other glass; Unreal makes it translucent"
            findings.append(Finding(EVERY, "note", name, text))
    return findings


def loose_normal_findings(glb: GlbFile, path: Path, engines: Mapping[str, EngineFacts]) -> list[Finding]:
    """Which way green points in normal maps beside the file, by comparison with the one inside it."""
    inside = [glb.image_bytes(number) for number in sorted(_images_of(glb, "normalTexture"))]
    own = [green for data in inside if data and (green := _green(io.BytesIO(data))) is not None]
    if not own:
        return []
    findings = []
    for file in sorted(file for folder in (path.parent, path.parent / "textures") for file in folder.glob("*.png")):
        if not file.stem.lower().endswith(_NORMAL_STEMS):
            continue
        green = _green(file)
        if green is None:
            continue
        alike = float((green * own[0]).mean() / max(np.sqrt((green**2).mean() * (own[0] ** 2).mean()), 1e-9))
        if abs(alike) < _ALIKE:
            continue  # another map
        sign = 1 if alike > 0 else -1
        direction = "up (OpenGL)" if sign > 0 else "down (DirectX)"
        for engine, facts in engines.items():
            if engine != "assimp" and facts.normal_y != sign:
                text = f"green points {direction}, which this engine reads upside down: flip green when you import it"
                findings.append(Finding(engine, "warning", file.name, text))
    return findings


def _images_of(glb: GlbFile, slot: str) -> set[int]:
    """Images that materials use in one slot, by whichever extension."""
    found: set[int] = set()
    for material in glb.items("materials"):
        if slot not in material:
            continue
        texture = glb.items("textures")[material[slot]["index"]]
        sources = [texture.get("source"), *(e.get("source") for e in texture.get("extensions", {}).values())]
        found.update(source for source in sources if source is not None)
    return found


def _green(source: Path | io.BytesIO) -> npt.NDArray[np.float64] | None:
    """(256, 256) green around its mean; None if Pillow cannot read it."""
    try:
        with Image.open(source) as image:
            if image.mode not in _COMPARED:
                return None
            green = np.asarray(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX))[..., 1]
    except (OSError, UnidentifiedImageError):
        return None
    return green - green.mean(dtype=np.float64)
