"""The off-policy driver: rollout into a replay buffer, then critic and actor updates on random minibatches.

Many environments are stepped per update, so the update-to-data ratio is explicit. Cost and return per episode are
averages over about the last `WINDOW` horizons of experience, as (reward per step) x (steps per episode); first episodes
are cut at evenly spread ages (`rollout.start`), so that all phases of an episode are seen equally.

Numbers are OmniSafe's (https://github.com/PKU-Alignment/omnisafe, YAML defaults): networks, batch, learning rate,
noise, delay, averaging. Deviations: an update every 8 steps (OmniSafe: every step of its one environment); SAC learns
its temperature (OmniSafe: 0.2, or 1e-5 in its settings for single tasks, whose rewards per step are small); multipliers
move once per iteration, not per update, with rates to match; DDPG's targets come from the target actor, as its paper
says; the cost critics' targets come from the actions that the policy takes, not from its mean.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from envs_mjx.api import full_precision
from jaxalign import nets
from jaxalign.core import prng
from jaxalign.core.errors import UserError
from jaxalign.core.types import Env, Learner, Network, PRNGKey
from jaxalign.dist import mesh as dist
from jaxalign.saferl import policy_steps, replay
from jaxalign.saferl.actors import Actor, squashed
from jaxalign.saferl.constraints import Constraint
from jaxalign.saferl.driver import Info, check_limit, check_sizes
from jaxalign.saferl.replay import Experience, Replay
from jaxalign.saferl.rollout import RolloutState, rollout, start

WINDOW = 20  # horizons of experience over which cost and return are averaged


class Parts(NamedTuple):
    """Everything that distinguishes one off-policy algorithm from another."""

    actor: Actor
    num_critics: int
    constraint: Constraint


@dataclasses.dataclass(frozen=True)
class OffPolicyConfig:
    """Sizes and numbers shared by all off-policy algorithms.

    Attributes:
        num_envs: environments stepped in parallel, B.
        rollout_length: steps of each environment per iteration, T.
        update_to_data: updates of the critics per environment step.
        batch_size: transitions per update, a multiple of `num_envs`.
        capacity: transitions that are kept; rounded down to whole iterations.
        random_steps: environment steps with random actions, without updates, at the beginning.
        multiplier_steps: environment steps after which multipliers begin to move.
        hidden: widths of the hidden layers of actor and critics.
        learning_rate: of the actor.
        critic_learning_rate: of the critics.
        averaging: weight of the new in the target networks' running average.
        discount: gamma.
    """

    num_envs: int = 128
    rollout_length: int = 16
    update_to_data: float = 1 / 8
    batch_size: int = 256
    capacity: int = 1_000_000
    random_steps: int = 10_000
    multiplier_steps: int = 200_000
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    critic_learning_rate: float = 3e-4
    averaging: float = 0.005
    discount: float = 0.99

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration."""
        return self.num_envs * self.rollout_length

    @property
    def updates(self) -> int:
        """Critic updates of one iteration."""
        return round(self.steps_per_iteration * self.update_to_data)


class Hyper(NamedTuple):
    """Numbers that can be swept without compiling again: leaves of the state."""

    limit: Float[Array, " K"]
    learning_rate: Float[Array, ""]
    critic_learning_rate: Float[Array, ""]


class Tally(NamedTuple):
    """Fading sums over experience: steps, ends of episodes, rewards, costs [K]."""

    steps: Float[Array, ""]
    ends: Float[Array, ""]
    reward: Float[Array, ""]
    cost: Float[Array, " K"]


class OffPolicyState(NamedTuple):
    """What the next iteration needs."""

    actor: Any
    actor_optimiser: Any
    critic: Any
    critic_optimiser: Any
    targets: tuple[Any, Any]  # running averages of actor and critics
    log_temperature: Float[Array, ""]
    temperature_optimiser: Any
    constraint: Any
    replay: Replay
    rollout: RolloutState
    tally: Tally
    hyper: Hyper
    iteration: Int[Array, ""]
    key: PRNGKey


class Learned(NamedTuple):
    """What updates change."""

    actor: Any
    actor_optimiser: Any
    critic: Any
    critic_optimiser: Any
    targets: tuple[Any, Any]
    log_temperature: Float[Array, ""]
    temperature_optimiser: Any


class Models(NamedTuple):
    """Networks: actor ``(params, obs) -> outputs``, and critics ``(params, obs, action) -> [..., N + K]``."""

    actor: Network
    critic: Network


def scaled(env: Env) -> Env:
    """`env` with actions in [-1, 1] per component, stretched to its own range."""
    low, high = jnp.array(env.spec.action_low), jnp.array(env.spec.action_high)
    ones = (1.0,) * env.spec.action_size

    def step(state, action):
        return env.step(state, low + 0.5 * (action + 1.0) * (high - low))

    return env._replace(step=step, spec=env.spec._replace(action_low=tuple(-x for x in ones), action_high=ones))


def models(env: Env, parts: Parts, config: OffPolicyConfig) -> Models:
    """The networks of an algorithm: N reward critics and one for every cost, stacked."""
    obs, actions = env.spec.obs_size, env.spec.action_size
    actor = nets.mlp((obs, *config.hidden, parts.actor.outputs * actions), jax.nn.relu)
    value = nets.mlp((obs + actions, *config.hidden, 1), jax.nn.relu)
    number = parts.num_critics + len(env.spec.cost_names)

    def apply(params, obs, action):
        inputs = jnp.concatenate([obs, action], axis=-1)
        return jnp.moveaxis(jax.vmap(value.apply, (0, None))(params, inputs)[..., 0], 0, -1)

    return Models(actor, Network(lambda key: jax.vmap(value.init)(jax.random.split(key, number)), apply))


def critic_targets(parts: Parts, batch: Experience, next_value, price, discount: float) -> Float[Array, "N C"]:
    """Targets of all critics: r + gamma (min Q' - price) where not terminated, and c + gamma Q_c' for every cost."""
    live = discount * (1.0 - batch.terminated.astype(jnp.float32))
    reward = batch.reward + live * (next_value[:, : parts.num_critics].min(axis=-1) - price)
    cost = batch.cost + live[:, None] * next_value[:, parts.num_critics :]
    return jnp.concatenate([jnp.repeat(reward[:, None], parts.num_critics, axis=1), cost], axis=1)


def critic_loss(value: Float[Array, "N C"], target: Float[Array, "N C"]):
    """Mean squared error, summed over critics."""
    return jnp.sum(jnp.mean(jnp.square(value - jax.lax.stop_gradient(target)), axis=0))


def actor_loss(parts: Parts, duals, value: Float[Array, "N C"], price: Float[Array, " N"]):
    """Minus the value that the constraint handler mixes from (Q - price) and the costs' Q_c."""
    reward, cost = value[:, : parts.num_critics], value[:, parts.num_critics :]
    best = reward.min(axis=-1) if parts.actor.pessimistic else reward[:, 0]
    return -jnp.mean(parts.constraint.mix(duals, best - price, cost))


def updater(env: Env, parts: Parts, config: OffPolicyConfig):
    """``(key, learned, replay, duals, hyper) -> (learned, (critic loss, actor loss))``: all updates of an iteration."""
    nets_, optimiser, delay = models(env, parts, config), policy_steps.adam(), parts.actor.delay
    temper = optax.scale_by_adam()
    per_env = config.batch_size // config.num_envs

    def descend(gradients, opt, params, rate):
        return policy_steps.descend(optimiser, gradients, opt, params, rate)

    def critics(key, learned: Learned, batch: Experience, hyper: Hyper) -> tuple[Learned, Array]:
        slow_actor, slow_critic = learned.targets
        outputs = nets_.actor.apply(slow_actor if parts.actor.slow_target else learned.actor, batch.next_obs)
        action, log_prob = parts.actor.target(key, outputs)
        price = jnp.exp(learned.log_temperature) * log_prob
        next_value = nets_.critic.apply(slow_critic, batch.next_obs, action)
        target = critic_targets(parts, batch, next_value, price, config.discount)

        def loss(params):
            return critic_loss(nets_.critic.apply(params, batch.obs, batch.action), target)

        error, gradients = jax.value_and_grad(loss)(learned.critic)
        step = jax.vmap(lambda g, o, p: descend(g, o, p, hyper.critic_learning_rate))  # each network for itself
        critic, opt = step(gradients, learned.critic_optimiser, learned.critic)
        return learned._replace(critic=critic, critic_optimiser=opt), error

    def actor(key, learned: Learned, batch: Experience, duals, hyper: Hyper) -> tuple[Learned, Array]:
        def loss(params):
            action, log_prob = parts.actor.improve(key, nets_.actor.apply(params, batch.obs))
            price = jnp.exp(learned.log_temperature) * log_prob
            return actor_loss(parts, duals, nets_.critic.apply(learned.critic, batch.obs, action), price), log_prob

        (error, log_prob), gradients = jax.value_and_grad(loss, has_aux=True)(learned.actor)
        params, opt = descend(gradients, learned.actor_optimiser, learned.actor, hyper.learning_rate)
        targets = optax.incremental_update((params, learned.critic), learned.targets, config.averaging)
        surplus = -log_prob.mean() + env.spec.action_size  # of entropy over its target
        direction, heat = temper.update(surplus, learned.temperature_optimiser)
        cooler = learned.log_temperature - parts.actor.temperature_rate * jnp.asarray(direction)
        new = {"actor": params, "actor_optimiser": opt, "targets": targets, "log_temperature": cooler}
        return learned._replace(**new, temperature_optimiser=heat), error

    def update(key, learned: Learned, buffer: Replay, duals, hyper: Hyper):
        def one(learned, key):
            *pairs, key_actor = jax.random.split(key, 2 * delay + 1)
            batches = [replay.sample(buffer, key, per_env) for key in pairs[::2]]
            errors = jnp.float32(0.0)
            for key_target, batch in zip(pairs[1::2], batches, strict=True):
                learned, error = critics(key_target, learned, batch, hyper)
                errors += error / delay
            learned, actor_error = actor(key_actor, learned, batches[-1], duals, hyper)
            return learned, (errors, actor_error)

        learned, errors = jax.lax.scan(one, learned, jax.random.split(key, config.updates // delay))
        return learned, jax.tree.map(jnp.mean, errors)

    return update


def collector(env: Env, parts: Parts, config: OffPolicyConfig, mesh: Mesh):
    """``(actor params, whether to act at random, environments) -> (environments, transitions)``, over the mesh."""
    network = models(env, parts, config).actor

    def collect(params, random, envs: RolloutState):
        def act(keys, obs):
            outputs = network.apply(params, obs)
            chosen = jax.vmap(parts.actor.explore)(keys, outputs)
            uniform = jax.vmap(lambda key: jax.random.uniform(key, chosen.shape[1:], minval=-1.0, maxval=1.0))(keys)
            return jnp.where(random, uniform, chosen), jnp.zeros(obs.shape[0])

        return rollout(lambda: env, (), act, envs, config.rollout_length)

    return dist.over_envs(collect, mesh, (None, None, 0), (0, 1))


def learned(state: "OffPolicyState") -> Any:
    """The part of a learner's state that acts."""
    return state.actor


def actor(env: Env, config: OffPolicyConfig, deterministic: bool):
    """``(learned, key, obs) -> action`` in the environment's own range.

    A squashed Gaussian, told by its twice as many outputs, is sampled unless `deterministic`.
    """
    low, high = (jnp.array(bound) for bound in (env.spec.action_low, env.spec.action_high))

    def choose(params, key, obs):
        outputs = params["layers"][len(config.hidden)]["bias"].shape[-1]
        out = nets.mlp((env.spec.obs_size, *config.hidden, outputs), jax.nn.relu).apply(params, obs)
        if outputs == 2 * env.spec.action_size:
            dist_of = squashed(out)
            action = dist_of.mode() if deterministic else dist_of.sample_and_log_prob(key)[0]
        else:
            action = jnp.tanh(out)
        return low + 0.5 * (action + 1.0) * (high - low)

    return choose


def check(env: Env, limit: Sequence[float], parts: Parts, config: OffPolicyConfig, mesh: Mesh) -> None:
    """Raises UserError for numbers that make no sense, before anything is compiled."""
    check_limit(env, limit)
    check_sizes(
        config,
        positive=("num_envs", "rollout_length", "batch_size", "update_to_data", "averaging", "discount"),
        rates=("learning_rate", "critic_learning_rate", "random_steps", "multiplier_steps"),
        shares=("averaging", "discount"),
    )
    if config.batch_size < 1 or config.batch_size % config.num_envs:
        raise UserError(
            f"batch_size is {config.batch_size}: a minibatch holds as many transitions of every one of the "
            f"{config.num_envs} environments; choose a multiple of that."
        )
    if config.updates < 1 or config.updates % parts.actor.delay:
        raise UserError(
            f"update_to_data {config.update_to_data:g} x {config.steps_per_iteration} steps per iteration makes "
            f"{config.updates} updates; it must be a positive multiple of {parts.actor.delay}."
        )
    if config.capacity < config.steps_per_iteration:
        raise UserError(
            f"capacity is {config.capacity}, but one iteration makes {config.steps_per_iteration} steps; enlarge it."
        )
    dist.check_divisible(config.num_envs, mesh)


def off_policy(env: Env, limit: Sequence[float], parts: Parts, config: OffPolicyConfig, mesh: Mesh) -> Learner:
    """Builds the learner; one step consumes ``config.steps_per_iteration`` transitions.

    Args:
        env: environment whose costs (``env.spec.cost_names``, see `rollout.select_costs`) are the constraints.
        limit: highest allowed cost per episode, one per constraint.
        parts: the algorithm.
        config: sizes.
        mesh: devices to spread the environments over.

    Raises:
        UserError: sizes or limits that make no sense.
    """
    check(env, limit, parts, config, mesh)
    env = scaled(env)
    actor, critic = models(env, parts, config)
    optimiser, update = policy_steps.adam(), updater(env, parts, config)
    collect = collector(env, parts, config, mesh)
    begin = dist.over_envs(lambda keys, index: start(env, keys, index, config.num_envs), mesh, (0, 0), 0)
    slots = config.capacity // config.steps_per_iteration * config.rollout_length
    fade = jnp.exp(-config.steps_per_iteration / (WINDOW * env.spec.horizon))

    def init(key) -> OffPolicyState:
        actor_params, critic_params = actor.init(prng.stream(key, "policy")), critic.init(prng.stream(key, "critic"))
        keys = jax.random.split(prng.stream(key, "environments"), config.num_envs)
        envs = begin(keys, jnp.arange(config.num_envs))
        _, data = jax.eval_shape(collect, actor_params, jnp.bool_(True), envs)
        hyper = (limit, config.learning_rate, config.critic_learning_rate)
        return OffPolicyState(
            actor=actor_params,
            actor_optimiser=optimiser.init(actor_params),
            critic=critic_params,
            critic_optimiser=jax.vmap(optimiser.init)(critic_params),
            targets=(actor_params, critic_params),
            log_temperature=jnp.log(jnp.float32(parts.actor.temperature)),
            temperature_optimiser=optax.scale_by_adam().init(jnp.float32(0.0)),
            constraint=parts.constraint.init(len(limit)),
            replay=replay.empty(_experience(data), slots),
            rollout=envs,
            tally=Tally(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()), jnp.zeros(len(limit))),
            hyper=Hyper(*(jnp.asarray(x, jnp.float32) for x in hyper)),
            iteration=jnp.int32(0),
            key=prng.stream(key, "updates"),
        )

    def step(state: OffPolicyState) -> tuple[OffPolicyState, Info]:
        key = jax.random.fold_in(state.key, state.iteration)
        steps = state.iteration * config.steps_per_iteration
        random = steps < config.random_steps
        envs, data = collect(state.actor, random, state.rollout)
        buffer = replay.push(state.replay, _experience(data))

        tally = _count(state.tally, data, fade)
        episode_length = jnp.minimum(tally.steps / jnp.maximum(tally.ends, 1e-6), env.spec.horizon)
        per_step = jnp.append(tally.reward, tally.cost) / tally.steps
        per_episode = episode_length * per_step
        seen = parts.constraint.observe(state.constraint, per_episode[1:], state.hyper.limit)
        moving = steps >= config.multiplier_steps
        duals = jax.tree.map(lambda new, old: jnp.where(moving, new, old), seen, state.constraint)

        learned = Learned(*(getattr(state, name) for name in Learned._fields))
        nothing = (learned, (jnp.zeros(()), jnp.zeros(())))
        learned, (critic_error, actor_error) = jax.lax.cond(
            random, lambda: nothing, lambda: update(key, learned, buffer, duals, state.hyper)
        )
        new = state._replace(
            **learned._asdict(),
            constraint=duals,
            replay=buffer,
            rollout=envs,
            tally=tally,
            iteration=state.iteration + 1,
        )
        extra = {"critic_loss": critic_error, "actor_loss": actor_error, "episode_length": episode_length}
        extra |= {"temperature": jnp.exp(learned.log_temperature)}
        return new, Info(per_episode[0], per_episode[1:], parts.constraint.multipliers(duals), extra)

    return Learner(full_precision(init), full_precision(step))


def _experience(data) -> Experience:
    return Experience(data.obs, data.action, data.reward, data.cost, data.next_obs, data.terminated)


def _count(tally: Tally, data, fade) -> Tally:
    ends = jnp.sum(data.terminated | data.truncated, dtype=jnp.float32)
    new = Tally(jnp.float32(data.reward.size), ends, data.task_reward.sum(), data.cost.sum((0, 1)))
    return jax.tree.map(lambda old, x: fade * old + x, tally, new)
