"""The part of a head that is asked for: some parts, some blendshapes.

It knows nothing of file formats.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..errors import UsageError
from ..runtime.avatar import Avatar
from .options import ExportOptions


def with_chosen_shapes(avatar: Avatar, options: ExportOptions) -> Avatar:
    """The avatar with the blendshapes that the options name; weights of others go.

    Raises:
        UsageError: the options name a blendshape that the head does not have.
    """
    topology = avatar.topology
    names = options.chosen_blendshapes(topology.blendshape_names)
    if names == topology.blendshape_names:
        return avatar
    rows = [topology.blendshape_names.index(name) for name in names]
    return dataclasses.replace(
        avatar,
        expression_weights={name: weight for name, weight in avatar.expression_weights.items() if name in names},
        topology=dataclasses.replace(topology, blendshapes=topology.blendshapes[rows], blendshape_names=names),
    )


def with_chosen_parts(avatar: Avatar, options: ExportOptions) -> Avatar:
    """The avatar with the triangles of the parts that the options name; all vertices stay.

    Raises:
        UsageError: nothing is left.
    """
    topology = avatar.topology
    parts = options.topology_parts(topology.part_names)
    keep = topology.triangles_of(*parts) if parts else np.zeros(len(topology.triangles), bool)
    if not keep.any():
        got, expected = f"{', '.join(options.parts)}, which this head does not have", ", ".join(topology.part_names)
        raise UsageError("parts", got, expected, "name parts that are there")
    if keep.all():
        return avatar
    return dataclasses.replace(
        avatar,
        topology=dataclasses.replace(
            topology,
            triangles=topology.triangles[keep],
            corner_uv=topology.corner_uv[keep],
            triangle_part=topology.triangle_part[keep],
        ),
    )
