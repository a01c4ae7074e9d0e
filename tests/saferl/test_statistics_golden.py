"""Running statistics: OmniSafe's recorded normalisers where the definitions agree, numpy over everything seen so far.

OmniSafe adds a batch to its statistics before it normalises that batch; `RunningStatistics` leaves the order to the
caller, and these tests add first. The learner does not: see `jaxalign.saferl.onpolicy`.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.core import RunningStatistics

GOLDEN = Path(__file__).parent.parent / "golden" / "saferl"
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize(
    ("name", "calls", "size"),
    [("normalizer_vector_clip5", 5, 3), ("normalizer_single_env", 6, 3), ("normalizer_scalar_reward", 5, 1)],
)
def test_statistics_and_normalised_batches_are_the_recorded_ones(name, calls, size):
    data = np.load(GOLDEN / f"{name}.npz")
    assert sum(key.startswith("in_") for key in data.files) == calls
    statistics = RunningStatistics.empty(size)
    for i in range(calls):
        x = jnp.asarray(data[f"in_{i}"]).reshape(-1, size)
        statistics = statistics.update(x)
        assert float(statistics.samples) == data[f"count_{i}"]
        np.testing.assert_allclose(statistics.mean, data[f"mean_{i}"].reshape(size), **CLOSE)
        np.testing.assert_allclose(statistics.normalise(x), data[f"out_{i}"].reshape(-1, size), **CLOSE)
        if statistics.samples > 1:  # OmniSafe's standard deviation of one sample is NaN
            np.testing.assert_allclose(statistics.std(), data[f"std_{i}"].reshape(size), **CLOSE)
        if f"var_{i}" in data.files:
            variance = statistics.deviation / (statistics.samples - 1)
            np.testing.assert_allclose(variance, data[f"var_{i}"], **CLOSE)


def test_the_recorded_batches_are_clipped_somewhere():
    data = np.load(GOLDEN / "normalizer_vector_clip5.npz")
    statistics = RunningStatistics.empty(3).update(jnp.asarray(data["in_0"]))
    far = jnp.asarray(data["in_3"])
    assert np.abs(statistics.normalise(far)).max() == 5.0
    assert np.abs(statistics.normalise(far, clip=2.0)).max() == 2.0


def test_a_first_sample_is_clipped_but_not_centred():
    """Deviation from OmniSafe, which passes it unchanged."""
    x = jnp.array([[-7.0, 0.25, 7.0]])
    for statistics in (RunningStatistics.empty(3), RunningStatistics.empty(3).update(x)):
        np.testing.assert_array_equal(statistics.normalise(x), [[-5.0, 0.25, 5.0]])


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_nothing_is_ignored_whatever_the_shape_of_a_batch(offset):
    rng = np.random.default_rng(0)
    shapes = [(7, 3, 2), (1, 2), (2,), (40, 8, 2), (1, 1, 2), (5, 2)]
    batches = [(offset + rng.normal(i, 1 + i, shape)).astype(np.float32) for i, shape in enumerate(shapes)]
    # a mean of 1000 in single precision is known to 3e-5 only, absolutely, and deviations of order 1 accordingly
    close = CLOSE if offset == 0.0 else {"rtol": 1e-4, "atol": 1e-4}
    statistics, update = RunningStatistics.empty(2), jax.jit(RunningStatistics.update)
    seen = np.zeros((0, 2))
    for batch in batches:
        statistics = update(statistics, jnp.asarray(batch))
        seen = np.concatenate([seen, batch.reshape(-1, 2).astype(np.float64)])
        assert float(statistics.samples) == len(seen)
        np.testing.assert_allclose(statistics.mean, seen.mean(0), **CLOSE)
        np.testing.assert_allclose(statistics.deviation, np.square(seen - seen.mean(0)).sum(0), **close)
    np.testing.assert_allclose(statistics.std(), seen.std(0, ddof=1), **CLOSE)
    x = jnp.asarray(batches[3])
    expected = np.clip((batches[3].astype(np.float64) - seen.mean(0)) / seen.std(0, ddof=1), -5.0, 5.0)
    np.testing.assert_allclose(statistics.normalise(x), expected, **close)


def test_one_batch_or_its_parts_in_any_order_give_the_same():
    x = jnp.asarray(np.random.default_rng(1).normal(3.0, 2.0, (30, 4)).astype(np.float32))
    whole = RunningStatistics.empty(4).update(x)
    parts = RunningStatistics.empty(4).update(x[25:]).update(x[:11]).update(x[11:25])
    assert float(parts.samples) == float(whole.samples) == 30.0
    np.testing.assert_allclose(parts.mean, whole.mean, **CLOSE)
    np.testing.assert_allclose(parts.deviation, whole.deviation, **CLOSE)


def test_the_standard_deviation_of_a_constant_is_floored():
    statistics = RunningStatistics.empty(2).update(jnp.array([[3.0, 0.0], [3.0, 1.0]]))
    np.testing.assert_allclose(statistics.std(), [0.01, np.sqrt(0.5)], rtol=1e-6)
    np.testing.assert_allclose(statistics.normalise(jnp.array([3.02, 0.5])), [2.0, 0.0], rtol=1e-4, atol=1e-6)
