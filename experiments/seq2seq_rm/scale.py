"""The experiment's steps on published models of 0.5 to 7 billion parameters, run by shapes: what fits on which devices.

    python experiments/seq2seq_rm/scale.py --model llama-2-7b --fsdp 8 --tensor 2
    python experiments/seq2seq_rm/scale.py --model qwen2.5-0.5b --hbm 80

Supervised fine-tuning, both reward models and PPO against the sequence-to-sequence one are the functions that the small
experiment trains with; `jax.eval_shape` runs them on the real sizes without allocating anything, so that an error of
shapes, contexts or batch sizes shows on a laptop. No device of the kind need be there.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign import rlhf
from jaxalign.core.errors import UserError
from jaxalign.lm import ModelConfig, Sampling, count_parameters, network, sharding, training, unembed
from jaxalign.lm.loss import cross_entropy
from jaxalign.lm.packing import Batch
from jaxalign.lm.published import published
from jaxalign.lm.transformer import check_context, empty_cache, parameter_shapes
from jaxalign.rewards import PairBatch, preference_loss, seq2seq, value_network

GIB = 2**30


@dataclass(frozen=True)
class Scale:
    """A run on a mesh of ``data x fsdp x tensor`` devices; numbers of rows are of all devices together.

    Attributes:
        model: name in `lm.published`; policy, reference, critic and reward models are all of it.
        data: devices that copy parameters.
        fsdp: devices that split them and gather them where they are used.
        tensor: devices that split heads, MLP and vocabulary.
        rows: packed rows in a step of fine-tuning and reward models.
        length: tokens of a row.
        prompts: of a PPO iteration, one response each.
        prompt: tokens.
        response: tokens, at most.
        minibatches: of PPO.
        pieces: in which the vocabulary is read in the loss.
        param_dtype: of trained parameters, their gradients and moments; computation is in the model's bfloat16.
        hbm: memory of a device, GiB; None: only print.
    """

    model: str = "qwen2.5-0.5b"
    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    rows: int = 16
    length: int = 2048
    prompts: int = 64
    prompt: int = 512
    response: int = 512
    minibatches: int = 8
    pieces: int = 4
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    hbm: float | None = None

    @property
    def devices(self) -> int:
        """How many."""
        return self.data * self.fsdp * self.tensor

    @property
    def config(self) -> ModelConfig:
        """The model, recomputing layers in the backward pass."""
        return replace(published(self.model), remat=True)

    def share(self, rows: int) -> int:
        """Rows on one device.

        Raises:
            UserError: they cannot be dealt out evenly.
        """
        shares = self.data * self.fsdp
        if rows < 1 or rows % shares:
            raise UserError(f"A batch of {rows} rows cannot be dealt out over {shares} devices; choose a multiple.")
        return rows // shares

    def __post_init__(self):
        sizes = (self.data, self.fsdp, self.tensor)
        if min(sizes) < 1:
            raise UserError(f"A mesh of {' x '.join(map(str, sizes))} devices is not possible; choose at least 1 each.")


class Stage(NamedTuple):
    """What a step keeps in memory, bytes on one device.

    Attributes:
        name: of the stage.
        trained: parameters.
        moments: of the optimiser.
        gradients: like the parameters.
        frozen: reference and reward model.
        activations: what the forward pass keeps for the backward one, and one layer's and one piece of logits' own.
        cache: keys and values while writing.
    """

    name: str
    trained: int
    moments: int
    gradients: int
    frozen: int
    activations: int
    cache: int

    @property
    def total(self) -> int:
        """At its fullest: gradients and activations are gone while responses are written."""
        return self.trained + self.moments + self.frozen + max(self.gradients + self.activations, self.cache)


def stages(scale: Scale) -> list[Stage]:
    """Runs all stages by shapes.

    Raises:
        UserError: unknown model, rows that cannot be dealt out, a prompt and response longer than the context.
    """
    check_context(scale.config, scale.length)
    values = value_network(network(scale.config), scale.config.hidden_size)
    language = cross_entropy(network(scale.config), scale.pieces, functools.partial(unembed, scale.config))
    model, value_model = parameter_shapes(scale.config), jax.eval_shape(values.init, jax.random.key(0))
    rows = batch(scale.rows, scale.length)
    pairs = jax.eval_shape(lambda x: PairBatch(x, jnp.zeros((scale.rows, 1))), rows)
    read = logits(scale, scale.length // scale.pieces)
    return [
        supervised(scale, "supervised fine-tuning", language, model, rows, read),
        supervised(scale, "scalar reward model", preference_loss(values), value_model, pairs, 0),
        supervised(scale, "seq2seq reward model", language, model, rows, read),
        ppo(scale, model, value_model),
    ]


def batch(rows: int, length: int) -> Any:
    """A `Batch` of shapes."""
    shape = functools.partial(jax.ShapeDtypeStruct, (rows, length))
    return jax.eval_shape(lambda x: Batch(x, x, x, x > 0), shape(jnp.int32))


def supervised(scale: Scale, name: str, loss: training.Loss, params: Any, rows: Any, read: int) -> Stage:
    """One step of whatever has a loss; `read`: bytes a row of the vocabulary's share in activations."""
    here = scale.share(scale.rows)
    trainer = training.make(loss, training.TrainingConfig(param_dtype=scale.param_dtype))
    state = jax.eval_shape(trainer.init, params)
    after, _ = jax.eval_shape(trainer.step, state, rows)
    closed(name, state, after)

    def kept(number: int) -> int:
        some = jax.tree.map(lambda x: jax.ShapeDtypeStruct((number, *x.shape[1:]), x.dtype), rows)
        return residuals(lambda p, x: loss(p, (), x)[0], state.params, some)

    held = here * (kept(2) - kept(1) + layer(scale, scale.length) + read)
    size = functools.partial(on_device, scale)
    return Stage(name, size(state.params), size(state.optimiser), size(state.params), 0, held, 0)


def ppo(scale: Scale, model: Any, value_model: Any) -> Stage:
    """One iteration: policy and critic are trained, reference and reward model frozen.

    The learner is built inside the function that is traced, so that large parameters are arguments of the program.
    """
    config, net = scale.config, network(scale.config)
    settings = rlhf.settings(
        "ppo",
        Sampling(scale.response, eos_id=2),
        num_minibatches=scale.minibatches,
        param_dtype=scale.param_dtype,
    )

    def learner(reference: Any, judge: Any) -> rlhf.RLLearner:
        reward = seq2seq.as_reward(config, judge, (3,), "signed")
        return rlhf.ppo(net, config, reward, reference, settings)

    init = lambda reference, judge, critic: learner(reference, judge).init(jax.random.key(0), reference, critic)
    step = lambda state, reference, judge, *prompts: learner(reference, judge).step(state, *prompts)
    scale.share(scale.prompts // scale.minibatches)
    state = jax.eval_shape(init, model, model, value_model)
    prompts = jax.ShapeDtypeStruct((scale.prompts, scale.prompt), jnp.int32)
    after, _ = jax.eval_shape(step, state, model, model, prompts, jax.ShapeDtypeStruct(prompts.shape, bool))
    closed("PPO", state, after)

    width, here = scale.prompt + scale.response, scale.share(scale.prompts)
    kept = lambda rows: residuals(lambda p, x: net.apply(p, x, hidden=True).sum(), model, batch(rows, width).tokens)
    a_row = kept(2) - kept(1) + layer(scale, width) + logits(scale, scale.response)
    networks, size = state.networks, functools.partial(on_device, scale)
    trained = size(networks.policy) + size(networks.critic)
    moments = size(networks.optimiser) + size(networks.critic_optimiser)
    cache = total_bytes(jax.eval_shape(lambda: empty_cache(config, here, width))) + here * logits(scale, 1)
    return Stage("PPO", trained, moments, trained, 2 * size(model), here // scale.minibatches * a_row, cache)


def residuals(function: Callable[[Any, Any], jax.Array], params: Any, rows: Any) -> int:
    """Bytes that the forward pass of a scalar function keeps for its gradient, parameters among them."""
    return total_bytes(jax.eval_shape(lambda p, x: jax.vjp(lambda p: function(p, x), p)[1], params, rows))


def layer(scale: Scale, length: int) -> int:
    """Bytes a row that one layer keeps while it is recomputed: scores of all columns above all."""
    one = replace(scale.config, num_layers=1, remat=False, sliding_layers=scale.config.sliding_layers[:1])
    loss = lambda p, x: network(one).apply(p, x, hidden=True).sum()
    kept = [residuals(loss, parameter_shapes(one), batch(rows, length).tokens) for rows in (1, 2)]
    return kept[1] - kept[0]


def logits(scale: Scale, columns: int) -> int:
    """Bytes a row of float32 logits and their gradient, split over `tensor`."""
    return 2 * 4 * columns * scale.config.vocab_size // scale.tensor


def on_device(scale: Scale, tree: Any) -> int:
    """Bytes on one device by `lm.sharding.TABLE`, for devices that need not exist; what does not split is whole."""
    sizes = {"data": scale.data, "fsdp": scale.fsdp, "tensor": scale.tensor}

    def leaf(path: tuple[Any, ...], x: Any) -> int:
        names = [name for key in path if (name := getattr(key, "key", "")) in sharding.TABLE]
        axes = sharding.TABLE[names[-1]] if names else ()  # counters of optimisers have no name there
        ways = [sizes[a] for a, n in zip(axes[::-1], x.shape[::-1]) if a is not None and n % sizes[a] == 0]
        return int(np.prod(x.shape, dtype=np.int64)) * x.dtype.itemsize // math.prod(ways)

    return sum(jax.tree.leaves(jax.tree_util.tree_map_with_path(leaf, tree)))


def total_bytes(tree: Any) -> int:
    """Of all leaves; keys of randomness, a few bytes, do not count."""
    leaves = [x for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.extended)]
    return sum(int(np.prod(x.shape, dtype=np.int64)) * x.dtype.itemsize for x in leaves)


def closed(name: str, before: Any, after: Any) -> None:
    """Raises RuntimeError unless a step gives back the shapes and types that it was given."""
    sketch = lambda tree: jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)
    if sketch(before) != sketch(after):
        raise RuntimeError(f"The state of {name} is not closed under its step.")


def table(scale: Scale) -> str:
    """The stages as a table in GiB, and whether they fit."""
    head = ("stage", "parameters", "moments", "gradients", "frozen", "activations", "cache", "fullest")
    lines = [
        f"{scale.model}: {count_parameters(scale.config):,} parameters on {scale.devices} devices (data {scale.data}, "
        f"fsdp {scale.fsdp}, tensor {scale.tensor}); GiB per device",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
    ]
    for stage in stages(scale):
        sizes = [f"{x / GIB:.2f}" for x in (*stage[1:], stage.total)]
        verdict = ""
        if scale.hbm is not None:
            verdict = " fits" if stage.total <= scale.hbm * GIB else f" exceeds {scale.hbm:g}"
        lines.append(f"| {stage.name} | {' | '.join(sizes)}{verdict} |")
    lines += [
        "",
        "Activations and cache are dealt out by rows; that `tensor` splits them too is not counted, nor are gathered",
        "layers and the compiler's scratch memory, so leave a tenth free.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    import tyro

    print(table(tyro.cli(Scale, description=__doc__)))
