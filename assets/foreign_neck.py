"""Cut a registered foreign head where ours ends: below, the atlas has no texture and the face maps no say.

Knows nothing of files.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..models.importers.source import SourceHead
from .clip_mesh import clip_mesh
from .foreign_registration import Registration
from .make_morphable import ORIGIN, neck_level

ON_THE_CUT = 1e-4  # decimetres: no slivers beside the plane
MARGIN = 0.08  # decimetres above our own cut, so that the new edge lies well on our skin and its texture


def cut_at_neck(source: SourceHead, registration: Registration) -> tuple[SourceHead, Registration]:
    """The source without what lies below our neck's plane, and the registration of what is left."""
    level = neck_level(registration.points * 10 + ORIGIN) - MARGIN
    level[np.abs(level) < ON_THE_CUT] = ON_THE_CUT
    if (level[source.triangles] > 0).all():
        return source, registration
    uv = source.own_uv if source.own_uv is not None else np.zeros((*source.triangles.shape, 2), np.float32)
    cut = clip_mesh(source.triangles, uv, level)
    head = replace(
        source,
        vertices=cut.apply(source.vertices),
        triangles=cut.triangles.astype(np.int64),
        region=source.region[cut.source],
        identity=cut.apply(source.identity),
        expression=cut.apply(source.expression),
        blendshapes={name: cut.apply(offsets) for name, offsets in source.blendshapes.items()},
        own_uv=None if source.own_uv is None else cut.corner_uv.astype(np.float32),
    )
    distance = np.where(cut.mix == 0, registration.distance[cut.parents[:, 0]], np.nan)
    return head, replace(registration, points=cut.apply(registration.points), distance=distance)
