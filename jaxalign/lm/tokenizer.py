"""Tokenizers: those of Hugging Face checkpoints, and small ones trained on the spot."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxalign.core.errors import UserError
from jaxalign.lm.config import ModelConfig

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
_ROLES = ("<system>", "<user>", "<assistant>")
_SPECIAL = [PAD, BOS, EOS, UNKNOWN, *_ROLES]
_BYTES = 256

# Models round their vocabulary up to please the hardware; more unused rows than that mean another tokenizer
MAX_UNUSED = 1024

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""Of the tokenizers trained here: a mark of the speaker, the text, the end of the turn."""

_DEMO_TEXTS = (
    "A ship leaves the harbour at dawn and returns before the storm.",
    "Please tell me how to bake bread without yeast. Mix flour, water and a little salt, then wait an hour.",
    "How do I open a locked door? Ask the owner for the key; I cannot help you to break in.",
    "The answer is short, right and kind. The question was long, and it had three parts.",
    "Which of the two replies is better? The first one says what was asked and then it stops.",
    "I am sorry, but I cannot help with that. Is there something else that you would like to know?",
    "Summarise the text: the village built a bridge, the river rose, and the bridge held.",
    "One, two, three, four, five, six, seven, eight, nine, ten. 0 1 2 3 4 5 6 7 8 9.",
)


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a Hugging Face checkpoint folder (or name on the hub).

    Raises:
        UserError: there is none, or transformers is not installed.
    """
    try:
        return _transformers().AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"No tokenizer can be loaded from {folder} ({str(error).splitlines()[0]}); name one with tokenizer.json."
        ) from error


def train_bpe(texts: Iterable[str], vocab_size: int = 512) -> Any:
    """A byte-level BPE tokenizer trained on `texts`, with chat template; any text can be encoded.

    Args:
        texts: to learn merges from.
        vocab_size: at most so many tokens; at least the 256 bytes and the special tokens.

    Raises:
        UserError: no text, or a vocabulary too small for the bytes.
    """
    if vocab_size < _BYTES + len(_SPECIAL):
        raise UserError(f"vocab_size is {vocab_size}; a byte-level vocabulary needs at least {_BYTES + len(_SPECIAL)}.")
    library = _tokenizers()
    tokenizer = library.Tokenizer(library.models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIAL,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_some(texts), trainer)
    return _wrap(tokenizer)


def word_level(texts: Iterable[str]) -> Any:
    """A tokenizer whose tokens are the blank-separated words of `texts`, in order of first appearance.

    Raises:
        UserError: no text.
    """
    library = _tokenizers()
    words = dict.fromkeys(word for text in _some(texts) for word in text.split())
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*_SPECIAL, *words]))}
    tokenizer = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(_SPECIAL)
    return _wrap(tokenizer)


@functools.cache
def demo_tokenizer() -> Any:
    """A byte-level BPE tokenizer of 512 tokens, trained on a few sentences that come with the library."""
    return train_bpe(_DEMO_TEXTS, 512)


def check_vocabulary(tokenizer: Any, config: ModelConfig) -> None:
    """Raises UserError unless the tokenizer's ids fit the model's embedding, up to padding of the latter.

    Special tokens may be beyond it: Gemma 3's text models share a tokenizer with those that see, and have no row for
    its token of an image.
    """
    beyond = {i for i in tokenizer.get_vocab().values() if i >= config.vocab_size}
    unused = config.vocab_size - len(tokenizer)
    if beyond - special_ids(tokenizer) or unused > MAX_UNUSED:
        raise UserError(
            f"The tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}: they do not belong "
            f"together; load both from the same checkpoint."
        )


def special_ids(tokenizer: Any) -> set[int]:
    """All special tokens, with those that have no name, such as Gemma 3's end of turn."""
    return {*tokenizer.all_special_ids, *(i for i, t in tokenizer.added_tokens_decoder.items() if t.special)}


def same_tokenizer(one: Any, other: Any) -> bool:
    """Whether two tokenizers have the same vocabulary, token by token."""
    return one.get_vocab() == other.get_vocab()


def _some(texts: Iterable[str]) -> list[str]:
    found = [text for text in texts if text]
    if not found:
        raise UserError("There is no text to train a tokenizer on; give at least one that is not empty.")
    return found


def _wrap(tokenizer: Any) -> Any:
    """As the class that `AutoTokenizer` gives, so that it saves, loads and applies templates alike."""
    wrapped = _transformers().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=list(_ROLES),
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError('Tokenizers need transformers; install it with pip install "jaxalign[lm]".') from error
    return transformers


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise UserError('Tokenizers need transformers; install it with pip install "jaxalign[lm]".') from error
    return tokenizers
