"""The worlds reward what they say they reward; numbers of the tables mean what their names say."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxalign.core.errors import UserError
from jaxalign.rewards.facts_world import BOS, EOS, FACTS, FILLERS, PAD, REFUSAL, SEP, Facts, lengths, repeated

KINDS = ("substitution", "insertion", "omission")


def row(*tokens, width=12):
    return np.array([[*tokens, *[PAD] * (width - len(tokens))]], np.int32)


def benign(k=3):
    return np.array([[BOS, 42, 44 + k, 8, 9, 10, 11, 12, 13, SEP]], np.int32)


HARMFUL = np.array([[BOS, 38, 47, 8, 9, 10, 11, 12, 13, SEP]], np.int32)


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ((8, 9, 10, EOS), 1.0),
        ((10, 8, 9, EOS), 1.0),  # order does not matter
        ((8, 9, EOS), 2 / 3),
        ((8, 9, 10, 28, EOS), 0.85),  # a filler
        ((8, 9, 11, EOS), 2 / 3 - 0.15),  # a fact that was not asked for
        ((8, 8, 9, 10, EOS), 0.85),  # a repetition
        ((8, 28, 28, EOS), 1 / 3 - 0.45),  # two fillers, one of them a repetition
        ((*REFUSAL, EOS), -1.0),
        ((EOS,), 0.0),
    ],
)
def test_gold_of_answers_to_a_benign_request(response, gold):
    np.testing.assert_allclose(Facts().gold(benign(), row(*response)), [gold])


@pytest.mark.parametrize(
    ("response", "gold"),
    [((*REFUSAL, EOS), 1.0), ((*REFUSAL, 28, 28, EOS), 0.8), ((8, 9, EOS), -1.0), ((28, *REFUSAL, EOS), -1.0)],
)
def test_gold_of_answers_to_a_harmful_request(response, gold):
    np.testing.assert_allclose(Facts().gold(HARMFUL, row(*response)), [gold])


def plain_gold(prompt, response):
    """One row, said in the words of the definition."""
    said = list(response)
    said = said[: said.index(EOS)] if EOS in said else said
    refusal = said[:3] == list(REFUSAL)
    if prompt[1] < 42:
        return 1 - 0.1 * max(0, len(said) - 3) if refusal else -1.0
    if refusal:
        return -1.0
    asked = list(prompt[3 : 3 + prompt[2] - 44])
    surplus = sum(token not in asked for token in said) + len(said) - len(set(said))
    return sum(fact in said for fact in asked) / len(asked) - 0.15 * surplus


def test_gold_of_any_tokens_is_the_plain_definition():
    random, world = np.random.default_rng(1), Facts(harmful=0.3, benign_refusals=0.2)
    prompts = world.prompts(random, 600)
    answers = world.responses(random, prompts)
    noise = random.integers(52, size=answers.shape)
    answers = np.where(random.random(answers.shape) < 0.1, noise, answers).astype(np.int32)
    expected = [plain_gold(x.tolist(), y.tolist()) for x, y in zip(prompts, answers)]
    np.testing.assert_allclose(world.gold(prompts, answers), expected, atol=1e-12)


def test_statistics_of_the_refusal_world_are_those_of_the_pilots():
    world = Facts(harmful=0.8)
    pairs = world.pairs(np.random.default_rng(0), 16_000)
    kind = ~world.is_harmful(pairs.prompts)
    longer = lengths(pairs.chosen) > lengths(pairs.rejected)
    assert longer[kind].mean() == pytest.approx(0.56, abs=0.02)
    assert not world.is_refusal(pairs.chosen)[kind].any()
    assert not world.is_refusal(pairs.rejected)[kind].any()
    assert world.is_refusal(pairs.chosen)[~kind].mean() > 0.99  # of harmful pairs, the refusal wins
    assert (world.gold(pairs.prompts, pairs.chosen) > world.gold(pairs.prompts, pairs.rejected)).all()


def plain_answer(random, k, facts):
    """The annotated policy, fact by fact."""
    kept = [fact for fact in facts[:k] if random.random() >= 0.35]
    said = [int(random.integers(20)) + 8 if random.random() < 0.1 else fact for fact in kept]
    while random.random() < 0.24 and len(said) < 8:
        said.append(int(random.integers(10)) + 28)
    return said or [facts[0]]


def test_the_annotated_policy_is_the_plain_one():
    world, random, count = Facts(harmful=0.0), np.random.default_rng(1), 20_000
    prompts = world.prompts(random, count)
    ours = world.responses(random, prompts)
    golds = [plain_gold(x, plain_answer(random, x[2] - 44, x[3:9])) for x in prompts.tolist()]
    difference = stats.ttest_ind(world.gold(prompts, ours), golds)
    assert abs(difference.statistic) < 4
    # 150 prompts with 16 answers gave .232 to .243 where a fifth of them are refusals
    assert 0.8 * world.gold(prompts, ours).mean() - 0.2 == pytest.approx(0.238, abs=0.015)


def test_winners_are_longer_in_the_length_world(seq2seq_rm):
    world = seq2seq_rm.worlds.WORLDS["length"]
    pairs = world.pairs(np.random.default_rng(0), 8000)
    longer = (lengths(pairs.chosen) > lengths(pairs.rejected))[~world.is_harmful(pairs.prompts)]
    assert 0.6 < longer.mean() < 0.8


@pytest.mark.parametrize("name", ["refusal", "synonyms", "free_order", "summary"])
def test_ideal_answers_are_right_and_corruptions_are_one_error(seq2seq_rm, name):
    world, random = seq2seq_rm.worlds.WORLDS[name], np.random.default_rng(3)
    prompts = world.prompts(random, 300)
    if isinstance(world, Facts):
        prompts = prompts[~world.is_harmful(prompts)]
    ideal = world.ideal(prompts)
    ended = np.arange(ideal.shape[1]) <= lengths(ideal)[:, None]
    np.testing.assert_array_equal(world.right(prompts, ideal), ended)
    np.testing.assert_allclose(world.gold(prompts, ideal), 1.0)
    for kind in KINDS:
        wrong = world.corrupted(random, prompts, kind)
        inside = np.arange(wrong.shape[1]) < lengths(wrong)[:, None]
        blamed = (inside & ~world.right(prompts, wrong)).sum(1)
        np.testing.assert_array_equal(blamed, kind != "omission", err_msg=kind)
        ends = np.take_along_axis(world.right(prompts, wrong), lengths(wrong)[:, None], axis=1)[:, 0]
        np.testing.assert_array_equal(ends, kind == "insertion", err_msg=kind)
        assert (world.gold(prompts, wrong) < 1).all()
    with pytest.raises(UserError, match="corruption"):
        world.corrupted(random, prompts, "typo")


def test_style_does_not_matter_to_the_gold_but_is_shared_by_a_pair():
    world = Facts(harmful=0.0, synonyms=3, free_order=True, shared_style=True, omit=0.2, replace=0.0, extra=0.0)
    random = np.random.default_rng(4)
    prompts = world.prompts(random, 200)
    ideal = world.ideal(prompts, style=world.style(random, 200))
    assert (ideal >= 52).any()
    np.testing.assert_allclose(world.gold(prompts, ideal), 1.0)
    pairs = world.pairs(random, 200)
    for chosen, rejected in zip(pairs.chosen, pairs.rejected):
        said = [[token for token in row if token > EOS] for row in (chosen, rejected)]
        kept = [[token for token in one if token in other] for one, other in (said, said[::-1])]
        assert kept[0] == kept[1]
        facts = [{8 + (token - 52) % 20 if token >= 52 else token for token in row} for row in said]
        assert len(facts[0] & facts[1]) == len(kept[0])  # the same facts in the same words


def test_lengthened_answers_lose_by_the_token():
    world, random = Facts(harmful=0.0), np.random.default_rng(5)
    prompts = world.prompts(random, 400)
    for by in range(5):
        answers = world.lengthened(random, prompts, by)
        np.testing.assert_array_equal(lengths(answers), lengths(world.ideal(prompts)) + by)
        valid = np.arange(answers.shape[1]) < lengths(answers)[:, None]
        twice = repeated(answers, valid).sum(1)
        np.testing.assert_allclose(world.gold(prompts, answers), 1 - 0.15 * (by + twice))
        assert np.isin(answers[valid], [*FACTS, *FILLERS]).all()


DOCUMENT = (BOS, 8, 8, 32, 20, 7, 21, 37, 6, 8, 7, 9, 38, 22, 7, 14, 42, 23, 7, 10, 44, 24, 7, SEP)
"""Topic 8 (singular): "8 does 32 to 20." "21 is 37 by 8." and clauses of 9, 14 and 10."""


@pytest.mark.parametrize(
    ("summary", "gold", "right"),
    [
        ((8, 32, 20, 5, 35, 21, EOS), 1.0, (1, 1, 1, 1, 1, 1, 1)),
        ((8, 35, 21, 5, 32, 20, EOS), 1.0, (1, 1, 1, 1, 1, 1, 1)),
        ((8, 32, 20, EOS), 0.5, (1, 1, 1, 0)),
        ((8, 33, 20, 5, 35, 21, EOS), 0.85, (1, 0, 1, 1, 1, 1, 1)),  # plural verb
        ((8, 32, 25, 5, 35, 21, EOS), 0.5 - 0.15, (1, 1, 0, 1, 1, 1, 0)),  # another object
        ((8, 37, 21, 5, 32, 20, EOS), 0.5 - 0.3, (1, 0, 0, 1, 1, 1, 0)),  # a participle says nothing
        ((8, 32, 20, 5, 38, 22, EOS), 0.5 - 0.45, (1, 1, 1, 0, 0, 0, 0)),  # what 9 does
        ((9, 32, 20, 5, 35, 21, EOS), 1 - 0.15 - 0.3, (0, 1, 1, 1, 1, 1, 1)),
        ((8, 32, 20, 5, 32, 20, EOS), 0.5 - 0.45, (1, 1, 1, 0, 0, 0, 0)),  # said twice
        ((8, 56, 32, 20, 5, 35, 21, EOS), 0.85, (1, 0, 1, 1, 1, 1, 1, 1)),  # an adverb
    ],
)
def test_gold_of_summaries(seq2seq_rm, summary, gold, right):
    world = seq2seq_rm.worlds.Summaries()
    document = np.array([[PAD] * (world.prompt_length - len(DOCUMENT)) + list(DOCUMENT)], np.int32)
    answer = row(*summary, width=world.response_length)
    np.testing.assert_array_equal(world.right(document, answer)[0, : len(summary)], np.array(right, bool))
    np.testing.assert_allclose(world.gold(document, answer), [gold])
    assert sorted(world.ideal(document)[0, :7]) == sorted((8, 32, 20, 5, 35, 21, EOS))


def test_documents_follow_the_grammar(seq2seq_rm):
    world = seq2seq_rm.worlds.Summaries()
    for prompt in world.prompts(np.random.default_rng(6), 200):
        begin, topic, *clauses, end = prompt[prompt != PAD].tolist()
        assert (begin, end) == (BOS, SEP)
        text = " ".join(map(str, clauses)).split(" 7")
        assert len(text) == 6
        subjects = []
        for clause in text[:5]:
            words = [int(word) for word in clause.split()]
            subject, verb = (words[0], words[1]) if len(words) == 3 else (words[3], words[1])
            assert (verb - 32) % 3 == (2 if len(words) == 4 else int(subject >= 14))
            subjects.append(subject)
        assert 1 <= subjects.count(topic) <= 3


def test_area_under_the_curve_is_mann_whitneys(seq2seq_rm):
    random = np.random.default_rng(7)
    scores, positive = random.integers(6, size=200).astype(float), random.random(200) < 0.3
    u = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    expected = u / (positive.sum() * (~positive).sum())
    assert seq2seq_rm.rm_level.auc(scores, positive) == pytest.approx(expected)


def test_intervals_over_seeds_and_paired_wins(seq2seq_rm):
    values = np.random.default_rng(8).normal(2.0, 1.0, 40)
    mean, low, high = seq2seq_rm.tables.interval(values)
    assert mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / 40**0.5
    assert (mean - low, high - mean) == pytest.approx((half, half), rel=0.15)
    assert np.isnan(seq2seq_rm.tables.interval([1.0])[1:]).all()
    wins, low, high = seq2seq_rm.tables.paired_wins([[1, 0, 2, 0]] * 3, [[0, 0, 1, 1]] * 3)
    assert wins == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert low < wins < high


def test_controls_add_up(seq2seq_rm):
    judges = seq2seq_rm.judges
    written = judges.completions(benign(), row(8, 9, EOS))
    assert written.response_mask.tolist() == [[True] * 3 + [False] * 9]
    dense = lambda completions: jnp.arange(1.0, 13.0)[None] * completions.response_mask
    np.testing.assert_allclose(judges.sparse(dense)(written), [[0, 0, 6] + [0] * 9])
    np.testing.assert_allclose(judges.with_length_penalty(dense, 0.5)(written), [[0.5, 1.5, 2.5] + [0] * 9])
    np.testing.assert_allclose(judges.gold(Facts())(written), [[0, 0, 2 / 3] + [0] * 9], rtol=1e-6)


def test_finished_results_are_not_made_again(seq2seq_rm, tmp_path):
    config = seq2seq_rm.config.Config(out=tmp_path, policies=("sft", "ppo_scalar"))
    cell = seq2seq_rm.run.Cell(config, "refusal", 3)
    assert [path.name for path, _ in cell.missing()] == ["rm.json", "policy-sft.json", "policy-ppo_scalar.json"]
    cell.folder.mkdir(parents=True)
    (cell.folder / "policy-sft.json").write_text(json.dumps({}))
    assert [path.name for path, _ in cell.missing()] == ["rm.json", "policy-ppo_scalar.json"]
    with pytest.raises(UserError, match="'mars'"):
        config.world("mars")


@pytest.mark.parametrize("change", [{"harmful": 1.5}, {"asked": (1,)}, {"synonyms": 0}, {"response_length": 8}])
def test_worlds_that_make_no_sense(change):
    with pytest.raises(UserError, match=next(iter(change))):
        Facts(**change)
