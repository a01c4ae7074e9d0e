"""Policy gradients on tokens: where they end is known in closed form for responses of one token."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
import scipy.optimize
import tiny_lm
from jax.sharding import PartitionSpec

from jaxalign import dist, rlhf
from jaxalign.core.errors import UserError
from jaxalign.lm import lora, training, transformer
from jaxalign.lm.sampling import Sampling
from jaxalign.lm.stream import Stream
from jaxalign.saferl.constraints import lagrangian

REWARD = np.array([0.0, 0.3, -0.5, 1.0, 0.2, 0.8, -1.0, 0.4], np.float32)
COST = np.array([0, 0, 0, 1, 0, 1, 0, 0], np.float32)
PROMPTS, MASK = jnp.full((128, 1), 2), jnp.ones((128, 1), bool)
EOS = 1


def of_token(values):
    """The reward of a token that depends on the token alone."""
    return lambda completions: jnp.asarray(values)[completions.response]


def train(learner, states, steps):
    """All states side by side, and the infos of every step [states, steps]."""

    def run(state):
        return jax.lax.scan(lambda s, _: learner.step(s, PROMPTS, MASK), state, None, steps)

    return tiny_lm.jit(jax.vmap(run))(states)


def sweep(state, **numbers):
    """Copies of the state side by side, with numbers of their own."""
    replaced = lambda values: state._replace(hyper=state.hyper._replace(**values))
    return jax.vmap(replaced)({name: jnp.array(x, jnp.float32) for name, x in numbers.items()})


def written(params):
    """Probabilities of the token after the prompt under a table."""
    return np.asarray(jax.nn.softmax(params["unembed"][..., 2, :]), float)


@pytest.mark.parametrize("name", ["ppo", "rloo"])
def test_ends_at_the_tilted_reference_for_every_coefficient(table, name):
    """argmax E_p[r] - beta KL(p || q) is q exp(r / beta) / Z; one compilation serves all beta."""
    settings = rlhf.settings(
        name,
        Sampling(1),
        epochs=4,
        learning_rate=0.05,
        critic_learning_rate=0.05,
        whiten_advantages=False,
        total_steps=150,
    )
    learner = rlhf.algorithm(name, table.network, table.config, of_token(REWARD), table.params, settings)
    state = learner.init(jax.random.key(0), table.params, table.critic)
    betas = np.array([0.4, 1.0])
    states, info = train(learner, sweep(state, kl_coefficient=betas), 150)
    q = written(table.params)
    best = q * np.exp(REWARD / betas[:, None])
    best /= best.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(written(states.networks.policy), best, atol=5e-3)
    kl = np.sum(best * np.log(best / q), axis=1)
    np.testing.assert_allclose(info.kl[:, -1], kl, rtol=2e-2)
    np.testing.assert_allclose(info.kl_estimate[:, -20:].mean(axis=1), kl, rtol=0.1)
    np.testing.assert_allclose(info.entropy[:, -1], -np.sum(best * np.log(best), axis=1), rtol=2e-2)
    np.testing.assert_allclose(info.reward[:, -20:].mean(axis=1), best @ REWARD, atol=0.05)


def test_costs_end_at_their_limits(table):
    """max E_p[r] - beta KL(p || q), E_p[c] <= limit is q exp((r - mu c) / beta) / Z with mu (E_p[c] - limit) = 0."""
    steps, beta, limits = 200, 0.3, np.array([0.2, 0.5, 1.0])
    settings = rlhf.settings(
        "ppo",
        Sampling(1),
        learning_rate=0.05,
        critic_learning_rate=0.05,
        kl_coefficient=beta,
        whiten_advantages=False,
        total_steps=steps,
    )
    signals = rlhf.Signals(of_token(REWARD), (of_token(COST),))
    learner = rlhf.constrained(
        table.network, table.config, signals, table.params, settings, [0.0], constraint=lagrangian(optax.adam(0.02))
    )
    state = learner.init(jax.random.key(0), table.params, [table.critic, table.critic])
    states, info = train(learner, sweep(state, limit=limits[:, None]), steps)

    def best(mu):
        p = written(table.params) * np.exp((REWARD - mu * COST) / beta)
        return p / p.sum()

    def excess(mu, limit):
        return best(mu) @ COST - limit

    prices = [scipy.optimize.brentq(excess, 0, 10, args=(limit,)) if excess(0, limit) > 0 else 0.0 for limit in limits]
    assert prices[0] > prices[1] > prices[2] == 0
    p = written(states.networks.policy)
    np.testing.assert_allclose(p @ COST, [0.2, 0.5, best(0) @ COST], atol=0.02)
    np.testing.assert_allclose(info.multiplier[:, -1, 0], prices, atol=0.02)
    np.testing.assert_allclose(p, [best(mu) for mu in prices], atol=0.01)


FIVES = {"reward": lambda c: 0.37 * (c.response == 5), "held_out": lambda c: (c.response == 5).astype(jnp.int32)}
LONG = rlhf.settings(
    "ppo",
    Sampling(4, eos_id=EOS),
    num_minibatches=2,
    whiten_rewards=True,
    learning_rate=0.01,
    critic_learning_rate=0.01,
    kl_target=3.0,
    kl_horizon=128.0,
    missing_eos_penalty=0.1,
    refusals=((3,), (5, 5)),
)


@pytest.fixture(scope="module")
def long_run(tiny):
    """PPO with a transformer, as `training.fit` drives it; reference and policy are arguments of the program."""
    reward, held_out = FIVES.values()
    build = lambda reference: rlhf.ppo(tiny.network, tiny.config, reward, reference, LONG, held_out=held_out)
    step = tiny_lm.jit(lambda state, batch, frozen: build(frozen).step(state, *batch))
    prompts = rlhf.pad_prompts([[2], [2, 6], [7, 4, 3], [6]] * 16)
    stream, seen = Stream(prompts, 32), []
    start = build(tiny.params).init(jax.random.key(0), tiny.params, tiny.critic)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # `fit` names another state than ours
        state = training.fit(step, start, stream, 40, frozen=tiny.params, observe=lambda _, info: seen.append(info))
    return step, stream, start, state, jax.tree.map(lambda *x: np.stack(x), *seen)


def test_a_transformer_learns_to_write_what_is_rewarded(long_run):
    _, _, _, state, info = long_run
    assert info.held_out[0] < 1
    assert info.held_out[-1] > 3
    np.testing.assert_allclose(info.reward, 0.37 * info.held_out, rtol=1e-5, err_msg="truncated to integers")
    assert info.refusal[-1] > 0.8 > 0.5 > info.refusal[0]
    assert info.without_eos[-1] > info.without_eos[0]
    assert info.length[-1] > info.length[0] > 1
    assert info.value_loss[-1] < info.value_loss[0]
    assert (info.kl > -1e-5).all()
    assert info.kl[0] < 1e-5
    assert (info.reward_on_padding == 0).all(), "an int token 5 behind the end"
    assert (int(state.step), int(state.position)) == (40, 40 * 32)


def test_the_coefficient_follows_the_kl(long_run):
    *_, info = long_run
    expected = [0.02]
    for kl in info.kl[:-1]:
        expected.append(expected[-1] * (1 + np.clip(kl / 3.0 - 1, -0.2, 0.2) * 32 / 128))
    np.testing.assert_allclose(info.kl_coefficient, expected, rtol=1e-4)


def test_a_step_that_is_not_finite_changes_nothing_and_stops_the_run(long_run, tiny, monkeypatch):
    step, stream, _, state, _ = long_run
    broken = state._replace(hyper=state.hyper._replace(kl_coefficient=jnp.float32(jnp.nan)))
    after, info = step(broken, stream.at(0), tiny.params)
    assert not info.finite
    assert (jax.random.key_data(after.key) == jax.random.key_data(broken.key)).all()
    for new, old in zip(jax.tree.leaves(after._replace(key=0)), jax.tree.leaves(broken._replace(key=0))):
        np.testing.assert_array_equal(new, old)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # `fit` names another state than ours
    with pytest.raises(UserError, match=r"at step 41 is not finite"):
        training.fit(step, broken, stream, 50, frozen=tiny.params)


def test_networks_that_become_nan_in_the_last_update_are_not_kept(long_run, tiny):
    """The losses are finite, as they were taken before the update."""
    step, stream, _, state, _ = long_run
    broken = state._replace(hyper=state.hyper._replace(learning_rate=jnp.float32(jnp.inf)))
    after, info = step(broken, stream.at(0), tiny.params)
    assert not info.finite
    for new, old in zip(jax.tree.leaves(after.networks), jax.tree.leaves(broken.networks)):
        np.testing.assert_array_equal(new, old)


def test_the_state_is_closed_and_adapters_are_trained_alone(long_run, tiny, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # see tests/lm/test_lora.py
    config = lora.LoraConfig(rank=2)
    low = dataclasses.replace(tiny.config, dtype="bfloat16")
    learner = rlhf.ppo(
        transformer.network(low),
        low,
        FIVES["reward"],
        tiny.params,
        LONG,
        attach=lambda x: lora.attach(config, tiny.params, x),
    )
    state = jax.eval_shape(
        lambda: learner.init(jax.random.key(0), lora.init(config, tiny.params, jax.random.key(1)), tiny.critic)
    )
    after, info = jax.eval_shape(learner.step, state, PROMPTS, MASK)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    shape = lambda x: (x.shape, x.dtype, x.weak_type)
    assert jax.tree.map(shape, after) == jax.tree.map(shape, state)
    assert {x.dtype for x in jax.tree.leaves(info)} == {jnp.dtype("float32"), jnp.dtype("bool")}
    assert set(after.networks.policy["layers"]["q"]) == {"a", "b"}


def test_a_state_has_places_on_a_mesh(tiny):
    learner = rlhf.ppo(tiny.network, tiny.config, FIVES["reward"], tiny.params, LONG)
    mesh = dist.make_mesh(2, 2, 2)
    places = rlhf.shardings(learner.init(jax.random.key(0), tiny.params, tiny.critic), mesh)
    split = PartitionSpec(None, "fsdp", "tensor")
    assert places.networks.policy["layers"]["q"].spec == split
    assert places.networks.optimiser[1].nu["layers"]["q"].spec == split
    assert places.networks.critic["trunk"]["layers"]["q"].spec == PartitionSpec(None, None, "fsdp", "tensor")
    assert places.hyper.limit.spec == places.networks.critic_optimiser[1].count.spec == PartitionSpec()


def test_grpo_learns_from_groups(table):
    """Rewards per token, responses of several tokens, KL in the loss."""
    settings = rlhf.settings("grpo", Sampling(3, eos_id=EOS), samples_per_prompt=4)
    learner = rlhf.grpo(table.network, table.config, of_token(REWARD), table.params, settings)
    state = learner.init(jax.random.key(0), table.params)
    _, info = train(learner, sweep(state, learning_rate=[0.0, 0.1]), 40)
    assert info.reward[1, -1] > 2.5 > 1.5 > info.reward[0].max()
    np.testing.assert_allclose(info.kl[0], 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sampling": Sampling(1, temperature=0.0)}, "temperature"),
        ({"sampling": Sampling(1, top_p=0.9)}, "top_p"),
        ({"kl_estimator": "k4"}, "k1, k2, k3"),
        ({"average": "mean"}, "tokens, responses, sums"),
        ({"epochs": 0}, "positive"),
        ({"lam": 1.5}, "from 0 to 1"),
        ({"total_steps": 0}, "total_steps is 0; choose a positive"),
        ({"score_clip": -1.0}, "positive"),
        ({"learning_rate": -1.0}, "0 or a positive"),
        ({"kl_coefficient": float("nan")}, "0 or a positive"),
        ({"missing_eos_penalty": 1.0}, "eos_id"),
        ({"refusals": ((99,),)}, "outside the vocabulary"),
        ({"speed": 1}, "no setting speed"),
    ],
)
def test_bad_settings_are_refused(table, change, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users run it: types are checked in tests only

    def build(sampling=Sampling(1), **changes):
        settings = rlhf.settings("ppo", sampling, **changes)
        rlhf.ppo(table.network, table.config, of_token(REWARD), table.params, settings)

    with pytest.raises(UserError, match=words):
        build(**change)


def test_what_does_not_fit_together_is_refused(table):
    reward, settings = of_token(REWARD), rlhf.settings("ppo", Sampling(1), num_minibatches=3)
    build = lambda name, settings: rlhf.algorithm(name, table.network, table.config, reward, table.params, settings)
    learner = build("ppo", settings)
    with pytest.raises(UserError, match="1 critics"):
        learner.init(jax.random.key(0), table.params)
    with pytest.raises(UserError, match="128 responses a batch cannot be split into 3"):
        jax.eval_shape(learner.step, learner.init(jax.random.key(0), table.params, table.critic), PROMPTS, MASK)
    with pytest.raises(UserError, match="choose at least 2"):
        build("grpo", rlhf.settings("grpo", Sampling(1), samples_per_prompt=1))
    with pytest.raises(UserError, match="no algorithm 'trpo'"):
        build("trpo", settings)
    with pytest.raises(UserError, match="at least one cost"):
        rlhf.constrained(table.network, table.config, rlhf.Signals(reward), table.params, settings, [])
    signals = rlhf.Signals(reward, (reward,))
    with pytest.raises(UserError, match="1 costs and 2 limits"):
        rlhf.constrained(table.network, table.config, signals, table.params, settings, [0.0, 1.0])
    other = table.params | {"embed": jnp.eye(9)}
    with pytest.raises(UserError, match="9 tokens, the policy one of 8"):
        rlhf.ppo(table.network, table.config, reward, other, settings)
    learner = build("ppo", rlhf.settings("ppo", Sampling(table.config.max_position)))
    with pytest.raises(UserError, match="more than the context"):
        jax.eval_shape(learner.step, learner.init(jax.random.key(0), table.params, table.critic), PROMPTS, MASK)
