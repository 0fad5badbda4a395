"""Everything that a run leaves behind, in one folder: asset, maps, pictures, report.

Knows nothing of how the avatar was made and of what happens if it fails: the caller gives a folder to fill.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..rendering.renderer import HeadRenderer
from ..runtime.avatar_file import FILE_NAME, save_avatar
from .export import ExportSummary, write_export
from .gltf import DEFAULT_OPTIONS
from .maps import png_from_pixels, write_face_maps
from .options import ExportOptions
from .preview import picture_in_photo, preview_sheet

if TYPE_CHECKING:
    from ..runtime.avatar_result import AvatarResult
    from ..runtime.face_crop import FaceCrop
    from ..runtime.report import RunReport, StageClock


def write_avatar_folder(
    result: AvatarResult,
    renderer: HeadRenderer,
    folder: Path,
    clock: StageClock,
    crop: FaceCrop | None = None,
    options: dict[str, Any] | None = None,
    export: ExportOptions = DEFAULT_OPTIONS,
) -> tuple[ExportSummary, RunReport]:
    """Write the export (avatar.glb), avatar.fitdiff, maps/, render.png (given a photo), preview.png, report.json.

    Args:
        clock: the run's; the time spent here goes into the report too.
        options: what the caller chose beyond the pipeline's options, for the report.

        export: how the avatar is handed over; avatar.fitdiff, which holds it whatever the target, is for the others.

    Raises:
        UsageError: the export asks for something that this head does not have.
        MissingError: a package or tool that the export needs is absent.
        InvalidGltfError: the avatar holds numbers that glTF does not allow.
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with clock.stage("asset"):
        summary = write_export(result.avatar, folder, export)
        save_avatar(result.avatar, folder / FILE_NAME)
        write_face_maps(result.avatar.face_maps, folder / "maps", result.avatar.folds)
    with clock.stage("pictures"):
        if crop is not None:
            render = picture_in_photo(result, renderer, crop)
            (folder / "render.png").write_bytes(png_from_pixels(render, "srgb"))
        sheet = preview_sheet(result, renderer, crop)
        (folder / "preview.png").write_bytes(png_from_pixels(sheet, "srgb"))
    report = dataclasses.replace(
        result.report,
        options=result.report.options | (options or {}) | {"export": export.to_json()},
        stages=tuple(clock.stages),
        seconds=clock.total(),
    )
    text = json.dumps(report.to_json(), indent=1)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    return summary, report
