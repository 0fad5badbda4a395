"""The finished head: corneas, lids, teeth, tongue and neck of the embedded model, on three faces."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from real_heads import SEEDS, part_vertices, posed, real_head

from fitdiff.exporter.anatomy.clearance import beyond_surface, depth_in_flesh, outermost_hit
from fitdiff.exporter.anatomy.eyeball import find_eyeball
from fitdiff.exporter.anatomy.eyelids import open_eye_rays, uncovered
from fitdiff.exporter.anatomy.head import finished_head
from fitdiff.exporter.anatomy.lips import with_meeting_lips
from fitdiff.exporter.anatomy.mouth import find_jaws, incisors, rigid_motion
from fitdiff.exporter.anatomy.neck import neck_rim, with_closed_neck
from fitdiff.exporter.tangents import vertex_normals
from fitdiff.runtime.avatar import Avatar

SMILE = ("mouthSmileLeft", "mouthSmileRight")


class Heads(NamedTuple):
    plain: Avatar
    finished: Avatar


@pytest.fixture(scope="module", params=SEEDS, ids=lambda seed: "mean" if seed is None else f"seed{seed}")
def heads(request: pytest.FixtureRequest) -> Heads:
    plain = real_head(request.param)
    return Heads(plain, finished_head(plain))


def _distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - others[None], axis=2)


def test_original_vertices_keep_their_indices(heads: Heads) -> None:
    plain, finished = heads
    count = plain.topology.vertex_count
    still = np.setdiff1d(np.arange(count), part_vertices(plain, "teeth"))
    closed = with_meeting_lips(plain)
    np.testing.assert_array_equal(finished.vertices[:count][still], closed.vertices[still])
    np.testing.assert_array_equal(finished.expression_offset[:count], closed.expression_offset)
    for part in ("mouth", "tongue", "teeth", "lashes"):
        own, grown = plain.topology.triangles_of(part), finished.topology.triangles_of(part)
        np.testing.assert_array_equal(plain.topology.triangles[own], finished.topology.triangles[grown])
        np.testing.assert_array_equal(plain.topology.corner_uv[own], finished.topology.corner_uv[grown])
    assert finished.topology.part_names == (*plain.topology.part_names, "cornea_left", "cornea_right")


def test_every_face_gets_the_same_triangles(heads: Heads) -> None:
    mean = finished_head(real_head(None)).topology
    np.testing.assert_array_equal(heads.finished.topology.triangles, mean.triangles)
    assert np.abs(heads.finished.topology.corner_uv - mean.corner_uv).max() < 0.01


def test_a_finished_head_comes_back_as_it_is(heads: Heads) -> None:
    assert finished_head(heads.finished) is heads.finished


def test_a_synthetic_head_without_neck_or_jaw_is_finished_too(avatar: Avatar) -> None:
    finished = finished_head(avatar)
    assert {"cornea_left", "cornea_right"} < set(finished.topology.part_names)
    assert finished.vertices[part_vertices(finished, "cornea_left"), 0].min() > 0


@pytest.mark.parametrize(("side", "sign"), [("left", 1), ("right", -1)])
def test_cornea_lies_close_before_the_iris(heads: Heads, side: str, sign: int) -> None:
    head = heads.finished
    eye = find_eyeball(head, side)
    assert eye is not None
    arms = head.vertices[part_vertices(head, f"cornea_{side}")] - eye.centre
    assert (np.sign(eye.centre[0]) == sign) and (np.abs(arms[:, 0]) < 0.0085).all()
    apex = arms[arms[:, 2].argmax()]
    assert np.linalg.norm(apex[:2]) < 1e-5
    over_iris = arms[np.hypot(arms[:, 0], arms[:, 1]) < head.iris.diameter / 2]
    rays = over_iris / np.linalg.norm(over_iris, axis=1, keepdims=True)
    ball = head.vertices[head.topology.triangles[head.topology.triangles_of(eye.part)]] - eye.centre
    gap = np.linalg.norm(over_iris, axis=1) - outermost_hit(rays, ball)
    assert gap.min() > 5e-5
    assert 0.0008 < gap.max() < 0.0018  # the bulge of a human cornea


@pytest.mark.parametrize("side", ["left", "right"])
def test_cornea_turns_with_its_own_eye_only(heads: Heads, side: str) -> None:
    head = heads.finished
    name, other = f"eyeLookOut{side.capitalize()}", "right" if side == "left" else "left"
    eye = find_eyeball(head, side)
    assert eye is not None
    turned = posed(head, name)
    cornea, ball = part_vertices(head, f"cornea_{side}"), eye.vertices
    rotation, _ = rigid_motion(head.vertices[ball], turned[ball])
    assert rotation[0, 2] * (1 if side == "left" else -1) > 0.2  # gaze to the character's own side
    expected = (head.vertices[cornea] - eye.centre) @ rotation.T + eye.centre
    np.testing.assert_allclose(turned[cornea], expected, atol=2e-5)
    np.testing.assert_array_equal(
        turned[part_vertices(head, f"cornea_{other}")], head.vertices[part_vertices(head, f"cornea_{other}")]
    )


def test_eyeballs_are_whole_and_round(heads: Heads) -> None:
    head = heads.finished
    for side in ("left", "right"):
        triangles = head.topology.triangles[head.topology.triangles_of(f"eye_{side}")]
        edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
        plain, eye = find_eyeball(heads.plain, side), find_eyeball(head, side)
        assert plain is not None and eye is not None
        assert np.linalg.norm(plain.centre - eye.centre) < 1e-4
        rays = np.array([[x, y, 1.0] for x in (-0.2, 0.03, 0.2) for y in (-0.2, 0.03, 0.2)])
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        sag = outermost_hit(rays, head.vertices[triangles] - eye.centre) - eye.radius
        assert np.abs(sag).max() < 0.00035


@pytest.mark.parametrize(("side", "other"), [("left", "right"), ("right", "left")])
def test_blink_just_closes_its_own_eye(heads: Heads, side: str, other: str) -> None:
    head = heads.finished
    names = head.topology.blendshape_names
    blink = head.topology.blendshapes[names.index(f"eyeBlink{side.capitalize()}")]
    eye, far = find_eyeball(head, side), find_eyeball(head, other)
    assert eye is not None and far is not None
    rays = open_eye_rays(head, eye)
    assert len(rays) > 60
    assert uncovered(head, eye, rays, blink) <= 0.005
    assert uncovered(head, eye, rays, np.float32(0.9) * blink) > 0.005  # and no farther than that
    assert uncovered(head, far, open_eye_rays(head, far), blink) > 0.99


def test_lashes_follow_the_lids(heads: Heads) -> None:
    head = heads.finished
    skin, lashes = part_vertices(head, "skin"), part_vertices(head, "lashes")
    gaps = _distances(head.vertices[lashes], head.vertices[skin])
    roots, lids = lashes[gaps.min(1) < 0.001], skin[gaps.argmin(1)[gaps.min(1) < 0.001]]
    assert len(roots) > 40
    for name in head.topology.blendshape_names:
        moved = posed(head, name)
        apart = np.linalg.norm(moved[roots] - moved[lids], axis=1)
        assert apart.max() < 0.003, name


def test_no_tooth_comes_through_skin(heads: Heads) -> None:
    head = heads.finished
    topology = head.topology
    jaws = find_jaws(head)
    assert jaws is not None
    lips = head.vertices[np.concatenate([jaws.upper_lip, jaws.lower_lip])]
    origin = np.array([0, lips[:, 1].mean(), head.vertices[jaws.upper, 2].min()])
    worst = {}
    for shapes in [*((name,) for name in topology.blendshape_names), ("jawOpen", *SMILE), SMILE]:
        vertices = posed(head, *shapes)
        corners = vertices[topology.triangles[topology.triangles_of("teeth")]]
        points = np.concatenate([corners.reshape(-1, 3), corners.mean(1)])
        skin = vertices[topology.triangles[topology.triangles_of("skin")]]
        near = (np.linalg.norm(skin - origin, axis=2) < 0.11).any(1) & (skin[..., 2] > origin[2] - 0.07).all(1)
        out = beyond_surface(points[points[:, 2] > origin[2] + 0.005], skin[near], origin).max() * 1000
        worst["+".join(shapes)] = out
    print("\n".join(f"{out:6.2f} mm {name}" for name, out in worst.items()))
    assert max(worst.values()) < 0


def test_upper_teeth_stay_and_lower_teeth_are_rigid(heads: Heads) -> None:
    head = heads.finished
    jaws = find_jaws(head)
    assert jaws is not None
    assert not head.topology.blendshapes[:, jaws.upper].any()
    for name in head.topology.blendshape_names:
        moved = posed(head, name)[jaws.lower]
        rotation, shift = rigid_motion(head.vertices[jaws.lower], moved)
        # A share of jawOpen is a share of the way, not of the turn, and so not quite rigid.
        tolerance = 6e-4 if name == "tongueOut" else 1e-5
        np.testing.assert_allclose(head.vertices[jaws.lower] @ rotation.T + shift, moved, atol=tolerance)
    drop = (posed(head, "jawOpen") - head.vertices)[jaws.lower, 1]
    assert drop.max() < -0.005 and drop.min() < -0.02  # molars near the joint, incisors far from it


def test_tongue_follows_the_jaw(heads: Heads) -> None:
    head = heads.finished
    jaws = find_jaws(head)
    assert jaws is not None
    tongue = part_vertices(head, "tongue")
    tip = tongue[head.vertices[tongue, 2].argmax()]
    for name in ("jawOpen", "jawForward", "jawLeft", "jawRight"):
        moved = posed(head, name)
        rotation, shift = rigid_motion(head.vertices[jaws.lower], moved[jaws.lower])
        assert np.linalg.norm(rotation @ head.vertices[tip] + shift - moved[tip]) < 0.004, name
    assert posed(head, "jawLeft")[tip, 0] > head.vertices[tip, 0] + 0.003  # +X is the character's left


def test_tongue_comes_out_through_an_open_mouth(heads: Heads) -> None:
    def deepest(head: Avatar) -> float:
        tongue = part_vertices(head, "tongue")
        front = tongue[head.vertices[tongue, 2] > np.median(head.vertices[tongue, 2])]
        vertices = posed(head, "tongueOut").astype(np.float64)
        flesh = vertices[head.topology.triangles[head.topology.triangles_of("skin", "mouth")]]
        return float(depth_in_flesh(vertices[front], flesh).max())

    assert deepest(with_closed_neck(heads.plain)) > 0.001
    assert deepest(heads.finished) < 0.0005
    jaws = find_jaws(heads.finished)
    assert jaws is not None
    opened = posed(heads.finished, "tongueOut")
    assert incisors(opened, jaws.upper)[:, 1].min() - incisors(opened, jaws.lower)[:, 1].max() > 0.004


def test_upper_teeth_show_in_an_open_smile(heads: Heads) -> None:
    def shown(head: Avatar) -> float:
        jaws = find_jaws(head)
        assert jaws is not None
        names = head.topology.blendshape_names
        opened = posed(head, *SMILE) + np.float32(0.4) * head.topology.blendshapes[names.index("jawOpen")]
        lip = opened[jaws.upper_lip]
        edge = incisors(opened, jaws.upper)
        assert edge[:, 2].max() < lip[np.abs(lip[:, 0]) < 0.004][:, 2].min()  # behind the lip
        return float(lip[np.abs(lip[:, 0]) < 0.004][:, 1].min() - edge[:, 1].min())

    assert shown(heads.finished) > 0.003
    assert shown(heads.finished) >= shown(with_meeting_lips(heads.plain))


def test_eyes_and_brows_leave_the_inside_of_the_mouth_alone(heads: Heads) -> None:
    head = heads.finished
    inside = np.setdiff1d(part_vertices(head, "mouth", "teeth", "tongue"), part_vertices(head, "skin"))
    for name, offsets in zip(head.topology.blendshape_names, head.topology.blendshapes, strict=True):
        if name.startswith(("eye", "brow")):
            assert not offsets[inside].any(), name


def test_the_neck_is_closed_and_faces_down(heads: Heads) -> None:
    plain, finished = heads
    assert neck_rim(plain) is not None and neck_rim(finished) is None
    topology = finished.topology
    flesh = topology.triangles[topology.triangles_of("skin", "mouth")]
    directed = np.concatenate([flesh[:, [0, 1]], flesh[:, [1, 2]], flesh[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed)  # one direction each: a consistent outside
    assert (np.unique(np.sort(directed, axis=1), axis=0, return_counts=True)[1] == 2).all()  # and no hole
    rim = neck_rim(plain)
    assert rim is not None
    lid = np.arange(topology.vertex_count - 2 * len(rim) - 1, topology.vertex_count)
    normals = vertex_normals(finished.vertices, topology.triangles)
    assert normals[lid, 1].max() < -0.7
    unmoved = vertex_normals(with_meeting_lips(plain).vertices, plain.topology.triangles)
    above = finished.vertices[: len(plain.vertices), 1] > plain.vertices[rim, 1].max() + 0.01
    skin = np.intersect1d(np.flatnonzero(above), part_vertices(plain, "skin"))
    np.testing.assert_allclose(normals[skin], unmoved[skin], atol=1e-6)


def test_the_lid_wears_the_neck_s_texture(heads: Heads) -> None:
    plain, finished = heads
    count = len(plain.topology.triangles)
    rim = neck_rim(plain)
    assert rim is not None
    new = finished.topology.triangles_of("skin") & (finished.topology.triangles >= plain.topology.vertex_count).any(1)
    uv = finished.topology.corner_uv[new]
    touching = plain.topology.triangles_of("skin") & np.isin(plain.topology.triangles, rim).any(1)
    neck = plain.topology.corner_uv[touching]
    margin = 0.02
    assert (uv >= neck.min((0, 1)) - margin).all() and (uv <= neck.max((0, 1)) + margin).all()
    assert len(finished.topology.triangles) > count
