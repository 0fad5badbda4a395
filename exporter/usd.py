"""The head as USD: one .usdz file with meshes, skeleton, blendshapes and UsdPreviewSurface materials.

`usd-core` is an extra: fitdiff[usd]. The file knows nothing of glTF.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingError
from .anatomy.skeleton import Skeleton
from .assembly import AssembledHead
from .material import ALPHA_CUTOFF, CORNEA_COLOR, CORNEA_ROUGHNESS, HeadMaterial
from .mesh import Primitive
from .options import ExportOptions
from .textures.encoding import encode_png
from .textures.specular_bake import baked_roughness
from .textures.texture_set import TextureSet, texture_set
from .usd_package import usdz_bytes

F0_MAX = 0.08  # what a specular map of 1 stands for


@dataclass(frozen=True)
class _Textures:
    files: Mapping[str, bytes]  # by name inside the package
    window: Any
    specular: bool


def usd_bytes(head: AssembledHead, options: ExportOptions) -> bytes:
    """The first level as .usdz: a SkelRoot with a mesh for each material, in metres, +Y up.

    Where the target's importers know specular maps, materials take the specular workflow of UsdPreviewSurface;
    elsewhere the map is baked into the roughness, as in the glTF file.

    Raises:
        MissingError: usd-core is not installed.
    """
    try:
        importlib.import_module("pxr")
        names = [field.name for field in fields(_Modules)]
        pxr = _Modules(**{name: importlib.import_module(f"pxr.{name}") for name in names})
    except ImportError as error:
        remedy = "pip install 'fitdiff[usd]', or leave out --usd"
        raise MissingError("package usd-core", "it is not installed", "it", remedy) from error
    textures = _textures(head, options)
    name = options.engine.names.mesh
    stage = pxr.Usd.Stage.CreateInMemory()
    pxr.UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    pxr.UsdGeom.SetStageUpAxis(stage, pxr.UsdGeom.Tokens.y)
    root = pxr.UsdSkel.Root.Define(stage, f"/{name}")
    stage.SetDefaultPrim(root.GetPrim())
    level = head.levels[0]
    skeleton = _skeleton(pxr, stage, f"/{name}/Skeleton", level.skeleton)
    _rest_animation(pxr, stage, f"/{name}/Skeleton/Rest", skeleton, head.blendshape_names)
    for material, primitive in level.primitives:
        surface = _material(pxr, stage, f"/{name}/Materials/{material.part}", material, textures)
        mesh = _mesh(pxr, stage, f"/{name}/{material.part}", material, primitive, textures)
        _bind(pxr, stage, mesh, primitive, skeleton, head.blendshape_names, level.skeleton)
        pxr.UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(surface)
    with tempfile.TemporaryDirectory() as folder:
        layer = Path(folder) / f"{name}.usdc"
        stage.GetRootLayer().Export(str(layer))
        return usdz_bytes({layer.name: layer.read_bytes(), **textures.files})


@dataclass(frozen=True)
class _Modules:
    Gf: Any
    Sdf: Any
    Usd: Any
    UsdGeom: Any
    UsdShade: Any
    UsdSkel: Any
    Vt: Any


def _textures(head: AssembledHead, options: ExportOptions) -> _Textures:
    pixels = head.textures
    baked = options.engine.specular == "baked"
    target = options.target if baked else "gltf"  # whose colours are baked
    lash_uv = [p.uv for m, p in head.levels[0].primitives if m.surface == "cut_out"]
    encoded: TextureSet = texture_set(
        pixels,
        ExportOptions(target=target, texture_size=options.texture_size),
        np.concatenate(lash_uv) if lash_uv else np.zeros((0, 2), np.float32),
    )
    roughness = baked_roughness(pixels.roughness, pixels.specular) if baked else pixels.roughness
    files = {
        "textures/base_color.jpg": encoded.images["base_color"].data,
        "textures/normal.png": encoded.images["normal"].data,
        "textures/roughness.png": encode_png(np.repeat(roughness[..., None], 3, 2)),
    }
    if not baked:
        files["textures/specular.png"] = encode_png(np.repeat(pixels.specular[..., None], 3, 2))
    if lash_uv:
        files["textures/lashes.png"] = encoded.images["lashes"].data
    return _Textures(files, encoded.window, not baked)


def _skeleton(pxr: _Modules, stage: Any, path: str, source: Skeleton) -> Any:
    paths: list[str] = []
    for joint in source.joints:
        paths.append(joint.name if joint.parent is None else f"{paths[joint.parent]}/{joint.name}")
    positions = np.array([joint.position for joint in source.joints], np.float64)
    origin = [np.zeros(3) if joint.parent is None else positions[joint.parent] for joint in source.joints]

    def moved(offset: Any) -> Any:
        return pxr.Gf.Matrix4d().SetTranslate(pxr.Gf.Vec3d(*map(float, offset)))

    skeleton = pxr.UsdSkel.Skeleton.Define(stage, path)
    skeleton.CreateJointsAttr(paths)
    skeleton.CreateBindTransformsAttr([moved(position) for position in positions])
    skeleton.CreateRestTransformsAttr([moved(p - o) for p, o in zip(positions, origin, strict=True)])
    return skeleton


def _rest_animation(pxr: _Modules, stage: Any, path: str, skeleton: Any, names: tuple[str, ...]) -> None:
    """All blendshapes at weight 0, so that viewers list them."""
    if not names:
        return
    animation = pxr.UsdSkel.Animation.Define(stage, path)
    animation.CreateBlendShapesAttr(list(names))
    animation.CreateBlendShapeWeightsAttr([0.0] * len(names))
    binding = pxr.UsdSkel.BindingAPI.Apply(skeleton.GetPrim())
    binding.CreateAnimationSourceRel().SetTargets([animation.GetPath()])


def _mesh(
    pxr: _Modules, stage: Any, path: str, material: HeadMaterial, primitive: Primitive, textures: _Textures
) -> Any:
    mesh = pxr.UsdGeom.Mesh.Define(stage, path)
    vectors = pxr.Vt.Vec3fArray.FromNumpy
    mesh.CreatePointsAttr(vectors(primitive.positions))
    mesh.CreateFaceVertexCountsAttr([3] * len(primitive.triangles))
    mesh.CreateFaceVertexIndicesAttr(pxr.Vt.IntArray.FromNumpy(primitive.triangles.ravel().astype(np.int32)))
    mesh.CreateSubdivisionSchemeAttr(pxr.UsdGeom.Tokens.none)
    mesh.CreateExtentAttr(vectors(np.stack([primitive.positions.min(0), primitive.positions.max(0)])))
    mesh.CreateNormalsAttr(vectors(primitive.normals))
    mesh.SetNormalsInterpolation(pxr.UsdGeom.Tokens.vertex)
    mesh.CreateDoubleSidedAttr(material.surface == "cut_out")
    uv = primitive.uv
    if material.surface == "cut_out":
        window = textures.window
        uv = (uv - np.array([window.u, window.v], np.float32)) / np.float32(window.size)
    upward = np.stack([uv[:, 0], 1 - uv[:, 1]], 1).astype(np.float32)  # USD's v runs upwards
    kind = pxr.Sdf.ValueTypeNames.TexCoord2fArray
    primvar = pxr.UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", kind, pxr.UsdGeom.Tokens.vertex)
    primvar.Set(pxr.Vt.Vec2fArray.FromNumpy(upward))
    return mesh


def _bind(
    pxr: _Modules, stage: Any, mesh: Any, primitive: Primitive, skeleton: Any, names: tuple[str, ...], source: Skeleton
) -> None:
    binding = pxr.UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateSkeletonRel().SetTargets([skeleton.GetPath()])
    width = min(4, len(source.joints))
    index = binding.CreateJointIndicesPrimvar(False, width)
    index.Set(pxr.Vt.IntArray.FromNumpy(primitive.joint_index[:, :width].astype(np.int32).ravel()))
    weight = binding.CreateJointWeightsPrimvar(False, width)
    weight.Set(pxr.Vt.FloatArray.FromNumpy(primitive.joint_weight[:, :width].astype(np.float32).ravel()))
    shapes = []
    for name, target in zip(names, primitive.targets, strict=True):
        moved = np.union1d(target.position_index, target.normal_index)
        offsets, turns = np.zeros((len(moved), 3), np.float32), np.zeros((len(moved), 3), np.float32)
        offsets[np.searchsorted(moved, target.position_index)] = target.position_delta
        turns[np.searchsorted(moved, target.normal_index)] = target.normal_delta
        shape = pxr.UsdSkel.BlendShape.Define(stage, mesh.GetPath().AppendChild(name))
        shape.CreateOffsetsAttr(pxr.Vt.Vec3fArray.FromNumpy(offsets))
        shape.CreateNormalOffsetsAttr(pxr.Vt.Vec3fArray.FromNumpy(turns))
        shape.CreatePointIndicesAttr(pxr.Vt.IntArray.FromNumpy(moved.astype(np.int32)))
        shapes.append(shape.GetPath())
    if shapes:
        binding.CreateBlendShapesAttr(list(names))
        binding.CreateBlendShapeTargetsRel().SetTargets(shapes)


def _material(pxr: _Modules, stage: Any, path: str, material: HeadMaterial, textures: _Textures) -> Any:
    kinds = pxr.Sdf.ValueTypeNames
    surface = pxr.UsdShade.Material.Define(stage, path)
    shader = pxr.UsdShade.Shader.Define(stage, f"{path}/Surface")
    shader.CreateIdAttr("UsdPreviewSurface")
    surface.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
    if material.surface == "film":
        shader.CreateInput("diffuseColor", kinds.Color3f).Set(pxr.Gf.Vec3f(*CORNEA_COLOR[:3]))
        shader.CreateInput("opacity", kinds.Float).Set(CORNEA_COLOR[3])
        shader.CreateInput("roughness", kinds.Float).Set(CORNEA_ROUGHNESS)
        return surface
    reader = pxr.UsdShade.Shader.Define(stage, f"{path}/Coordinates")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", kinds.String).Set("st")
    coordinates = reader.CreateOutput("result", kinds.Float2)

    def texture(role: str, file: str, space: str, scale: float = 1.0, bias: float = 0.0) -> Any:
        node = pxr.UsdShade.Shader.Define(stage, f"{path}/{role}")
        node.CreateIdAttr("UsdUVTexture")
        node.CreateInput("file", kinds.Asset).Set(pxr.Sdf.AssetPath(file))
        node.CreateInput("sourceColorSpace", kinds.Token).Set(space)
        node.CreateInput("st", kinds.Float2).ConnectToSource(coordinates)
        for axis in ("wrapS", "wrapT"):
            node.CreateInput(axis, kinds.Token).Set("clamp")
        if scale != 1 or bias != 0:
            node.CreateInput("scale", kinds.Float4).Set(pxr.Gf.Vec4f(scale, scale, scale, 1))
            node.CreateInput("bias", kinds.Float4).Set(pxr.Gf.Vec4f(bias, bias, bias, 0))
        return node

    def connect(name: str, kind: Any, node: Any, output: str, output_kind: Any) -> None:
        shader.CreateInput(name, kind).ConnectToSource(node.CreateOutput(output, output_kind))

    if material.surface == "cut_out":
        color = texture("BaseColor", "textures/lashes.png", "sRGB")
        connect("diffuseColor", kinds.Color3f, color, "rgb", kinds.Float3)
        connect("opacity", kinds.Float, color, "a", kinds.Float)
        shader.CreateInput("opacityThreshold", kinds.Float).Set(ALPHA_CUTOFF)
        return surface
    connect("diffuseColor", kinds.Color3f, texture("BaseColor", "textures/base_color.jpg", "sRGB"), "rgb", kinds.Float3)
    connect("roughness", kinds.Float, texture("Roughness", "textures/roughness.png", "raw"), "r", kinds.Float)
    normal = texture("Normal", "textures/normal.png", "raw", 2.0, -1.0)
    connect("normal", kinds.Normal3f, normal, "rgb", kinds.Float3)
    if textures.specular:
        shader.CreateInput("useSpecularWorkflow", kinds.Int).Set(1)
        f0 = texture("Specular", "textures/specular.png", "raw", F0_MAX)
        connect("specularColor", kinds.Color3f, f0, "rgb", kinds.Float3)
    return surface
