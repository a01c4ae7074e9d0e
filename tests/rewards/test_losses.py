"""Preference losses against closed forms in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.core.errors import UserError
from jaxalign.rewards import FAMILY, preference

D = np.array([-30.0, -2.0, -0.5, 0.0, 0.3, 1.0, 4.0, 30.0])
CLOSED = {
    "bradley_terry": lambda d, m: np.logaddexp(0.0, m - d),
    "log_exp": lambda d, m: np.log(1.0 + np.exp(m - d)),
    "hinge": lambda d, m: np.maximum(0.0, 1.0 + m - d),
    "ipo": lambda d, m: (d - m - 0.5) ** 2,
    "exponential": lambda d, m: np.exp(m - d),
}
SLOPE_AT_0 = {"bradley_terry": -0.5, "log_exp": -0.5, "hinge": -1.0, "ipo": -1.0, "exponential": -1.0}


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("margin", [0.0, 1.5])
def test_closed_forms(name, margin):
    found = preference(name)(jnp.asarray(D, jnp.float32), jnp.full(D.shape, margin))
    np.testing.assert_allclose(found, CLOSED[name](D, margin), rtol=1e-5, atol=1e-7)
    assert found.dtype == jnp.float32


@pytest.mark.parametrize("name", FAMILY)
def test_slopes_pull_the_chosen_up_and_stay_finite(name):
    slope = jax.grad(lambda d: FAMILY[name](d, jnp.zeros(())))
    np.testing.assert_allclose(slope(jnp.float32(0.0)), SLOPE_AT_0[name], rtol=1e-6)
    assert np.isfinite([slope(jnp.float32(d)) for d in (-80.0, 80.0)]).all()


def test_unknown_names():
    with pytest.raises(UserError, match="no preference loss 'dpo'; choose one of bradley_terry"):
        preference("dpo")
