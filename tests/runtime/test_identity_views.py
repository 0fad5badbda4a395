"""The views that the recogniser is shown: small moves of a chip, alike for photo and rendering, and always the same."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fitdiff.models.recogniser import IdentityFeatures, Recogniser
from fitdiff.runtime.identity_views import COUNT, IdentityViews, is_hidden, view_moves

SIZE = 32


class Means(Recogniser):
    """Tells a chip's left, right and whole mean, which is enough to know a mirrored one."""

    def __init__(self) -> None:
        super().__init__(3)
        self.calls = 0

    chip_size = property(lambda self: SIZE)
    chip_template = property(lambda self: np.zeros((5, 2), np.float32))
    feature_shapes = property(lambda self: ((1, 1, 1),) * 3)

    def forward(self, chips: Tensor) -> IdentityFeatures:
        self.calls += 1
        left, right = chips[..., : SIZE // 2].mean((1, 2, 3)), chips[..., SIZE // 2 :].mean((1, 2, 3))
        return IdentityFeatures((chips[:, :1, :1, :1],) * 3, torch.stack([left, right, (left + right) / 2], 1))


@pytest.fixture
def photos() -> Tensor:
    image = torch.zeros(2, 3, 64, 64)
    image[..., 36:] = torch.tensor([0.9, 0.4])[:, None, None, None]  # bright on the right
    return image


def views_of(photos: Tensor, recogniser: Recogniser, count: int) -> IdentityViews:
    chip_from_crop = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]).expand(2, 2, 3)
    views = IdentityViews(photos, chip_from_crop, recogniser)
    views.advance(count)
    return views


def test_moves_are_small_and_half_of_them_mirror() -> None:
    moves = view_moves(150)
    determinants = torch.linalg.det(moves[:, :, :2])
    assert (determinants[::2] > 0).all() and (determinants[1::2] < 0).all()
    corners = torch.tensor([[20.0, 20.0], [130.0, 40.0]])
    moved = corners @ moves[:, :, :2].transpose(1, 2) + moves[:, None, :, 2]
    moved[1::2, :, 0] = 150 - moved[1::2, :, 0]
    distance = (moved - corners).norm(dim=-1)
    assert 1 < float(distance.mean()) < 8 and float(distance.max()) < 16
    assert len({tuple(np.round(move.flatten().tolist(), 6)) for move in moves}) == COUNT


def test_photo_and_rendering_are_seen_in_the_same_view(photos: Tensor) -> None:
    views = views_of(photos, Means(), 2)
    for _ in range(3):
        chips, seen = views.chips(photos, photos), views.wanted.embedding  # both photos in one view, then in the next
        left, right = seen[:, 0], seen[:, 1]
        assert (right > left).tolist() == [True, True, False, False]  # the second view is mirrored
        assert torch.allclose(chips[..., SIZE // 2 :].mean((1, 2, 3)), right, atol=1e-6)
        views.advance(2)


def test_half_of_the_views_show_what_hides_a_face(photos: Tensor) -> None:
    assert [is_hidden(view) for view in range(4)] == [True, False, False, True]
    mirrored = [is_hidden(view) for view in range(1, COUNT, 2)]
    assert sum(mirrored) == COUNT // 4 and sum(map(is_hidden, range(COUNT))) == COUNT // 2
    views = views_of(photos, Means(), 3)
    bare, hidden = torch.zeros_like(photos), torch.ones_like(photos)
    for first in (0, 3, 6, 9, 12, 15):  # once past the end
        shown = views.chips(bare, hidden).unflatten(0, (3, 2)).mean((1, 2, 3, 4))
        assert (shown > 0.5).tolist() == [is_hidden((first + number) % COUNT) for number in range(3)]
        views.advance(3)


def test_they_come_in_turn(photos: Tensor) -> None:
    recogniser = Means()
    views = views_of(photos, recogniser, 3)
    seen: list[Tensor] = []
    for _ in range(COUNT):  # 3 times round
        seen.extend(views.wanted.embedding.split(2))
        views.advance(3)
    assert recogniser.calls == COUNT
    assert all(torch.equal(a, b) for a, b in zip(seen, seen[COUNT:], strict=False))
    assert not torch.equal(seen[0], seen[2])
    fresh = views_of(photos, Means(), 1)
    assert fresh.count == 1 and torch.equal(fresh.wanted.embedding, seen[0])
    fresh.advance(2)
    assert fresh.count == 2 and torch.equal(fresh.wanted.embedding, torch.cat(seen[1:3]))


def test_a_batch_changes_nothing(photos: Tensor) -> None:
    alone = IdentityViews(photos[1:], torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]]), Means())
    alone.advance(4)
    both = views_of(photos, Means(), 4)
    assert torch.equal(alone.wanted.embedding, both.wanted.embedding[1::2])
    assert torch.equal(alone.chips(photos[1:], 1 - photos[1:]), both.chips(photos, 1 - photos)[1::2])


def test_the_steady_features_are_the_mean_of_all_views(photos: Tensor) -> None:
    views = views_of(photos, Means(), COUNT)
    each = views.wanted.embedding.unflatten(0, (COUNT, 2))
    assert torch.allclose(views.steady.embedding, each.mean(0), atol=1e-6)
    assert len(views.steady.maps) == 3 and views.steady.maps[0].shape == (2, 1, 1, 1)
    left, right, whole = views.steady.embedding.T  # half of the views are mirrored
    assert torch.allclose(left, right, atol=0.1) and torch.allclose(whole, (left + right) / 2, atol=1e-6)
    assert float(whole[0]) > 1.5 * float(whole[1])  # the photos are not mixed
