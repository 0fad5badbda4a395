"""The small models and the astronaut's face, as the stages of guidance meet them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fitdiff.runtime.face_crop import FaceCrop, crop_face
from fitdiff.runtime.guidance import GuidanceConfig, PhotoGuidance
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.photo import load_photo
from fitdiff.runtime.photo_target import photo_target
from fitdiff.runtime.pipeline import FitDiffPipeline


@pytest.fixture(scope="module")
def pipeline(small_assets: Path) -> FitDiffPipeline:
    return load_pipeline(small_assets)


@pytest.fixture(scope="module")
def crop(pipeline: FitDiffPipeline, astronaut: Path) -> FaceCrop:
    return crop_face(load_photo(astronaut), pipeline.detector, pipeline.models.face_mesh)


def guide_of(pipeline: FitDiffPipeline, crop: FaceCrop) -> PhotoGuidance:
    """What guides a run on one photo, before its first step."""
    target = photo_target(crop, pipeline.models)
    return PhotoGuidance(pipeline.models, pipeline.denoiser.statistics, target, GuidanceConfig())
