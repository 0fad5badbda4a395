"""Joints of the head: order, places, sides and what hangs on each."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from real_heads import SEEDS, part_vertices, posed, real_head

from fitdiff.exporter.anatomy.eyeball import find_eyeball
from fitdiff.exporter.anatomy.head import finished_head
from fitdiff.exporter.anatomy.mouth import rigid_motion
from fitdiff.exporter.anatomy.skeleton import Skeleton, head_skeleton
from fitdiff.runtime.avatar import Avatar


@pytest.fixture(scope="module", params=SEEDS, ids=lambda seed: "mean" if seed is None else f"seed{seed}")
def head(request: pytest.FixtureRequest) -> Avatar:
    return finished_head(real_head(request.param))


@pytest.fixture(scope="module")
def skeleton(head: Avatar) -> Skeleton:
    return head_skeleton(head)


def _weight_of(skeleton: Skeleton, name: str) -> np.ndarray:
    """(V,) weight of one joint."""
    joint = [joint.name for joint in skeleton.joints].index(name)
    return (skeleton.joint_weight * (skeleton.joint_index == joint)).sum(1)


def test_joints_from_neck_to_eyes(skeleton: Skeleton) -> None:
    assert [joint.name for joint in skeleton.joints] == ["neck", "head", "eye_left", "eye_right"]
    assert [joint.parent for joint in skeleton.joints] == [None, 0, 1, 1]
    neck, head, left, right = (joint.position for joint in skeleton.joints)
    assert neck[1] < head[1] - 0.07 and abs(neck[0]) < 0.002 and abs(head[0]) < 0.002
    assert left[0] > 0.02 and right[0] < -0.02  # the character's left is +X
    assert left[2] > head[2] + 0.05


def test_weights_are_whole(head: Avatar, skeleton: Skeleton) -> None:
    assert skeleton.joint_index.shape == skeleton.joint_weight.shape == (head.topology.vertex_count, 4)
    assert skeleton.joint_index.dtype == np.uint8 and skeleton.joint_weight.dtype == np.float32
    np.testing.assert_allclose(skeleton.joint_weight.sum(1), 1, atol=1e-6)
    assert (np.diff(skeleton.joint_weight, axis=1) <= 0).all()
    assert (skeleton.joint_index[skeleton.joint_weight == 0] == 0).all()
    assert skeleton.joint_index.max() < len(skeleton.joints)


@pytest.mark.parametrize("side", ["left", "right"])
def test_eyeball_and_cornea_hang_on_their_own_eye(head: Avatar, skeleton: Skeleton, side: str) -> None:
    own = part_vertices(head, f"eye_{side}", f"cornea_{side}")
    expected = np.zeros(head.topology.vertex_count)
    expected[own] = 1
    np.testing.assert_array_equal(_weight_of(skeleton, f"eye_{side}"), expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_eye_joint_is_where_the_eye_turns(head: Avatar, skeleton: Skeleton, side: str) -> None:
    """A joint at the right place turns the eyeball onto what the blendshape makes of it."""
    eye = find_eyeball(head, side)
    assert eye is not None
    joint = next(joint for joint in skeleton.joints if joint.name == eye.part)
    for name in (f"eyeLookIn{side.capitalize()}", f"eyeLookUp{side.capitalize()}"):
        moved = posed(head, name)[eye.vertices]
        rotation, _ = rigid_motion(head.vertices[eye.vertices], moved)
        by_joint = (head.vertices[eye.vertices] - joint.position) @ rotation.T + joint.position
        assert np.linalg.norm(by_joint - moved, axis=1).max() < 5e-5


def test_neck_goes_over_into_the_head(head: Avatar, skeleton: Skeleton) -> None:
    neck = _weight_of(skeleton, "neck")
    inside = np.setdiff1d(
        np.arange(head.topology.vertex_count), np.setdiff1d(part_vertices(head, "skin"), part_vertices(head, "mouth"))
    )
    assert not neck[inside].any()
    lowest = head.vertices[:, 1].argmin()
    assert neck[lowest] > 0.95
    chin = np.flatnonzero((head.vertices[:, 2] > 0.065) & (np.abs(head.vertices[:, 0]) < 0.02))
    assert neck[chin].max() < 0.01
    triangles = head.topology.triangles[head.topology.triangles_of("skin")]
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]]])
    length = np.linalg.norm(head.vertices[edges[:, 0]] - head.vertices[edges[:, 1]], axis=1)
    steps = np.abs(neck[edges[:, 0]] - neck[edges[:, 1]])
    assert (steps / np.maximum(length, 0.002)).max() < 60  # 1/m: nowhere steeper than over 17 mm
    assert ((neck > 0.05) & (neck < 0.95)).sum() > 100


def test_a_finished_head_keeps_the_joints_of_the_plain_one(head: Avatar, skeleton: Skeleton) -> None:
    plain = head_skeleton(real_head(None))
    again = head_skeleton(finished_head(real_head(None)))
    for before, after in zip(plain.joints, again.joints, strict=True):
        np.testing.assert_allclose(before.position, after.position, atol=0.004)


def test_a_head_without_eyes_has_two_joints(avatar: Avatar) -> None:
    topology = avatar.topology
    keep = ~topology.triangles_of("eye_left", "eye_right")
    blind = dataclasses.replace(
        topology,
        triangles=topology.triangles[keep],
        corner_uv=topology.corner_uv[keep],
        triangle_part=topology.triangle_part[keep],
    )
    skeleton = head_skeleton(dataclasses.replace(avatar, topology=blind))
    assert [joint.name for joint in skeleton.joints] == ["neck", "head"]
