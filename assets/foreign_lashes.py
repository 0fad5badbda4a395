"""Lash strips of a foreign head laid over the strips that our atlas has hairs painted on.

Knows nothing of files; the hairs themselves are in the atlas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..models.morphable import MorphableModel
from .atlas_layout import ATLAS_SIZE
from .make_head_atlas import connected_pieces

HAIR_REACH = {True: 0.7, False: 0.45}  # share of our strips, upper and lower, that a card covers: hairs end within


def lash_uv(
    vertices: np.ndarray,
    triangles: np.ndarray,
    eyes: list[np.ndarray],
    model: MorphableModel,
    own_uv: np.ndarray | None = None,
) -> np.ndarray:
    """(F, 3, 2), v down, for lash triangles over vertices (V, 3) metres; eyes: vertices of left and right eyeball.

    own_uv: (F, 3, 2) the strips' own coordinates, each strip an upright rectangle. Each connected strip gets the place
    of ours at the same lid: along the lid as ours runs, root on root, tip on tip.
    """
    strips = _our_strips(model)
    middles = np.stack([(eye.min(0) + eye.max(0)) / 2 for eye in eyes])
    uv = np.zeros((len(triangles), 3, 2))
    for piece in connected_pieces(triangles):
        member = np.isin(triangles, piece).all(1)
        corners = vertices[triangles[member]].reshape(-1, 3).astype(np.float64)
        side = int(np.linalg.norm(middles - corners.mean(0), axis=1).argmin())
        upper = bool(corners[:, 1].mean() > middles[side, 1])
        outward = corners[:, 0] * (1 if side == 0 else -1)
        reach = np.linalg.norm(corners - middles[side], axis=1)
        if own_uv is None:
            along = _unit(outward)
            tip = _unit_by_column(reach, along)
        else:
            along, tip = _from_own(own_uv[member].reshape(-1, 2).astype(np.float64), outward, reach)
        uv[member] = strips[(side, upper)].place(along, tip * HAIR_REACH[upper]).reshape(-1, 3, 2)
    return uv


def _from_own(uv: np.ndarray, outward: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the way along the lid, outward, and from root to tip, of corners (N, 2) of one rectangle."""
    unit = np.stack([_unit(uv[:, 0]), _unit(uv[:, 1])], 1)
    fit = [np.corrcoef(unit[:, axis], outward)[0, 1] for axis in (0, 1)]
    axis = int(np.abs(fit).argmax())
    along = unit[:, axis] if fit[axis] > 0 else 1 - unit[:, axis]
    tip = unit[:, 1 - axis]
    return along, tip if np.corrcoef(tip, reach)[0, 1] > 0 else 1 - tip


def _unit(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / max(float(np.ptp(values)), 1e-9)


def _unit_by_column(reach: np.ndarray, along: np.ndarray, columns: int = 12) -> np.ndarray:
    """`reach` from 0 at the root to 1 at the tip, each stretch along the lid by itself."""
    low, high = np.zeros(columns + 1), np.zeros(columns + 1)
    for column in range(columns + 1):
        near = np.abs(along * columns - column) <= 1.0
        values = reach[near] if near.any() else reach
        low[column], high[column] = values.min(), values.max()
    at = np.arange(columns + 1)
    bottom, top = (np.interp(along * columns, at, values) for values in (low, high))
    return ((reach - bottom) / np.maximum(top - bottom, 1e-9)).clip(0, 1)


@dataclass(frozen=True, eq=False)
class _Strip:
    """A rectangle of the atlas with hairs: low and high corner, which axis runs along the lid, and which ways."""

    low: np.ndarray
    high: np.ndarray
    along_axis: int
    tips_at_high: bool
    runs_outward: bool

    def place(self, along: np.ndarray, tip: np.ndarray) -> np.ndarray:
        """Shares (N,) along the lid, outward, and from root to tip -> (N, 2)."""
        shares = np.zeros((len(along), 2))
        shares[:, self.along_axis] = along if self.runs_outward else 1 - along
        shares[:, 1 - self.along_axis] = tip if self.tips_at_high else 1 - tip
        return self.low + shares * (self.high - self.low)


def _our_strips(model: MorphableModel) -> dict[tuple[int, bool], _Strip]:
    """(side, upper) -> the strip of our head there; side 0 is the character's left."""
    names, parts = model.config.part_names, model.triangle_part.numpy()
    vertices = model.mean.numpy()
    chosen = parts == names.index("lashes")
    triangles, uv = model.triangles.numpy()[chosen], model.corner_uv.numpy()[chosen].astype(np.float64)
    middles = []
    for eye in ("eye_left", "eye_right"):
        ball = vertices[np.unique(model.triangles.numpy()[parts == names.index(eye)])]
        middles.append((ball.min(0) + ball.max(0)) / 2)
    found = {}
    for piece in connected_pieces(triangles):
        member = np.isin(triangles, piece).all(1)
        own, place = vertices[triangles[member]].reshape(-1, 3), uv[member].reshape(-1, 2)
        side = int(np.linalg.norm(np.stack(middles) - own.mean(0), axis=1).argmin())
        upper = bool(own[:, 1].mean() > middles[side][1])
        design = np.concatenate([place, np.ones((len(place), 1))], 1)
        outward = np.linalg.lstsq(design, np.linalg.norm(own - middles[side], axis=1), rcond=None)[0][:2]
        across_axis = int(np.abs(outward).argmax())
        sideways = own[:, 0] * (1 if side == 0 else -1)
        slope = np.linalg.lstsq(design, sideways, rcond=None)[0][1 - across_axis]
        inset = 0.5 / ATLAS_SIZE
        found[(side, upper)] = _Strip(
            place.min(0) + inset, place.max(0) - inset, 1 - across_axis, bool(outward[across_axis] > 0), bool(slope > 0)
        )
    return found
