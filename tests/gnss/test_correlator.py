"""Code-loop errors against recorded envelopes and against the zero of a discriminator written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gnss_cities import GOLDEN
from scipy.optimize import brentq

from jaxalign.core.errors import UserError
from jaxalign.gnss.correlator import multipath_error, tracking_noise

AMPLITUDES, SPACINGS = (0.1, 0.3, 0.5, 0.8), (1.0, 0.5, 0.2, 0.1)


def test_recorded_envelopes():
    with np.load(GOLDEN / "dll_envelope_bpsk.npz") as file:
        delay = jnp.asarray(file["delay_chips"], jnp.float32)
        for spacing in SPACINGS:
            for amplitude in AMPLITUDES:
                for sign, name in ((1, "in"), (-1, "out")):
                    found = multipath_error(jnp.float32(sign * amplitude), delay, spacing)
                    np.testing.assert_allclose(found, file[f"a{amplitude}_d{spacing}_{name}"], atol=1e-6)


def test_it_is_the_zero_of_the_discriminator():
    def triangle(t):
        return max(0.0, 1.0 - abs(t))

    def discriminator(error, amplitude, delay, spacing):
        early, late = error - spacing / 2, error + spacing / 2
        return sum(a * (triangle(early - t) - triangle(late - t)) for a, t in ((1.0, 0.0), (amplitude, delay)))

    for amplitude in (-0.7, -0.35, 0.2, 0.6):
        for delay in (0.05, 0.3, 0.7, 1.1, 1.5):
            zero = brentq(discriminator, -0.49, 0.49, args=(amplitude, delay, 0.5))
            found = multipath_error(jnp.float32(amplitude), jnp.float32(delay), 0.5)
            assert abs(found - zero) < 1e-5, (amplitude, delay)


def test_recorded_noise():
    with np.load(GOLDEN / "dll_noise.npz") as file, jax.enable_x64(True):
        sigma = tracking_noise(
            jnp.asarray(file["cn0_dbhz"], float),
            299_792_458.0 / 1.023e6,
            bandwidth_hz=float(file["Bn"]),
            spacing=float(file["d_chips"]),
            integration_s=float(file["T"]),
        )
        np.testing.assert_allclose(sigma, file["sigma_m"], rtol=1e-9)


@pytest.mark.parametrize("spacing", [0.0, 1.5])
def test_a_spacing_that_the_formula_does_not_cover(spacing):
    with pytest.raises(UserError, match="spacing"):
        multipath_error(jnp.float32(0.5), jnp.float32(0.1), spacing)
