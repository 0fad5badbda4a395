"""The best linear denoiser of a Gaussian prior over z, in closed form: what the UNet only has to improve on.

If z_0 ~ N(mu, Sigma), the expected noise in z_t = sqrt(a) z_0 + sqrt(1-a) eps (a for alpha-bar) is

    E[eps | z_t] = sqrt(1-a) (a Sigma + (1-a) I)^-1 (z_t - sqrt(a) mu).

Sigma = U^T diag(v) U + s (I - U^T U), with the K rows of U orthonormal, makes the inverse two thin matrix
products. mu = U^T m, with m a ridge regression on the recogniser's features; without features m is zero.
`PriorRegression` gives m, v and s once a photo, `LinearDenoiser` uses them at every step, and
`linear_prior_from_data` measures everything, variances on samples that the fit has not seen.

Knows nothing of what z or the features mean.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .recogniser import IdentityFeatures

RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def pooled_inputs(features: IdentityFeatures, grid: int) -> Tensor:
    """The regression's inputs (B, D): the embedding and, with a grid, each map averaged over its cells."""
    pooled = [F.adaptive_avg_pool2d(m, grid).flatten(1) for m in features.maps] if grid else []
    return torch.cat([features.embedding, *pooled], dim=1).float()


@dataclass(frozen=True)
class LinearPriorFit:
    """What `linear_prior_from_data` measured. Variances are of held-out samples."""

    basis: Tensor  # (K, N) orthonormal rows
    variance_null: Tensor  # (K + 1,) along each row, and the mean over the rest, without features
    variance_conditional: Tensor  # (K + 1,) the same about the regression's mean
    regression: Tensor  # (K, D) on standardised inputs
    input_mean: Tensor  # (D,)
    input_std: Tensor  # (D,)
    ridge: Tensor  # (K,) the penalty chosen for each row; infinite where the features tell nothing

    @property
    def explained(self) -> float:
        """Share of the variance that the features explain, on held-out samples."""
        return 1 - float(self.variance_conditional[:-1].sum() / self.variance_null[:-1].sum())


class PriorRegression(nn.Module):
    """From the recogniser's features to the Gaussian's mean and variances along the basis.

    What labelled photographs taught beyond the fit (`training/calibrate_tone.py`) is zero where nobody asked them. A
    recogniser sees drawn faces and photographed ones far apart, and one line does not serve both: photo_weights (D,)
    and photo_level tell which a face is, tone_weights (D,) and tone_level by how much its tone is off if it is
    photographed, tone_direction (K,) what a change of tone is; told_weights (D,) and told_level that tone itself, of
    faces that are partly covered. bias (K,) is what they taught of all faces.
    """

    regression: Tensor
    bias: Tensor
    photo_weights: Tensor
    photo_level: Tensor
    tone_weights: Tensor
    tone_level: Tensor
    tone_direction: Tensor
    told_weights: Tensor
    told_level: Tensor
    input_mean: Tensor
    input_std: Tensor
    variance_null: Tensor
    variance_conditional: Tensor

    def __init__(self, components: int, inputs: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("regression", torch.zeros(components, inputs))
        for name, size in _told_by_photographs(components, inputs).items():
            self.register_buffer(name, torch.zeros(size))
        self.register_buffer("input_mean", torch.zeros(inputs))
        self.register_buffer("input_std", torch.ones(inputs))
        self.register_buffer("variance_null", torch.ones(components + 1))
        self.register_buffer("variance_conditional", torch.ones(components + 1))
        self.register_load_state_dict_pre_hook(_told_nothing)

    def forward(self, features: IdentityFeatures, present: Tensor) -> tuple[Tensor, Tensor]:
        """present (B,) 1 for a face, 0 for the unconditional prior -> mean (B, K), variances (B, K + 1)."""
        mean = self.mean(pooled_inputs(features, self.grid))
        given = present.to(mean)[:, None]
        variances = given * self.variance_conditional + (1 - given) * self.variance_null
        return given * mean, variances

    def mean(self, inputs: Tensor) -> Tensor:
        """`pooled_inputs` (B, D) of faces -> (B, K)."""
        x = (inputs - self.input_mean) / self.input_std
        tone = self.photographed(inputs) * (x @ self.tone_weights + self.tone_level)
        return F.linear(x, self.regression, self.bias) + tone[:, None] * self.tone_direction

    def photographed(self, inputs: Tensor) -> Tensor:
        """`pooled_inputs` (B, D) -> (B,) in [0, 1]: 1 for a photographed face, 0 for a drawn one; 1/2 if never told."""
        x = (inputs - self.input_mean) / self.input_std
        return torch.sigmoid(x @ self.photo_weights + self.photo_level)

    def told_tone(self, inputs: Tensor, covered: Tensor) -> tuple[Tensor, Tensor]:
        """How light photographs say that skins are, and how far that is to be believed.

        Args:
            inputs: (B, D) of `pooled_inputs`, of the faces as they are.
            covered: (B, D), of the same with parts covered; see `runtime/covered_views.py`.

        Returns:
            both (B,): the logarithm of the linear luminance of the face's albedo, on average; 0 for a drawn face, 1 for
            a photographed one, and 0 if never told.
        """
        x = (covered - self.input_mean) / self.input_std
        return x @ self.told_weights + self.told_level, self.photographed(inputs) * self.is_told

    @property
    def is_told(self) -> bool:
        """Whether labelled photographs have told tones."""
        return bool(self.told_level != 0)

    def forget_photographs(self) -> None:
        """As fitted: nothing that labelled photographs taught."""
        for name in _told_by_photographs(0, 0):
            self.get_buffer(name).zero_()


def _told_by_photographs(components: int, inputs: int) -> dict[str, tuple[int, ...]]:
    """The buffers that labelled photographs fill, and their sizes."""
    return {"bias": (components,), "photo_weights": (inputs,), "photo_level": (), "tone_weights": (inputs,),
            "tone_level": (), "tone_direction": (components,), "told_weights": (inputs,), "told_level": ()}  # fmt: skip


def _told_nothing(model: nn.Module, values: dict[str, Any], prefix: str, *_: Any) -> None:
    """Checkpoints of before have nothing from photographs."""
    for name in _told_by_photographs(0, 0):
        values.setdefault(f"{prefix}{name}", torch.zeros_like(model.get_buffer(name)))


class LinearDenoiser(nn.Module):
    """The closed form above, on flat latents (B, N). Always in float32, also under autocast."""

    basis: Tensor

    def __init__(self, components: int, size: int) -> None:
        super().__init__()
        self.register_buffer("basis", torch.eye(components, size))

    def forward(self, z_t: Tensor, alpha_bar: Tensor, mean: Tensor, variances: Tensor) -> Tensor:
        """z_t (B, N), alpha_bar (B, 1), mean (B, K), variances (B, K + 1) -> E[eps | z_t] (B, N)."""
        total = alpha_bar * variances + (1 - alpha_bar)  # (B, K + 1) variance of z_t
        rest = 1 / total[:, -1:]
        along = F.linear(z_t, self.basis)
        inside = (along - alpha_bar.sqrt() * mean) / total[:, :-1] - rest * along
        return (1 - alpha_bar).sqrt() * (rest * z_t + inside @ self.basis)

    def gain(self, direction: Tensor, alpha_bar: Tensor, variances: Tensor) -> Tensor:
        """Sigma (Sigma + (1-a)/a I)^-1 direction, (B, N) like it: the share of a change of z_0 that the prior lets
        through at this noise. The linear denoiser's own Jacobian, times sqrt(a).
        """
        gain = variances / (variances + (1 - alpha_bar) / alpha_bar)
        along = (gain[:, :-1] - gain[:, -1:]) * F.linear(direction, self.basis)
        return gain[:, -1:] * direction + along @ self.basis

    def diffused_sample(self, noise: Tensor, alpha_bar: Tensor, mean: Tensor, variances: Tensor) -> Tensor:
        """White noise (B, N) -> a sample of N(sqrt(a) mu, a Sigma + (1-a) I), the prior's own z_t.

        The right start of sampling, because the schedule ends a little short of pure noise; a = 1 samples the
        prior itself.
        """
        deviation = (alpha_bar * variances + (1 - alpha_bar)).sqrt()
        rest = deviation[:, -1:]
        along = (deviation[:, :-1] - rest) * F.linear(noise, self.basis) + alpha_bar.sqrt() * mean
        return rest * noise + along @ self.basis


def linear_prior_from_data(
    z_0: Tensor,
    inputs: Tensor,
    components: int,
    complete: int = 0,
    ridges: tuple[float, ...] = RIDGES,
    groups: Tensor | None = None,
    folds: int = 4,
    seed: int = 0,
) -> LinearPriorFit:
    """Fit basis, regression and variances to normalised latents.

    Args:
        z_0: (P, N) latents of zero mean.
        inputs: (P, D) from `pooled_inputs`.
        components: K, rows of the basis.
        complete: the last so many elements of z lie wholly inside the basis (shape and light: each of them is
            of unit variance and independent of its neighbours, which no few components could hold).
        ridges: candidates, in units of the mean variance of a standardised input. Each row of the basis takes
            the one that predicts best on held-out samples, "no prediction" among them.
        groups: (P,) samples of one group (photos with the same maps) are never split between fit and test.
        folds: of the cross-validation.
        seed: of the folds.

    Raises:
        ValueError: fewer components than complete elements, more than elements, or fewer groups than folds.
    """
    count, size = z_0.shape
    if not complete <= components <= size:
        raise ValueError(f"linear prior: got {components} components; expected {complete}..{size}")
    groups = torch.arange(count) if groups is None else groups
    labels, member = groups.unique(return_inverse=True)
    if len(labels) < folds:
        raise ValueError(f"linear prior: got {len(labels)} groups of samples; expected at least {folds}")
    generator = torch.Generator().manual_seed(seed)
    fold = (torch.randperm(len(labels), generator=generator) % folds)[member]

    members = [(fold == k).nonzero().squeeze(1) for k in range(folds)]
    moments = [z_0[index].T @ z_0[index] for index in members]
    whole = torch.stack(moments).sum(0)
    null, rest = torch.zeros(components), 0.0
    error = torch.zeros(len(ridges) + 1, components)
    candidates = torch.tensor([*ridges, math.inf])
    for k, index in enumerate(members):
        train = (fold != k).nonzero().squeeze(1)
        basis = _leading_basis(whole - moments[k], components, complete, generator)
        coefficients = z_0[index] @ basis.T
        null += coefficients.square().sum(0)
        rest += float(z_0[index].square().sum() - coefficients.square().sum())
        solver = _Ridge(inputs[train], z_0[train] @ basis.T)
        for row, ridge in enumerate(candidates):
            error[row] += (coefficients - solver.predict(inputs[index], ridge)).square().sum(0)

    best = error.argmin(0)  # (K,)
    ridge = candidates[best]
    basis = _leading_basis(whole, components, complete, generator)
    solver = _Ridge(inputs, z_0 @ basis.T)
    regression = solver.weights(ridge).T.contiguous()
    residual = torch.tensor([max(rest / (count * max(size - components, 1)), 1e-6)])
    conditional = error.gather(0, best[None])[0] / count
    return LinearPriorFit(
        basis=basis,
        variance_null=torch.cat([null / count, residual]).clamp(min=1e-6),
        variance_conditional=torch.cat([conditional, residual]).clamp(min=1e-6),
        regression=regression,
        input_mean=solver.mean,
        input_std=solver.std,
        ridge=ridge,
    )


class _Ridge:
    """Ridge regression for any penalty after one eigendecomposition."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.mean, self.std = inputs.mean(0), inputs.std(0).clamp(min=1e-6)
        x = self._standardised(inputs)
        self.values, self.vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
        self.projected = self.vectors.T @ (x.T @ targets / len(x)).double()  # (D, K)

    def _standardised(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) / self.std

    def weights(self, ridge: Tensor) -> Tensor:
        """(D, K) float32 on standardised inputs, for one penalty or one of each target (K,)."""
        return (self.vectors @ (self.projected / (self.values.clamp(min=0)[:, None] + ridge))).float()

    def predict(self, inputs: Tensor, ridge: Tensor) -> Tensor:
        return self._standardised(inputs) @ self.weights(ridge)


def _leading_basis(moment: Tensor, components: int, complete: int, generator: torch.Generator) -> Tensor:
    """(K, N) principal axes of the second moment (N, N), with the last `complete` elements wholly inside."""
    size = len(moment)
    spatial = size - complete
    wanted = components - complete
    columns = min(spatial, wanted + 32)
    q = torch.linalg.qr(torch.randn(spatial, columns, generator=generator)).Q
    for _ in range(8):  # subspace iteration (Halko et al. 2011, algorithm 4.4)
        q = torch.linalg.qr(moment[:spatial, :spatial] @ q).Q
    _, rotation = torch.linalg.eigh(q.T @ moment[:spatial, :spatial] @ q)
    span = torch.zeros(components, size)
    span[:wanted, :spatial] = (q @ rotation.flip(1)[:, :wanted]).T
    span[wanted:, spatial:] = torch.eye(complete)
    _, rotation = torch.linalg.eigh(span @ moment @ span.T)
    return torch.linalg.qr((rotation.flip(1).T @ span).T).Q.T.contiguous()
