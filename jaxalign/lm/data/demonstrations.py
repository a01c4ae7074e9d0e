"""Schemas of demonstrations."""

from jaxalign.lm.data.fields import Row, messages, present, string, text
from jaxalign.lm.data.preferences import summary_prompt
from jaxalign.lm.data.records import BrokenRow, Demonstration

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
