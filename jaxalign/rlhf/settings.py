"""Sizes and numbers of reinforcement learning on tokens."""

import dataclasses
import math
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxalign.core.errors import UserError
from jaxalign.lm.config import ModelConfig
from jaxalign.lm.sampling import Sampling
from jaxalign.rlhf import kl

Average = Literal["tokens", "responses", "sums"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """All of it, static; the numbers of `Hyper` start from here and can then be swept.

    Defaults from PKU's safe-rlhf: learning rates, clips, gamma, lambda, `kl_coefficient`.

    Attributes:
        sampling: how responses are written; top-k and top-p are refused, since the policy that is improved would not be
            the one that writes. With a temperature, policy and reference are those of logits divided by it.
        samples_per_prompt: responses to each prompt of a batch.
        epochs: passes over the responses of a batch.
        num_minibatches: parts of a pass; also the parts in which responses are scored, to fit the memory.
        gamma: discount per token.
        lam: trace decay of advantages, per token.
        kl_estimator: "k1", "k2" or "k3", see `kl`.
        kl_in: the penalty is taken from the "reward" of each token, or added to the "loss".
        kl_target: KL per response, nats, that the adaptive controller holds; None: the coefficient stays.
        kl_horizon: responses over which the coefficient may change by a fifth.
        whiten_rewards: divide rewards by their standard deviation over the batch (their mean stays: shifting it would
            pay for length).
        whiten_advantages: standardise those of the reward over the batch.
        average: the loss is the mean over "tokens", the mean over responses of their means ("responses": a token of a
            short response weighs more), or the mean over responses of their "sums".
        max_grad_norm: the gradient is scaled down to this global norm.
        missing_eos_penalty: taken from the reward, at its position, of a response that was cut off.
        refusals: how a refusal begins, in tokens; counted in `Info.refusal`.
        param_dtype: in which trained parameters are kept.
        learning_rate: of the policy.
        critic_learning_rate: of the critics.
        kl_coefficient: beta, of the penalty.
        clip: of the probability ratio, around 1.
        value_clip: how far a value may move in one iteration before its loss stops to pull.
        score_clip: largest absolute reward of a token, after the penalty.
        total_steps: both learning rates fall to 0 over these iterations along a cosine; infinite: they stay.
    """

    sampling: Sampling
    samples_per_prompt: int = 1
    epochs: int = 4
    num_minibatches: int = 1
    gamma: float = 1.0
    lam: float = 0.95
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    kl_in: Literal["reward", "loss"] = "reward"
    kl_target: float | None = None
    kl_horizon: float = 10_000.0
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    average: Average = "tokens"
    max_grad_norm: float = 1.0
    missing_eos_penalty: float = 0.0
    refusals: tuple[tuple[int, ...], ...] = ()
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    learning_rate: float = 1e-5
    critic_learning_rate: float = 5e-6
    kl_coefficient: float = 0.02
    clip: float = 0.2
    value_clip: float = 5.0
    score_clip: float = 50.0
    total_steps: float | int = math.inf

    def __post_init__(self):
        kl.estimator(self.kl_estimator)
        for name, options in (
            ("kl_in", ("reward", "loss")),
            ("average", ("tokens", "responses", "sums")),
            ("param_dtype", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in options:
                raise UserError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(options)}.")
        positive = ("samples_per_prompt", "epochs", "num_minibatches", "max_grad_norm", "kl_horizon", "clip")
        for name in (*positive, "value_clip", "score_clip", "total_steps"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}; choose a positive number.")
        for name in ("learning_rate", "critic_learning_rate", "kl_coefficient"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}; choose 0 or a positive number.")
        if self.kl_target is not None and not self.kl_target > 0:
            raise UserError(f"kl_target is {self.kl_target}; choose a positive number of nats, or None.")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; choose a number from 0 to 1.")
        self._check_sampling()

    def _check_sampling(self) -> None:
        sampling = self.sampling
        if sampling.temperature == 0 or sampling.top_k or sampling.top_p < 1:
            raise UserError(
                f"Responses are to be sampled with temperature {sampling.temperature}, top_k {sampling.top_k}, top_p "
                f"{sampling.top_p}; while training, the policy must write with its own probabilities: a temperature "
                f"above 0, top_k 0, top_p 1."
            )
        if self.missing_eos_penalty and not sampling.stops:
            raise UserError("missing_eos_penalty is set, but sampling.eos_id is None: name the token, or leave it 0.")


class Hyper(NamedTuple):
    """Numbers that can be swept without compiling again: leaves of the state, as in `Settings`.

    Attributes:
        limit: highest allowed mean cost of a response, ``[K]``.
    """

    learning_rate: Float[Array, ""]
    critic_learning_rate: Float[Array, ""]
    kl_coefficient: Float[Array, ""]
    clip: Float[Array, ""]
    value_clip: Float[Array, ""]
    score_clip: Float[Array, ""]
    total_steps: Float[Array, ""]
    limit: Float[Array, " K"]

    @classmethod
    def of(cls, settings: Settings, limit: tuple[float, ...]) -> "Hyper":
        """The first values."""
        numbers = {name: jnp.float32(getattr(settings, name)) for name in cls._fields[:-1]}
        return cls(**numbers, limit=jnp.asarray(limit, jnp.float32))


def check(settings: Settings, config: ModelConfig, reference: dict) -> None:
    """Raises UserError where settings, policy and reference do not fit together."""
    rows = reference["embed"].shape[0]
    if rows != config.vocab_size:
        raise UserError(
            f"The reference has a vocabulary of {rows} tokens, the policy one of {config.vocab_size}; the KL compares "
            f"them token by token, so both must be of one tokenizer."
        )
    named = {*settings.sampling.stops, settings.sampling.pad_id, *(t for pattern in settings.refusals for t in pattern)}
    for token in named:
        if not 0 <= token < config.vocab_size:
            raise UserError(f"Token {token} in the settings is outside the vocabulary of {config.vocab_size}.")


def check_rows(prompts: int, settings: Settings) -> None:
    """Raises UserError unless the responses of a batch can be dealt out over the minibatches."""
    rows = prompts * settings.samples_per_prompt
    if rows % settings.num_minibatches:
        raise UserError(
            f"{rows} responses a batch cannot be split into {settings.num_minibatches} minibatches; choose a multiple."
        )
