"""Multipliers and mixed advantages: OmniSafe's recorded sequences, and independence of several constraints."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxalign.saferl.constraints import (
    Constraint,
    LagrangeState,
    lagrangian,
    pid,
    proportional,
    scalarise,
    unconstrained,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "saferl"
# single precision; the recorded sequences are OmniSafe's, whose multiplier is single (Lagrange) or double (PID)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}

LAGRANGE = {
    "adam_init0.001_lr0.035": lagrangian(optax.adam(0.035)),
    "adam_init0.001_lr0.035_ub0.3": lagrangian(optax.adam(0.035), upper_bound=0.3),
    "adam_init1_lr0.001": lagrangian(optax.adam(0.001), initial=1.0),
    "sgd_init0_lr0.1_ub1": lagrangian(optax.sgd(0.1), initial=0.0, upper_bound=1.0),
    "sgd_init0.5_lr0.001": lagrangian(optax.sgd(0.001), initial=0.5),
}
PID = {
    "default": pid(),
    "diff_norm": pid(kp=0.001, ki=0.001, diff_norm=True),
    "capped": pid(kp=0.5, penalty_max=2.0),
    "kd_large": pid(kd=1.0, delay=3),
}


def states(constraint: Constraint, cost, limit):
    """All states of a handler that observes `cost`, ``[time, K]``."""
    limit = jnp.asarray(limit, jnp.float32)

    def observe(state, cost):
        state = constraint.observe(state, cost, limit)
        return state, state

    return jax.lax.scan(observe, constraint.init(len(limit)), jnp.asarray(cost, jnp.float32))[1]


def reaches(sequence, bound):
    return np.isclose(sequence, bound, atol=1e-7).any()


@pytest.mark.parametrize("name", LAGRANGE)
def test_lagrange_multipliers_follow_the_recorded_sequence(name):
    data = np.load(GOLDEN / "lagrange.npz")
    assert set(LAGRANGE) == set(data.files) - {"ep_cost", "cost_limit"}
    constraint = LAGRANGE[name]
    after = states(constraint, data["ep_cost"][:, None], [data["cost_limit"]])
    np.testing.assert_allclose(constraint.multipliers(after)[:, 0], data[name], **CLOSE)


def test_the_recorded_lagrange_sequences_reach_both_bounds():
    data = np.load(GOLDEN / "lagrange.npz")
    assert reaches(data["adam_init0.001_lr0.035_ub0.3"], 0.3)
    assert reaches(data["sgd_init0_lr0.1_ub1"], 0.0)
    assert reaches(data["sgd_init0_lr0.1_ub1"], 1.0)


@pytest.mark.parametrize("name", PID)
def test_pid_multipliers_and_memory_follow_the_recorded_sequence(name):
    data = np.load(GOLDEN / "pid_lagrange.npz")
    assert set(PID) == {key for key in data.files if "__" not in key} - {"ep_cost", "cost_limit"}
    constraint = PID[name]
    after = states(constraint, data["ep_cost"][:, None], [data["cost_limit"]])
    np.testing.assert_allclose(constraint.multipliers(after)[:, 0], data[name], **CLOSE)
    np.testing.assert_allclose(after.integral[:, 0], data[f"{name}__integral"], **CLOSE)
    np.testing.assert_allclose(after.smooth_excess[:, 0], data[f"{name}__delta_p_ema"], **CLOSE)
    np.testing.assert_allclose(after.smooth_cost[:, 0], data[f"{name}__cost_ema"], **CLOSE)


def test_the_recorded_pid_sequence_reaches_its_cap():
    assert reaches(np.load(GOLDEN / "pid_lagrange.npz")["capped"], 2.0)


@pytest.mark.parametrize("constraint", [pid(), pid(penalty_max=2.0), pid(diff_norm=True)])
def test_pid_integral_and_multiplier_are_never_negative(constraint):
    """Far below the limit everything but the smoothed excess is pinned at 0; the recorded sequences never get there."""
    after = states(constraint, np.zeros((4, 1)), [25.0])
    np.testing.assert_array_equal(after.integral, 0.0)
    np.testing.assert_array_equal(constraint.multipliers(after), 0.0)
    np.testing.assert_allclose(after.smooth_excess[:, 0], -25 * (1 - 0.95 ** np.arange(1, 5)), **CLOSE)


def test_a_falling_cost_has_no_derivative():
    """Gains of 0 but the derivative's: the smoothed cost rises to 40 (1 - a) over one step and then decays."""
    constraint = pid(kp=0.0, ki=0.0, kd=1.0, delay=1, initial=0.0, smoothing=0.5)
    after = states(constraint, [[40.0], [0.0], [60.0]], [25.0])
    np.testing.assert_allclose(constraint.multipliers(after)[:, 0], [20.0, 0.0, 25.0], **CLOSE)


def test_diff_norm_keeps_integral_and_multiplier_within_one():
    constraint = pid(kp=0.5, ki=0.5, diff_norm=True)
    after = states(constraint, np.full((4, 1), 30.0), [25.0])
    np.testing.assert_array_equal(after.integral[:, 0], 1.0)
    np.testing.assert_array_equal(constraint.multipliers(after)[:, 0], 1.0)


@pytest.mark.parametrize("constraint", [*LAGRANGE.values(), *PID.values()], ids=[*LAGRANGE, *PID])
def test_two_constraints_at_once_are_two_single_ones(constraint):
    first = np.load(GOLDEN / "lagrange.npz")["ep_cost"]
    second, limit = 0.5 * first[::-1], [25.0, 14.0]
    together = states(constraint, np.stack([first, second], -1), limit)
    alone = [states(constraint, x[:, None], [d]) for x, d in zip((first, second), limit, strict=True)]
    expected = np.concatenate([constraint.multipliers(state) for state in alone], -1)
    assert np.abs(expected[:, 0] - expected[:, 1]).max() > 0.01
    np.testing.assert_allclose(constraint.multipliers(together), expected, rtol=1e-6, atol=1e-6)


# --- mixing

MIXED = ("ppo_lag", "trpo_lag", "pdo", "rcpo", "focops", "cppo_pid", "trpo_pid")


def handlers(multipliers):
    """Constraint handlers that mix, with states that hold these multipliers."""
    multipliers = jnp.asarray(multipliers, jnp.float32)
    pid_state = PID["default"].init(len(multipliers))._replace(multipliers=multipliers)
    return {
        "lagrangian": (LAGRANGE["adam_init1_lr0.001"], LagrangeState(multipliers, ())),
        "pid": (PID["default"], pid_state),
    }


@pytest.mark.parametrize("handler", ["lagrangian", "pid"])
def test_mixing_reproduces_the_recorded_advantages(handler):
    data = np.load(GOLDEN / "adv_surrogate.npz")
    constraint, state = handlers([data["multiplier"]])[handler]
    mixed = constraint.mix(state, jnp.asarray(data["adv_r"]), jnp.asarray(data["adv_c"])[:, None])
    for name in MIXED:
        np.testing.assert_allclose(mixed, data[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("handler", ["lagrangian", "pid"])
def test_an_inactive_second_constraint_changes_nothing(handler):
    data = np.load(GOLDEN / "adv_surrogate.npz")
    constraint, state = handlers([0.0, data["multiplier"]])[handler]
    cost = np.stack([data["adv_c"][::-1], data["adv_c"]], -1)
    np.testing.assert_allclose(
        constraint.mix(state, jnp.asarray(data["adv_r"]), jnp.asarray(cost)), data["ppo_lag"], rtol=1e-6, atol=1e-6
    )


def test_several_constraints_are_mixed_into_a_convex_combination():
    reward, cost = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[[1.0, 0.0], [0.0, 2.0]], [[2.0, 4.0], [0.0, 0.0]]])
    mixed = scalarise(jnp.array([1.0, 2.0]), reward, cost)
    np.testing.assert_allclose(mixed, [[(1 - 1) / 4, (2 - 4) / 4], [(3 - 2 - 8) / 4, 4 / 4]], rtol=1e-6, atol=1e-7)


def test_without_constraint_costs_have_no_effect():
    constraint = unconstrained()
    reward, cost = jnp.array([1.0, -2.0]), jnp.array([[3.0], [4.0]])
    state = constraint.observe(constraint.init(1), jnp.array([100.0]), jnp.array([25.0]))
    np.testing.assert_array_equal(constraint.mix(state, reward, cost), reward)
    assert float(constraint.penalty(state, jnp.array([5.0]), jnp.array([75.0]))) == 0.0
    assert constraint.multipliers(state).shape == (0,)


def test_proportional_steps_are_bounded_and_vanish_at_the_limit():
    """Worked by hand: limits 20 and 0, full steps of 0.2; a limit below 1 counts as 1 in the denominator."""
    cost = [[60.0, 3.0], [25.0, 0.5], [20.0, 0.0], [10.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    found = states(proportional(0.2, initial=0.1), cost, [20.0, 0.0])
    expected = [[0.3, 0.3], [0.35, 0.4], [0.35, 0.4], [0.25, 0.4], [0.05, 0.4], [0.0, 0.4]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
