"""The reflectance model that glTF engines use, so that what guidance saw is what the game shows.

glTF 2.0 appendix B: a Lambert base under a GGX layer mixed by Schlick's Fresnel, lit by one directional light
and a constant ambient. All radiance is linear RGB. Vectors are unit and in the view frame (x right, y up, z
towards the viewer). This file knows nothing of textures, triangles or pixels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .vectors import dot, unit

F0_MAX = 0.08  # reflectance at normal incidence where the stored specular albedo is 1
ROUGHNESS_MIN = 0.045  # below it the GGX lobe is narrower than a float32 dot product resolves
LOG_RADIANCE_RANGE = (-12.0, 6.0)  # keeps a light far from any real photo finite


@dataclass(frozen=True)
class Light:
    """Constant ambient light and one directional light, batched.

    Attributes:
        ambient: (B, 3) radiance L_a, linear RGB.
        directional: (B, 3) irradiance / pi L_d, linear RGB: a white Lambert surface facing the light has
            radiance L_d.
        direction: (B, 3) unit vector towards the light, view frame.
    """

    ambient: Tensor
    directional: Tensor
    direction: Tensor


def light_from_latent(illumination: Tensor) -> Light:
    """(B, 9) denormalised z_ill, log L_a | log L_d | direction of any length, -> Light. Differentiable."""
    if illumination.ndim != 2 or illumination.shape[1] != 9:
        raise ValueError(f"z_ill: got shape {tuple(illumination.shape)}; expected (B, 9); denormalise and split z")
    radiance = illumination[:, :6].clamp(*LOG_RADIANCE_RANGE).exp()
    direction = torch.nn.functional.normalize(illumination[:, 6:], dim=1, eps=1e-6)
    return Light(radiance[:, :3], radiance[:, 3:], direction)


def latent_from_light(light: Light) -> Tensor:
    """Inverse of `light_from_latent`: Light -> (B, 9), black radiance kept finite."""
    radiance = torch.cat([light.ambient, light.directional], 1).clamp_min(math.exp(LOG_RADIANCE_RANGE[0]))
    return torch.cat([radiance.log(), light.direction], 1)


def luminance(color: Tensor) -> Tensor:
    """(B, 3, H, W) linear RGB of Rec. 709 primaries -> (B, 1, H, W)."""
    red, green, blue = color.split(1, 1)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def srgb_from_linear(linear: Tensor) -> Tensor:
    """IEC 61966-2-1 encoding, negative light as 0; above 1 it goes on and the caller clamps."""
    bright = 1.055 * linear.clamp_min(0.0031308).pow(1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, bright, 12.92 * linear.clamp_min(0))


def linear_from_srgb(encoded: Tensor) -> Tensor:
    """IEC 61966-2-1 decoding; the inverse of `srgb_from_linear`."""
    bright = ((encoded.clamp_min(0.04045) + 0.055) / 1.055).pow(2.4)
    return torch.where(encoded > 0.04045, bright, encoded.clamp_min(0) / 12.92)


def shade_diffuse(albedo: Tensor, normal: Tensor, light: Light) -> Tensor:
    """Lambert alone, `shade` without its specular layer (F0 = 0 and no Fresnel); arguments as there."""
    ambient, directional, direction = light.ambient.T, light.directional.T, light.direction.T
    return albedo * (ambient + directional * dot(normal, direction).clamp_min(0))


def shade(albedo: Tensor, f0: Tensor, roughness: Tensor, normal: Tensor, view: Tensor, light: Light) -> Tensor:
    """Radiance towards the viewer, component-first.

        L = A_D (1 - F0) L_a + F0 L_a + pi f L_d max(n.l, 0)
        f = mix(A_D / pi, D V, F0 + (1 - F0)(1 - v.h)^5)         glTF 2.0, B.2.2 and B.3.4

    D is GGX with alpha = roughness^2 and V the height-correlated Smith visibility (Heitz 2014, eq. 99), as
    Filament and three.js have it.

    Args:
        albedo: (3, N) A_D, linear RGB in [0, 1].
        f0: (1, N) A_S, linear reflectance at normal incidence in [0, 0.08].
        roughness: (1, N) perceptual roughness in [0, 1]; below 0.045 it counts as 0.045.
        normal: (3, N) unit, view frame.
        view: (3, N) unit, towards the viewer, view frame.
        light: a row for every surface point, fields (N, 3), or one row for all, fields (1, 3).

    Returns:
        (3, N) linear RGB, >= 0, not bounded above.
    """
    ambient, directional, direction = light.ambient.T, light.directional.T, light.direction.T
    half = unit(direction + view)
    n_l = dot(normal, direction).clamp_min(0)  # (N,)
    n_v = dot(normal, view).clamp_min(1e-4)
    n_h = dot(normal, half).clamp(0, 1)
    v_h = dot(view, half).clamp(0, 1)

    squared = roughness[0].clamp_min(ROUGHNESS_MIN).pow(4)  # alpha^2
    lobe = n_h * n_h * (squared - 1) + 1
    distribution = squared / (math.pi * lobe * lobe)  # D
    smith_view = n_l * (n_v * n_v * (1 - squared) + squared).sqrt()
    smith_light = n_v * (n_l * n_l * (1 - squared) + squared).sqrt()
    visibility = 0.5 / (smith_view + smith_light)  # V
    fresnel = f0[0] + (1 - f0[0]) * (1 - v_h).pow(5)

    specular = math.pi * fresnel * distribution * visibility
    direct = (albedo * (1 - fresnel) + specular) * n_l
    return (albedo * (1 - f0) + f0) * ambient + direct * directional
