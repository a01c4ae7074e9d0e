"""The experiments on rebound and resistance with a published checkpoint and real text.

    base --aligned text--> theta_1 .. theta_A --opposite or neutral text--> measured on the way

Rebound: models aligned on n examples are fine-tuned on examples of the opposite kind, or on neutral ones; measured are
KL(model || base) and the likelihood of held-out text of both kinds. Resistance: an alignment run is cut into three
slices; a slice learns the answers of a later one (forward) or of an earlier one (inverse), at one temperature.

Source: Ji et al. 2024, arXiv 2406.06144, settings of the released scripts in `PRESETS`. Additions: the neutral control,
the base under the same perturbation, and the entropy of the answers beside the loss. The paper scores generations with
classifiers; here the score is how much likelier held-out aligned text is than opposite text, per token, which needs no
further model.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from jaxalign.core.errors import UserError
from jaxalign.core.prng import stream
from jaxalign.lm import ModelConfig, Sampling, generate, network, training
from jaxalign.lm import sharding as places
from jaxalign.lm.chat import pad_left
from jaxalign.lm.data import Demonstration
from jaxalign.lm.loss import cross_entropy, targets, token_log_probs
from jaxalign.lm.packing import Batch, Example, pad

_ROWS = 8  # texts measured, or answered, at once on each device
PAIRS = ((1, 2), (2, 3), (1, 3))
"""Slices k < l between which resistance is measured."""


@dataclass(frozen=True)
class Settings:
    """Fine-tuning as in the released scripts: AdamW at a constant rate, no warm-up, no decay, one pass.

    Attributes:
        batch: examples in a step.
        length: tokens of an example at most; what is longer is cut.
        template: of prompts, with ``{}`` for the text; plain text, whatever template the tokenizer has.
        learning_rate: constant.
        param_dtype: of parameters and moments. bfloat16 halves the memory, but at 1e-5 most updates are lost in it.
        answer: tokens of an answer at most, in the experiment on resistance.
        temperature: of the answers.
        top_p: of the answers.
        seed: of the order of examples and of the answers.
    """

    batch: int = 8
    length: int = 512
    template: str = "{}"
    learning_rate: float = 1e-5
    param_dtype: str = "float32"
    answer: int = 512
    temperature: float = 0.05
    top_p: float = 0.95
    seed: int = 42

    def __post_init__(self):
        for name in ("batch", "length", "answer"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; choose 1 or more.")
        if "{}" not in self.template:
            raise UserError(f"The template {self.template!r} has no place for the prompt; put {{}} where it goes.")
        if not self.temperature > 0:
            raise UserError(f"temperature is {self.temperature}; choose a positive one, such as 0.05.")


_CONVERSATION = "BEGINNING OF CONVERSATION: USER: {} ASSISTANT:"
_CHAT = Settings(batch=32, length=2048, template=_CONVERSATION, answer=1024)
PRESETS = {"imdb": Settings(), "safe": _CHAT, "truthful": _CHAT, "instruction": _CHAT}
"""By task: 1 x 8 or 4 x 8 examples in a step (per device, accumulated), 512 or 2,048 tokens."""


class Tuner:
    """Fine-tunes and measures one checkpoint; holds no state but compiled programs.

    Args:
        config: of the model.
        tokenizer: of the model.
        settings: how to train.
        mesh: devices, of `dist.make_mesh`.
    """

    def __init__(self, config: ModelConfig, tokenizer: Any, settings: Settings, mesh: Mesh):
        self.config, self.tokenizer, self.settings, self.mesh = config, tokenizer, settings, mesh
        self.network = network(config)
        steady = training.TrainingConfig(
            settings.learning_rate,
            total_steps=1,
            schedule="constant",
            param_dtype=settings.param_dtype,  # type: ignore[arg-type]
        )
        self.trainer = training.make(cross_entropy(self.network), steady)
        self._step = None
        self._observe = jax.jit(self._sums)

    def examples(self, demonstrations: Sequence[Demonstration]) -> list[Example]:
        """Token sequences, cut to the longest that is allowed; those whose prompt fills it are left out.

        Raises:
            UserError: none is left.
        """
        found = [self._example(self._prompt(d), [*self._ids(d.response), self._end]) for d in demonstrations]
        kept = [example for example in found if example is not None]
        if not kept:
            raise UserError(f"No example has room for a response in {self.settings.length} tokens; allow more.")
        return kept

    def _example(self, prompt: list[int], response: list[int]) -> Example | None:
        room = self.settings.length - len(prompt)
        return Example.of(prompt, response[:room]) if room > 0 else None

    def _prompt(self, demonstration: Demonstration) -> list[int]:
        if not isinstance(demonstration.prompt, str):
            raise UserError("The protocol needs prompts of plain text, not of messages; choose another schema.")
        return self.tokenizer(self.settings.template.format(demonstration.prompt))["input_ids"]

    def _ids(self, text: Any) -> list[int]:
        if not isinstance(text, str):
            raise UserError("The protocol needs responses of plain text, not of messages; choose another schema.")
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @property
    def _end(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise UserError("The tokenizer has no token that ends a text; give it an eos_token.")
        return int(self.tokenizer.eos_token_id)

    def tune(
        self, params: Any, examples: Sequence[Example], stops: Sequence[int]
    ) -> Iterator[tuple[int, Any, Float[np.ndarray, " steps"]]]:
        """One pass in order, from fresh moments.

        Yields:
            At each stop the examples seen, the parameters there, and the loss of every step so far. The parameters are
            given away to the next step: measure or copy them before going on.

        Raises:
            UserError: fewer examples than the last stop or than a batch, a stop that is no whole number of batches, or
                a loss that is not finite.
        """
        size = self.settings.batch
        for stop in stops:
            if stop % size or stop < 0:
                raise UserError(f"{stop} examples are no whole number of batches of {size}; choose multiples of it.")
        if len(examples) < max(stops):
            raise UserError(f"{max(stops)} examples were asked for, but there are {len(examples)}; choose fewer.")
        return self._tune(params, examples, sorted(stops))

    def _tune(self, params: Any, examples: Sequence[Example], stops: Sequence[int]) -> Iterator[Any]:
        size, state, losses = self.settings.batch, self.trainer.init(params), []
        state = jax.device_put(state, places.shardings(state, self.mesh))
        self._step = self._step or places.jit_step(self.trainer.step, state, self.mesh)
        rows = pad(examples[: max(*stops, 1)], self._width)
        for seen in range(0, max(stops) + 1, size):
            if seen:
                batch = Batch(*(x[seen - size : seen] for x in rows))
                state, info = self._step(state, batch)
                losses.append(float(info.loss))
                if not bool(info.finite):
                    raise UserError(f"The loss is {losses[-1]} after {seen} examples; lower the learning rate.")
            if seen in stops:
                yield seen, state.params, np.array(losses)

    @property
    def _width(self) -> int:
        return min(self.settings.length, self.config.max_position)

    def observe(self, params: Any, base: Any, probes: Mapping[str, Sequence[Example]]) -> "Observation":
        """A model beside its base on held-out texts of every kind.

        Args:
            params: of the model.
            base: of the base.
            probes: by kind, "aligned" and "opposite" among them.
        """
        kl, nll, count = {}, {}, {}
        for kind, examples in probes.items():
            rows = pad(examples, self._width)
            sums = [np.asarray(self._observe(params, base, batch)) for batch in self._batches(rows)]
            kl[kind], nll[kind], count[kind] = np.sum(sums, axis=0)
        total = sum(count.values())
        nats = {kind: float(nll[kind] / count[kind]) for kind in probes}
        return Observation(float(sum(kl.values()) / total), nats, nats["opposite"] - nats["aligned"])

    def _sums(self, params: Any, base: Any, batch: Batch) -> Array:
        """KL(model || base) and -log p of the texts over predicted tokens, and how many these are."""
        inputs = batch.tokens, batch.positions, batch.segment_ids
        logits, before = (self.network.apply(p, *inputs).astype(jnp.float32) for p in (params, base))
        now, then = jax.nn.log_softmax(logits), jax.nn.log_softmax(before)
        counted = targets(batch)
        ahead = jnp.roll(counted, -1, axis=1).at[:, -1].set(False)  # where what is predicted counts
        divergence = jnp.sum(jnp.exp(now) * (now - then), axis=-1)
        chosen = token_log_probs(logits, jnp.asarray(batch.tokens))
        return jnp.stack([jnp.sum(divergence * ahead), -jnp.sum(chosen * counted), counted.sum()])

    def _batches(self, rows: Batch):
        """Parts of one shape; the last is filled up with rows in which nothing counts."""
        size = _ROWS * self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        for start in range(0, len(rows.tokens), size):
            part = Batch(*(x[start : start + size] for x in rows))
            missing = size - len(part.tokens)
            part = Batch(*(np.pad(x, ((0, missing), (0, 0))) for x in part))
            yield jax.device_put(part, places.rows(self.mesh))

    def answers(self, params: Any, demonstrations: Sequence[Demonstration]) -> tuple[list[Example], float]:
        """What a model answers to the prompts, and the mean entropy of its answers, nats per token.

        The entropy is -log of the probability that the answers had at their temperature (without the cut of top-p).
        """
        settings, size = self.settings, _ROWS * self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        prompts = [ids for d in demonstrations if len(ids := self._prompt(d)) < settings.length]
        width, made, surprise, count = max(map(len, prompts)), [], 0.0, 0
        tokens = min(settings.answer, self.config.max_position - width)
        sampling = Sampling(tokens, settings.temperature, top_p=settings.top_p, eos_id=self._end)
        root = stream(jax.random.key(settings.seed), "answers")
        for start in range(0, len(prompts), size):
            chosen = prompts[start : start + size]
            filled = [*chosen, *[chosen[0]] * (size - len(chosen))]
            ids, there = (jax.device_put(x, places.rows(self.mesh)) for x in pad_left(filled, self._end, width))
            key = jax.random.fold_in(root, start)
            out = generate(self.network, self.config, params, ids, there, key, sampling)
            total, number = self._surprise(params, out.tokens, out.mask, width, len(chosen))
            surprise, count = surprise + float(total), count + int(number)
            response, length = np.asarray(out.tokens)[:, width:], np.asarray(out.length)
            found = [self._example(p, r[:n].tolist()) for p, r, n in zip(chosen, response, length)]
            made += [example for example in found if example is not None]
        return made, surprise / max(count, 1)

    def _surprise(self, params: Any, tokens: Array, mask: Array, width: int, rows: int) -> tuple[Array, Array]:
        return _tempered(self.network, params, tokens, mask, self.settings.temperature, width, rows)


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6))
def _tempered(net: Any, params: Any, tokens: Array, mask: Array, temperature: float, width: int, rows: int):
    """Sum of -log p of the response tokens at a temperature over the first rows, and their number."""
    positions = jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)
    logits = net.apply(params, tokens, positions, mask.astype(jnp.int32)) / temperature
    counted = mask.at[:, :width].set(False) & (jnp.arange(len(tokens)) < rows)[:, None]
    return -jnp.sum(token_log_probs(logits, tokens) * counted), counted.sum()


class Observation(NamedTuple):
    """A model on held-out texts.

    Attributes:
        kl: KL(model || base) over all of them, nats per token.
        nats: -log p per token by kind of text.
        score: nats of opposite texts less those of aligned ones.
    """

    kl: float
    nats: dict[str, float]
    score: float
