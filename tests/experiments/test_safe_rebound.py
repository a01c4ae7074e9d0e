"""What is called half way is half way; the neutral aim is speed; a life in small ends in its table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_mjx
from jaxalign import saferl
from jaxalign.core.errors import UserError
from jaxalign.saferl.worlds import TASK_REWARD


def test_half_of_the_way(safe_rebound):
    report = safe_rebound.report
    steps, curve = np.arange(5) * 10.0, np.array([50.0, 40, 30, 20, 20])
    assert report.half_way(steps, curve, 50, 30) == pytest.approx(10)
    assert report.half_way(steps, curve, 50, 10) == pytest.approx(20)
    assert report.half_way(steps, curve, 50, -20) == np.inf
    assert report.half_way(steps, curve[::-1], 20, 50) == pytest.approx(25)


def test_smoothing_is_a_mean_of_the_last_iterations(safe_rebound):
    curve = np.random.default_rng(0).normal(size=(12, 3))
    smooth = safe_rebound.report.smooth(curve)
    np.testing.assert_allclose(smooth[0], curve[0])
    np.testing.assert_allclose(smooth[2], curve[:3].mean(0))
    np.testing.assert_allclose(smooth[11], curve[7:].mean(0))


def test_the_neutral_aim_is_forward_speed(safe_rebound):
    env = saferl.select_costs(envs_mjx.make("SafetyPointGoal1-v0"), ("cost",))
    other = safe_rebound.life.speed(env)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    step, theirs = jax.jit(other.step), jax.jit(env.step)
    for _ in range(20):
        before, (state, after) = state, step(state, jnp.array([1.0, 0.0]))
    _, plain = theirs(before, jnp.array([1.0, 0.0]))
    assert after.info[TASK_REWARD] == plain.reward
    # the robot's heading is its first axis; velocity from where it was and is
    place = lambda state: np.asarray(state.physics.qpos[:3], float)
    old, new = place(before), place(state)
    along = (new - old)[:2] @ [np.cos(new[2]), np.sin(new[2])]
    assert after.reward == pytest.approx(along, rel=0.05)
    assert after.reward > 0.005


@pytest.mark.slow
def test_a_life_in_small(safe_rebound, tmp_path, capsys):
    sizes = saferl.OnPolicyConfig(num_envs=16, rollout_length=40, hidden=(8,), decay_learning_rate=False)
    config = safe_rebound.config.Config(
        env="SafetyPointGoal0-v0",
        seeds=(0, 1),
        base_steps=1280,
        aligned=(640, 1280),
        perturbation=1280,
        sizes=sizes,
        devices=1,
        out=tmp_path,
    )
    found = safe_rebound.run.main(config)
    assert {*found} == {(1280, "alignment"), *((n, k) for n in (0, 640, 1280) for k in ("unlimited", "speed"))}
    for (aligned, _), record in found.items():
        assert record.kl.shape == (2, 2)
        assert (record.kl[0] < 1e-6).all() if not aligned else True
    assert (found[1280, "unlimited"].kl[0] > found[640, "unlimited"].kl[0]).all()
    # after 640 steps of alignment the policy is the one whose KL alignment records there
    np.testing.assert_allclose(found[640, "speed"].kl[0], found[1280, "alignment"].kl[1], rtol=1e-4)
    assert "| the task without a limit | 1,280 |" in (tmp_path / "tables.md").read_text()
    assert (tmp_path / "rebound.png").stat().st_size > 10_000
    capsys.readouterr()
    again = safe_rebound.run.main(config)
    np.testing.assert_array_equal(again[640, "speed"].cost, found[640, "speed"].cost)
    with pytest.raises(UserError, match="other settings"):
        safe_rebound.run.main(safe_rebound.config.Config(seeds=(0,), out=tmp_path))
