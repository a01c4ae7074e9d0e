"""Records become the sequences that generation continues and reward models read."""

import pytest

pytest.importorskip("transformers")

from jaxalign.core.errors import UserError
from jaxalign.lm import chat, packing
from jaxalign.lm.data import Demonstration, Preference
from jaxalign.lm.encoding import encode_demonstrations, encode_preferences
from jaxalign.lm.tokenizer import demo_tokenizer


def test_what_is_trained_on_begins_with_what_is_generated_from_and_ends_with_the_end():
    tokenizer = demo_tokenizer()
    turn = ({"role": "user", "content": "Is it late?"},)
    pair = Preference(
        turn, ({"role": "assistant", "content": "No."},), ({"role": "assistant", "content": "Yes, very."},)
    )
    ((chosen, rejected),) = encode_preferences(tokenizer, [pair])
    start = chat.encode_prompt(tokenizer, turn)
    for example, text in ((chosen, "No."), (rejected, "Yes, very.")):
        assert example.tokens[: len(start)].tolist() == start
        assert example.tokens[-1] == chat.end_of_turn(tokenizer)
        assert chat.decode_response(tokenizer, example.tokens[example.learn]) == text
    plain = encode_demonstrations(tokenizer, [Demonstration("Is it late?", "No.")])
    assert plain[0].tokens.tolist() == chosen.tokens.tolist(), "a string is one turn of the user"
    assert packing.pack(plain, 64).learn.sum() == len(chosen.tokens) - len(start)


def test_of_several_turns_the_last_is_learned():
    tokenizer = demo_tokenizer()
    turns = [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(("Hi", "Hello", "Bye", "Soon"))]
    (example,) = encode_demonstrations(tokenizer, [Demonstration(tuple(turns[:1]), tuple(turns[1:]))])
    assert chat.decode_response(tokenizer, example.tokens[example.learn]) == "Soon"


def test_faults_name_the_record():
    with pytest.raises(UserError, match="Record 1: A response is empty"):
        encode_demonstrations(demo_tokenizer(), [Demonstration("a", "b"), Demonstration("a", "")])
