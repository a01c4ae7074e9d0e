"""Parts of the catalogue's rows against OmniSafe's recorded numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from recorded_policy import TRUST, dist_of, problem_of, recorded, recorded_actor, recorded_gradients, to_flat

from jaxalign import nets, saferl
from jaxalign.core import Gaussian
from jaxalign.core.types import Env, EnvSpec, TimeStep
from jaxalign.saferl import actors, constraints, offpolicy, policy_steps, rollout, worlds
from jaxalign.saferl.replay import Experience, empty, push, sample
from jaxalign.saferl.surrogates import focops

# --- losses


def loss_of(name, data):
    obs, action = jnp.asarray(data["obs"]), jnp.asarray(data["act"])
    old = Gaussian(jnp.asarray(data["old_mean"]), jnp.log(jnp.asarray(data["old_std"])))
    reward_adv, cost_adv = jnp.asarray(data["adv_r"]), jnp.asarray(data["adv_c"])

    def loss(params):
        new = dist_of(params, obs)
        log_ratio = new.log_prob(action) - data["logp_old"]
        if name == "focops_per_sample":
            return focops(1.5, 0.02)(log_ratio, reward_adv, new.kl(old))
        change = jnp.mean(jnp.exp(log_ratio) * cost_adv)[None]
        if name == "cup_second_step":
            return 0.7 * (1 - 0.99 * 0.95) / (1 - 0.99) * change[0] + new.kl(old).mean()
        excess = jnp.array([float(name.removeprefix("p3o_cost_Jc")) - 25.0])
        penalty = constraints.exact_penalty(20.0).penalty((), change, excess)
        return penalty

    return loss


@pytest.mark.parametrize(
    "name", ["focops_per_sample", "cup_second_step", "p3o_cost_Jc30", "p3o_cost_Jc25.5", "p3o_cost_Jc20"]
)
def test_losses_have_the_recorded_value_and_gradient(name):
    data = recorded("policy_losses")
    value, gradient = jax.jit(jax.value_and_grad(loss_of(name, data)))(recorded_actor(data))
    np.testing.assert_allclose(value, data[f"loss_{name}"], rtol=2e-6)
    rounding = 2e-6 * (20 if name.startswith("p3o") else 1)  # in one surrogate's gradient, times its coefficient
    np.testing.assert_allclose(to_flat(gradient), data[f"grad_{name}"], rtol=1e-5, atol=rounding)


def test_cup_descends_on_the_recorded_second_loss():
    """One step of plain descent after a first step that does nothing, whose KL term then has no gradient."""
    idle = policy_steps.PolicyStep(lambda params: (), lambda key, params, *rest: (params, (), {}))
    weight = (1 - 0.99 * 0.95) / (1 - 0.99)
    step = policy_steps.then_project(
        idle, optax.identity(), epochs=1, num_minibatches=1, target_kl=jnp.inf, weight=weight
    )
    params, problem = problem_of(recorded("second_order_full"), 25.0)
    problem = problem._replace(
        multipliers=jnp.array([0.7]), kl_between=lambda new, old, rows: 0.0 * new["log_std"].sum()
    )
    moved, _, _ = jax.jit(lambda p: step.update(jax.random.key(0), p, step.init(p), problem, 1.0))(params)
    expected = jax.grad(lambda p: 0.7 * weight * problem.cost_change(p, problem.everything)[0])(params)
    np.testing.assert_allclose(to_flat(params) - to_flat(moved), to_flat(expected), atol=1e-6)
    assert np.abs(to_flat(expected)).max() > 1e-3


def test_natural_gradient_step(monkeypatch):
    """The whole recorded update, with OmniSafe's conjugate gradients."""
    monkeypatch.setattr(policy_steps, "conjugate_gradient", recorded_gradients)
    data = recorded("second_order_full")
    with jax.enable_x64(True):
        params, problem = problem_of(data, 25.0)
        step = policy_steps.natural_gradient(**TRUST, cg_iterations=15)
        new, _, _ = jax.jit(lambda p: step.update(None, p, step.init(p), problem, None))(params)
    np.testing.assert_allclose(to_flat(new), data["theta_after"], rtol=0, atol=2e-6)


# --- constraint handlers


@pytest.mark.parametrize("cost", ["10.0", "24.99", "25.0", "40.0"])
def test_log_barrier(cost):
    data, handler = recorded("adv_surrogate"), constraints.log_barrier()
    state = handler.observe(handler.init(1), jnp.array([float(cost)]), jnp.array([25.0]))
    mixed = handler.mix(state, jnp.asarray(data["adv_r"]), jnp.asarray(data["adv_c"])[:, None])
    np.testing.assert_allclose(state[0], data[f"ipo_penalty_Jc{cost}"], rtol=1e-3)  # 25 - 24.99 in single precision
    np.testing.assert_allclose(mixed, data[f"ipo_Jc{cost}"], atol=1e-3 if cost == "24.99" else 1e-6)


@pytest.mark.parametrize("cost", ["10.0", "26.9", "27.1"])
def test_switch(cost):
    data, handler = recorded("adv_surrogate"), constraints.switch(2.0)
    state = handler.observe(handler.init(1), jnp.array([float(cost)]), jnp.array([25.0]))
    mixed = handler.mix(state, jnp.asarray(data["adv_r"]), jnp.asarray(data["adv_c"])[:, None])
    np.testing.assert_allclose(mixed, data[f"oncrpo_Jc{cost}"], atol=1e-7)


def test_switch_turns_to_the_worst_cost():
    handler = constraints.switch(0.0)
    state = handler.observe(handler.init(2), jnp.array([3.0, 9.0]), jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(handler.mix(state, jnp.ones(2), jnp.array([[1.0, 2.0], [3.0, 4.0]])), [-2.0, -4.0])


def test_simmer_follows_the_recorded_budgets():
    data = recorded("simmer_pid")
    handler = constraints.simmer(0.05, 0.01, 0.02)
    limit = jnp.array([float(data["upper_budget"])])

    def observe(state, cost):
        state = handler.observe(state, cost[None], limit)
        return state, handler.budget(state, limit)[0]

    start = handler.init(1)._replace(slack=limit - float(data["init_budget"]))
    _, budgets = jax.lax.scan(observe, start, jnp.asarray(data["ep_cost_normalised"], jnp.float32))
    np.testing.assert_allclose(budgets, data["safety_budget"], rtol=1e-5, atol=1e-5)
    assert np.ptp(data["safety_budget"]) > 1.0


# --- worlds


def replayed(data, column, horizon):
    """An environment that gives the recorded observations, rewards and costs whatever is done."""
    obs, reward, cost = (jnp.asarray(data[name][:, column], jnp.float32) for name in ("obs", "reward", "cost"))
    spec = EnvSpec("Recorded", (("obs", obs.shape[-1]),), (-1.0,), (1.0,), ("cost",), horizon, 1.0, "none")

    def step(time, action):
        never = jnp.bool_(False)
        return time + 1, TimeStep(obs[time + 1], reward[time], cost[time][None], never, never, {"cost": cost[time]})

    return Env(lambda key: (jnp.int32(0), obs[0]), step, spec)


@pytest.mark.parametrize("column", [0, 1])
def test_saute_reshapes_the_recorded_rollout(column):
    data = recorded("saute")
    limit = jnp.array([float(data["safety_budget"])])
    env = replayed(data, column, int(data["max_ep_len"]))
    env = worlds.saute(float(data["unsafe_reward"]), float(data["saute_gamma"]))(env, limit, limit)
    assert env.spec.obs_size == data["aug_obs"].shape[-1]
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    state, obs = reset(jax.random.key(0))
    ended, unsafe = False, 0
    for t in range(len(data["reward"])):
        np.testing.assert_allclose(obs, data["aug_obs"][t, column], rtol=1e-5, atol=1e-5)
        state, after = step(state, jnp.zeros(1))
        np.testing.assert_allclose(after.reward, data["reshaped_reward"][t, column], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(after.info["task_reward"], data["reward"][t, column], rtol=1e-6)
        unsafe += after.reward != after.info["task_reward"]
        obs, ended = after.obs, data["terminated"][t, column] or data["truncated"][t, column]
        if ended:  # OmniSafe has reset the budget by now, and shows that in the last observation too; ours does not
            state = state._replace(left=jnp.ones(1))
            obs = obs.at[-1].set(1.0)
    assert unsafe > 0


def test_early_termination():
    data = recorded("saute")
    env = worlds.early_terminated()(replayed(data, 0, 30), jnp.array([2.0]), jnp.array([2.0]))
    state, _ = env.reset(jax.random.key(0))
    spent = 0.0
    for t in range(30):
        state, after = env.step(state, jnp.zeros(1))
        spent += data["cost"][t, 0]
        assert bool(after.terminated) == (spent > 2.0)
        assert after.reward == pytest.approx(0.0 if spent > 2.0 else data["reward"][t, 0])
        if spent > 2.0:
            break
    assert 0 < t < 29


def test_a_budget_of_nothing_is_spent_by_the_first_cost():
    env = worlds.saute(-1.0, 1.0)(replayed(recorded("saute"), 0, 30), jnp.zeros(1), jnp.zeros(1))
    cost = recorded("saute")["cost"][:, 0]
    first = int(np.argmax(cost > 0))
    assert 0 < first < 29
    state, obs = env.reset(jax.random.key(0))
    assert obs[-1] == 1.0
    for t in range(first + 1):
        state, after = env.step(state, jnp.zeros(1))
        assert (after.reward == after.info["task_reward"]) == (t < first)


def test_what_ends_training_episodes_early_does_not_end_those_that_judge():
    env = replayed(recorded("saute"), 0, 30)
    assert saferl.world("ppo_early_terminated", env, (2.0,)) is env
    assert saferl.world("ppo_lag", env, (2.0,)) is env
    assert saferl.world("ppo_saute", env, (2.0,)).spec.obs_size == env.spec.obs_size + 1


def test_no_environment_begins_with_the_noise_of_its_first_action():
    """A reset and the actions around it draw from keys of their own."""
    drawn = []
    spec = EnvSpec("Keys", (("obs", 2),), (-1.0,), (1.0,), ("cost",), 4, 1.0, "none")

    def reset(key):
        return jax.random.key_data(key), jax.random.normal(key, (2,))

    def step(state, action):
        over = jnp.bool_(False)
        return state, TimeStep(jnp.zeros(2), jnp.float32(0), jnp.zeros(1), over, over, {"cost": jnp.float32(0)})

    def act(keys, obs):
        drawn.append(keys)
        noise = jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)
        return noise, jnp.zeros(len(keys))

    env = Env(reset, step, spec)
    state = rollout.start(env, jax.random.split(jax.random.key(0), 8), jnp.arange(8), 8)
    _, data = rollout.rollout(lambda: env, (), act, state, 12)
    begins = np.asarray(data.obs).reshape(-1, 2)
    begins = begins[(begins != 0).all(axis=1)]
    assert len(begins) > 16
    gap = np.abs(begins[:, None] - np.asarray(data.action).reshape(-1, 2)[None]).max(-1)
    assert gap.min() > 1e-6


# --- off-policy


def torch_params(data, prefix, layers):
    def linear(name):
        return {
            "kernel": jnp.asarray(data[f"{prefix}{name}.weight"]).T,
            "bias": jnp.asarray(data[f"{prefix}{name}.bias"]),
        }

    return {"layers": dict(enumerate(map(linear, layers)))}


def test_sac_lag_losses():
    data = recorded("sac_lag")
    parts = offpolicy.Parts(actors.maximum_entropy(float(data["alpha"])), 2, constraints.lagrangian(optax.sgd(0.1)))
    batch = Experience(*(jnp.asarray(data[name]) for name in ("obs", "act", "reward", "cost", "next_obs", "done")))
    batch = batch._replace(cost=batch.cost[:, None], terminated=batch.terminated > 0)
    actor = torch_params(data, "actor__", ("net.0", "net.2"))
    critics = [torch_params(data, f"qr__critic_{i}.", ("0.0", "0.2")) for i in range(2)]
    critics.append(torch_params(data, "qc__critic_0.", ("0.0", "0.2")))
    critics = jax.tree.map(lambda *x: jnp.stack(x), *critics)

    net = nets.mlp((5, 16, 6), jax.nn.relu)
    q = nets.mlp((8, 16, 1), jax.nn.relu)

    def value(obs, action):
        inputs = jnp.concatenate([obs, action], -1)
        return jnp.moveaxis(jax.vmap(q.apply, (0, None))(critics, inputs)[..., 0], 0, -1)

    after = actors.squashed(net.apply(actor, batch.next_obs))
    next_action, next_log_prob = after.transform(jnp.asarray(data["eps_target"]))
    np.testing.assert_allclose(next_action, data["next_action"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(next_log_prob, data["next_logp"], rtol=1e-5, atol=1e-5)

    price, gamma = float(data["alpha"]) * next_log_prob, float(data["gamma"])
    target = offpolicy.critic_targets(parts, batch, value(batch.next_obs, next_action), price, gamma)
    now = value(batch.obs, batch.action)
    np.testing.assert_allclose(offpolicy.critic_loss(now[:, :2], target[:, :2]), data["loss_reward_critic"], rtol=1e-5)
    # recorded with the mean action, which is OmniSafe's for costs
    mean = offpolicy.critic_targets(parts, batch, value(batch.next_obs, after.mode()), price, gamma)
    np.testing.assert_allclose(offpolicy.critic_loss(now[:, 2:], mean[:, 2:]), data["loss_cost_critic"], rtol=1e-5)

    action, log_prob = actors.squashed(net.apply(actor, batch.obs)).transform(jnp.asarray(data["eps_actor"]))
    q_now = value(batch.obs, action)
    for name, multiplier in (("sac", 0.0), ("saclag", float(data["multiplier"]))):
        duals = constraints.LagrangeState(jnp.array([multiplier]), None)
        loss = offpolicy.actor_loss(parts, duals, q_now, float(data["alpha"]) * log_prob)
        np.testing.assert_allclose(loss, data[f"loss_pi_{name}"], rtol=1e-5)


def test_td3_and_ddpg_targets_look_where_they_must():
    """TD3's target action is the actor's plus clipped noise within the range, DDPG's is the actor's own."""
    outputs = jnp.array([[3.0, -0.2]] * 4000)
    td3, ddpg = actors.deterministic(target_noise=0.2, noise_clip=0.5), actors.deterministic()
    noisy = td3.target(jax.random.key(0), outputs)[0]
    assert np.abs(noisy).max() <= 1.0
    shift = noisy[:, 1] - jnp.tanh(-0.2)
    assert shift.std() == pytest.approx(0.2, abs=0.01)
    assert np.abs(shift).max() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(ddpg.target(jax.random.key(0), outputs)[0], jnp.tanh(outputs))
    assert (td3.delay, ddpg.delay, td3.slow_target, td3.pessimistic) == (2, 1, True, False)


def test_replay_keeps_the_last_steps():
    """Three pushes of 2 steps into 4 slots: the first two are gone; samples are of all that is left, and no other."""

    def made(first):
        t = first + jnp.arange(2.0)
        x = t[:, None] * 10 + jnp.arange(3)  # step and environment
        return Experience(x[..., None], x[..., None], x, x[..., None], x[..., None], x > 0)

    buffer = empty(jax.eval_shape(made, 0), 4)
    for first in (0, 2, 4):
        buffer = push(buffer, made(first))
        assert int(buffer.size) == min(first + 2, 4)
    drawn = sample(buffer, jax.random.key(0), 200)
    assert {*np.asarray(drawn.reward).astype(int)} == {t * 10 + b for t in (2, 3, 4, 5) for b in range(3)}
    np.testing.assert_array_equal(drawn.reward, drawn.obs[:, 0])
    early = sample(push(empty(jax.eval_shape(made, 0), 4), made(0)), jax.random.key(1), 100)
    assert {*np.asarray(early.reward).astype(int)} == {t * 10 + b for t in (0, 1) for b in range(3)}
