"""A reward model with another tokenizer reads the same text; where it cannot, it says why."""

import pytest

from jaxalign.core.errors import UserError

pytest.importorskip("transformers")

from jaxalign.lm.chat import encode_chat, end_of_turn
from jaxalign.lm.packing import Example
from jaxalign.lm.reencoding import check_same_tokenizer, reencode
from jaxalign.lm.tokenizer import demo_tokenizer, train_bpe


@pytest.fixture(scope="module")
def tokenizers():
    return demo_tokenizer(), train_bpe(["other words for the same things"] * 3, 300)


def test_the_reader_sees_the_text_in_its_own_tokens(tokenizers):
    policy, reward = tokenizers
    prompts = ["What is it?", [{"role": "user", "content": "Name one."}]]
    made = [Example.of(*encode_chat(policy, p, r)) for p, r in zip(prompts, ["A bird.", "Zürich!"], strict=True)]
    cut = Example.of(made[0].tokens[~made[0].learn], made[0].tokens[made[0].learn][:-1])  # without its end
    for example, prompt, text in zip(
        [*made, cut], [*prompts, prompts[0]], ["A bird.", "Zürich!", "A bird."], strict=True
    ):
        (found,) = reencode(policy, reward, [prompt], [example])
        expected = encode_chat(reward, prompt, text)
        assert found.tokens.tolist() == expected.tokens
        assert found.learn.sum() == len(expected.response)
    assert made[0].tokens.tolist() != encode_chat(reward, prompts[0], "A bird.").tokens


def test_a_response_of_nothing_stays_one(tokenizers):
    policy, reward = tokenizers
    silent = Example.of([5, 6], [end_of_turn(policy)])
    (found,) = reencode(policy, reward, ["Hello?"], [silent])
    assert found.tokens[found.learn].tolist() == [end_of_turn(reward)]


def test_rewards_per_token_are_refused_with_the_reason(tokenizers):
    policy, reward = tokenizers
    check_same_tokenizer(policy, demo_tokenizer())
    with pytest.raises(UserError, match=r"different tokenizers \(512 and 284 tokens\).*has no place in the tokens"):
        check_same_tokenizer(policy, reward)
    with pytest.raises(UserError, match="2 prompts and 0 responses"):
        reencode(policy, reward, ["a", "b"], [])
