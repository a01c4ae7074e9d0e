"""From a reward model to a policy: best of n, rejection fine-tuning, PPO; judged by the true reward."""

import functools
from typing import Any

import jax
import numpy as np
import world
from config import Config
from models import Judge, Score, language_model, reward, score
from preferences import example, sampling, write

from jaxalign import rlhf
from jaxalign.core import prng
from jaxalign.core.errors import UserError
from jaxalign.lm import network
from jaxalign.rewards import with_head


def judged(config: Config, policy: Any) -> np.ndarray:
    """True rewards of texts to held-out prompts, the same prompts in the same order for every policy."""
    prompts = np.repeat(world.prompts(held_out=True), config.test_texts, axis=0)
    return world.gold(prompts, write(config, policy, prompts, jax.random.key(99)))


def candidates(config: Config, policy: Any, prompts: np.ndarray, key: Any) -> np.ndarray:
    """N texts to every prompt, ``[B, n, LENGTH]``."""
    every = np.repeat(prompts, config.best_of, axis=0)
    return write(config, policy, every, key).reshape(len(prompts), config.best_of, -1)


def best(total: Score, prompts: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Of the texts ``[B, n, LENGTH]`` to every prompt the one that scores highest."""
    flat = texts.reshape(-1, texts.shape[-1])
    found = total(np.repeat(prompts, texts.shape[1], axis=0), flat).reshape(texts.shape[:2])
    return texts[np.arange(len(texts)), found.argmax(1)]


def rejection(config: Config, policy: Any, total: Score, drawn: tuple[np.ndarray, np.ndarray], seed: int) -> Any:
    """The policy fine-tuned on the best texts to training prompts."""
    prompts, texts = drawn
    data = [example(*row) for row in zip(prompts, best(total, prompts, texts), strict=True)]
    return language_model(config, data, config.rft_steps, prng.stream(jax.random.key(seed), "rft"), policy)


def ppo(config: Config, policy: Any, judge: Judge, seed: int) -> Any:
    """The policy after PPO against a reward model.

    Raises:
        UserError: it diverged.
    """
    random = np.random.default_rng([seed, 7])
    asked = world.prompts(held_out=False)
    begin = np.repeat(asked, 8, axis=0)
    spread = float(np.std(score(config, judge)(begin, write(config, policy, begin, jax.random.key(seed)))))
    state = None
    for _ in range(config.iterations):
        prompts = asked[random.integers(len(asked), size=config.prompts_per_iteration)]
        state, info = _step(config, judge.kind, judge.params, policy, spread, state, prompts, jax.random.key(seed))
    if not bool(info.finite):
        raise UserError(f"PPO diverged with seed {seed}; lower --ppo-learning-rate.")
    return state.networks.policy


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step(config: Config, kind: str, params: Any, policy: Any, spread: Any, state: Any, prompts: Any, key: Any) -> Any:
    """An iteration, the first one from `policy`; one program for all reward models of a kind."""
    scaled = lambda completions: reward(config, kind, params)(completions) / spread
    settings = rlhf.settings(
        "ppo",
        sampling(),
        learning_rate=config.ppo_learning_rate,
        critic_learning_rate=3 * config.ppo_learning_rate,
        kl_coefficient=config.kl,
    )
    learner = rlhf.ppo(network(config.model), config.model, scaled, policy, settings)
    if state is None:
        state = learner.init(key, policy, with_head(policy, config.width, prng.stream(key, "critic")))
    return learner.step(state, prompts, prompts > 0)
