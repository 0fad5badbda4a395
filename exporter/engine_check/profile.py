"""What each engine will ignore or misread in a GLB file, before anybody imports it.

The structure is `validate`'s; here a file that is sound is compared with `engine_facts`, and its head with what a
head is. It knows nothing of how the file was made and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...errors import UsageError
from ..validate import InvalidGltfError, check_glb
from .facts import ENGINES, EngineFacts
from .finding import EVERY, Finding
from .geometry import geometry_findings
from .glb_file import GlbFile
from .images import loose_normal_findings, texture_findings

Severity = Literal["error", "warning", "note"]
LARGE_FILE = 12 * 2**20  # bytes: the most that an avatar should take
_COSTS = {
    "KHR_materials_specular": "skin, eyes and teeth all reflect 4% at normal incidence",
    "MSFT_lod": "the first level is what it shows",
    "KHR_mesh_quantization": "positions would be read as raw integers",
    "EXT_meshopt_compression": "there is no geometry without it",
    "KHR_draco_mesh_compression": "there is no geometry without it",
    "KHR_texture_basisu": "there are no textures without it",
    "EXT_texture_webp": "there are no textures without it",
}
_HARMLESS = frozenset({"MSFT_lod"})


@dataclass(frozen=True)
class EngineProfile:
    """What was found in one file.

    Attributes:
        path: the file.
        engines: names of the engines that it was compared with.
        facts: size, counts and extensions, by name.
        findings: errors first, then warnings, then notes.
    """

    path: Path
    engines: tuple[str, ...]
    facts: dict[str, Any]
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """How many findings are of this kind."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.path.name,
            "engines": list(self.engines),
            "facts": self.facts,
            "findings": [asdict(finding) for finding in self.findings],
        }


def profile_glb(path: Path, engines: Sequence[str] = tuple(ENGINES)) -> EngineProfile:
    """Compare a GLB file with what these engines read.

    Errors are what an engine rejects or shows wrongly in a way that nobody can want; warnings what it leaves out;
    notes what is worth knowing.

    Raises:
        UsageError: an engine has no row in the table, or the file cannot be read.
    """
    unknown = [name for name in engines if name not in ENGINES]
    if unknown:
        raise UsageError("engine", ", ".join(unknown), f"some of {', '.join(ENGINES)}", "name one of those")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError("file", f"{path} ({error.strerror})", "a GLB file", "name another") from error
    chosen = {name: ENGINES[name] for name in engines}
    try:
        glb = GlbFile.from_bytes(data)
    except InvalidGltfError as error:
        return EngineProfile(path, tuple(chosen), {"bytes": len(data)}, (_broken(error),))
    findings = [
        *_structure_findings(glb, data),
        *_extension_findings(glb, chosen),
        *_mesh_findings(glb, chosen),
        *texture_findings(glb, chosen),
        *loose_normal_findings(glb, path, chosen),
        *geometry_findings(glb),
    ]
    if len(data) > LARGE_FILE:
        findings.append(
            Finding(EVERY, "note", "file size", f"{len(data) / 2**20:.1f} MiB; an avatar should stay at 12")
        )
    order = ("error", "warning", "note")
    findings.sort(key=lambda finding: order.index(finding.severity))
    return EngineProfile(path, tuple(chosen), _facts(glb, data), tuple(findings))


def _facts(glb: GlbFile, data: bytes) -> dict[str, Any]:
    meshes = glb.items("meshes")
    names = [name for mesh in meshes for name in mesh.get("extras", {}).get("targetNames", [])]
    return {
        "bytes": len(data),
        "generator": glb.document.get("asset", {}).get("generator", ""),
        "meshes": len(meshes),
        "primitives": sum(len(mesh["primitives"]) for mesh in meshes),
        "materials": [material.get("name", "") for material in glb.items("materials")],
        "morph_targets": len(dict.fromkeys(names)),
        "joints": max((len(skin["joints"]) for skin in glb.items("skins")), default=0),
        "extensions": glb.items("extensionsUsed"),
    }


def _broken(error: InvalidGltfError) -> Finding:
    return Finding(EVERY, "error", error.thing, f"got {error.got}; expected {error.expected}")


def _structure_findings(glb: GlbFile, data: bytes) -> list[Finding]:
    """The exporter's own check, for its own files: it expects what this exporter writes and others need not."""
    if glb.document.get("asset", {}).get("generator") != "FitDiff":
        text = "not made by FitDiff: only the container was checked; the Khronos validator checks the rest"
        return [Finding(EVERY, "note", "structure", text)]
    if "EXT_meshopt_compression" in glb.items("extensionsUsed"):
        return [Finding(EVERY, "note", "structure", "compressed: it was checked before it was compressed")]
    try:
        check_glb(data)
    except InvalidGltfError as error:
        return [_broken(error)]
    return []


def _extension_findings(glb: GlbFile, engines: dict[str, EngineFacts]) -> list[Finding]:
    required = set(glb.items("extensionsRequired"))
    findings = []
    for extension in glb.items("extensionsUsed"):
        cost = _COSTS.get(extension, "it is left out")
        for engine, facts in engines.items():
            if extension in facts.reads:
                continue
            if extension in facts.partly:
                findings.append(Finding(engine, "warning", extension, facts.partly[extension]))
            elif extension in required:
                findings.append(Finding(engine, "error", extension, f"required and not read: {cost}"))
            else:
                severity: Severity = "note" if extension in _HARMLESS else "warning"
                findings.append(Finding(engine, severity, extension, f"not read: {cost}"))
    return findings


def _mesh_findings(glb: GlbFile, engines: dict[str, EngineFacts]) -> list[Finding]:
    findings: list[Finding] = []
    skinned = {node["mesh"] for node in glb.items("nodes") if "mesh" in node and "skin" in node}
    textured = {i for i, material in enumerate(glb.items("materials")) if "normalTexture" in material}
    for index, mesh in enumerate(glb.items("meshes")):
        name, primitives = mesh.get("name", f"mesh {index}"), mesh["primitives"]
        targets = max(len(primitive.get("targets", [])) for primitive in primitives)
        named = mesh.get("extras", {}).get("targetNames", [])
        if targets and len(named) != targets:
            text = f"{targets} morph targets, {len(named)} names in extras.targetNames: they arrive as numbers"
            findings.append(Finding(EVERY, "warning", name, text))
        sets = max(sum(key.startswith("JOINTS_") for key in p["attributes"]) for p in primitives)
        bare = any(
            "TANGENT" not in p["attributes"] and "TEXCOORD_0" in p["attributes"] and p.get("material") in textured
            for p in primitives
        )
        if bare:
            text = "no tangents beside a normal map: each engine makes its own, and seams may differ"
            findings.append(Finding(EVERY, "warning", name, text))
        for engine, facts in engines.items():
            if targets and index not in skinned and not facts.keeps_unskinned_morphs:
                text = f"no skin: it becomes a static mesh, and {targets} morph targets are lost"
                findings.append(Finding(engine, "error", name, text))
            if sets > facts.weight_sets:
                text = f"{4 * sets} joints a vertex: only the first {4 * facts.weight_sets} are read"
                findings.append(Finding(engine, "warning", name, text))
    return [*findings, *_accessor_findings(glb, engines)]


def _accessor_findings(glb: GlbFile, engines: dict[str, EngineFacts]) -> list[Finding]:
    baseless = [accessor for accessor in glb.items("accessors") if "bufferView" not in accessor]
    bare = sum("sparse" not in accessor for accessor in baseless)
    sparse = len(baseless) - bare
    findings = []
    for engine, facts in engines.items():
        if bare and not facts.reads_bare_accessors:
            text = f"{bare} without data, which glTF reads as zeros: the file is rejected"
            findings.append(Finding(engine, "error", "accessors", text))
        if sparse and not facts.reads_baseless_sparse:
            text = f"{sparse} sparse ones start from no buffer view, which glTF reads as zeros: the file is rejected"
            findings.append(Finding(engine, "error", "accessors", text))
    return findings
