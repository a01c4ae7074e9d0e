"""Tokenizers and the one way from text to ids."""

import dataclasses

import numpy as np
import pytest

from jaxalign.core import UserError
from jaxalign.lm import TINY
from jaxalign.lm.chat import check_length, decode_response, encode_chat, encode_prompt, end_of_turn, pad_left
from jaxalign.lm.tokenizer import (
    check_vocabulary,
    demo_tokenizer,
    load_tokenizer,
    same_tokenizer,
    train_bpe,
    word_level,
)

pytest.importorskip("transformers")

# How the families close a turn: in the manner of Qwen (line break behind the end), Llama 3 (text trimmed), Gemma
# (another name for the assistant), and a template without any end.
TEMPLATES = {
    "qwen": (
        "{% for m in messages %}<user>{{ m['role'] }}\n{{ m['content'] }}<system>\n{% endfor %}"
        "{% if add_generation_prompt %}<user>assistant\n{% endif %}",
        "<system>",
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}<user>{{ m['role'] }}<assistant>\n\n{{ m['content'] | trim }}<system>"
        "{% endfor %}{% if add_generation_prompt %}<user>assistant<assistant>\n\n{% endif %}",
        "<system>",
    ),
    "gemma": (
        "{{ bos_token }}{% for m in messages %}<user>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
        "{{ m['content'] | trim }}<system>\n{% endfor %}{% if add_generation_prompt %}<user>model\n{% endif %}",
        "<system>",
    ),
    "endless": (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
        "<eos>",
    ),
}
RESPONSES = ("Bread needs flour.", "Zwölf Äpfel, 3 x 4 = 12!\n\nTwo lines.", "x")
MESSAGES = [
    {"role": "user", "content": "How do I bake bread?"},
    {"role": "assistant", "content": "Slowly."},
    {"role": "user", "content": "And without yeast?"},
]


@pytest.fixture(params=["own", "none", *TEMPLATES])
def tokenizer(request):
    """The demo's tokenizer with its own, no, and other templates; and the token that ends a turn there."""
    found = train_bpe(["Bread needs flour, water, salt and time.", "assistant: user: model"], 300)
    end = "<eos>"
    if request.param == "none":
        found.chat_template = None
    elif request.param != "own":
        found.chat_template, end = TEMPLATES[request.param]
    return found, found.convert_tokens_to_ids(end)


@pytest.mark.parametrize("response", RESPONSES)
def test_round_trip_and_one_end(tokenizer, response):
    tokenizer, end = tokenizer
    for prompt in ("How do I bake bread?",) if tokenizer.chat_template is None else ("How?", MESSAGES):
        encoded = encode_chat(tokenizer, prompt, response)
        assert encoded.response[-1] == end == end_of_turn(tokenizer)
        assert encoded.response.count(end) == 1
        assert decode_response(tokenizer, encoded.response).strip() == response
        assert decode_response(tokenizer, [*encoded.response, tokenizer.pad_token_id, 300]).strip() == response
        # what generation starts from is what training conditions on
        assert encode_prompt(tokenizer, prompt) == encoded.prompt == encoded.tokens[: len(encoded.prompt)]


def test_training_and_scoring_see_the_text_of_the_template(tokenizer):
    tokenizer, end = tokenizer
    if tokenizer.chat_template is None:
        pytest.skip("no template")
    encoded = encode_chat(tokenizer, MESSAGES, RESPONSES[0])
    dialogue = [*MESSAGES, {"role": "assistant", "content": RESPONSES[0]}]
    whole = tokenizer.apply_chat_template(dialogue, tokenize=False)
    text = tokenizer.decode(encoded.tokens)
    if "<eos>" in whole or tokenizer.convert_tokens_to_ids("<system>") == end:
        assert whole.startswith(text)
        assert whole[len(text) :] in ("", "\n")
    else:
        assert text == whole + "<eos>"


def test_bpe_encodes_any_text_and_survives_saving(tmp_path):
    demo = demo_tokenizer()
    assert len(demo) == 512
    for text in ("The bridge held.", "Ünïcödé 🦊 \t\n  spaces", "def f(x): return x**2"):
        assert demo.decode(demo(text)["input_ids"]) == text
    assert len(demo("the answer is short")["input_ids"]) < len("the answer is short") / 2
    demo.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert same_tokenizer(demo, again)
    assert encode_chat(again, MESSAGES, "Yes.") == encode_chat(demo, MESSAGES, "Yes.")
    assert not same_tokenizer(demo, train_bpe(["other words"], 280))


def test_words_are_tokens():
    found = word_level(["one fish two fish", "red fish"])
    ids = found("two red fish")["input_ids"]
    assert found.convert_ids_to_tokens(ids) == ["two", "red", "fish"]
    assert found.convert_ids_to_tokens(found("green fish")["input_ids"]) == ["<unk>", "fish"]
    assert decode_response(found, encode_chat(found, "one", "red fish").response) == "red fish"


def test_an_end_of_turn_without_a_name_is_found(tmp_path):
    """As Gemma 3's, which tokenizer.json marks as special and no named token holds."""
    from transformers import AddedToken

    found = train_bpe(["Bread needs flour."], 300)
    found.add_tokens([AddedToken("<end_of_turn>", special=True)])
    found.chat_template = TEMPLATES["gemma"][0].replace("<system>", "<end_of_turn>")
    end = found.convert_tokens_to_ids("<end_of_turn>")
    assert end not in found.all_special_ids
    assert end_of_turn(found) == end
    assert encode_chat(found, "How?", "Slowly.").response[-1] == end


def test_a_blank_that_sentencepiece_adds_is_none_of_the_response():
    """Read on its own a text begins with a blank there; behind a prompt it does not."""
    library = pytest.importorskip("tokenizers")
    words = ["<unk>", "<eos>", "\n", "▁", "Y", "e", "s", "?", "▁Y"]
    core = library.Tokenizer(library.models.BPE({w: i for i, w in enumerate(words)}, [("▁", "Y")], unk_token="<unk>"))
    core.pre_tokenizer = library.pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = library.decoders.Metaspace(prepend_scheme="first", split=False)
    from transformers import PreTrainedTokenizerFast

    found = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="<unk>")
    found.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    encoded = encode_chat(found, "?", "Yes")
    assert found("Yes")["input_ids"] == [8, 5, 6]
    assert found.convert_ids_to_tokens(encoded.response) == ["Y", "e", "s", "\n", "<eos>"]
    found.chat_template = None
    assert found.convert_ids_to_tokens(encode_chat(found, "?", "Yes").response) == ["Y", "e", "s", "<eos>"]


def test_an_end_that_the_text_wrote_is_not_doubled(tokenizer):
    tokenizer, end = tokenizer
    word = tokenizer.convert_ids_to_tokens(end)
    response = encode_chat(tokenizer, "How?", "Slowly." + 2 * word).response
    assert response.count(end) == 1
    assert response[-1] == end
    assert decode_response(tokenizer, response).strip() == "Slowly."


def test_what_a_template_refuses_is_said_in_a_sentence():
    found = train_bpe(["a b"], 263)
    found.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + TEMPLATES["qwen"][0]
    )
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "How?"}]
    with pytest.raises(UserError, match="refuses messages of system, user: System role not supported;"):
        encode_prompt(found, messages)


def test_padding_on_the_left():
    tokens, _ = pad_left([[5, 6], [8]], pad_id=None)
    np.testing.assert_array_equal(tokens, [[5, 6], [0, 8]])
    tokens, mask = pad_left([[5, 6, 7], [8]], pad_id=9, width=4)
    np.testing.assert_array_equal(tokens, [[9, 5, 6, 7], [9, 9, 9, 8]])
    np.testing.assert_array_equal(mask, [[0, 1, 1, 1], [0, 0, 0, 1]])


def test_vocabularies_that_do_not_fit_are_refused():
    demo, config = demo_tokenizer(), TINY["llama2"]
    check_vocabulary(demo, dataclasses.replace(config, vocab_size=640))
    seeing = train_bpe(["a b"], 263)
    ids = len(seeing)
    seeing.add_special_tokens({"additional_special_tokens": ["<image>"]})
    check_vocabulary(seeing, dataclasses.replace(config, vocab_size=ids))  # its embedding has no row for an image
    seeing.add_tokens(["word"])
    with pytest.raises(UserError, match="do not belong together"):
        check_vocabulary(seeing, dataclasses.replace(config, vocab_size=ids))
    for size in (511, 32_000):
        with pytest.raises(UserError, match=f"512 tokens and the model {size}"):
            check_vocabulary(demo, dataclasses.replace(config, vocab_size=size))


def test_bad_text_is_refused(tmp_path):
    demo, config = demo_tokenizer(), TINY["llama2"]
    plain = train_bpe(["a b"], 263)
    plain.chat_template = None
    doubtful = train_bpe(["a b"], 263)
    doubtful.chat_template = "{% for m in messages %}{{ messages|length }}{{ m['content'] }}{% endfor %}"
    for words, call in {
        "response is empty": lambda: encode_chat(demo, "a", ""),
        "prompt is empty": lambda: encode_prompt(demo, []),
        "no chat template": lambda: encode_prompt(plain, MESSAGES),
        "renders the prompt otherwise": lambda: encode_chat(doubtful, MESSAGES, "a"),
        "Row 1 has 121 tokens, but the context of 128 leaves 120": lambda: check_length([[1], [1] * 121], config, 8),
        "Prompt 1 has 3 tokens, but 2 fit": lambda: pad_left([[1], [1, 2, 3]], 0, width=2),
        "one without tokens": lambda: pad_left([[1], []], 0),
        "needs at least 263": lambda: train_bpe(["a"], 100),
        "no text to train": lambda: word_level(["", ""]),
        "No tokenizer can be loaded": lambda: load_tokenizer(tmp_path),
    }.items():
        with pytest.raises(UserError, match=words):
            call()
