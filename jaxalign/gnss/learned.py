"""Learned correction, an ablation: a small network trained on the twin's draws to say where a fix comes from.

Input: the fix (east, north, up) relative to the middle of the grid and sines and cosines of it at several wavelengths.
Output: what to add to the fix, and the logarithm of the scale of its error. Training pairs are drawn from the database:
a cell, weighted by its availability, a place in it, and a Gaussian draw of its simulated error with the same ignorance
of the model as the posterior assumes. With enough capacity it would learn the posterior mean itself; one network holds
one time slice.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from jaxalign.core.prng import stream
from jaxalign.core.types import PRNGKey
from jaxalign.gnss.correction import Belief, Corrected, Reason, raster, widened
from jaxalign.gnss.database import Database
from jaxalign.gnss.twin import PAIRS

_VARIANCE = 3.85  # of the Gaussian with 68 % within the same radius as the Student density of scale 1


class Training(NamedTuple):
    """Sizes of the network and of its training."""

    hidden: int = 128
    waves_m: tuple[float, ...] = (240.0, 120.0, 60.0, 30.0, 15.0)
    steps: int = 2000
    batch: int = 1024
    learning_rate: float = 2e-3


class Network(nnx.Module):
    """Two hidden layers on waves of the fix."""

    def __init__(self, training: Training, rngs: nnx.Rngs):
        self.waves_m = training.waves_m
        inputs = 3 * (1 + 2 * len(training.waves_m))
        self.first = nnx.Linear(inputs, training.hidden, rngs=rngs)
        self.second = nnx.Linear(training.hidden, training.hidden, rngs=rngs)
        self.last = nnx.Linear(training.hidden, 3, rngs=rngs)

    def __call__(self, fix_m: Float[Array, "B 3"]) -> tuple[Float[Array, "B 2"], Float[Array, " B"]]:
        """What to add to the fixes, m, and the logarithm of the scale of its error."""
        phase = jnp.concatenate([2 * jnp.pi * fix_m / wave for wave in self.waves_m], axis=1)
        x = jnp.concatenate([fix_m / 100.0, jnp.sin(phase), jnp.cos(phase)], axis=1)
        x = nnx.gelu(self.second(nnx.gelu(self.first(x))))
        x = self.last(x)
        return 10.0 * x[:, :2], 2.0 + x[:, 2]


class Model(NamedTuple):
    """A trained network, the middle of its grid, and the mean loss over the last tenth of the training."""

    network: Network
    middle_m: Float[np.ndarray, "3"]
    loss: float
    database: Database


def train(
    key: PRNGKey, database: Database, slice_: int, training: Training = Training(), belief: Belief = Belief()
) -> Model:
    """Fits a network to one slice: minimises the negative log likelihood of a round Student density."""
    grid = database.grid
    cells, draw = _sampler(database, slice_, belief)
    middle = np.array([*cells.mean(axis=0), 0.0], np.float32)
    network = Network(training, nnx.Rngs(stream(key, "initial")))
    optimiser = optax.adam(optax.cosine_decay_schedule(training.learning_rate, training.steps))
    graph, params = nnx.split(network)

    def loss(params, key):
        truth, fix = draw(key, training.batch, grid.spacing_m)
        offset, log_scale = nnx.merge(graph, params)(fix - middle)
        square = ((fix[:, :2] + offset - truth) ** 2).sum(-1)
        # one degree of freedom: far-away draws must not rule the fit
        return (1.5 * jnp.log1p(square * jnp.exp(-2 * log_scale)) + 2 * log_scale).mean()

    def step(carry, key):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, key)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    keys = jax.random.split(stream(key, "training"), training.steps)
    (params, _), losses = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))((params, optimiser.init(params)))
    return Model(nnx.merge(graph, params), middle, float(losses[-training.steps // 10 :].mean()), database)


def correct(model: Model, fix_m: Float[np.ndarray, "M 3"]) -> Corrected:
    """Places of fixes; none outside the grid."""
    fix_m = np.asarray(fix_m, np.float32)
    _, on_grid = model.database.grid.locate(fix_m)
    finite = np.isfinite(fix_m).all(axis=1)
    offset, log_scale = model.network(jnp.asarray(np.nan_to_num(fix_m) - model.middle_m))
    reason = np.where(on_grid, Reason.CORRECTED, Reason.OUTSIDE_GRID)
    reason = np.where(finite, reason, Reason.NO_FIX)
    good = (reason == Reason.CORRECTED)[:, None]
    variance = _VARIANCE * np.exp(2 * np.asarray(log_scale, float))[:, None] * np.array([1.0, 0.0, 1.0])
    pos = np.where(good, fix_m[:, :2] + np.asarray(offset), fix_m[:, :2])
    return Corrected(pos, np.where(good, variance, np.nan), reason)


def _sampler(database, slice_, belief):
    """Centres of the cells with a fix, and a function that draws pairs of truth and fix."""
    image = raster(database, slice_)
    known = np.asarray(image.availability) > 0
    centre, mean = image.centre_m[known], image.mean_m[known]
    entries = widened(image, belief)[known]
    matrix = jnp.zeros((len(centre), 3, 3))
    for k, (i, j) in enumerate(PAIRS):
        matrix = matrix.at[:, i, j].set(entries[:, k]).at[:, j, i].set(entries[:, k])
    root = jnp.linalg.cholesky(matrix)
    share = image.availability[known] / image.availability[known].sum()

    def draw(key, count, spacing_m):
        cell = jax.random.choice(stream(key, "cell"), len(centre), (count,), p=share)
        within = jax.random.uniform(stream(key, "place"), (count, 2), minval=-0.5, maxval=0.5)
        truth = centre[cell] + spacing_m * within
        noise = jnp.einsum(
            "nij,nj->ni", root[cell], jax.random.normal(stream(key, "error"), (count, 3)), precision="highest"
        )
        return truth, jnp.pad(truth, ((0, 0), (0, 1))) + mean[cell] + noise

    return np.asarray(centre), draw
