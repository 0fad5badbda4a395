"""Typed face of the compiled z-buffer rasteriser: checks shapes and dtypes, then calls it.

Arrays in, array out: it knows neither torch nor cameras nor gradients. Importing it raises ImportError where
the extension is not built; `raster_torch` does the same work without it.
"""

import numpy as np
from numpy.typing import NDArray

from ._raster import rasterise_into


def rasterise(
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    height: int,
    width: int,
    *,
    cull: bool = False,
    threads: int = 0,
) -> NDArray[np.int32]:
    """Index of the nearest triangle under every pixel centre.

    A triangle with a vertex at depth <= 0 (or NaN) is dropped whole. A pixel centre on an edge that two
    triangles share belongs to exactly one of them (top-left rule); of two triangles at one depth the first
    stays. The result does not depend on `threads`.

    Args:
        vertices: (B, V, 3) float32: x px (right), y px (down), depth > 0 in front. Pixel centres lie at +0.5.
        triangles: (F, 3) int32 indices into V.
        height: rows of the image.
        width: columns of the image.
        cull: drop triangles that show their back, that is, run clockwise on the screen (glTF: front is
            counter-clockwise).
        threads: 0 for one a core.

    Returns:
        (B, height, width) int32, -1 where no triangle covers the pixel.

    Raises:
        TypeError: a dtype differs. ValueError: a shape, size or index differs.
    """
    if vertices.dtype != np.float32:
        raise TypeError(f"vertices: got {vertices.dtype}; expected float32; convert with astype(np.float32)")
    if triangles.dtype != np.int32:
        raise TypeError(f"triangles: got {triangles.dtype}; expected int32; convert with astype(np.int32)")
    if vertices.ndim != 3 or vertices.shape[2] != 3:
        raise ValueError(f"vertices: got shape {vertices.shape}; expected (B, V, 3); add the batch axis")
    if triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError(f"triangles: got shape {triangles.shape}; expected (F, 3); triangulate the faces")
    if height < 1 or width < 1:
        raise ValueError(f"image size: got {height} x {width}; expected at least 1 x 1; give a larger size")
    index = np.empty((vertices.shape[0], height, width), np.int32)
    rasterise_into(np.ascontiguousarray(vertices), np.ascontiguousarray(triangles), index, cull, threads)
    return index
