"""ArcFace from ONNX files as exporters write them: same maps, same embedding as ONNX Runtime; gradients; refusals."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from fitdiff.errors import MissingError
from fitdiff.models.arcface import ArcFace, IResNetConfig, load_arcface
from fitdiff.models.recogniser import cosine

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

TOLERANCE = 1e-4
WAYS = [  # exporter, opset, batch norms folded into convolutions
    ("torchscript", 11, True), ("torchscript", 11, False), ("torchscript", 12, True), ("torchscript", 14, False),
    ("dynamo", 18, True), ("dynamo", 18, False),
]  # fmt: skip


def chips(count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(seed))


def runtime_answers(path: Path, shapes: tuple[tuple[int, ...], ...], pixels: torch.Tensor) -> list[np.ndarray]:
    """Embedding and maps by ONNX Runtime: the sums that stages of `shapes` end with are made outputs of the file."""
    model = onnx.load(path)
    final = onnx.shape_inference.infer_shapes(model)
    size = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim][1:] for v in final.graph.value_info}
    sums = [node.output[0] for node in model.graph.node if node.op_type == "Add"]
    last = [[name for name in sums if size.get(name) == list(shape)][-1] for shape in shapes]
    del model.graph.output[1:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in last)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: pixels.numpy()})


def assert_same(network: ArcFace, path: Path, text: str) -> None:
    x = chips()
    expected = runtime_answers(path, network.feature_shapes, (x * 255 - 127.5) / 127.5)
    with torch.no_grad():
        seen = network(x)
    for name, value, wanted in zip(("V", "C2", "C3", "C4"), (seen.embedding, *seen.maps), expected, strict=True):
        error = np.abs(value.numpy() - wanted)
        print(f"{text} {name}: largest {error.max():.1e}, mean {error.mean():.1e} of {np.abs(wanted).mean():.2f}")
        assert value.shape == wanted.shape and error.max() < TOLERANCE


@pytest.mark.parametrize(("exporter", "opset", "folded"), WAYS)
def test_answers_as_onnx_runtime_does(
    paper_networks: ModuleType, tmp_path: Path, exporter: Any, opset: int, folded: bool
) -> None:
    depths = (2, 1, 3, 1)
    reference = paper_networks.randomised(paper_networks.ReferenceIResNet(depths))
    path = paper_networks.write_onnx(
        paper_networks.EmbeddingAlone(reference), tmp_path / "w600k_small.onnx", exporter, opset, folded
    )
    left = sum(node.op_type == "BatchNormalization" for node in onnx.load(path).graph.node)
    units, halving = sum(depths), len(depths)
    ends = 1 if exporter == "dynamo" else 2  # dynamo takes the one after the linear layer into it
    assert left == (units + ends if folded else 3 * units + halving + 3)  # or the case is not what it is named for
    network, card = load_arcface(path)
    assert network.config == IResNetConfig(depths, (8, 12, 16, 20), 8, 24)
    assert_same(network, path, f"{exporter} {opset} {'folded' if folded else 'apart'}")
    assert (card.role, card.commercial) == ("recogniser", False) and len(card.sha256) == 64


def test_buffalo_ls_size(paper_networks: ModuleType, tmp_path: Path) -> None:
    """The paper's C2, C3, C4 and V."""
    reference = paper_networks.randomised(paper_networks.ReferenceIResNet((3, 4, 14, 3), (64, 128, 256, 512), 512))
    path = paper_networks.write_onnx(paper_networks.EmbeddingAlone(reference), tmp_path / "w600k_r50.onnx")
    network, card = load_arcface(path)
    assert network.config == IResNetConfig() and card.name == "arcface-r50-w600k_r50"
    assert network.feature_shapes == ((128, 28, 28), (256, 14, 14), (512, 7, 7))
    assert (network.embedding_size, network.chip_size) == (512, 112)
    assert_same(network, path, "r50")


def test_antelopev2s_depth(paper_networks: ModuleType, tmp_path: Path) -> None:
    reference = paper_networks.randomised(paper_networks.ReferenceIResNet((3, 13, 30, 3)))
    path = paper_networks.write_onnx(paper_networks.EmbeddingAlone(reference), tmp_path / "glintr100.onnx")
    network, card = load_arcface(path)
    assert network.config.name == "r100" and card.name == "arcface-r100-glintr100"
    assert_same(network, path, "r100")


def test_a_file_that_normalises_its_input_itself(paper_networks: ModuleType, tmp_path: Path) -> None:
    reference = paper_networks.randomised(paper_networks.ReferenceIResNet(normalises=True))
    path = paper_networks.write_onnx(paper_networks.EmbeddingAlone(reference), tmp_path / "mxnet.onnx")
    network, _ = load_arcface(path)
    x = chips()
    with torch.no_grad():
        error = (network(x).embedding - reference(x * 255)[-1]).abs().max()
    assert float(error) < TOLERANCE


def test_left_and_right_and_the_order_of_colours_matter(paper_networks: ModuleType, tmp_path: Path) -> None:
    """Or the comparisons above could not tell a flipped or a BGR chip."""
    reference = paper_networks.randomised(paper_networks.ReferenceIResNet())
    path = paper_networks.write_onnx(paper_networks.EmbeddingAlone(reference), tmp_path / "pack.onnx")
    network, _ = load_arcface(path)
    x = chips()
    for other in (x.flip(3), x.flip(1)):
        assert float((network(other).embedding - network(x).embedding).abs().max()) > 100 * TOLERANCE


def test_gradients_are_the_differences(paper_networks: ModuleType, tmp_path: Path) -> None:
    reference = paper_networks.randomised(paper_networks.ReferenceIResNet((1, 1, 1, 1), (4, 4, 4, 4), 6))
    path = paper_networks.write_onnx(paper_networks.EmbeddingAlone(reference), tmp_path / "pack.onnx")
    network = load_arcface(path)[0].double()
    x = chips(1).double().requires_grad_()
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(1, *shape, generator=generator, dtype=torch.float64) for shape in network.feature_shapes]

    def value(at: torch.Tensor) -> torch.Tensor:
        seen = network(at)
        maps = sum(((m * w).mean() for m, w in zip(seen.maps, weights, strict=True)), start=at.new_zeros(()))
        return maps + seen.embedding.square().sum()

    (gradient,) = torch.autograd.grad(value(x), x)
    for seed in range(4):
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        step = 1e-8  # hardly ever over the corner of a PReLU
        with torch.no_grad():
            slope = float(value(x + step * direction) - value(x - step * direction)) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(slope, abs=1e-6 * float(gradient.norm()))


def test_embeddings_are_compared_by_their_plain_cosine(paper_networks: ModuleType, tmp_path: Path) -> None:
    reference = paper_networks.randomised(paper_networks.ReferenceIResNet())
    path = paper_networks.write_onnx(paper_networks.EmbeddingAlone(reference), tmp_path / "pack.onnx")
    network, _ = load_arcface(path)
    a, b = network(chips()).embedding.split(1)
    assert torch.equal(network.similarity(a, b), cosine(a, b))
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_template_is_insightfaces_for_112_pixels() -> None:
    template = ArcFace(IResNetConfig((1, 1, 1, 1), (4, 4, 4, 4), 4, 8)).chip_template
    right_eye, left_eye, nose, right_mouth, left_mouth = template
    assert right_eye[0] < nose[0] < left_eye[0] and right_mouth[0] < nose[0] < left_mouth[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < min(right_mouth[1], left_mouth[1])
    assert (template.shape, template.dtype) == ((5, 2), np.float32) and template.max() < 112
    assert float(left_eye[0] - right_eye[0]) == pytest.approx(35.2372, abs=1e-4)


def test_what_is_no_iresnet_is_refused(paper_networks: ModuleType, tmp_path: Path) -> None:
    other = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten())
    path = paper_networks.write_onnx(other, tmp_path / "det_10g.onnx")
    with pytest.raises(MissingError, match="Relu.*expected an iresnet"):
        load_arcface(path)
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:100])
    with pytest.raises(MissingError, match="a whole ONNX file"):
        load_arcface(tmp_path / "cut.onnx")
    with pytest.raises(MissingError, match="no such file"):
        load_arcface(tmp_path / "absent.onnx")
