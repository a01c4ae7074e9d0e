"""Schemas of demonstrations."""

from collections.abc import Callable

from jaxalign.lm.data.fields import Row, boolean, index, messages, present, string, text, value
from jaxalign.lm.data.preferences import summary_prompt
from jaxalign.lm.data.records import BrokenRow, Demonstration, DroppedRow

Schema = Callable[[Row], list[Demonstration]]

_PAIRS = (("prompt", "response"), ("prompt", "completion"), ("question", "answer"), ("content", "summary"))


def demonstration(row: Row) -> list[Demonstration]:
    """One of: prompt/response, prompt/completion, question/answer, content/summary, messages, Alpaca's fields.

    Of `messages` the last one is the response, which must be the assistant's. Alpaca's `instruction` and `input` are
    joined by an empty line.
    """
    if row.get("messages") is not None:
        turns = messages(row, "messages")
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise BrokenRow("'messages' does not end with an answer of the assistant")
        return [Demonstration(turns[:-1], turns[-1:])]
    if row.get("instruction") is not None:
        question = [string(row, "instruction"), *([string(row, "input")] if row.get("input") else [])]
        return [Demonstration("\n\n".join(question), string(row, "output"))]
    for prompt, response in _PAIRS:
        if row.get(prompt) is not None and row.get(response) is not None:
            return [Demonstration(text(row, prompt), text(row, response))]
    raise BrokenRow(
        f"has the fields {', '.join(map(repr, row)) or 'none'}, none of the known pairs of prompt and response"
    )


def tldr(row: Row) -> list[Demonstration]:
    """Reddit posts and their authors' summaries (`subreddit`, `title`, `post`, `summary`).

    Source: Völske et al. 2017; filtered as in Stiennon et al. 2020, arXiv 2009.01325.
    """
    summary = string(row, "summary")
    response = summary if summary[0].isspace() else f" {summary}"
    return [Demonstration(summary_prompt(row), response, present(row, "id"))]


_OPENING = 8  # words of a review that its continuation is asked for


def imdb(positive: bool) -> Schema:
    """Film reviews of one label (`text`, `label` 0 or 1): the first eight words are the prompt, the rest follows.

    Source: Maas et al. 2011, https://aclanthology.org/P11-1015.
    """

    def read(row: Row) -> list[Demonstration]:
        words = string(row, "text").split(" ")
        if index(row, "label", 2) != positive:
            raise DroppedRow("of the other label")
        if len(words) <= _OPENING:
            raise DroppedRow(f"no longer than its first {_OPENING} words")
        return [Demonstration(" ".join(words[:_OPENING]), " " + " ".join(words[_OPENING:]))]

    return read


def beavertails(safe: bool) -> Schema:
    """Questions and answers that annotators called safe or not (`prompt`, `response`, `is_safe`).

    Source: Ji et al. 2023, arXiv 2307.04657.
    """

    def read(row: Row) -> list[Demonstration]:
        if boolean(row, "is_safe") != safe:
            raise DroppedRow("of the other label")
        return [Demonstration(string(row, "prompt"), string(row, "response"), present(row, "category"))]

    return read


def truthfulqa(true: bool) -> Schema:
    """Questions and true or false answers (`question`, `best_answer`, `correct_answers`, `incorrect_answers`).

    The best answer comes first and is not repeated. Source: Lin et al. 2022, arXiv 2109.07958.
    """

    def read(row: Row) -> list[Demonstration]:
        question = string(row, "question")
        answers = value(row, "correct_answers" if true else "incorrect_answers")
        if not isinstance(answers, (list, tuple)) or not all(isinstance(x, str) for x in answers):
            raise BrokenRow(f"'{'' if true else 'in'}correct_answers' is not a list of texts")
        best = [string(row, "best_answer")] if true else []
        return [Demonstration(question, answer) for answer in dict.fromkeys([*best, *answers]) if answer.strip()]

    return read
