"""The measurement model: which signal is tracked, how strong, how wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.gnss.channel import Receiver, channel, draw_errors, echo_amplitudes, open_sky_cn0
from jaxalign.gnss.correlator import multipath_error
from jaxalign.gnss.diffraction import HIDDEN_NU, knife_edge_loss_db
from jaxalign.gnss.materials import echo_amplitude, permittivity
from jaxalign.gnss.reflection import Echoes

UP = jnp.array([[0.0, 0.6, 0.8]])
OPEN_SKY = 44.0 + 3.0 - 9.0 * 0.2  # -157 + 3 - 9 (1 - sin E) + 204 - 3


def one(value, dtype=jnp.float32):
    """[T 1, S 1, C n] of a list."""
    return jnp.asarray(value, dtype)[None, None]


@pytest.fixture(scope="module")
def arrivals():
    """Receivers: open sky; direct and echo; echo only; nothing; echo too weak to be tracked."""
    blocked = one([False, False, True, True, True], bool)
    excess = one([[jnp.inf, 30.0, 40.0, jnp.inf, 40.0], [jnp.inf, 50.0, 20.0, jnp.inf, jnp.inf]])
    amplitude = one([[0.0, 0.4, 0.3, 0.0, 0.05], [0.0, 0.2, 0.2, 0.0, 0.0]])
    return channel(UP, blocked, excess, amplitude)


def test_which_signal_is_tracked(arrivals):
    np.testing.assert_array_equal(arrivals.tracked[0, 0], [True, True, True, False, False])
    np.testing.assert_array_equal(arrivals.direct[0, 0], [True, True, False, False, False])
    np.testing.assert_allclose(arrivals.bias_m[0, 0], [0, 0, 40, 0, 0])
    np.testing.assert_allclose(arrivals.echo_delay_m[0, 0], [0, 30, 0, 0, 0])
    np.testing.assert_allclose(arrivals.echo_amplitude[0, 0], [0, 0.4, 0, 0, 0])
    strength = [OPEN_SKY, OPEN_SKY, OPEN_SKY + 20 * np.log10(0.3), -np.inf, OPEN_SKY + 20 * np.log10(0.05)]
    np.testing.assert_allclose(arrivals.cn0_dbhz[0, 0], strength, rtol=1e-5)
    assert not any(np.isnan(part).any() for part in arrivals)


@pytest.mark.parametrize("shared", [False, True])
def test_draws_have_the_bias_the_spread_and_the_envelope_of_the_model(arrivals, shared):
    errors = np.asarray(draw_errors(jax.random.key(0), arrivals, Receiver(), 20_000, shared=shared))[:, 0, 0]
    sigma = np.asarray(arrivals.sigma_m)[0, 0]
    assert (errors[:, 3:] == 0).all()
    for place in (0, 2):
        np.testing.assert_allclose(errors[:, place].mean(), arrivals.bias_m[0, 0, place], atol=4 * sigma[place] / 141)
        np.testing.assert_allclose(errors[:, place].std(), sigma[place], rtol=0.03)
    phase = np.linspace(0, 2 * np.pi, 4096, endpoint=False)
    multipath = 293.05 * multipath_error(jnp.asarray(0.4 * np.cos(phase), jnp.float32), jnp.float32(30 / 293.05), 0.5)
    expected = np.hypot(np.std(multipath), sigma[1])
    np.testing.assert_allclose(errors[:, 1].std(), expected, rtol=0.03)
    np.testing.assert_allclose(errors[:, 1].mean(), np.mean(multipath), atol=4 * expected / 141)
    assert expected > 2 * sigma[1]


def test_a_roof_edge_fades_the_direct_signal(arrivals):
    nu = jnp.array([-10.0, 0.0, 1.5, 6.0, HIDDEN_NU])
    nothing = jnp.full((1, 1, 2, 5), jnp.inf)
    soft = channel(UP, one([False, False, True, True, True], bool), nothing, 0 * jnp.ones_like(nothing),
                   edge=(nu[None, None], one([0.0, 0.0, 0.2, 3.0, 0.0])))  # fmt: skip
    np.testing.assert_allclose(soft.cn0_dbhz[0, 0], OPEN_SKY - knife_edge_loss_db(nu), rtol=1e-5)
    np.testing.assert_array_equal(soft.tracked[0, 0], [True, True, True, False, False])
    np.testing.assert_allclose(soft.bias_m[0, 0], [0, 0, 0.2, 0, 0])


def test_open_sky_and_the_horizon():
    cn0 = open_sky_cn0(jnp.array([0.1745, 0.785, 1.5708]))
    assert 38 < cn0[0] < 41 < 43 < cn0[1] < cn0[2] < 50
    free, echoes = one([False] * 5, bool), jnp.ones((1, 1, 2, 5))
    below = channel(jnp.array([[0.0, 0.8, -0.6]]), free, echoes, echoes)
    assert not below.tracked.any()


def test_amplitudes_follow_the_walls():
    walls = jnp.asarray(permittivity(["concrete", "glass", "metal"], 1575.42e6), jnp.complex64)
    wall, second = jnp.array([0, 1, 2, 0, -1])[None, None, None], jnp.array([-1, -1, -1, 2, -1])[None, None, None]
    ones = jnp.ones_like(wall, jnp.float32)
    echoes = Echoes(30 * ones, 0.9 * ones, 0.8 * ones, wall, second, jnp.zeros((1, 1, 5), int))
    found = np.asarray(echo_amplitudes(echoes, walls))[0, 0, 0]
    single = np.asarray(echo_amplitude(walls, jnp.float32(0.9), 4.0))
    np.testing.assert_allclose(found[:3], single, rtol=1e-5)
    np.testing.assert_allclose(found[3], np.asarray(echo_amplitude(walls[:1], jnp.float32(0.9), 0.0))[0], rtol=1e-3)
    assert found[4] == 0
