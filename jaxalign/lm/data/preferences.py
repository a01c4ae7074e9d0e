"""Schemas of preference data sets: a row of the published files to `Preference`s.

Field names were taken from the data cards; each schema names its source.
"""

import os
from typing import Literal

from jaxalign.lm.data.fields import (
    Row,
    boolean,
    differing,
    index,
    mapping,
    messages,
    number,
    objects,
    present,
    string,
    text,
)
from jaxalign.lm.data.loading import Schema
from jaxalign.lm.data.records import BrokenRow, DroppedRow, Messages, Preference, Text
from jaxalign.lm.data.transcripts import TURN, as_messages

ASSISTANT = TURN["assistant"]


def saferlhf(label: Literal["helpful", "harmless"] = "helpful") -> Schema[Preference]:
    """PKU-SafeRLHF, both generations, judged by one of its two labels, which often disagree.

    Extras: `chosen_is_safe`, `rejected_is_safe` (bool), `chosen_is_safer`, `chosen_is_more_helpful` (the other label is
    kept too), and from the second generation `*_severity` (0 safe to 3), `*_harms` (names), `*_source`.

    Source: Ji et al. 2024, "PKU-SafeRLHF", arXiv 2406.15513; 2023 files: BeaverTails' predecessor, 5 fields only.
    """

    def read(row: Row) -> list[Preference]:
        helpful, harmless = index(row, "better_response_id", 2), index(row, "safer_response_id", 2)
        winner = helpful if label == "helpful" else harmless
        extras = {"chosen_is_safer": harmless == winner, "chosen_is_more_helpful": helpful == winner}
        for side, i in (("chosen", winner), ("rejected", 1 - winner)):
            extras[f"{side}_is_safe"] = boolean(row, f"is_response_{i}_safe")
            extras |= _second_generation(row, side, i)
        responses = string(row, "response_0"), string(row, "response_1")
        prompt = string(row, "prompt")
        return differing(Preference(prompt, responses[winner], responses[1 - winner], extras=extras))

    return read


def _second_generation(row: Row, side: str, i: int) -> Row:
    found = {
        f"{side}_severity": row.get(f"response_{i}_severity_level"),
        f"{side}_source": row.get(f"response_{i}_source"),
    }
    harms = row.get(f"response_{i}_harm_category")
    if isinstance(harms, dict):
        found[f"{side}_harms"] = tuple(name for name, holds in harms.items() if holds)
    return {name: x for name, x in found.items() if x is not None}


def hh(form: Literal["text", "messages"] = "text") -> Schema[Preference]:
    r"""Anthropic's helpful and harmless dialogues, and the processed copy with `context`.

    The two transcripts share a beginning; the prompt is that beginning cut back to the end of its last assistant mark
    (`"\\n\\nAssistant:"`), so that nothing is cut inside a word and a response begins with its own first character.
    Where transcripts part before the last turn, the responses hold several turns.

    Source: Bai et al. 2022, arXiv 2204.05862.
    """

    def read(row: Row) -> list[Preference]:
        if "context" in row:
            return differing(_processed(row))
        chosen, rejected = string(row, "chosen"), string(row, "rejected")
        shared = os.path.commonprefix([chosen, rejected])  # noqa: RUF071 (character by character, as wanted)
        cut = shared.rfind(ASSISTANT)
        if cut < 0:
            raise BrokenRow(f"its transcripts share no {ASSISTANT.strip()!r} turn")
        cut += len(ASSISTANT)
        prompt, chosen, rejected = chosen[:cut], chosen[cut:], rejected[cut:]
        for name, response in (("chosen", chosen), ("rejected", rejected)):
            if not response.strip():
                raise BrokenRow(f"'{name}' ends with an empty response")
        if form == "text":
            return differing(Preference(prompt, chosen, rejected))
        before = as_messages(prompt[: -len(ASSISTANT)])
        return differing(Preference(before, as_messages(ASSISTANT + chosen), as_messages(ASSISTANT + rejected)))

    return read


def _processed(row: Row) -> Preference:
    roles = {"human": "user", "user": "user", "assistant": "assistant", "system": "system"}
    context = objects(row, "context")
    unknown = {role for turn in context if (role := string(turn, "role").lower()) not in roles}
    if unknown:
        raise BrokenRow(f"'context' has the roles {', '.join(sorted(unknown))}; known are {', '.join(roles)}")
    prompt = tuple({"role": roles[turn["role"].lower()], "content": string(turn, "text")} for turn in context)
    chosen, rejected = (string(mapping(row, side), "text") for side in ("chosen", "rejected"))
    return Preference(
        prompt, ({"role": "assistant", "content": chosen},), ({"role": "assistant", "content": rejected},)
    )


def summarize_from_feedback(row: Row) -> list[Preference]:
    """Comparisons of two summaries (TL;DR posts, CNN/DM articles) by human labellers.

    Extras: `chosen_policy`, `rejected_policy`, `worker`, `batch`, `split`, `confidence`.

    Source: Stiennon et al. 2020, arXiv 2009.01325; prompt layout as in its section on data.
    """
    summaries = objects(row, "summaries")
    if len(summaries) != 2:
        raise BrokenRow(f"'summaries' has {len(summaries)} entries, not 2")
    winner = index(row, "choice", 2)
    chosen, rejected = summaries[winner], summaries[1 - winner]
    extras = present(row, "worker", "batch", "split") | present(
        mapping(row, "extra") if row.get("extra") else {}, "confidence"
    )
    for side, summary in (("chosen", chosen), ("rejected", rejected)):
        extras |= {f"{side}_policy": x for x in present(summary, "policy").values()}
    prompt = summary_prompt(mapping(row, "info"))
    return differing(Preference(prompt, string(chosen, "text"), string(rejected, "text"), extras=extras))


def summary_prompt(info: Row) -> str:
    """What is to be summarised, as the model reads it; the summary follows directly, beginning with a space."""
    if info.get("article"):
        return f"{string(info, 'article')}\n\nTL;DR:"
    head = [f"SUBREDDIT: r/{info['subreddit']}"] if info.get("subreddit") else []
    head += [f"TITLE: {info['title']}"] if info.get("title") else []
    return "\n\n".join([*head, f"POST: {string(info, 'post')}", "TL;DR:"])


def ultrafeedback(
    score: Literal["ratings", "overall"] = "ratings", pairs: Literal["extremes", "all"] = "extremes"
) -> Schema[Preference]:
    """The raw UltraFeedback: several scored completions of one instruction.

    Args:
        score: "ratings", the mean of the aspects' ratings that are numbers; or "overall", the field `overall_score`,
            which was 10 by mistake in 2,628 completions before December 2023.
        pairs: "extremes", the best against the worst; or "all" with different scores.

    The margin is the difference of scores. Source: Cui et al. 2023, arXiv 2310.01377.
    """

    def read(row: Row) -> list[Preference]:
        scored = [(x, c) for c in objects(row, "completions") if (x := _score(c, score)) is not None]
        if len(scored) < 2:
            raise BrokenRow(f"has {len(scored)} completions with a score; a pair needs 2")
        scored.sort(key=lambda pair: -pair[0])
        chosen = scored if pairs == "all" else scored[:1]
        rejected = scored if pairs == "all" else scored[-1:]
        found = [
            Preference(string(row, "instruction"), string(c, "response"), string(r, "response"), x - y, extras=extras)
            for x, c in chosen
            for y, r in rejected
            if x > y and c["response"] != r["response"]
            for extras in [{"chosen_model": c.get("model"), "rejected_model": r.get("model")}]
        ]
        if not found:
            raise DroppedRow("no two different scores")
        return found

    return read


def _score(completion: Row, score: str) -> float | None:
    if score == "overall":
        return number(completion, "overall_score")
    aspects = mapping(completion, "annotations")
    ratings = [mapping(aspects, name).get("Rating") for name in aspects]
    numbers = [float(str(x)) for x in ratings if str(x).replace(".", "", 1).isdecimal()]
    return sum(numbers) / len(numbers) if numbers else None


def rewardbench(row: Row) -> list[Preference]:
    """RewardBench: one prompt, one good and one bad response, in named subsets.

    Source: Lambert et al. 2024, arXiv 2403.13787.
    """
    extras = present(row, "id", "chosen_model", "rejected_model")
    pair = Preference(
        text(row, "prompt"), text(row, "chosen"), text(row, "rejected"), None, string(row, "subset"), extras
    )
    return differing(pair)


def plain(row: Row) -> list[Preference]:
    """Fields `prompt`, `chosen`, `rejected`, as text or messages; the prompt may be part of both message lists.

    Optional: `margin`, or `score_chosen` and `score_rejected` whose difference is the margin; `subset`. It is also the
    schema of the binarized UltraFeedback in both published copies (one repeats the prompt as text, one has none).
    """
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    prompt: Text
    if isinstance(chosen, tuple) and isinstance(rejected, tuple):
        prompt, chosen, rejected = _split_messages(row, chosen, rejected)
    elif row.get("prompt") is None and ASSISTANT in chosen:
        return [*hh()(row)]
    else:
        prompt = text(row, "prompt")
    subset = string(row, "subset") if row.get("subset") is not None else None
    return differing(Preference(prompt, chosen, rejected, _margin(row), subset, present(row, "prompt_id", "source")))


def _split_messages(row: Row, chosen: Messages, rejected: Messages) -> tuple[Messages, Messages, Messages]:
    """Prompt and the two responses of message lists which may begin with the prompt."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if shared and row.get("prompt") is None:
        return chosen[:shared], chosen[shared:], rejected[shared:]
    given: Messages
    if isinstance(row.get("prompt"), str):
        given = ({"role": "user", "content": string(row, "prompt")},)
    else:
        given = messages(row, "prompt")
    begin = chosen[:shared]
    spoken, asked = (tuple(m for m in turns if m["role"] != "system") for turns in (begin, given))
    if isinstance(row["prompt"], str):  # another copy of the question, perhaps spaced otherwise
        repeated = bool(spoken) and spoken[0]["role"] == "user"
    else:
        repeated = begin[: len(given)] == given or (bool(asked) and spoken[: len(asked)] == asked)
    return (begin if repeated else (*given, *begin)), chosen[shared:], rejected[shared:]


def _margin(row: Row) -> float | None:
    better, worse = number(row, "score_chosen"), number(row, "score_rejected")
    return number(row, "margin") if better is None or worse is None else better - worse
