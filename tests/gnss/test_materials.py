"""Reflection coefficients against Sionna RT's recorded ones and against limits known from textbooks."""

import jax.numpy as jnp
import numpy as np
import pytest
from gnss_cities import GOLDEN

from jaxalign.core.errors import UserError
from jaxalign.gnss.materials import MATERIALS, circular, echo_amplitude, fresnel, permittivity, roughness, slab

BANDS = {"L1_E1_B1C": 1575.42e6, "L5_E5a": 1176.45e6, "B1I": 1561.098e6}
L1_M = 299_792_458.0 / 1575.42e6


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN / "fresnel_itu.npz") as file:
        return dict(file)


@pytest.mark.parametrize("band", BANDS)
def test_all_materials_as_sionna(recorded, band):
    eta = permittivity(list(MATERIALS), BANDS[band])
    wanted = [np.stack([recorded[f"{band}_{name}_{what}"] for name in MATERIALS]) for what in ("eps", "rTE", "rTM")]
    conductivity = -eta.imag * 2 * np.pi * BANDS[band] * 8.8541878128e-12
    np.testing.assert_allclose(np.stack([eta.real, conductivity], axis=1), wanted[0], rtol=1e-5)
    cosine = jnp.cos(jnp.asarray(recorded["theta_inc_rad"], jnp.float32))
    te, tm = fresnel(jnp.asarray(eta, jnp.complex64)[:, None], cosine)
    np.testing.assert_allclose(te, wanted[1], atol=1e-5)
    np.testing.assert_allclose(tm, wanted[2], atol=1e-5)


def test_metal_flips_the_hand_and_loses_nothing():
    eta = jnp.asarray(permittivity(["metal"], 1575.42e6), jnp.complex64)
    same, flipped = circular(*fresnel(eta, jnp.float32(0.9)))
    np.testing.assert_allclose(np.abs(flipped), 1.0, atol=1e-3)
    np.testing.assert_allclose(np.abs(same), 0.0, atol=1e-3)


def test_a_thick_lossy_plate_is_a_half_space_and_no_plate_is_nothing():
    eta, cosine = jnp.asarray(permittivity(["concrete"], 1575.42e6), jnp.complex64), jnp.float32(0.7)
    for plate, space in zip(slab(eta, cosine, 3.0, L1_M), fresnel(eta, cosine)):
        np.testing.assert_allclose(plate, space, atol=1e-4)
    np.testing.assert_allclose(np.abs(slab(eta, cosine, 0.0, L1_M)), 0.0, atol=1e-6)


def test_glass_panes_in_decibel():
    """Echo of 3, 6 and 8 mm panes at normal incidence: -12.0, -7.0 and -5.3 dB."""
    eta = jnp.asarray(permittivity(["glass"], 1575.42e6), jnp.complex64)
    loss = [20 * np.log10(np.abs(slab(eta, jnp.float32(1.0), t, L1_M)[0]))[0] for t in (0.003, 0.006, 0.008)]
    np.testing.assert_allclose(loss, [-12.0, -7.0, -5.3], atol=0.06)


def test_amplitude_of_an_echo():
    eta = jnp.asarray(permittivity(["concrete"], 1575.42e6), jnp.complex64)
    straight = echo_amplitude(eta, jnp.float32(1.0), 0.0)  # at normal incidence all is flipped
    np.testing.assert_allclose(20 * np.log10(straight), -8.1, atol=0.1)
    np.testing.assert_allclose(echo_amplitude(eta, jnp.float32(1.0), 6.0) / straight, 10 ** (-6 / 20), rtol=1e-5)
    np.testing.assert_allclose(20 * np.log10(roughness(jnp.float32(1.0), 0.02, L1_M)), -7.6, atol=0.1)


def test_unknown_material_is_named():
    with pytest.raises(UserError, match="'cheese' is not known"):
        permittivity(["brick", "cheese"], 1575.42e6)
