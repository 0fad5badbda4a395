"""The landmark term's own step: Gauss and Newton on the shape coefficients.

G_lan is a least-squares problem in a linear model behind a camera; its plain gradient crawls along the few directions
that move many points. One damped Gauss-Newton step, with the coefficients' prior as damping, goes where fifty gradient
steps would. Knows nothing of textures, networks or the sampling loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.latent import LatentLayout, LatentStatistics
from ..models.morphable import MorphableModel
from ..rendering.camera import Camera, camera_from_world, pixels_from_camera

NOISE = 0.03  # of the eye distance: how far a good landmark lies from its vertex
CORRELATION = 20.0  # so many neighbouring points err together and count as one
OUTLIER = 3.0  # in units of NOISE: from there on a point's pull grows no more


class LandmarkStep:
    """Callable (z, vertices (1, V, 3), camera, wanted (1, 468, 2) px, eye distance px, weights (468,)) -> change of z.

    z and its change (183,) are normalised identity and expression coefficients, in the order of the latent. The prior
    is that each is normally distributed about 0 with unit variance.
    """

    def __init__(self, model: MorphableModel, statistics: LatentStatistics) -> None:
        layout = LatentLayout()
        basis = torch.cat([model.identity_basis, model.expression_basis])  # (183, V, 3) metres
        shape = slice(layout.texture, layout.texture + len(basis))
        corners = basis[:, model.triangles[model.landmark_triangles]]  # (183, 468, 3, 3)
        points = (corners * model.landmark_barycentrics[..., None]).sum(2)  # (183, 468, 3)
        self.model = model
        self.basis = points * statistics.std[shape, None, None]

    @torch.no_grad()
    def __call__(
        self, z: Tensor, vertices: Tensor, camera: Camera, wanted: Tensor, eye_distance: float, weights: Tensor
    ) -> Tensor:
        in_camera = camera_from_world(camera, self.model.landmarks(vertices))
        pixels = pixels_from_camera(camera, in_camera)[0, :, :2]
        x, y, depth = in_camera[0].unbind(1)
        scale = camera.focal / depth
        zero = torch.zeros_like(x)
        by_camera = torch.stack([scale, zero, -scale * x / depth, zero, scale, -scale * y / depth], 1).view(-1, 2, 3)
        by_world = by_camera @ camera.rotation[0]  # (468, 2, 3) px a metre
        unit = NOISE * eye_distance
        by_shape = torch.einsum("nij,knj->nik", by_world, self.basis)  # (468, 2, 183)
        # What a turn or a shift of the head explains is none of the shape's business: both are solved for together.
        axes = torch.eye(3, dtype=x.dtype, device=x.device)
        turned = torch.cross(axes.expand(len(x), 3, 3), in_camera[0][:, None].expand(-1, 3, -1), dim=2)
        by_turn = by_camera @ turned.transpose(1, 2)
        jacobian = torch.cat([by_shape, by_turn, by_camera], 2) / unit
        residual = (wanted[0] - pixels) / unit
        trust = weights / CORRELATION / (1 + residual.square().sum(1) / OUTLIER**2).sqrt()
        weighted = jacobian * trust[:, None, None]
        prior = torch.cat([z.new_ones(len(z)), z.new_full((6,), 1e-6)])
        hessian = torch.einsum("nik,nil->kl", weighted, jacobian) + torch.diag(prior)
        gradient = torch.einsum("nik,ni->k", weighted, residual)
        gradient[: len(z)] -= z
        # The prior keeps it regular: no check, which a GPU would be waited for.
        return torch.linalg.solve_ex(hessian, gradient).result[: len(z)]
