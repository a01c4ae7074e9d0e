"""Advantages: OmniSafe's recorded numbers, a case by hand, and what the problem makes of them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxalign.core import Gaussian
from jaxalign.saferl.constraints import LagrangeState, lagrangian, unconstrained
from jaxalign.saferl.estimators import gae
from jaxalign.saferl.onpolicy import CriticFit, Parts, make_problem
from jaxalign.saferl.policy_steps import first_order
from jaxalign.saferl.rollout import Transition
from jaxalign.saferl.surrogates import clipped, ratio

GOLDEN = Path(__file__).parent.parent / "golden" / "saferl"
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def recorded(name, penalty=0.0):
    """The file, and the estimator's arguments: reward and cost are the two channels."""
    data = np.load(GOLDEN / f"{name}.npz")
    value = np.stack([data["value_r"], data["value_c"]], -1)
    bootstrap = np.stack([data["bootstrap_r"], data["bootstrap_c"]], -1)
    # the value of a terminal observation must not matter, so it is absurd here
    next_value = np.concatenate([value[1:], np.full_like(value[:1], np.nan)])
    next_value = np.where(data["truncated"][..., None], bootstrap, next_value)
    next_value = np.where(data["terminated"][..., None], 1e4, next_value)
    signal = np.stack([data["reward"] - penalty * data["cost"], data["cost"]], -1)
    return data, [jnp.asarray(x) for x in (signal, value, next_value, data["terminated"], data["truncated"])]


def decays(data):
    return float(data["gamma"]), [float(data["lam"]), float(data["lam_c"])]


def test_gae_reproduces_the_recorded_advantages_and_targets():
    data, arguments = recorded("advantage_gae")
    advantage, target = gae(*decays(data))(*arguments)
    np.testing.assert_allclose(advantage[..., 0], data["adv_r"], **CLOSE)
    np.testing.assert_allclose(advantage[..., 1], data["adv_c"], **CLOSE)
    np.testing.assert_allclose(target[..., 0], data["target_value_r"], **CLOSE)
    np.testing.assert_allclose(target[..., 1], data["target_value_c"], **CLOSE)


def test_a_cost_penalty_is_a_reward_shaped_before_estimation():
    penalty = float(np.load(GOLDEN / "advantage_gae_penalty.npz")["penalty_coefficient"])
    data, arguments = recorded("advantage_gae_penalty", penalty)
    advantage, target = gae(*decays(data))(*arguments)
    assert penalty == 0.5
    np.testing.assert_allclose(advantage[..., 0], data["adv_r"], **CLOSE)
    np.testing.assert_allclose(target[..., 0], data["target_value_r"], **CLOSE)
    np.testing.assert_allclose(advantage[..., 1], data["adv_c"], **CLOSE)


def test_without_trace_the_advantage_is_the_one_step_error():
    data, arguments = recorded("advantage_plain")
    advantage, _ = gae(float(data["gamma"]), 0.0)(*arguments)
    np.testing.assert_allclose(advantage[..., 0], data["adv_r"], **CLOSE)
    np.testing.assert_allclose(advantage[..., 1], data["adv_c"], **CLOSE)


def test_with_full_trace_the_target_is_the_discounted_return():
    data, arguments = recorded("advantage_gae")
    _, target = gae(float(data["gamma"]), 1.0)(*arguments)
    np.testing.assert_allclose(target[..., 0], data["discounted_ret"], **CLOSE)


def test_termination_bootstraps_with_zero_truncation_with_the_value_and_neither_runs_on():
    """Worked by hand with gamma = lam = 1/2; the episode may end after the second of three steps.

    V = 10, 20, 30 and V(next) = 20, 40, 60. delta_0 = 1 + 10 - 10 = 1 and delta_2 = 3 + 30 - 30 = 3. delta_1 is
    2 - 20 = -18 if terminated, else 2 + 20 - 20 = 2. A_1 = delta_1 + 3 / 4 only if the episode goes on.
    """
    columns = {  # terminated, truncated, advantages
        "neither": (False, False, (1.6875, 2.75, 3.0)),
        "truncated": (False, True, (1.5, 2.0, 3.0)),
        "terminated": (True, False, (-3.5, -18.0, 3.0)),
        "both": (True, True, (-3.5, -18.0, 3.0)),
    }
    terminated, truncated, expected = zip(*columns.values(), strict=True)

    def column(*rows):
        return jnp.broadcast_to(jnp.asarray(rows, jnp.float32)[:, None, None], (3, len(columns), 1))

    def second_row(flags):
        return jnp.zeros((3, len(columns)), bool).at[1].set(jnp.asarray(flags))

    value = column(10, 20, 30)
    advantage, target = gae(0.5, 0.5)(
        column(1, 2, 3), value, column(20, 40, 60), second_row(terminated), second_row(truncated)
    )
    np.testing.assert_array_equal(advantage[..., 0].T, expected)
    np.testing.assert_array_equal(target, advantage + value)


def test_channels_have_their_own_discount_and_trace():
    _, arguments = recorded("advantage_gae")
    together, _ = gae([0.9, 0.5], [0.3, 0.8])(*arguments)
    signals, (terminated, truncated) = arguments[:3], arguments[3:]
    for channel, (gamma, lam) in enumerate([(0.9, 0.3), (0.5, 0.8)]):
        alone, _ = gae(gamma, lam)(*(x[..., [channel]] for x in signals), terminated, truncated)
        np.testing.assert_allclose(together[..., [channel]], alone, rtol=1e-6, atol=1e-6)


# --- what make_problem does with advantages


def probe(constraint, surrogate, duals, advantage, episode_length):
    """A problem whose parameters are the means of all samples, one action component, each action one above its mean.

    The derivative of the importance ratio by a sample's mean is then 1 at the old parameters, so that gradients show
    the advantages in use, sample by sample.
    """
    t, b = advantage.shape[:2]
    index = jnp.stack(jnp.meshgrid(jnp.arange(t), jnp.arange(b), indexing="ij"), -1).astype(jnp.float32)

    def dist_of(params, obs):
        mean = params[obs[..., 0].astype(int), obs[..., 1].astype(int)]
        return Gaussian(mean, jnp.zeros_like(mean))

    params = jnp.zeros((t, b, 1))
    action, never = params + 1.0, jnp.zeros((t, b), bool)
    zeros = jnp.zeros((t, b))
    log_prob = dist_of(params, index).log_prob(action)
    batch = Transition(index, action, log_prob, index, zeros, zeros, jnp.zeros((t, b, 1)), never, never)
    parts = Parts(
        gae(0.99, 0.95), surrogate, constraint, first_order(optax.adam(1.0), epochs=1, num_minibatches=1),
        CriticFit(1, 1, 1e-3),
    )  # fmt: skip
    excess = jnp.zeros(advantage.shape[-1] - 1)
    return params, make_problem(parts, dist_of, params, batch, advantage, duals, excess, jnp.float32(episode_length))


def golden_advantage():
    data = np.load(GOLDEN / "advantage_gae.npz")
    return data, jnp.stack([data["adv_r"], data["adv_c"]], -1)


def gradient(function, params, rows):
    return jax.jit(jax.grad(function))(params, rows)[..., 0]


def test_the_reward_advantage_is_standardised_and_cost_advantages_are_centred():
    data, advantage = golden_advantage()
    params, problem = probe(unconstrained(), ratio(), (), advantage, 2.5)
    number = data["adv_r"].size
    reward = -number * gradient(problem.reward_loss, params, problem.everything)
    np.testing.assert_allclose(reward, data["adv_r_standardized"], **CLOSE)
    loss = -number * gradient(lambda *x: problem.loss(*x)[0], params, problem.everything)
    np.testing.assert_allclose(loss, reward, **CLOSE)
    cost = number * gradient(lambda *x: problem.cost_change(*x)[0], params, problem.everything) / 2.5
    np.testing.assert_allclose(cost, data["adv_c_centred"], **CLOSE)
    assert float(problem.cost_change(params, problem.everything)[0]) == 0.0


@pytest.mark.parametrize("surrogate", [ratio(), clipped(0.2)], ids=["ratio", "clipped"])
def test_the_loss_mixes_the_standardised_reward_with_the_centred_costs(surrogate):
    data, advantage = golden_advantage()
    duals = LagrangeState(jnp.array([0.7]), ())
    params, problem = probe(lagrangian(optax.adam(0.035)), surrogate, duals, advantage, 2.5)
    mixed = -data["adv_r"].size * gradient(lambda *x: problem.loss(*x)[0], params, problem.everything)
    expected = (data["adv_r_standardized"] - 0.7 * data["adv_c_centred"]) / 1.7
    np.testing.assert_allclose(mixed, expected, **CLOSE)


def test_rows_select_time_steps_of_all_environments():
    data, advantage = golden_advantage()
    params, problem = probe(unconstrained(), ratio(), (), advantage, 1.0)
    rows = jnp.array([3, 17, 24])
    reward = -rows.size * data["adv_r"].shape[1] * gradient(problem.reward_loss, params, rows)
    expected = np.zeros_like(data["adv_r"])
    expected[rows] = data["adv_r_standardized"][rows]
    np.testing.assert_allclose(reward, expected, **CLOSE)
