"""One table, every kind of environment: the contract that `envs_mjx.api` writes down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from programs import products

import envs_mjx
from envs_mjx import transforms
from jaxalign import saferl
from jaxalign.saferl import worlds


def saute():
    env = saferl.select_costs(envs_mjx.make("SafetyHalfCheetahVelocity-v1"), ("cost",))
    return worlds.saute()(env, jnp.array([25.0]), jnp.array([25.0]))


ENVS = {env_id: lambda env_id=env_id: envs_mjx.make(env_id) for env_id in (
    "SafetyPointGoal2-v0",
    "SafetyCarButton1-v0",
    "SafetyRacecarCircle1-v0",
    "SafetyDoggoPush1-v0",
    "SafetyAntRun0-v1",
    "SafetyHumanoidVelocity-v0",
    "SafetySwimmerVelocity-v1",
)}  # fmt: skip
ENVS |= {
    "noisy": lambda: transforms.observation_noise(envs_mjx.make("SafetyHopperVelocity-v1"), 0.1),
    "saute": saute,
}


def signature(tree):
    return jax.tree.map(lambda x: (x.shape, str(x.dtype), x.weak_type), tree)


@pytest.mark.parametrize("name", ENVS)
def test_shapes_are_those_of_the_spec_and_the_state_is_closed(name):
    env = ENVS[name]()
    state, obs = jax.eval_shape(env.reset, jax.random.key(0))
    after_state, after = jax.eval_shape(env.step, state, jnp.zeros(env.spec.action_size))
    assert signature(after_state) == signature(state)
    assert obs.shape == after.obs.shape == (env.spec.obs_size,)
    assert after.cost.shape == (len(env.spec.cost_names),)
    assert len(env.spec.action_low) == len(env.spec.action_high) == env.spec.action_size
    assert all(x.shape == () for x in (after.reward, after.terminated, after.truncated, after.info["cost"]))
    assert after.terminated.dtype == after.truncated.dtype == bool
    assert env.spec.num_agents == 1


@pytest.mark.parametrize("engine", ["mjx", "mujoco"])
@pytest.mark.parametrize("name", ["SafetyPointGoal2-v0", "SafetyAntVelocity-v1"])
def test_no_product_is_rounded_to_what_matrix_units_prefer(name, engine):
    env = envs_mjx.make(name, engine)
    keys = jax.random.split(jax.random.key(0), 2)
    # batched outside of the compiled function, where no context of the environment's own holds any more
    begin, go = jax.vmap(jax.jit(env.reset)), jax.vmap(jax.jit(env.step))
    state, _ = jax.eval_shape(begin, keys)
    actions = jax.ShapeDtypeStruct((2, env.spec.action_size), jnp.float32)
    found = [
        e for f, args in ((begin, (keys,)), (go, (state, actions))) for e in products(jax.make_jaxpr(f)(*args).jaxpr)
    ]
    assert found or engine == "mujoco"
    # HIGH (three passes, 21 bits or more) is what MJX itself asks for where boxes meet
    assert {e.params["precision"] for e in found} <= {
        (p, p) for p in (jax.lax.Precision.HIGH, jax.lax.Precision.HIGHEST)
    }


@pytest.fixture(scope="module", params=["SafetyHalfCheetahVelocity-v1", "saute"])
def played(request):
    """Two environments over a whole episode and ten steps more, twice."""
    env = envs_mjx.make(request.param) if request.param != "saute" else saute()

    @jax.jit
    def play(key):
        state, obs = jax.vmap(env.reset)(jax.random.split(key, 2))
        action = jnp.zeros((2, env.spec.action_size))
        step = jax.vmap(env.step)
        return obs, jax.lax.scan(lambda s, _: step(s, action), state, None, length=env.spec.horizon + 10)[1]

    return env, play(jax.random.key(0)), play(jax.random.key(0)), play(jax.random.key(1))


def test_the_same_key_gives_the_same_episode_and_another_another(played):
    _, first, again, other = played
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


def test_an_episode_is_cut_at_its_horizon_and_not_begun_anew(played):
    env, (_, steps), *_ = played
    cut = np.asarray(steps.truncated)
    assert not cut[: env.spec.horizon - 1].any()
    assert cut[env.spec.horizon - 1 :].all()
    assert not np.asarray(steps.terminated).any()
    at_rest = np.asarray(steps.obs)[env.spec.horizon - 2 : env.spec.horizon + 8, :, :8]
    assert np.abs(np.diff(at_rest, axis=0)).max() < 0.05  # goes on from where it was: a reset would be a jump


def test_the_cost_of_info_is_the_indicator_of_the_sum(played):
    _, (_, steps), *_ = played
    np.testing.assert_array_equal(steps.info["cost"], np.asarray(steps.cost).sum(-1) > 0)
