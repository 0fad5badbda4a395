"""The landmark term's own step: Gauss and Newton on the shape coefficients.

G_lan is a least-squares problem in a linear model behind a camera; its plain gradient crawls along the few directions
that move many points. One damped Gauss-Newton step, with the coefficients' prior as damping, goes where fifty gradient
steps would. Knows nothing of textures, networks or the sampling loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.landmark_indices import LANDMARK_COUNT
from ..models.latent import LatentLayout, LatentStatistics
from ..models.morphable import MorphableModel
from ..rendering.camera import Camera, camera_from_world, pixels_from_camera

NOISE = 0.03  # of the eye distance: how far a good landmark lies from its vertex
CORRELATION = 20.0  # so many neighbouring points err together and count as one
EXPRESSION_PRIOR = 0.2  # precision of the expression: people in photos smile more than sampled faces do
OUTLIER = 3.0  # in units of NOISE: from there on a point's pull grows no more


class LandmarkStep:
    """Callable (departure, points, camera, wanted, eye_distance, weights) -> change of z, for a batch of photos.

    z and its change (B, 183) are normalised identity and expression coefficients, in the order of the latent; departure
    (B, 183) is how far z is from what is expected of these faces, 0 being the mean head. The prior is that each is
    normally distributed about that, identity with variance 1 / `precision`, expression with more. points:
    (B, 468, 3) metres, where the shape has its landmarks (see `points`); wanted: (B, 468, 2) px; eye_distance: (B,) px;
    weights: (B, 468).
    """

    def __init__(
        self,
        model: MorphableModel,
        statistics: LatentStatistics,
        indices: list[int] | slice = slice(None),
        precision: float = 1.0,
    ) -> None:
        """`indices`: those of the face mesh's 468 points that are given and wanted; all, unless it says others.

        `precision`: of the prior of the identity; 1: as faces vary, see `GuidanceConfig.shape_prior`.
        """
        layout = LatentLayout()
        basis = torch.cat([model.identity_basis, model.expression_basis])  # (183, V, 3) metres
        self.shape = slice(layout.texture, layout.texture + len(basis))  # where z stands in the flat latent
        prior = torch.full((len(basis),), precision, dtype=torch.float64, device=basis.device)
        prior[layout.identity :] = EXPRESSION_PRIOR
        self._prior = prior
        basis = model.landmarks(basis)[:, indices]  # (183, 468, 3)
        mean = torch.einsum("knj,k->nj", basis, statistics.mean[self.shape])
        self._mean = model.landmarks(model.mean[None])[0, indices] + mean  # (468, 3)
        self._correlation = CORRELATION * len(self._mean) / LANDMARK_COUNT  # fewer points have fewer neighbours
        self._basis = (basis * statistics.std[self.shape, None, None]).permute(1, 2, 0).contiguous()  # (468, 3, 183)

    @torch.no_grad()
    def points(self, z: Tensor) -> Tensor:
        """(B, 183) normalised coefficients -> the landmarks on their surface (B, 468, 3), without the surface."""
        return self._mean + (z @ self._basis.flatten(0, 1).T).unflatten(1, self._mean.shape)

    @torch.no_grad()
    def __call__(
        self, departure: Tensor, points: Tensor, camera: Camera, wanted: Tensor, eye_distance: Tensor, weights: Tensor
    ) -> Tensor:
        in_camera = camera_from_world(camera, points)
        pixels = pixels_from_camera(camera, in_camera)[..., :2]
        x, y, depth = in_camera.unbind(2)  # (B, 468)
        scale = camera.focal[:, None] / depth
        zero = torch.zeros_like(x)
        by_camera = torch.stack([scale, zero, -scale * x / depth, zero, scale, -scale * y / depth], 2)
        by_camera = by_camera.unflatten(2, (2, 3))
        by_world = by_camera @ camera.rotation[:, None]  # (B, 468, 2, 3) px a metre
        unit = (NOISE * eye_distance)[:, None, None]
        by_shape = torch.einsum("bnij,njk->bnik", by_world, self._basis)  # (B, 468, 2, 183)
        # What a turn or a shift of the head explains is none of the shape's business: both are solved for together.
        turned = torch.stack([zero, -depth, y, depth, zero, -x, -y, x, zero], 2).unflatten(2, (3, 3))  # axes x point
        by_turn = by_camera @ turned.transpose(2, 3)
        jacobian = torch.cat([by_shape, by_turn, by_camera], 3) / unit[..., None]
        residual = (wanted - pixels) / unit
        trust = weights / self._correlation / (1 + residual.square().sum(2) / OUTLIER**2).sqrt()
        # In float32 the solution would hang on the order in which 936 products are summed.
        jacobian, residual = jacobian.flatten(1, 2).double(), residual.flatten(1)[..., None].double()
        weighted = (jacobian * trust.double().repeat_interleave(2, 1)[..., None]).transpose(1, 2)  # (B, 189, 936)
        count = departure.shape[1]
        prior = torch.cat([self._prior, jacobian.new_full((6,), 1e-6)])
        hessian = weighted @ jacobian + torch.diag(prior)
        gradient = weighted @ residual
        gradient[:, :count, 0] -= self._prior * departure
        # The prior keeps it regular: no check, which a GPU would be waited for.
        return torch.cholesky_solve(gradient, torch.linalg.cholesky_ex(hessian).L)[:, :count, 0].to(departure)
