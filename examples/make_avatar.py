"""A photo becomes an avatar through the Python library.

python examples/make_avatar.py examples/astronaut.jpg out
"""

import sys
from pathlib import Path

from fitdiff.exporter import write_face_maps, write_glb
from fitdiff.runtime.avatar_result import AvatarOptions
from fitdiff.runtime.face_crop import crop_face
from fitdiff.runtime.loading import load_pipeline
from fitdiff.runtime.outputs import whole_folder
from fitdiff.runtime.photo import load_photo


def make_avatar(photo: Path, out: Path, steps: int = 50) -> float:
    """Write out/avatar.glb and out/maps/*.png; return the similarity of rendering and photo."""
    pipeline = load_pipeline()  # once; then as many photos as you like
    crop = crop_face(load_photo(photo), pipeline.detector, pipeline.models.face_mesh)
    result = pipeline.avatar(crop, AvatarOptions(steps=steps, guidance="full", seed=0))
    with whole_folder(out) as folder:
        write_glb(result.avatar, folder / "avatar.glb")
        write_face_maps(result.avatar.face_maps, folder / "maps", result.avatar.folds)
    return result.report.similarity["guiding"]


if __name__ == "__main__":
    similarity = make_avatar(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:4]))
    print(f"similarity {similarity:.3f}")
