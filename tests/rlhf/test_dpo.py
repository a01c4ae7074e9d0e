"""DPO where the answer is known: one token after one prompt, preferences of a known reward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_lm

from jaxalign import rlhf
from jaxalign.core.errors import UserError
from jaxalign.lm import packing, training
from jaxalign.lm.packing import Example
from jaxalign.rewards import pack_pairs, preference

# Token 4 + i has the reward i log 3: it is preferred to i - 1 in 3 of 4 pairs, to i - 2 in 9 of 10
COUNTS = {(5, 4): 3, (4, 5): 1, (6, 5): 3, (5, 6): 1, (6, 4): 9, (4, 6): 1}


def pairs(length=4):
    made = [(Example.of([2], [w]), Example.of([2], [l])) for (w, l), n in COUNTS.items() for _ in range(n)]
    return pack_pairs(made, length)


def minimise(loss, params, frozen, batch, steps=300):
    trainer = training.make(loss, training.TrainingConfig(learning_rate=0.1, total_steps=steps))

    def run(state, batch, frozen):
        return jax.lax.scan(lambda s, _: trainer.step(s, batch, frozen), state, None, steps)

    return tiny_lm.jit(run)(trainer.init(params), jax.tree.map(jnp.asarray, batch), frozen)


@pytest.mark.parametrize("length", [4, 12], ids=["padded", "packed"])
def test_dpo_finds_the_reward_behind_the_preferences(table, length):
    """Beta log(pi / q) = r + const, so pi = q exp(r / beta) / Z on the tokens compared."""
    beta, batch = 0.5, pairs(length)
    state, info = minimise(rlhf.dpo_loss(table.network, beta), table.params, table.params, batch)
    logits = np.asarray([x["unembed"][2, 4:7] for x in (state.params, table.params)])
    implied = beta * (logits[0] - logits[1])
    np.testing.assert_allclose(np.diff(implied), np.log([3.0, 3.0]), atol=1e-3)
    entropy = 4 * 2 * 0.5623351 + 10 * 0.3250830  # of labels that are right in 3 of 4, and in 9 of 10
    np.testing.assert_allclose(info.loss[-1], entropy / 18, rtol=1e-4)
    np.testing.assert_allclose(info.loss[0], np.log(2), rtol=1e-6, err_msg="no difference at the reference")
    np.testing.assert_allclose(info.extra["accuracy"][-1], 15 / 18)


def test_the_family_on_one_batch(table):
    """Losses of the log-ratios in numpy; smoothing, no reference, per token."""
    batch = pack_pairs([(Example.of([2, 3], [4, 5]), Example.of([2, 3], [6]))] * 2, 16, [0.5, 0.0])
    other = table.params | {"unembed": table.params["unembed"].T}
    log_p, log_q = (np.asarray(jax.nn.log_softmax(x["unembed"])) for x in (table.params, other))
    chosen, rejected = (np.array([x[3, 4] + x[4, 5], x[3, 6]]) for x in (log_p, log_q))
    (p_w, p_l), (q_w, q_l) = chosen, rejected
    margin = np.array([0.5, 0.0])

    options = {
        "dpo": {},
        "ipo": {"preference": preference("ipo")},
        "smooth": {"smoothing": 0.1},
        "simpo": {"reference": False, "average": True},
    }
    losses = {name: rlhf.dpo_loss(table.network, 0.3, **option) for name, option in options.items()}

    @tiny_lm.jit
    def values(params, frozen, batch):
        return {name: loss(params, frozen, batch)[0] / 2 for name, loss in losses.items()}

    value = values(table.params, other, batch)
    difference = 0.3 * ((p_w - q_w) - (p_l - q_l))
    nll = lambda x: np.logaddexp(0, -x)
    expected = {
        "dpo": nll(difference - margin),
        "ipo": np.square(difference - margin - 0.5),
        "smooth": 0.9 * nll(difference - margin) + 0.1 * nll(margin - difference),
        "simpo": nll(0.3 * (p_w / 2 - p_l) - margin),
    }
    for name, each in expected.items():
        np.testing.assert_allclose(value[name], each.mean(), rtol=1e-5, err_msg=name)


def test_sequence_log_probs_do_not_depend_on_the_layout(tiny):
    examples = [Example.of([2], [3, 4, 1]), Example.of([2, 7], [5]), Example.of([6], [1])]
    of = lambda batch, sequences: tiny_lm.jit(lambda p, b: rlhf.sequence_log_probs(tiny.network, p, b, sequences))(
        tiny.params, batch
    )
    alone = of(packing.pad(examples, 9, "left"), 1)[:, 0]
    packed = of(packing.layout(examples, [[0, 1, 2]], 9), 3)[0]
    np.testing.assert_allclose(packed, alone, rtol=1e-5)
    assert (alone < 0).all()


@pytest.mark.parametrize(("beta", "smoothing"), [(0.0, 0.0), (0.1, 0.5)])
def test_bad_numbers_are_refused(table, beta, smoothing):
    with pytest.raises(UserError, match="beta above 0"):
        rlhf.dpo_loss(table.network, beta, smoothing=smoothing)
