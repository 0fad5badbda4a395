"""Types of the compiled rasteriser."""

import numpy as np
from numpy.typing import NDArray

def rasterise_into(
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    index: NDArray[np.int32],
    cull: bool,
    threads: int,
) -> None: ...
