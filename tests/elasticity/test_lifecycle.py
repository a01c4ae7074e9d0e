"""Lives of tiny models: batches of seeds, starts and perturbations give what single runs give; measures are right."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special
from tiny_lm import jit

from jaxalign.core import prng
from jaxalign.core.errors import UserError
from jaxalign.core.types import Network
from jaxalign.elasticity import dialects, lifecycle, mitigation
from jaxalign.elasticity.lifecycle import PERTURBATIONS, Settings
from jaxalign.lm.loss import cross_entropy

TINY = Settings(
    seeds=(3, 8),
    width=8,
    layers=1,
    length=6,
    volumes=(0, 20, 40),
    aligned=(32, 128),
    slice=64,
    perturbation=128,
    every=64,
    batch=8,
    pretraining_batch=16,
    pretraining_rate=1e-2,
    rate=1e-2,
    probe=16,
    written=8,
)
KINDS = ("novel", "mixture")


def quick(f, *static):
    """The same function, compiled in half the time."""
    return jit(f.__wrapped__, static_argnums=static)


@pytest.fixture(scope="module")
def bases():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "_fresh", quick(lifecycle._fresh, 0))
        patch.setattr(lifecycle, "_pretrain", quick(lifecycle._pretrain, 0, 1))
        said = []
        found = lifecycle.pretrain(TINY, lambda steps, loss: said.append((steps, loss)))
    assert [steps for steps, _ in said] == [20, 40]
    assert said[1][1] < said[0][1] < np.log(40) + 0.1
    assert list(found) == [0, 20, 40]
    return found


@pytest.fixture(scope="module")
def aligned(bases):
    return quick(lifecycle.align, 0)(TINY, bases[40])


@pytest.fixture(scope="module")
def observed(bases, aligned):
    weights = jnp.stack([dialects.mixture(PERTURBATIONS[kind]) for kind in KINDS])
    return jax.device_get(quick(lifecycle.perturb, 0)(TINY, bases[40], aligned.starts, weights))


@pytest.fixture(scope="module")
def probe():
    return np.asarray(jit(functools.partial(lifecycle.probes, TINY))())


@pytest.fixture(scope="module")
def log_probs(probe):
    """Of a model on all probes [4, 16, 4, 40], by NumPy."""
    apply = jit(TINY.network.apply)
    flat = probe.reshape(-1, 6)
    return lambda params: special.log_softmax(np.asarray(apply(params, flat), float), -1)[:, 1:-1].reshape(4, 16, 4, 40)


def at(tree, *place):
    return jax.tree.map(lambda x: x[place], tree)


def test_measures_before_the_perturbation(bases, aligned, observed, probe, log_probs):
    """Whatever comes, a life begins as the aligned model, which is measured here again with NumPy."""
    assert observed.kl.shape == (len(KINDS), 3, 2, 3)
    assert observed.bits.shape == (len(KINDS), 3, 2, 3, 4)
    np.testing.assert_allclose(observed.kl[0, ..., 0], observed.kl[1, ..., 0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(observed.moved[..., 0], 0.0, atol=1e-6)
    np.testing.assert_allclose(observed.kl[:, 0, :, 0], 0.0, atol=1e-6)
    assert (observed.bits[0, 1:, :, 0, 0] < observed.bits[0, :-1, :, 0, 0]).all(), "more alignment, fewer bits on safe"
    for seed in (0, 1):
        now, base = log_probs(at(aligned.starts, 2, seed)), log_probs(at(bases[40], seed))
        kl = (np.exp(now) * (now - base)).sum(-1)[:3].mean()
        np.testing.assert_allclose(observed.kl[0, 2, seed, 0], kl, rtol=1e-3, atol=1e-6)
        chosen = np.take_along_axis(now, probe[:, :, 2:, None], -1)[..., 0]
        np.testing.assert_allclose(observed.bits[0, 2, seed, 0], -chosen.mean((1, 2)) / np.log(2), rtol=1e-4)


def test_a_lane_is_a_run_by_itself(bases, aligned, observed, log_probs):
    """Perturbation, start and seed end where Adam, written out, ends."""
    kind, start, seed = 0, 1, 1
    params = at(aligned.starts, start, seed)
    world, key = dialects.make(TINY.world), prng.stream(jax.random.key(TINY.seeds[seed]), "perturbation")
    draw = jit(lambda: dialects.draw(world, key, dialects.mixture(PERTURBATIONS[KINDS[kind]]), TINY.perturbation, 6))
    texts, optimiser = np.asarray(draw()), optax.adam(TINY.rate)

    @jit
    def step(params, moments, rows):
        def loss(params):
            logits = TINY.network.apply(params, rows)[:, 1:-1]
            return optax.softmax_cross_entropy_with_integer_labels(logits, rows[:, 2:]).mean()

        updates, moments = optimiser.update(jax.grad(loss)(params), moments)
        return optax.apply_updates(params, updates), moments

    life, moments = params, optimiser.init(params)
    for rows in np.split(texts, len(texts) // TINY.batch):
        life, moments = step(life, moments, rows)
    end, begin, base = (log_probs(x)[:3] for x in (life, params, at(bases[40], seed)))
    divergence = lambda p, q: (np.exp(p) * (p - q)).sum(-1).mean()
    np.testing.assert_allclose(observed.kl[kind, start, seed, -1], divergence(end, base), rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(observed.kl_reverse[kind, start, seed, -1], divergence(base, end), rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(observed.moved[kind, start, seed, -1], divergence(end, begin), rtol=2e-3, atol=1e-6)


@pytest.fixture
def resist(monkeypatch):
    monkeypatch.setattr(lifecycle, "_resist", RESIST)
    return lifecycle.resist


RESIST = quick(lifecycle._resist, 0, 2)


def test_equal_slices_do_not_resist(aligned, resist):
    """Both directions are the same run, and at temperature 1 a model's own answers cost it their entropy."""
    same = jax.tree.map(lambda x: np.broadcast_to(x[:1], x.shape), jax.device_get(aligned.slices))
    found = resist(TINY, same, 1.0)
    np.testing.assert_allclose(found.loss[0], found.loss[1], rtol=1e-5)
    np.testing.assert_allclose(found.start, found.entropy, rtol=1e-5)
    assert found.curve.shape == (2, 3, 2, 1 + TINY.slice // TINY.every)
    assert (np.asarray(found.distinct) > 0.5).all()


def test_the_inverse_trains_the_later_on_the_earlier(aligned, resist):
    """The third slice is blanked: all its parameters are 0, so that every token is as likely to it."""
    only_two = lambda x: np.where(np.arange(3).reshape(-1, *[1] * (x.ndim - 1)) < 2, x, 0).astype(x.dtype)
    blank = jax.tree.map(only_two, jax.device_get(aligned.slices))
    found = resist(TINY, blank, 1.0)
    learner_is_blank = np.isclose(found.start, np.log(40), rtol=1e-5).all(-1)
    teacher_is_blank = np.isclose(found.entropy, np.log(40), rtol=1e-5).all(-1)
    assert learner_is_blank.tolist() == [[False, True, True], [False, False, False]]  # pairs 1-2, 2-3, 1-3
    assert teacher_is_blank.tolist() == [[False, False, False], [False, True, True]]
    answers = np.asarray(RESIST(TINY, blank, 1.0, np.arange(6) % 3, np.arange(6) % 3)[0])
    assert answers.shape == (3, 2, 64, 6)
    assert (answers[..., 0] == dialects.BEGIN).all()
    assert (answers[..., 1] == answers[:1, ..., 1]).all(), "the same prompts for all"
    assert set(answers[..., 1].ravel()) <= set(range(dialects.FIRST_WORD, dialects.FIRST_WORD + dialects.PROMPTS))
    with pytest.raises(UserError, match=r"temperature is 0\.0; choose a positive one"):
        resist(TINY, blank, 0.0)


@pytest.fixture(scope="module")
def bargains(bases, aligned):
    rows = *mitigation.methods((0.5,), (1e3,), (0.5,)), mitigation.Method("averaging", 1.0)
    last = at(aligned.starts, -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mitigation, "_mitigate", quick(mitigation._mitigate, 0))
        found = jax.device_get(mitigation.mitigate(TINY, bases[40], last, "novel", rows))
    return {row: at(found, i) for i, row in enumerate(rows)}


def test_methods_between_all_and_nothing(bargains, observed):
    none, aligned = (bargains[mitigation.Method(name)] for name in ("none", "aligned"))
    np.testing.assert_allclose(aligned.moved, 0.0, atol=1e-6)
    np.testing.assert_allclose(none.kl, observed.kl[0, 2, :, -1], rtol=1e-3)
    np.testing.assert_allclose(bargains["averaging", 1.0].bits, none.bits, rtol=1e-5)
    for method in (("anchoring", 1e3), ("averaging", 0.5)):
        assert (bargains[method].moved < none.moved).all()
    assert (bargains["mixing", 0.5].bits[:, 0] < none.bits[:, 0]).all(), "alignment data keep safe texts cheap"
    bargain = mitigation.bargain(none, aligned, "novel")
    np.testing.assert_allclose(bargain.learned, aligned.bits[:, 3] - none.bits[:, 3])
    np.testing.assert_allclose(bargain.lost, none.bits[:, 0] - aligned.bits[:, 0])
    assert (bargain.learned > 0).all()


def test_anchored_loss_is_cross_entropy_and_divergence():
    table = np.random.default_rng(0).normal(size=(2, 40, 40)).astype(np.float32)
    bigrams = Network(lambda key: None, lambda params, tokens, *_: jnp.asarray(params)[tokens])
    texts = jnp.asarray(np.random.default_rng(1).integers(4, 40, (5, 6)), jnp.int32)
    rows = dialects.batch(texts)
    total, count, _ = jit(mitigation.anchored(bigrams))(table[0], (table[1], 0.7), rows)
    plain, targets, _ = jit(cross_entropy(bigrams))(table[0], (), rows)
    p, q = (special.log_softmax(x, -1)[np.asarray(texts)[:, 1:-1]] for x in table)
    assert count == targets == 20
    np.testing.assert_allclose(total, plain + 0.7 * (np.exp(p) * (p - q)).sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"perturbation": 24, "every": 16}, "perturbation is 24 sequences; choose a multiple of every, 16"),
        ({"perturbation": 8, "every": 16}, "choose a multiple of every, 16"),
        ({"every": 4}, "every is 4 sequences; choose a multiple of batch, 8"),
        ({"aligned": (8, 12)}, "aligned is 12 sequences; choose a multiple of batch"),
        ({"aligned": (0, 8)}, r"aligned is \(0, 8\); give at least one number"),
        ({"seeds": (1, 1)}, "none twice"),
        ({"volumes": ()}, "at least one number"),
        ({"volumes": (1,), "perturbation": 32}, "perturbation is 32 sequences, more than the 16 of the shortest"),
        ({"length": 2}, "length is 2"),
    ],
)
def test_settings_that_make_no_sense(change, sentence):
    known = {"volumes": (20,), "pretraining_batch": 16, "aligned": (8,), "slice": 16, "perturbation": 16}
    with pytest.raises(UserError, match=sentence):
        Settings(**known | {"every": 8, "batch": 8} | change)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: mitigation.methods(mixing=(1.0,)), r"strength of mixing is 1\.0; choose it above 0 and below 1"),
        (lambda: mitigation.methods(anchoring=(0.0,)), r"anchoring is 0\.0; choose it above 0\."),
        (lambda: mitigation.mitigate(TINY, {}, {}, "safe", [mitigation.Method("none")]), "choose another dialect"),
        (lambda: mitigation.mitigate(TINY, {}, {}, "novel", [mitigation.Method("luck")]), "no method 'luck'"),
    ],
)
def test_methods_that_make_no_sense(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
