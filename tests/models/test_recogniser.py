"""The recogniser against dlib's own numbers, its comparison of faces, and its gradients."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fitdiff.assets.make_recogniser import WEIGHTS
from fitdiff.errors import MissingError
from fitdiff.models.checkpoint import save_checkpoint
from fitdiff.models.recogniser import (
    DlibResNet,
    DlibResNetConfig,
    Recogniser,
    cosine,
    json_from_config,
    load_recogniser,
)

# compute_face_descriptor of dlib 19.24.6 on `pattern()`: the first eight of 128 numbers, and the sum of all.
DLIB_DESCRIPTOR = [-0.063603, 0.129761, 0.072018, 0.002637, -0.063974, -0.038465, -0.068589, 0.001012]
DLIB_SUM = -0.553620


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return load_recogniser()[0]


def pattern() -> np.ndarray:
    """(150, 150, 3) uint8 stripes that no random generator can change."""
    y, x, c = np.meshgrid(np.arange(150), np.arange(150), np.arange(3), indexing="ij")
    return ((x * 7 + y * 13 + c * 50) % 256).astype(np.uint8)


def chips_from(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def test_embedded_network_is_frozen() -> None:
    network, card = load_recogniser()
    assert (card.role, card.licence) == ("recogniser", "CC0-1.0")
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_embedding_is_dlibs(recogniser: Recogniser) -> None:
    embedding = recogniser(chips_from(pattern())).embedding[0]
    error = (embedding[:8] - torch.tensor(DLIB_DESCRIPTOR)).abs().max().item()
    print(f"recogniser against dlib's printed numbers: {error:.1e}")
    assert error < 2e-6
    assert embedding.sum().item() == pytest.approx(DLIB_SUM, abs=2e-5)


def test_agrees_with_installed_dlib(recogniser: Recogniser, tmp_path: Path) -> None:
    dlib = pytest.importorskip("dlib", reason="dlib is not installed")
    sources = os.environ.get("FITDIFF_ASSET_SOURCES")
    if not sources:
        pytest.skip(f"FITDIFF_ASSET_SOURCES names no folder with {Path(WEIGHTS.member).name}")
    model = tmp_path / "model.dat"
    model.write_bytes(WEIGHTS.read(Path(sources)))
    reference = dlib.face_recognition_model_v1(str(model))
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    for image in (pattern(), noise):
        expected = np.array(reference.compute_face_descriptor(image))
        error = np.abs(recogniser(chips_from(image)).embedding[0].numpy() - expected)
        print(f"recogniser against dlib: largest {error.max():.1e}, mean {error.mean():.1e}")
        assert error.max() < 2e-6


def test_shapes_are_as_announced(recogniser: Recogniser) -> None:
    features = recogniser(torch.rand(2, 3, recogniser.chip_size, recogniser.chip_size))
    assert tuple(tuple(m.shape[1:]) for m in features.maps) == recogniser.feature_shapes
    assert recogniser.feature_shapes == ((64, 17, 17), (128, 8, 8), (256, 4, 4))
    assert features.embedding.shape == (2, recogniser.embedding_size) == (2, 128)


def test_template_is_a_symmetric_face(recogniser: Recogniser) -> None:
    template = recogniser.chip_template
    assert (template.shape, template.dtype) == ((5, 2), np.float32)
    right_eye, left_eye, nose, right_mouth, left_mouth = template
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_eye[1] == left_eye[1] < nose[1] < right_mouth[1] == left_mouth[1]
    assert (right_eye + left_eye)[0] / 2 == pytest.approx(nose[0], abs=0.01)
    assert (right_mouth + left_mouth)[0] / 2 == pytest.approx(nose[0], abs=0.01)


def test_batch_equals_single(recogniser: Recogniser) -> None:
    chips = chips_from(pattern(), pattern()[::-1].copy())
    together = recogniser(chips).embedding
    apart = torch.cat([recogniser(chip[None]).embedding for chip in chips])
    assert torch.allclose(together, apart, atol=1e-6)


def test_similarity_is_plain_cosine_about_zero(recogniser: Recogniser) -> None:
    a, b = torch.randn(2, 3, 128, generator=torch.Generator().manual_seed(0))
    network = DlibResNet()
    assert torch.equal(network.centre, torch.zeros(128))
    assert torch.allclose(network.similarity(a, b), cosine(a, b))
    assert torch.allclose(recogniser.similarity(a, a), torch.ones(3))


def test_centre_takes_the_common_part_out() -> None:
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(128, generator=generator)
    a, b = common + 0.3 * torch.randn(2, 200, 128, generator=generator)  # 400 unrelated "people"
    network = DlibResNet()
    assert network.similarity(a, b).mean() > 0.8
    network.centre.copy_(torch.cat([a, b]).mean(0))
    assert abs(network.similarity(a, b).mean()) < 0.05


def test_gradient_agrees_with_a_difference(recogniser: Recogniser) -> None:
    target = recogniser(chips_from(pattern()[::-1].copy())).embedding
    x = chips_from(pattern()).requires_grad_()
    recogniser.similarity(recogniser(x).embedding, target).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    step = 0.05 * x.grad / x.grad.norm()
    with torch.no_grad():
        ahead, behind = (recogniser.similarity(recogniser(x + s).embedding, target) for s in (step, -step))
    assert (ahead - behind).item() == pytest.approx(2 * (x.grad * step).sum().item(), rel=0.05)


def test_saved_recogniser_with_a_centre_comes_back(tmp_path: Path) -> None:
    config = DlibResNetConfig(stem_width=8, stage_widths=(8, 8, 16, 16, 16), stage_depths=(1, 1, 1, 1, 1))
    network = DlibResNet(config)
    network.centre.fill_(0.25)
    card = {"role": "recogniser", "name": "small", "source": "test", "licence": "CC0-1.0", "commercial": True}
    save_checkpoint(tmp_path / "small", network.state_dict(), json_from_config(config), card)
    loaded, loaded_card = load_recogniser(tmp_path / "small")
    chips = chips_from(pattern())
    assert torch.equal(loaded(chips).embedding, network(chips).embedding)
    assert torch.equal(loaded.centre, network.centre)
    assert loaded.feature_shapes == network.feature_shapes
    assert np.array_equal(loaded.chip_template, network.chip_template)
    assert loaded_card.name == "small"


def test_other_architecture_is_refused(tmp_path: Path) -> None:
    card = {"role": "recogniser", "name": "n", "source": "s", "licence": "MIT", "commercial": True}
    save_checkpoint(tmp_path / "net", {"centre": torch.zeros(128)}, {"architecture": "unknown"}, card)
    with pytest.raises(MissingError, match="'unknown'"):
        load_recogniser(tmp_path / "net")
