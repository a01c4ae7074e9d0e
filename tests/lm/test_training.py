"""The step is closed, equals the textbook, and goes on bit for bit after a stop; what is not finite stops it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import tiny_lm

from jaxalign.core.errors import UserError
from jaxalign.dist import Checkpoints
from jaxalign.lm import loss, packing, training
from jaxalign.lm.packing import Example
from jaxalign.lm.stream import Stream
from jaxalign.lm.training import TrainingConfig
from jaxalign.lm.transformer import network

CONFIG = TrainingConfig(learning_rate=2e-2, total_steps=60, warmup_steps=5, weight_decay=0.1, accumulation=2)


def rows(count=10, length=12, seed=0):
    """Rows with unequal numbers of targets."""
    random = np.random.default_rng(seed)
    made = [
        Example.of(random.integers(0, 23, size=random.integers(1, 6)), random.integers(0, 23, size=1 + i % 6))
        for i in range(count)
    ]
    return packing.pad(made, length)


def signature(tree):
    return jax.tree.map(lambda x: (x.shape, str(x.dtype), x.weak_type), tree)


def bits(tree):
    return jax.tree.map(lambda x: np.asarray(x).tobytes(), tree)


@pytest.fixture(scope="module")
def trained():
    """Loss, trainer, its compiled step, first parameters."""
    of = loss.cross_entropy(network(tiny_lm.MODEL))
    trainer = training.make(of, CONFIG)
    return of, trainer, tiny_lm.jit(trainer.step), tiny_lm.params()


@pytest.fixture(scope="module")
def whole(trained):
    """Sums and gradient of four rows at once."""
    of, _, _, params = trained
    return tiny_lm.jit(training.accumulate(of, 1))(params, (), rows(4))


def test_state_is_closed_under_step(trained):
    _, trainer, _, params = trained
    state = jax.eval_shape(trainer.init, params)
    batch = Stream(rows(), 4).at(0)
    assert signature(state) == signature(jax.eval_shape(trainer.step, state, batch)[0])
    low = training.make(trained[0], dataclasses.replace(CONFIG, param_dtype="bfloat16"))
    state = jax.eval_shape(low.init, params)
    assert {str(x.dtype) for x in jax.tree.leaves(state.params)} == {"bfloat16"}
    assert signature(state) == signature(jax.eval_shape(low.step, state, batch)[0])


def test_accumulated_gradient_is_that_of_the_whole_batch(trained, whole):
    """The step makes it in two pieces of unequal weight; the first moment is (1 - beta1) times the clipped gradient."""
    of, trainer, step, params = trained
    (total, weight, extra), gradient = whole
    state, info = step(trainer.init(params), rows(4), ())
    assert info.weight == weight == rows(4).learn.sum()
    halves = rows(4).learn[::2].sum(), rows(4).learn[1::2].sum()
    assert halves[0] != halves[1]
    np.testing.assert_allclose(info.loss, total / weight, rtol=1e-5)
    np.testing.assert_allclose(info.extra["accuracy"], extra["accuracy"] / weight, rtol=1e-6)
    clip = min(1.0, CONFIG.max_grad_norm / float(info.grad_norm))
    moment = next(
        x.mu for x in jax.tree.leaves(state.optimiser, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(x, "mu")
    )
    jax.tree.map(
        lambda m, g: np.testing.assert_allclose(m, 0.1 * clip * g / weight, rtol=1e-4, atol=1e-7), moment, gradient
    )
    with pytest.raises(UserError, match="4 rows cannot be accumulated in 3 pieces"):
        training.accumulate(of, 3)(params, (), rows(4))


def quadratic(params, frozen, batch):
    """Half squared distance of w to the rows."""
    del frozen
    each = 0.5 * jnp.sum(jnp.square(params["w"][None] - batch), axis=(1, 2))
    return each.sum(), jnp.float32(batch.shape[0]), {}


def test_step_is_adamw_with_clipping():
    """Against the formulas of the paper in float64."""
    config = TrainingConfig(
        learning_rate=0.1, total_steps=50, warmup_steps=2, schedule="linear", weight_decay=0.5, max_grad_norm=0.7
    )
    trainer = training.make(quadratic, config)
    data = np.random.default_rng(0).normal(size=(12, 3, 2)).astype(np.float32)
    w = np.full((3, 2), 2.0)
    state, step = trainer.init({"w": jnp.full((3, 2), 2.0)}), tiny_lm.jit(trainer.step)
    m = v = np.zeros((3, 2))
    for t in range(1, 6):
        batch = data[2 * t : 2 * t + 2]
        state, info = step(state, batch)
        g = (w - batch).mean(axis=0, dtype=np.float64)
        norm = np.sqrt((g**2).sum())
        np.testing.assert_allclose(info.grad_norm, norm, rtol=1e-5)
        g *= min(1.0, 0.7 / norm)
        rate = 0.1 * (t - 1) / 2 if t <= 2 else 0.1 * (1 - (t - 3) / 48)
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
        w = w - rate * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8) + 0.5 * w)
        np.testing.assert_allclose(info.learning_rate, rate, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)
    assert int(state.step) == 5
    assert int(state.position) == 10


def test_schedules():
    cosine = training.learning_rate(TrainingConfig(1.0, 100, 10, "cosine", 0.2))
    assert math.isclose(float(cosine(5)), 0.5, rel_tol=1e-6)
    assert math.isclose(float(cosine(55)), 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 2)), rel_tol=1e-5)
    assert math.isclose(float(cosine(100)), 0.2, rel_tol=1e-5)
    assert float(training.learning_rate(TrainingConfig(1.0, 100, 0, "constant"))(99)) == 1.0


def test_norms_and_biases_do_not_decay(trained):
    decayed = training.decayed(trained[3])
    assert decayed["layers"]["q"]
    assert decayed["embed"]
    assert not decayed["layers"]["mlp_norm"], "stacked norms have two axes"
    assert not decayed["final_norm"]


def test_training_memorises_and_resuming_is_continuing(trained, tmp_path):
    _, trainer, step, params = trained
    stream, seen = Stream(rows(), 4, seed=3), []
    checkpoints = Checkpoints(tmp_path / "run", keep=10)
    observe = lambda number, info: seen.append((number, info))
    end = training.fit(step, trainer.init(params), stream, 60, checkpoints=checkpoints, every=25, observe=observe)
    checkpoints.close()
    assert [number for number, _ in seen] == list(range(1, 61))
    assert seen[0][1].loss > 2.5
    assert seen[-1][1].loss < 0.3, "60 steps learn 10 short rows by heart"
    assert seen[-1][1].extra["accuracy"] > 0.9
    assert int(end.position) == 240

    again = Checkpoints(tmp_path / "run")  # another process
    assert again.latest() == 60
    middle = again.restore(jax.eval_shape(trainer.init, params), 25)
    assert (int(middle.step), int(middle.position)) == (25, 100)
    resumed = training.fit(step, middle, Stream(rows(), 4, seed=3), 60)
    again.close()
    assert bits(resumed) == bits(end)
    elsewhere = training.fit(step, middle._replace(position=0 * middle.position), Stream(rows(), 4, seed=3), 60)
    assert bits(elsewhere.params) != bits(end.params), "the position in the data matters"


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_what_is_not_finite_stops_at_its_step_and_keeps_the_state_before(tmp_path, poison):
    data = np.ones((8, 1, 2), np.float32)
    stream = Stream(data, 2, seed=0)
    clean = training.make(quadratic, TrainingConfig(learning_rate=0.1, total_steps=10, schedule="constant"))
    step, start = tiny_lm.jit(clean.step), clean.init({"w": jnp.zeros((1, 2))})
    good = training.fit(step, start, stream, 2)
    data[stream._order(0)[5]] = poison  # the third batch of the first pass
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match=r"loss at step 3 is not finite .* state after step 2 is kept in .*[Ll]ower"):
        training.fit(step, start, stream, 4, checkpoints=checkpoints, every=100)
    assert checkpoints.latest() == 2
    assert bits(checkpoints.restore(start)) == bits(good)
    checkpoints.close()
    with pytest.raises(UserError, match="no checkpoints were asked for"):
        training.fit(step, start, stream, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0; choose a positive number"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"accumulation": 0}, "accumulation is 0"),
        ({"warmup_steps": 10, "total_steps": 10}, "warmup_steps is 10 of 10"),
        ({"schedule": "step"}, "choose cosine, linear or constant"),
        ({"param_dtype": "float16"}, "choose float32 or bfloat16"),
    ],
)
def test_configs_that_make_no_sense(wrong, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users run it: types are checked in tests only
    with pytest.raises(UserError, match=message):
        TrainingConfig(**wrong)
