"""The learned ablation finds a bias that the database knows."""

import jax
import numpy as np
from gnss_tables import GAUSSIAN, table

from jaxalign.gnss import learned
from jaxalign.gnss.correction import Reason


def test_a_network_learns_a_bias_that_depends_on_the_place():
    outdoor = np.ones((20, 20), bool)
    east = (np.arange(400) % 20 >= 10).astype(float)
    database = table(outdoor, np.stack([12 * east, 0 * east], axis=1), [[1.0, 0.0, 1.0]] * 400)
    training = learned.Training(hidden=32, steps=200, batch=256)
    model = learned.train(jax.random.key(0), database, 0, training, GAUSSIAN._replace(model_m=0.5))
    truth = np.array([[10.0, 30.0], [45.0, 20.0], [40.0, 40.0], [20.0, 50.0]])
    fix = np.column_stack([truth + np.stack([12 * (truth[:, 0] > 30), 0 * truth[:, 0]], axis=1), np.zeros(4)])
    answer = learned.correct(model, np.concatenate([fix, [[-9.0, 0.0, 0.0], [np.nan, 0.0, 0.0]]]))
    np.testing.assert_array_equal(answer.reason, [0, 0, 0, 0, Reason.OUTSIDE_GRID, Reason.NO_FIX])
    assert np.abs(answer.pos_m[:4] - truth).max() < 3.0
    assert np.isnan(answer.covariance_m2[4:]).all()
