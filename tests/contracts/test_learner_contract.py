"""One table, every algorithm: the contract that any learner must keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import two_costs
from programs import products

from jaxalign import saferl
from jaxalign.core.errors import UserError

COST_BLIND = ("policy_gradient", "natural_pg", "trpo", "ppo", "ddpg", "td3", "sac")
# one row of every kind; the others, which have the same drivers and other parts, are slow tests
BY_DEFAULT = ("ppo_lag", "cpo", "cup", "ppo_simmer_pid", "sac_lag")
ROWS = [name if name in BY_DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in saferl.names()]
OFF = {"num_envs": 4, "rollout_length": 10, "hidden": (8,), "batch_size": 8, "update_to_data": 0.2, "capacity": 120}
OFF |= {"random_steps": 40, "multiplier_steps": 0}


def make(name, mesh, limit=(1.0, 1.0), **sizes):
    if name in saferl.CATALOGUE and isinstance(saferl.CATALOGUE[name].config, saferl.OffPolicyConfig):
        config = saferl.OffPolicyConfig(**OFF | sizes)
    else:
        config = saferl.OnPolicyConfig(**{"num_envs": 4, "rollout_length": 40, "hidden": (8,)} | sizes)
    return saferl.make(name, two_costs(), limit, total_iterations=10, config=config, mesh=mesh)


def signature(tree):
    """Weak types matter: a weakly typed leaf in the initial state costs a second compilation."""
    return jax.tree.map(lambda x: (x.shape, str(x.dtype), x.weak_type), tree)


def bits(tree):
    def raw(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return jax.tree.map(lambda x: np.asarray(raw(x)).tobytes(), tree)


@pytest.mark.parametrize("name", ROWS)
def test_state_is_closed_traced_once_repeatable_and_sweepable(name, one_device):
    learner = make(name, one_device)
    abstract = jax.eval_shape(learner.init, jax.random.key(0))
    assert signature(abstract) == signature(jax.eval_shape(learner.step, abstract)[0])

    found = [e.params["precision"] for e in products(jax.make_jaxpr(learner.step)(abstract).jaxpr)]
    assert set(found) == {(jax.lax.Precision.HIGHEST,) * 2}, "float32 is float32 on every device"

    # seeds and limits swept in one compilation: two seeds with two limits each
    traces = []

    def step(state):
        traces.append(1)
        return learner.step(state)

    def begin(key, limit):
        state = learner.init(key)
        return state._replace(hyper=state.hyper._replace(limit=limit))

    keys = jax.random.split(jax.random.key(0), 2)[jnp.array([0, 1, 0, 1])]
    limits = jnp.array([[0.1, 0.1], [0.1, 0.1], [5.0, 5.0], [5.0, 5.0]])
    start = jax.jit(jax.vmap(begin))(keys, limits)
    sweep, runs = jax.jit(jax.vmap(step)), []
    for _ in range(2):
        state = start
        for _ in range(3):
            state, info = sweep(state)
        runs.append((state, info))
    assert len(traces) == 1, "step must be traced once, whatever the seed, limit or iteration"
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(info))
    assert bits(runs[0]) == bits(runs[1]), "the same state must give the same bits"
    final = runs[0][0]
    weights = jax.tree.leaves(final.actor if hasattr(final, "actor") else final.policy["mean"])
    assert all(not np.array_equal(x[0], x[1]) for x in weights), "seeds must differ"
    if name not in COST_BLIND:
        assert any(not np.array_equal(x[0], x[2]) for x in weights), "limits must matter"


def test_sweep_equals_single_runs(one_device):
    learner = make("ppo_lag", one_device)
    keys = jax.random.split(jax.random.key(3), 2)
    swept, info = jax.jit(lambda k: jax.vmap(learner.step)(jax.vmap(learner.init)(k)))(keys)
    single, alone = jax.jit(lambda k: learner.step(learner.init(k)))(keys[1])
    np.testing.assert_allclose(info.episode_cost[1], alone.episode_cost, rtol=1e-5)
    leaves = zip(jax.tree.leaves(swept.policy), jax.tree.leaves(single.policy), strict=True)
    for many, one in leaves:
        np.testing.assert_allclose(many[1], one, rtol=1e-3, atol=1e-5)


def test_unknown_name_lists_the_known_ones(one_device):
    with pytest.raises(UserError, match=r"Unknown algorithm 'ppo_lagg'. Known: cpo, .*ppo_lag"):
        make("ppo_lagg", one_device)


def test_omnisafes_names_are_understood():
    omnisafe = (
        "PolicyGradient NaturalPG TRPO PPO PDO RCPO PPOLag TRPOLag CPPOPID TRPOPID CPO PCPO FOCOPS CUP P3O IPO OnCRPO"
    )
    omnisafe += " PPOSaute TRPOSaute PPOSimmerPID TRPOSimmerPID PPOEarlyTerminated TRPOEarlyTerminated"
    omnisafe += " DDPG TD3 SAC DDPGLag TD3Lag SACLag DDPGPID TD3PID SACPID"
    found = {saferl.resolve(name) for name in omnisafe.split()}
    assert len(found) == 32
    assert {name for name in saferl.names() if not name.endswith("_safepo")} == found


def test_a_world_of_several_agents_is_refused(one_device):
    env = two_costs()
    env = env._replace(spec=env.spec._replace(num_agents=2))
    for name in ("ppo_lag", "sac_lag"):
        with pytest.raises(UserError, match="TwoCosts has 2 agents; this algorithm moves one"):
            saferl.make(name, env, (1.0, 1.0), total_iterations=1, mesh=one_device)


def test_sizes_of_the_other_family_are_refused(one_device):
    with pytest.raises(UserError, match="sac takes sizes of the class OffPolicyConfig, not OnPolicyConfig"):
        saferl.make("sac", two_costs(), (1.0, 1.0), total_iterations=1, config=saferl.OnPolicyConfig(), mesh=one_device)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"batch_size": 6}, "batch_size is 6: .* 4 environments; choose a multiple"),
        ({"update_to_data": 0.01}, "makes 0 updates; it must be a positive multiple of 2"),
        ({"update_to_data": 0.075}, "makes 3 updates; it must be a positive multiple of 2"),
        ({"capacity": 39}, "capacity is 39, but one iteration makes 40 steps"),
    ],
)
def test_off_policy_sizes_that_make_no_sense_are_refused(sizes, message, one_device):
    with pytest.raises(UserError, match=message):
        make("sac_lag", one_device, **sizes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limit": (1.0,)}, r"one number per cost \['cost0', 'cost1'\], got 1"),
        ({"limit": (1.0, -2.0)}, r"limit of 'cost1' is -2.0"),
        ({"limit": (1.0, float("nan"))}, r"limit of 'cost1' is nan"),
        ({"rollout_length": 39}, r"rollout_length is 39, which cannot be split into 10 minibatches"),
        ({"num_envs": 0}, r"num_envs is 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(change, message, one_device):
    with pytest.raises(UserError, match=message):
        make("ppo_lag", one_device, **change)


def test_unknown_cost_lists_the_known_ones():
    with pytest.raises(UserError, match=r"TwoCosts has no cost 'cost_fire'; choose among: cost, cost0, cost1"):
        saferl.select_costs(two_costs(), ("cost_fire",))


def test_selected_costs_are_the_named_ones():
    env = two_costs()
    state, _ = env.reset(jax.random.key(0))
    _, after = env.step(state, jnp.array([-0.5]))
    _, chosen = saferl.select_costs(env, ("cost1", "cost", "cost0")).step(state, jnp.array([-0.5]))
    np.testing.assert_allclose(after.cost, [0.25, 0.0])
    np.testing.assert_allclose(chosen.cost, [0.0, 0.25, 0.25])
