"""The on-policy driver: rollout, advantages, multipliers, policy step, critic fit.

Cost and return per episode are estimated as (sum over the batch) x (mean episode length) / (number of samples). The
sums are those of the present batch; the length is that of the last ten or so, so that the estimate lags behind by as
much where episodes become longer (in tasks of fixed length they do not). Because first episodes are cut at evenly
spread ages (`rollout.start`), a batch sees every phase of an episode equally, and by the renewal-reward theorem the
estimate is that of full episodes under the policy of the batch. Deviation from OmniSafe, which averages the last 100
finished episodes: with hundreds of environments those belong to policies many iterations old, and none finishes at all
at first.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from envs_mjx.api import full_precision
from jaxalign import nets
from jaxalign.core import prng
from jaxalign.core.distributions import Gaussian
from jaxalign.core.errors import UserError
from jaxalign.core.statistics import RunningStatistics
from jaxalign.core.types import Env, Learner, Network, PRNGKey
from jaxalign.dist import mesh as dist
from jaxalign.saferl import policy_steps
from jaxalign.saferl.constraints import Constraint
from jaxalign.saferl.driver import Info, check_limit, check_sizes
from jaxalign.saferl.estimators import Estimator
from jaxalign.saferl.policy_steps import PolicyStep, Problem
from jaxalign.saferl.rollout import RolloutState, Transition, rollout, start
from jaxalign.saferl.surrogates import Surrogate, ratio
from jaxalign.saferl.worlds import World, plain


class Parts(NamedTuple):
    """Everything that distinguishes one on-policy algorithm from another."""

    estimator: Estimator
    surrogate: Surrogate
    constraint: Constraint
    policy_step: PolicyStep
    critic: "CriticFit"
    world: World = plain


class CriticFit(NamedTuple):
    """How values are regressed: passes over the batch, minibatches per pass, learning rate, weight of the L2 term."""

    epochs: int
    num_minibatches: int
    learning_rate: float
    l2: float = 1e-3


@dataclasses.dataclass(frozen=True)
class OnPolicyConfig:
    """Sizes and numbers shared by all on-policy algorithms.

    Attributes:
        num_envs: environments stepped in parallel, B.
        rollout_length: steps of each environment per iteration, T.
        hidden: widths of the hidden layers of policy and critics.
        learning_rate: of the policy, where it descends a gradient.
        decay_learning_rate: whether it falls linearly to 0 over training.
        normalise_obs: whether observations are standardised with running statistics.
        initial_log_std: of every action component.
    """

    num_envs: int = 512
    rollout_length: int = 40
    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 1e-3
    decay_learning_rate: bool = True
    normalise_obs: bool = True
    initial_log_std: float = 0.0

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration."""
        return self.num_envs * self.rollout_length


class Hyper(NamedTuple):
    """Numbers that can be swept without compiling again: leaves of the state.

    Attributes:
        limit: highest allowed cost per episode, ``[K]``.
        learning_rate: of the policy.
        critic_learning_rate: of the critics.
        total_iterations: over which the policy's learning rate decays.
    """

    limit: Float[Array, " K"]
    learning_rate: Float[Array, ""]
    critic_learning_rate: Float[Array, ""]
    total_iterations: Float[Array, ""]


class OnPolicyState(NamedTuple):
    """What the next iteration needs."""

    policy: Any
    policy_step: Any
    critic: Any
    critic_optimiser: Any
    constraint: Any
    statistics: RunningStatistics
    rollout: RolloutState
    episodes: Float[Array, "2"]  # decayed counts of steps and of episode ends
    hyper: Hyper
    iteration: Int[Array, ""]
    key: PRNGKey


class Policy(NamedTuple):
    """A Gaussian policy: ``init(key)``, and ``dist(params, statistics, obs)`` on raw observations."""

    init: Any
    dist: Any


def gaussian_policy(env: Env, config: OnPolicyConfig) -> Policy:
    """A perceptron gives the mean; the standard deviation is a parameter that does not see the observation.

    Actions are not squashed: the environment clips them to the actuators' range, as with OmniSafe.
    """
    net = nets.mlp((env.spec.obs_size, *config.hidden, env.spec.action_size))

    def init(key):
        log_std = jnp.full(env.spec.action_size, config.initial_log_std, jnp.float32)
        return {"mean": net.init(key), "log_std": log_std}

    def dist_of(params, obs) -> Gaussian:
        mean = net.apply(params["mean"], obs)
        return Gaussian(mean, jnp.broadcast_to(params["log_std"], mean.shape))

    return Policy(init, dist_of)


def normaliser(config: OnPolicyConfig):
    """``(statistics, obs) -> obs`` as the networks see them."""
    return RunningStatistics.normalise if config.normalise_obs else lambda statistics, obs: obs


def collector(env: Env, world: World, limit: Sequence[float], config: OnPolicyConfig, mesh: Mesh):
    """``(policy params, statistics, budget, limit, environments) -> (environments, transitions [T, B])``.

    Spread over the mesh. The environments are those of ``world(env, budget, limit)``.
    """
    policy = gaussian_policy(world(env, jnp.asarray(limit), jnp.asarray(limit)), config)
    normalise = normaliser(config)

    def collect(params, statistics, budget, limit, envs: RolloutState) -> tuple[RolloutState, Transition]:
        def act(keys, obs):
            dist_of = policy.dist(params, normalise(statistics, obs))
            action = jax.vmap(lambda key, mean, log_std: Gaussian(mean, log_std).sample(key))(keys, *dist_of)
            return action, dist_of.log_prob(action)

        return rollout(functools.partial(world, env), (budget, limit), act, envs, config.rollout_length)

    return dist.over_envs(collect, mesh, (None, None, None, None, 0), (0, 1))


def learned(state: "OnPolicyState") -> Any:
    """The part of a learner's state that acts."""
    return state.policy, state.statistics


def actor(env: Env, config: OnPolicyConfig, deterministic: bool):
    """``(learned, key, obs) -> action``; the mean if `deterministic`."""
    policy, normalise = gaussian_policy(env, config), normaliser(config)

    def choose(learned, key, obs):
        params, statistics = learned
        dist_of = policy.dist(params, normalise(statistics, obs))
        return dist_of.mean if deterministic else dist_of.sample(key)

    return choose


def count_episodes(episodes: Float[Array, "2"], data: Transition, horizon: int):
    """Decayed counts of steps and episode ends with `data` added, and the mean episode length they imply (steps)."""
    ends = jnp.sum(data.terminated | data.truncated, dtype=jnp.float32)
    episodes = 0.9 * episodes + jnp.stack([jnp.float32(data.reward.size), ends])
    return episodes, jnp.minimum(episodes[0] / jnp.maximum(episodes[1], 1e-6), horizon)


def _critics(env: Env, config: OnPolicyConfig, number: int) -> Network:
    """`number` separate value networks; their outputs are stacked on the last axis."""
    net = nets.mlp((env.spec.obs_size, *config.hidden, 1))

    def apply(params, obs):
        return jnp.moveaxis(jax.vmap(net.apply, (0, None))(params, obs)[..., 0], 0, -1)

    return Network(lambda key: jax.vmap(net.init)(jax.random.split(key, number)), apply)


def make_problem(
    parts: Parts, dist_of, params, batch: Transition, advantage: Float[Array, "T B C"], duals, excess, episode_length
) -> Problem:
    """The batch as functions of the policy parameters; this is where the constraint enters the loss.

    The reward advantage is standardised over the batch, cost advantages are centred only: their scale is that of the
    limit.
    """
    old = jax.lax.stop_gradient(dist_of(params, batch.obs))
    reward_adv = advantage[..., 0] - advantage[..., 0].mean()
    reward_adv = reward_adv / (jnp.sqrt(jnp.mean(jnp.square(reward_adv))) + 1e-8)
    cost_adv = advantage[..., 1:] - advantage[..., 1:].mean((0, 1))
    mixed = parts.constraint.mix(duals, reward_adv, cost_adv)

    def compare(params, rows):
        new = dist_of(params, batch.obs[rows])
        log_ratio = new.log_prob(batch.action[rows]) - batch.log_prob[rows]
        return log_ratio, new, Gaussian(*(x[rows] for x in old))

    def reward_loss(params, rows):
        log_ratio, new, before = compare(params, rows)
        return ratio()(log_ratio, reward_adv[rows], new.kl(before))

    def cost_change(params, rows):
        log_ratio, *_ = compare(params, rows)
        return episode_length * jnp.mean((jnp.exp(log_ratio) - 1.0)[..., None] * cost_adv[rows], axis=(0, 1))

    def loss(params, rows):
        log_ratio, new, before = compare(params, rows)
        objective = parts.surrogate(log_ratio, mixed[rows], new.kl(before))
        per_step = (x / episode_length for x in (cost_change(params, rows), excess))
        return objective + parts.constraint.penalty(duals, *per_step), before.kl(new).mean()

    def mean_kl(params, rows):
        _, new, before = compare(params, rows)
        return before.kl(new).mean()

    def kl_between(params, reference, rows):
        obs = batch.obs[rows]
        return dist_of(params, obs).kl(dist_of(reference, obs)).mean()

    multipliers = parts.constraint.multipliers(duals)
    return Problem(
        loss, reward_loss, cost_change, mean_kl, kl_between, multipliers, excess, episode_length, batch.obs.shape[0]
    )


def _fit(critic: Network, optimiser, fit: CriticFit, state: "OnPolicyState", key, obs, target):
    """Minibatch regression of the values on their targets: (params, optimiser state, mean squared error [1 + K])."""
    rate = state.hyper.critic_learning_rate

    def loss(params, rows):
        squares = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))
        error = jnp.mean(jnp.square(critic.apply(params, obs[rows]) - target[rows]), axis=(0, 1))
        return jnp.sum(error) + fit.l2 * squares, error

    def minibatch(carry, rows):
        params, opt = carry
        (_, error), gradients = jax.value_and_grad(loss, has_aux=True)(params, rows)
        descend = jax.vmap(lambda g, o, p: policy_steps.descend(optimiser, g, o, p, rate))  # each network for itself
        return descend(gradients, opt, params), error

    def epoch(carry, key):
        return jax.lax.scan(minibatch, carry, policy_steps.minibatches(key, obs.shape[0], fit.num_minibatches))

    start = state.critic, state.critic_optimiser
    (params, opt), error = jax.lax.scan(epoch, start, jax.random.split(key, fit.epochs))
    return params, opt, error[-1].mean(axis=0)


def check(env: Env, limit: Sequence[float], parts: Parts, config: OnPolicyConfig, mesh: Mesh) -> None:
    """Raises UserError for numbers that make no sense, before anything is compiled."""
    check_limit(env, limit)
    check_sizes(config, positive=("num_envs", "rollout_length"), rates=("learning_rate",))
    if config.rollout_length < 1 or config.rollout_length % parts.critic.num_minibatches:
        raise UserError(
            f"rollout_length is {config.rollout_length}, which cannot be split into {parts.critic.num_minibatches} "
            "minibatches of whole time steps; choose a multiple."
        )
    dist.check_divisible(config.num_envs, mesh)


def on_policy(
    env: Env,
    limit: Sequence[float],
    parts: Parts,
    config: OnPolicyConfig,
    total_iterations: int,
    mesh: Mesh,
) -> Learner:
    """Builds the learner; one step consumes ``config.steps_per_iteration`` transitions.

    Args:
        env: environment whose costs (``env.spec.cost_names``, see `rollout.select_costs`) are the constraints.
        limit: highest allowed cost per episode, one per constraint.
        parts: the algorithm.
        config: sizes.
        total_iterations: over which the learning rate decays.
        mesh: devices to spread the environments over.

    Raises:
        UserError: sizes or limits that make no sense.
    """
    check(env, limit, parts, config, mesh)
    seen = parts.world(env, jnp.asarray(limit), jnp.asarray(limit))  # what the policy lives in
    policy, critic = gaussian_policy(seen, config), _critics(seen, config, 1 + len(limit))
    optimiser, normalise = policy_steps.adam(), normaliser(config)
    collect = collector(env, parts.world, limit, config, mesh)
    begin = dist.over_envs(lambda keys, index: start(seen, keys, index, config.num_envs), mesh, (0, 0), 0)
    hyper = (limit, config.learning_rate, parts.critic.learning_rate, total_iterations)

    def init(key) -> OnPolicyState:
        policy_params, critic_params = policy.init(prng.stream(key, "policy")), critic.init(prng.stream(key, "critic"))
        keys = jax.random.split(prng.stream(key, "environments"), config.num_envs)
        return OnPolicyState(
            policy=policy_params,
            policy_step=parts.policy_step.init(policy_params),
            critic=critic_params,
            critic_optimiser=jax.vmap(optimiser.init)(critic_params),
            constraint=parts.constraint.init(len(limit)),
            statistics=RunningStatistics.empty(seen.spec.obs_size),
            rollout=begin(keys, jnp.arange(config.num_envs)),
            episodes=jnp.zeros(2),
            hyper=Hyper(*(jnp.asarray(x, jnp.float32) for x in hyper)),
            iteration=jnp.int32(0),
            key=prng.stream(key, "updates"),
        )

    def step(state: OnPolicyState) -> tuple[OnPolicyState, Info]:
        key = jax.random.fold_in(state.key, state.iteration)
        budget = parts.constraint.budget(state.constraint, state.hyper.limit)
        envs, data = collect(state.policy, state.statistics, budget, state.hyper.limit, state.rollout)
        batch = data._replace(obs=normalise(state.statistics, data.obs))
        signal = jnp.concatenate([data.reward[..., None], data.cost], axis=-1)
        value = critic.apply(state.critic, batch.obs)
        next_value = critic.apply(state.critic, normalise(state.statistics, data.next_obs))
        advantage, target = parts.estimator(signal, value, next_value, data.terminated, data.truncated)

        episodes, episode_length = count_episodes(state.episodes, data, env.spec.horizon)
        per_episode = episode_length * signal.mean((0, 1))
        duals = parts.constraint.observe(state.constraint, per_episode[1:], state.hyper.limit)
        excess = per_episode[1:] - state.hyper.limit
        problem = make_problem(parts, policy.dist, state.policy, batch, advantage, duals, excess, episode_length)
        decay = jnp.maximum(1.0 - state.iteration / state.hyper.total_iterations, 0.0)
        rate = state.hyper.learning_rate * (decay if config.decay_learning_rate else 1.0)
        policy_params, policy_state, extra = parts.policy_step.update(
            prng.stream(key, "policy"), state.policy, state.policy_step, problem, rate
        )
        critic_params, critic_opt, error = _fit(
            critic, optimiser, parts.critic, state, prng.stream(key, "critic"), batch.obs, target
        )
        task_return = episode_length * data.task_reward.mean()
        new = state._replace(
            policy=policy_params,
            policy_step=policy_state,
            critic=critic_params,
            critic_optimiser=critic_opt,
            constraint=duals,
            statistics=state.statistics.update(data.obs).update(data.next_obs),  # first and last observations too
            rollout=envs,
            episodes=episodes,
            iteration=state.iteration + 1,
        )
        extra = extra | {
            "action_std": jnp.exp(policy_params["log_std"]).mean(),
            "critic_error": error[0],
            "cost_critic_error": error[1:].mean(),
            "learning_rate": rate,
            "episode_length": episode_length,
        }
        return new, Info(task_return, per_episode[1:], parts.constraint.multipliers(duals), extra)

    return Learner(full_precision(init), full_precision(step))
