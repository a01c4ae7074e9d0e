"""Reflection at building materials: ITU permittivities, Fresnel coefficients, circular polarisation.

    eta = a f^b - i c f^d / (2 pi f eps0)        f in GHz inside the powers
    q = sqrt(eta - sin^2),  r_TE = (cos - q) / (cos + q),  r_TM = (eta cos - q) / (eta cos + q)
    same hand (r_TE + r_TM) / 2,  flipped hand (r_TE - r_TM) / 2

with the angle of incidence measured from the normal. Source of the table: ITU-R P.2040.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from jaxalign.core.errors import UserError

VACUUM_PERMITTIVITY = 8.8541878128e-12


class Material(NamedTuple):
    """Relative permittivity a f^b and conductivity c f^d (S/m), f in GHz."""

    a: float
    b: float
    c: float
    d: float


MATERIALS = {
    "concrete": Material(5.24, 0.0, 0.0462, 0.7822),
    "brick": Material(3.91, 0.0, 0.0238, 0.16),
    "glass": Material(6.31, 0.0, 0.0036, 1.3394),
    "marble": Material(7.074, 0.0, 0.0055, 0.9262),
    "wood": Material(1.99, 0.0, 0.0047, 1.0718),
    "metal": Material(1.0, 0.0, 1e7, 0.0),
    "medium_dry_ground": Material(15.0, -0.1, 0.035, 1.63),
    "wet_ground": Material(30.0, -0.4, 0.15, 1.30),
}


def permittivity(names: Sequence[str], frequency_hz: float) -> Complex[np.ndarray, " n"]:
    """Complex relative permittivity of materials by name.

    Raises:
        UserError: an unknown name.
    """
    unknown = sorted({*names} - {*MATERIALS})
    if unknown:
        raise UserError(f"Material {unknown[0]!r} is not known; choose from {', '.join(MATERIALS)}.")
    a, b, c, d = np.array([MATERIALS[name] for name in names]).reshape(-1, 4).T
    gigahertz = frequency_hz / 1e9
    return a * gigahertz**b - 1j * c * gigahertz**d / (2 * np.pi * frequency_hz * VACUUM_PERMITTIVITY)


def fresnel(eta: Complex[Array, "..."], cos_incidence: Float[Array, "..."]) -> tuple[Array, Array]:
    """r_TE and r_TM of a half-space."""
    q = jnp.sqrt(eta - (1 - cos_incidence**2))
    return (cos_incidence - q) / (cos_incidence + q), (eta * cos_incidence - q) / (eta * cos_incidence + q)


def slab(
    eta: Complex[Array, "..."], cos_incidence: Float[Array, "..."], thickness_m: Array | float, wavelength_m: float
) -> tuple[Array, Array]:
    """r_TE and r_TM of a plate in air.

    r (1 - e^(-2 i psi)) / (1 - r^2 e^(-2 i psi)) with psi = 2 pi thickness q / lambda.
    """
    q = jnp.sqrt(eta - (1 - cos_incidence**2))
    there_and_back = jnp.exp(-4j * jnp.pi * (thickness_m / wavelength_m) * q)
    te, tm = (r * (1 - there_and_back) / (1 - r**2 * there_and_back) for r in fresnel(eta, cos_incidence))
    return te, tm


def circular(te: Complex[Array, "..."], tm: Complex[Array, "..."]) -> tuple[Array, Array]:
    """Coefficients from right-hand circular to the same and to the flipped hand."""
    return (te + tm) / 2, (te - tm) / 2


def roughness(cos_incidence: Float[Array, "..."], height_m: float, wavelength_m: float) -> Float[Array, "..."]:
    """Amplitude that stays specular, exp(-(4 pi s cos / lambda)^2 / 2), for heights of standard deviation s."""
    return jnp.exp(-0.5 * (4 * jnp.pi * height_m * cos_incidence / wavelength_m) ** 2)


def echo_amplitude(
    eta: Complex[Array, "..."], cos_incidence: Float[Array, "..."], flipped_rejection_db: Array | float
) -> Float[Array, "..."]:
    """Amplitude of an echo after a right-hand antenna, relative to the direct signal.

    The two hands add in power, since their relative phase depends on the antenna.

    Args:
        eta: permittivity of the wall.
        cos_incidence: of the angle to the wall's normal.
        flipped_rejection_db: by how much the antenna is less sensitive to the flipped hand.
    """
    same, flipped = circular(*fresnel(eta, cos_incidence))
    return jnp.sqrt(jnp.abs(same) ** 2 + jnp.abs(flipped) ** 2 * 10 ** (-flipped_rejection_db / 10))
