"""The pieces of the paper preset that a user brings: what each is, where it comes from, under which licence.

A table, no logic: `presets.py` finds them.
"""

from __future__ import annotations

from dataclasses import dataclass

NATIVE, PYTORCH3D = "native", "pytorch3d"  # rasterisers
EXAMPLE = "docs/paper_preset.md"


@dataclass(frozen=True)
class Piece:
    """A file of the preset.

    key: its place in the TOML file, TABLE.NAME. places: patterns below folders that `presets.py` knows, the best
    first. replaceable: the embedded one may stand in for it. optional: it is taken only if the TOML file names it.
    """

    key: str
    what: str
    source: str
    licence: str
    command: str
    places: tuple[str, ...]
    replaceable: bool = True
    optional: bool = False

    @property
    def role(self) -> str:
        return self.key.partition(".")[0]


_INSIGHTFACE = "non-commercial research only (InsightFace sells licences)"
_FAN_COMMAND = (
    'pip install face-alignment && python -c "import face_alignment as f; '
    "f.FaceAlignment(f.LandmarksType.TWO_HALF_D, device='cpu', compile=False)\""
)
_TRAINING = f"your own training with the preset's recogniser and shapes: {EXAMPLE}"
PIECES = (
    Piece(
        "recogniser.path", "ArcFace, r100 or r50", "InsightFace's model packs antelopev2 and buffalo_l", _INSIGHTFACE,
        "pip install insightface && insightface-cli model.download antelopev2",
        ("{insightface}/antelopev2/**/glintr100.onnx", "{insightface}/buffalo_l/**/w600k_r50.onnx"),
    ),
    Piece(
        "landmarks.path", "FAN, 68 points", "the package face-alignment, which downloads it",
        "code BSD-3-Clause; weights learnt on 300-W-LP, for research", _FAN_COMMAND,
        ("{torch}/3DFAN4-*", "{torch}/2DFAN4-*"),
    ),
    Piece(
        "landmarks.depth", "FAN's depth network", "the package face-alignment", "as FAN", _FAN_COMMAND, (),
        optional=True,
    ),
    Piece(
        "perceptual.vgg", "VGG-16", "torchvision, which downloads it", "BSD-3-Clause",
        "pip install torchvision && python -c \"import torchvision as t; t.models.vgg16(weights='IMAGENET1K_V1')\"",
        ("{torch}/vgg16-397923af.pth",),
    ),
    Piece(
        "perceptual.linear", "LPIPS' channel weights", "the package lpips, which holds them", "BSD-2-Clause",
        "pip install --no-deps lpips", ("{lpips}/weights/v0.1/vgg.pth",),
    ),
    Piece(
        "detector.path", "SCRFD", "InsightFace's model pack buffalo_l, det_10g.onnx", _INSIGHTFACE,
        "pip install insightface && insightface-cli model.download buffalo_l", (), optional=True,
    ),
    Piece(
        "morphable.path", "a morphable model, such as LSFM", "its publisher, on application",
        "its own; LSFM: non-commercial research only",
        "fitdiff import-model FILE --format lsfm --out {data}/morphable.safetensors", ("{data}/morphable.safetensors",),
    ),
    Piece(
        "autoencoder.path", "another autoencoder", _TRAINING, "yours",
        "fitdiff train autoencoder --preset paper --data DATA --out RUN", (), optional=True,
    ),
    Piece(
        "denoiser.path", "conditioner and denoiser", _TRAINING, "that of the models it learnt from",
        "fitdiff train diffusion --preset paper --data DATA --autoencoder AUTOENCODER --out RUN",
        ("{data}/denoiser.safetensors",), replaceable=False,
    ),
)  # fmt: skip
ALL_ROLES = tuple(dict.fromkeys(piece.role for piece in PIECES))
RASTERISER_COMMAND = (
    f'build pytorch3d for your PyTorch by its own instructions, or write rasteriser = "{NATIVE}": the same pictures'
)
PACKAGES = {"recogniser": "onnx", "detector": "onnxruntime"}
"""Role -> what reads its files."""
