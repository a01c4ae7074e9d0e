"""The true reward by its definition, data sets by their rules, the control's posterior by another optimiser."""

import itertools
import json

import jax
import numpy as np
import pytest
from scipy import optimize, stats

from jaxalign.core.errors import UserError


@pytest.fixture(scope="module")
def texts(tree_rm):
    return tree_rm.world.demonstrations(np.random.default_rng(0), 2000)


@pytest.fixture(scope="module")
def small(tree_rm, tmp_path_factory):
    out = tmp_path_factory.mktemp("tree_rm")
    return tree_rm.config.Config(
        seeds=(0,),
        pairs=(64, 128),
        middle=64,
        tokens=2000,
        sft_texts=400,
        sft_steps=150,
        width=16,
        layers=1,
        fewest_steps=4,
        most_steps=6,
        test_pairs=100,
        best_of=4,
        test_texts=2,
        rft_prompts=40,
        rft_steps=4,
        iterations=2,
        out=out,
    )


@pytest.fixture(scope="module")
def policy(tree_rm, small):
    return tree_rm.models.sft(small, 0)


def test_demonstrations_follow_the_grammar(tree_rm, texts):
    world = tree_rm.world
    whole = texts[world.lengths(texts) < world.LENGTH]
    assert len(whole) > 0.95 * len(texts)
    for text in whole:
        said = text[text != world.PAD].tolist()
        assert said[-2:] == [world.STOP, world.EOS]
        clauses = [list(x) for stop, x in itertools.groupby(said[:-1], lambda token: token == world.STOP) if not stop]
        assert world.FEWEST <= len(clauses) <= world.MOST
        assert min(map(len, clauses)) >= 2
        assert all(word in world.WORDS for clause in clauses for word in clause)


def test_the_true_reward_by_its_definition(tree_rm, texts):
    """The mean liking of a word by the three topics, and the mean liking of two words that follow each other."""
    world = tree_rm.world
    T, W = len(world.TOPICS), len(world.WORDS)
    taste, meeting = world.weights()[: T * W].reshape(T, W), world.weights()[T * W :].reshape(W, W)
    prompt, text = world.prompts(held_out=True)[:1], texts[:1]
    words = [int(x) - world.WORDS[0] if x in world.WORDS else None for x in text[0]]
    liking = [
        sum(taste[topic - world.TOPICS[0], w] for topic in prompt[0, :3]) / 3**0.5 for w in words if w is not None
    ]
    pairs = [meeting[a, b] for a, b in itertools.pairwise(words) if a is not None and b is not None]
    assert world.gold(prompt, text)[0] == pytest.approx(np.mean(liking) + np.mean(pairs), rel=1e-5)


def test_held_out_prompts_are_others(tree_rm):
    kept, used = ({tuple(p) for p in tree_rm.world.prompts(held_out=h)} for h in (True, False))
    assert len(kept) == tree_rm.world.HELD_OUT
    assert len(kept | used) == 8 * 7 * 6 // 6
    assert not kept & used


def test_annotators_err_as_often_as_bradley_and_terry_say(tree_rm, small, texts):
    prompts = np.repeat(tree_rm.world.prompts(held_out=False)[:25], 40, axis=0)
    first, second = texts[:1000], texts[1000:]
    label = lambda data, noise, seed: tree_rm.preferences._label(
        small, data, np.random.default_rng(seed), prompts, first, second, 0, noise
    )
    difference = np.abs(tree_rm.world.gold(prompts, first) - tree_rm.world.gold(prompts, second))
    plain = tree_rm.config.Data("tree", 1000)
    share = np.mean([label(plain, True, seed).agreement for seed in range(20)])
    assert share == pytest.approx(np.mean(1 / (1 + np.exp(-2 * difference))), abs=0.01)
    assert label(plain, False, 0).agreement == 1.0
    # the same texts, but for one word: an expert on what differs errs less
    second = first.copy()
    at = np.argmax(second == tree_rm.world.STOP, axis=1) - 1 + 4
    second[np.arange(1000), at] = np.where(second[np.arange(1000), at] == 20, 21, 20)
    less = label(plain, True, 0).agreement
    assert label(tree_rm.config.Data("tree", 1000, expertise=1.0), True, 0).agreement > less + 0.05


def test_topologies_cost_what_they_cost(tree_rm, small, policy):
    """Equal pairs: chains pay two responses for each, pools eight for 28, trees less. Equal tokens: nearly all used."""
    Data, found = tree_rm.config.Data, {}
    for topology in ("chain", "pool", "tree"):
        pairs = found[topology] = tree_rm.preferences.collect(small, policy, Data(topology, 128), 0)
        assert len(pairs.prompts) == 128
        assert (pairs.chosen != pairs.rejected).any(1).all()
        both = tree_rm.world.lengths(np.concatenate([pairs.chosen, pairs.rejected]))
        if topology == "chain":
            assert pairs.tokens == both.sum()
        budget = tree_rm.preferences.collect(small, policy, Data(topology, tokens=small.tokens), 0)
        assert 0.8 * small.tokens < budget.tokens <= small.tokens
    assert found["chain"].tokens > 4 * found["pool"].tokens > 4 * found["tree"].tokens
    assert found["tree"].common.mean() > found["pool"].common.mean() + 0.1


def test_the_linear_control_is_the_mode_of_the_posterior(tree_rm, small, texts):
    world, config = tree_rm.world, small
    prompts = np.repeat(world.prompts(held_out=False), 25, axis=0)
    pairs = tree_rm.preferences._label(
        config,
        tree_rm.config.Data("chain", 1000),
        np.random.default_rng(1),
        prompts,
        texts[:1000],
        texts[1000:],
        0,
        True,
    )
    score = tree_rm.models.linear(config, pairs)
    size = len(world.TOPICS) * len(world.WORDS)
    spread = np.repeat(
        [world.weights()[:size].std(), world.weights()[size:].std()], [size, world.weights().size - size]
    )
    x = (world.features(prompts, pairs.chosen) - world.features(prompts, pairs.rejected)) * spread * config.sharpness
    posterior = lambda w: np.logaddexp(0, -x @ w).sum() + 0.5 * w @ w
    gradient = lambda w: -x.T @ (1 / (1 + np.exp(x @ w))) + w
    best = optimize.minimize(posterior, np.zeros(x.shape[1]), jac=gradient, method="L-BFGS-B", tol=1e-12).x
    expected = world.features(prompts, texts[:1000]) @ (best * spread)
    np.testing.assert_allclose(score(prompts, texts[:1000]), expected, atol=2e-3)
    assert stats.pearsonr(score(prompts, texts[:1000]), world.gold(prompts, texts[:1000])).statistic > 0.5


@pytest.mark.slow
def test_small_run_ends_in_tables_and_figures_and_is_not_repeated(tree_rm, small, capsys, monkeypatch):
    names = [data.name for data in small.data]
    assert len(set(names)) == len(names) == 15
    some = [data for data in small.data if data.name in ("chain-64", "tree-64", "tree-64-thirds", "tree-64-paper")]
    monkeypatch.setattr(tree_rm.config.Config, "data", tuple(some))
    tree_rm.run.main(small)
    assert capsys.readouterr().out.count(".json") == 4
    text = (small.out / "tables.md").read_text()
    for part in ("| chain-64 |", "| tree-64-thirds |", "| tree-64-paper |", "| tree-64 | chain-64 |"):
        assert part in text
    assert (small.out / "accuracy.png").stat().st_size > 10_000
    assert (small.out / "policies.png").stat().st_size > 10_000
    cell = json.loads((small.out / "seed0" / "chain-64.json").read_text())
    assert {*cell["models"]} == {"linear", "scalar", "seq2seq"}
    assert len(cell["models"]["scalar"]["ppo"]) == tree_rm.world.HELD_OUT * small.test_texts
    tree_rm.run.main(small)
    assert not capsys.readouterr().out
    with pytest.raises(UserError, match="other settings than asked for"):
        tree_rm.run.main(tree_rm.config.Config(seeds=(0,), out=small.out))


def test_best_takes_the_best(tree_rm, texts):
    prompts = tree_rm.world.prompts(held_out=True)
    drawn = texts[: 16 * 4].reshape(16, 4, -1)
    best = tree_rm.decoders.best(tree_rm.world.gold, prompts, drawn)
    every = np.stack([tree_rm.world.gold(prompts, drawn[:, i]) for i in range(4)], axis=1)
    np.testing.assert_allclose(tree_rm.world.gold(prompts, best), every.max(1))


def test_wins_and_intervals(tree_rm):
    a, b = np.array([[1.0, 0, 2, 0]] * 3), np.array([[0.0, 0, 1, 1]] * 3)
    wins, low, high = tree_rm.report.wins(a, b)
    assert wins == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert low < wins < high
    values = np.random.default_rng(8).normal(2.0, 1.0, 40)
    mean, low, high = tree_rm.report.interval(values)
    assert (mean, high - mean) == (pytest.approx(values.mean()), pytest.approx(1.96 * values.std() / 40**0.5, rel=0.15))


def test_a_judge_scores_texts_one_by_one(tree_rm, small, texts):
    """Batches, padding and order of texts change nothing."""
    key = jax.random.key(0)
    net = tree_rm.models.network(small.model)
    judge = tree_rm.models.Judge("scalar", tree_rm.models.with_head(net.init(key), small.width, key))
    score = tree_rm.models.score(small, judge)
    prompts = np.repeat(tree_rm.world.prompts(held_out=True), 50, axis=0)
    whole = score(prompts, texts[:800])
    np.testing.assert_allclose(score(prompts[:7], texts[:7]), whole[:7], atol=1e-5)
