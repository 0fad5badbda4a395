"""What the engines' graphs are made from, out of the models of a pipeline. Knows nothing of backends."""

from __future__ import annotations

from ..engines.graphs import GraphSources
from ..models.denoiser import FitDiffDenoiser
from .guidance_models import DECODER_MARGIN, FACE_WINDOW, GuidanceModels


def graph_sources(denoiser: FitDiffDenoiser, models: GuidanceModels) -> GraphSources:
    """The face window is that of the guidance, with the margin that it decodes and cuts off."""
    top, bottom, left, right = models.face_cells
    m = DECODER_MARGIN
    window = (top - m, bottom + m, left - m, right + m)
    return GraphSources(
        denoiser,
        models.autoencoder,
        models.recogniser,
        models.face_mesh,
        models.perceptual,
        face_window=window,
        perceptual_size=FACE_WINDOW.stop - FACE_WINDOW.start,
    )
