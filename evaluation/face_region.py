"""Which vertices of our head are the bare face: where shapes are measured. Knows nothing of measurements."""

from __future__ import annotations

import numpy as np

from ..models.morphable import MorphableModel
from ..training.skins import face_weight


def face_vertices(model: MorphableModel) -> np.ndarray:
    """(V,) bool: vertices of the skin at whose place on the face chart `face_weight` is above one half.

    Scalp, ears, neck and eye sockets are not among them: they have other places in the atlas, or no weight.
    """
    weight = face_weight(model)
    x, y, size = model.config.face_block
    skin = (model.triangle_part == model.config.part_names.index("skin")).numpy()
    texel = model.corner_uv.numpy()[skin] * model.config.atlas_size - (x, y)  # (F, 3, 2)
    inside = ((texel >= 0) & (texel < size)).all(-1)
    column, row = np.moveaxis(texel.clip(0, size - 1).astype(np.int64), -1, 0)
    bare = inside & (weight[row, column] > 0.5)
    chosen = np.zeros(len(model.mean), bool)
    chosen[model.triangles.numpy()[skin][bare]] = True
    return chosen
