"""Small files in the form of each format: its real keys, types and shapes, with few vertices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

VERTICES, FACES = 40, 60


@dataclass(frozen=True, eq=False)
class Numbers:
    """A random linear model: mean (V, 3), triangles (F, 3), identity (K, V, 3), expression (E, V, 3), deviations."""

    mean: np.ndarray
    triangles: np.ndarray
    identity: np.ndarray  # of unit length
    identity_std: np.ndarray
    expression: np.ndarray
    expression_std: np.ndarray

    def scaled_identity(self) -> np.ndarray:
        return self.identity * self.identity_std[:, None, None]

    def scaled_expression(self) -> np.ndarray:
        return self.expression * self.expression_std[:, None, None]


@pytest.fixture(scope="session")
def numbers() -> Numbers:
    rng = np.random.default_rng(0)

    def orthonormal(count: int) -> np.ndarray:
        return np.linalg.qr(rng.normal(size=(VERTICES * 3, count)))[0].T.reshape(count, VERTICES, 3)

    triangles = np.stack([rng.permutation(VERTICES)[:3] for _ in range(FACES)]).astype(np.int64)
    triangles[0, 0], triangles[1, 0] = 0, VERTICES - 1  # both ends of the numbering occur
    triangles[0, 1:], triangles[1, 1:] = (1, 2), (3, 4)
    return Numbers(
        rng.normal(size=(VERTICES, 3)), triangles, orthonormal(7), np.arange(7, 0, -1.0), orthonormal(4),
        np.arange(4, 0, -1.0) / 2,
    )  # fmt: skip


def columns(basis: np.ndarray) -> np.ndarray:
    """(K, V, 3) -> (3V, K), as statistical models keep them."""
    return basis.reshape(len(basis), -1).T


@pytest.fixture
def lsfm_file(numbers: Numbers, tmp_path: Path) -> Path:
    io = pytest.importorskip("scipy.io", reason="scipy is not installed")
    path = tmp_path / "shape_model.mat"
    content = {
        "components": columns(numbers.identity), "eigenvalues": numbers.identity_std**2,
        "cumulative_explained_variance": np.ones(7), "mean": numbers.mean.reshape(-1), "n_training_samples": 100,
        "trilist": numbers.triangles.astype(np.uint32),
    }  # fmt: skip
    io.savemat(str(path), content)
    return path


@pytest.fixture
def bfm2009_file(numbers: Numbers, tmp_path: Path) -> Path:
    io = pytest.importorskip("scipy.io", reason="scipy is not installed")
    path = tmp_path / "01_MorphableModel.mat"
    content = {
        "shapeMU": numbers.mean.reshape(-1, 1).astype(np.float32), "shapePC": columns(numbers.identity).astype("f4"),
        "shapeEV": numbers.identity_std[:, None].astype(np.float32), "texMU": np.ones((VERTICES * 3, 1), np.float32),
        "texPC": np.ones((VERTICES * 3, 7), np.float32), "texEV": np.ones((7, 1), np.float32),
        "tl": (numbers.triangles[:, ::-1] + 1).astype(np.int32), "segbin": np.ones((VERTICES, 4)),
        "segMM": np.ones((VERTICES, 1)), "segMB": np.ones((VERTICES, 1)),
    }  # fmt: skip
    io.savemat(str(path), content)
    return path


@pytest.fixture
def bfm2019_file(numbers: Numbers, tmp_path: Path) -> Path:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path = tmp_path / "model2019_face12.h5"
    neutral = np.full(VERTICES * 3, 0.25)
    with h5py.File(path, "w") as file:
        for part, mean, basis, deviation in (
            ("shape", numbers.mean.reshape(-1) - 0.25, numbers.identity, numbers.identity_std),
            ("expression", neutral, numbers.expression, numbers.expression_std),
            ("color", neutral, numbers.identity, numbers.identity_std),
        ):
            file[f"{part}/model/mean"] = mean.astype(np.float32)
            file[f"{part}/model/pcaBasis"] = columns(basis).astype(np.float32)
            file[f"{part}/model/pcaVariance"] = (deviation**2).astype(np.float32)
            file[f"{part}/model/noiseVariance"] = np.zeros(1, np.float32)
            file[f"{part}/representer/cells"] = numbers.triangles.T.astype(np.int32)
            file[f"{part}/representer/points"] = numbers.mean.T.astype(np.float32)
    return path


@pytest.fixture
def gnm_file(numbers: Numbers, tmp_path: Path) -> Path:
    path = tmp_path / "gnm_head.npz"
    groups = {
        "skin": range(0, 20), "left_eye": range(20, 26), "right_eye": range(26, 32),
        "upper_teeth_and_gums": (32, 33, 34), "tongue": (35, 36, 37), "eye_exteriors": (24, 25, 30, 31), "gums": (32,),
    }  # fmt: skip
    weights = np.zeros((len(groups), VERTICES), np.float32)
    for row, members in zip(weights, groups.values(), strict=True):
        row[list(members)] = 1
    triangles = np.array(
        [[0, 1, 2], [3, 4, 5], [20, 21, 22], [22, 23, 20], [24, 25, 24], [26, 27, 28], [30, 31, 30], [32, 33, 34],
         [35, 36, 37]]
    )  # fmt: skip
    np.savez(
        path, version="3.0", variant="head", template_vertex_positions=numbers.mean.astype(np.float32),
        template_joint_positions=np.array([[0, 0, 0], [0.1, 0, 0], [0.3, 0, 0], [-0.3, 0, 0]], np.float32),
        vertex_identity_basis=numbers.scaled_identity().astype(np.float32),
        joint_identity_basis=np.zeros((7, 4, 3), np.float32),
        expression_basis=numbers.scaled_expression().astype(np.float32),
        identity_names=np.array([f"head_{i}" for i in range(7)]), expression_names=np.array(["tongue_0"] * 4),
        joint_names=np.array(["neck", "head", "left_eye", "right_eye"]), joint_parent_indices=np.array([0, 0, 1, 1]),
        skinning_weights=np.zeros((4, VERTICES), np.float32), quads=np.zeros((1, 4), np.int32),
        triangles=triangles.astype(np.int32), quad_uvs=np.zeros((1, 4, 2)), mesh_component_names=np.array(["skin"]),
        triangle_uvs=np.random.default_rng(1).random((len(triangles), 3, 2)).astype(np.float32),
        mirror_indices=np.arange(VERTICES), joint_regressor=np.zeros((4, VERTICES)),
        pose_correctives_regressor=np.zeros((36, VERTICES * 3), np.float32),
        bone_aligned_template_joint_orientations=np.tile(np.eye(3), (4, 1, 1)), vertex_groups=weights,
        vertex_group_names=np.array(list(groups)),
    )  # fmt: skip
    return path
