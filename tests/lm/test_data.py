"""Loaders read rows of the published schemas, name what is broken, refuse what is empty."""

import gzip
import json

import pytest

from jaxalign.core.errors import UserError
from jaxalign.lm import data

SAFE = {
    "prompt": "How do I open a lock?",
    "response_0": "Call a locksmith.",
    "response_1": "Take a pick and a wrench.",
    "is_response_0_safe": True,
    "is_response_1_safe": False,
    "better_response_id": 1,
    "safer_response_id": 0,
}
SAFE_SECOND = SAFE | {
    "prompt_source": "made",
    "response_0_source": "Alpaca-7B",
    "response_1_source": "WizardLM-30B",
    "response_0_harm_category": {"Theft": False, "Privacy": False},
    "response_1_harm_category": {"Theft": True, "Privacy": False},
    "response_0_severity_level": 0,
    "response_1_severity_level": 2,
}


def write(path, rows):
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def one(schema, row):
    (record,) = schema(row)
    return record


def test_saferlhf_takes_either_label_and_keeps_the_flags():
    helpful, harmless = one(data.saferlhf("helpful"), SAFE), one(data.saferlhf("harmless"), SAFE)
    assert (helpful.chosen, helpful.rejected) == (SAFE["response_1"], SAFE["response_0"])
    assert (harmless.chosen, harmless.rejected) == (SAFE["response_0"], SAFE["response_1"])
    assert helpful.extras == {
        "chosen_is_safer": False,
        "chosen_is_more_helpful": True,
        "chosen_is_safe": False,
        "rejected_is_safe": True,
    }
    second = one(data.saferlhf("harmless"), SAFE_SECOND).extras
    assert second["rejected_harms"] == ("Theft",)
    assert second["chosen_harms"] == ()
    assert (second["chosen_severity"], second["rejected_severity"]) == (0, 2)
    assert second["rejected_source"] == "WizardLM-30B"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"better_response_id": 2}, "'better_response_id' is 2, not a whole number from 0 to 1"),
        ({"better_response_id": True}, "'better_response_id' is True"),
        ({"response_0": "  "}, "'response_0' is empty"),
        ({"response_1": 7}, "'response_1' is of type int, not text"),
        ({"is_response_0_safe": "False"}, "'is_response_0_safe' is 'False', not true or false"),
        ({"prompt": None}, "has no field 'prompt'"),
    ],
)
def test_broken_fields_are_named(change, reason):
    with pytest.raises(data.BrokenRow, match=reason):
        data.saferlhf()(SAFE | change)


START = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Is it\n\nAssistant:"


def test_hh_cuts_at_the_last_shared_assistant_turn():
    found = one(data.hh(), {"chosen": START + " I think so, yes.", "rejected": START + " I think sometimes."})
    assert found.prompt == START
    assert found.chosen == " I think so, yes."
    assert found.rejected == " I think sometimes."
    messages = one(data.hh("messages"), {"chosen": START + " I think so, yes.", "rejected": START + " I think not."})
    assert [m["role"] for m in messages.prompt] == ["user", "assistant", "user"]
    assert messages.prompt[-1]["content"] == "Is it"
    assert messages.rejected == ({"role": "assistant", "content": "I think not."},)


def test_hh_transcripts_that_part_earlier_keep_their_later_turns():
    early = "\n\nHuman: Hi\n\nAssistant:"
    row = {"chosen": early + " Hello.\n\nHuman: Well\n\nAssistant: Yes.", "rejected": early + " Hey."}
    assert one(data.hh(), row).chosen == " Hello.\n\nHuman: Well\n\nAssistant: Yes."
    assert [m["role"] for m in one(data.hh("messages"), row).chosen] == ["assistant", "user", "assistant"]


def test_hh_faults():
    with pytest.raises(data.BrokenRow, match="share no 'Assistant:' turn"):
        data.hh()({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"})
    with pytest.raises(data.BrokenRow, match="'rejected' ends with an empty response"):
        data.hh()({"chosen": START + " Yes.", "rejected": START})
    with pytest.raises(data.DroppedRow, match="identical responses"):
        data.hh()({"chosen": START + " Yes.", "rejected": START + " Yes."})


def test_hh_processed_form():
    row = {
        "context": [{"role": "human", "text": "Hi"}],
        "chosen": {"text": "Hello."},
        "rejected": {"text": "What?"},
    }
    found = one(data.hh(), row)
    assert found.prompt == ({"role": "user", "content": "Hi"},)
    assert found.rejected == ({"role": "assistant", "content": "What?"},)
    with pytest.raises(data.BrokenRow, match="roles robot"):
        data.hh()(row | {"context": [{"role": "robot", "text": "Hi"}]})


COMPARISON = {
    "info": {
        "id": "t3_a",
        "post": "It rained.",
        "title": "Rain",
        "subreddit": "weather",
        "site": None,
        "article": None,
    },
    "summaries": [
        {"text": " Wet.", "policy": "sup1", "note": ""},
        {"text": " It rained.", "policy": "ref", "note": ""},
    ],
    "choice": 1,
    "worker": "w",
    "batch": "b0",
    "split": "train",
    "extra": {"confidence": 7},
}


def test_summarize_from_feedback():
    found = one(data.summarize_from_feedback, COMPARISON)
    assert found.prompt == "SUBREDDIT: r/weather\n\nTITLE: Rain\n\nPOST: It rained.\n\nTL;DR:"
    assert (found.chosen, found.rejected) == (" It rained.", " Wet.")
    assert found.extras["chosen_policy"] == "ref"
    assert found.extras["confidence"] == 7
    article = COMPARISON | {"info": {"article": "News.", "post": None, "title": None, "subreddit": None}}
    assert one(data.summarize_from_feedback, article).prompt == "News.\n\nTL;DR:"
    with pytest.raises(data.BrokenRow, match="'summaries' has 1 entries"):
        data.summarize_from_feedback(COMPARISON | {"summaries": COMPARISON["summaries"][:1]})


def completion(text, ratings, overall):
    aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    annotations = {name: {"Rating": x, "Rationale": ""} for name, x in zip(aspects, ratings, strict=True)}
    return {"model": text, "response": text, "annotations": annotations, "overall_score": overall}


ULTRA = {
    "source": "made",
    "instruction": "Count.",
    "completions": [
        completion("bad", ("1", "2", "N/A", "N/A"), 10.0),
        completion("good", ("5", "5", "4", "5"), 8.0),
        completion("fair", ("3", "3", "3", "3"), 6.0),
        completion("silent", ("N/A",) * 4, None),
    ],
}


def test_ultrafeedback_raw():
    found = one(data.ultrafeedback(), ULTRA)
    assert (found.chosen, found.rejected, found.margin) == ("good", "bad", 4.75 - 1.5)
    by_overall = one(data.ultrafeedback("overall"), ULTRA)
    assert (by_overall.chosen, by_overall.rejected, by_overall.margin) == ("bad", "fair", 4.0)
    every = data.ultrafeedback(pairs="all")(ULTRA)
    assert {(p.chosen, p.rejected) for p in every} == {("good", "bad"), ("good", "fair"), ("fair", "bad")}
    with pytest.raises(data.DroppedRow, match="no two different scores"):
        data.ultrafeedback()(ULTRA | {"completions": [ULTRA["completions"][0]] * 2})
    with pytest.raises(data.BrokenRow, match="has 1 completions with a score"):
        data.ultrafeedback()(ULTRA | {"completions": ULTRA["completions"][2:]})


def turns(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]


def test_binarized_forms_agree():
    implicit = {
        "chosen": turns("Count.", "1 2 3"),
        "rejected": turns("Count.", "3"),
        "score_chosen": 8.0,
        "score_rejected": 5.5,
    }
    explicit = implicit | {"prompt": "Count.", "prompt_id": "ab", "messages": turns("Count.", "1 2 3")}
    a, b = one(data.plain, implicit), one(data.plain, explicit)
    assert (a.prompt, a.chosen, a.rejected, a.margin) == (b.prompt, b.chosen, b.rejected, b.margin)
    assert a.prompt == ({"role": "user", "content": "Count."},)
    assert a.rejected == ({"role": "assistant", "content": "3"},)
    assert a.margin == 2.5
    apart = {"prompt": turns("Count."), "chosen": turns("Count.", "1")[1:], "rejected": turns("Count.", "2")[1:]}
    assert one(data.plain, apart).prompt == a.prompt


def test_plain_and_rewardbench():
    found = one(data.plain, {"prompt": "2+2=", "chosen": "4", "rejected": "5", "margin": 3, "subset": "sums"})
    assert (found.prompt, found.margin, found.subset) == ("2+2=", 3.0, "sums")
    with pytest.raises(data.BrokenRow, match="'margin' is nan"):
        data.plain({"prompt": "2+2=", "chosen": "4", "rejected": "5", "margin": float("nan")})
    with pytest.raises(data.BrokenRow, match="different kinds"):
        data.plain({"prompt": "2+2=", "chosen": "4", "rejected": turns("5")})
    assert one(data.plain, {"chosen": START + " Yes.", "rejected": START + " No."}).prompt == START
    row = {
        "prompt": "p",
        "chosen": "c",
        "chosen_model": "m",
        "rejected": "r",
        "rejected_model": "n",
        "subset": "hep-go",
    }
    bench = one(data.rewardbench, row | {"id": 5})
    assert (bench.subset, bench.extras) == ("hep-go", {"id": 5, "chosen_model": "m", "rejected_model": "n"})


def test_demonstrations():
    wanted = data.Demonstration("Why?", "Because.")
    assert one(data.demonstration, {"prompt": "Why?", "response": "Because."}) == wanted
    assert one(data.demonstration, {"question": "Why?", "answer": "Because."}) == wanted
    alpaca = one(data.demonstration, {"instruction": "Add.", "input": "1, 2", "output": "3"})
    assert (alpaca.prompt, alpaca.response) == ("Add.\n\n1, 2", "3")
    dialogue = one(data.demonstration, {"messages": turns("Hi", "Hello", "Bye", "See you")})
    assert len(dialogue.prompt) == 3
    assert dialogue.response[0]["content"] == "See you"
    with pytest.raises(data.BrokenRow, match="does not end with an answer"):
        data.demonstration({"messages": turns("Hi", "Hello", "Bye")})
    with pytest.raises(data.BrokenRow, match="none of the known pairs"):
        data.demonstration({"text": "a"})
    post = one(data.tldr, {"subreddit": "weather", "title": "Rain", "post": "It rained.", "summary": "Wet."})
    assert post.prompt.endswith("POST: It rained.\n\nTL;DR:")
    assert post.response == " Wet."


def places(row, at=()):
    """Paths to everything in a row."""
    inner = row.items() if isinstance(row, dict) else enumerate(row) if isinstance(row, list) else ()
    for key, x in inner:
        yield (*at, key)
        yield from places(x, (*at, key))


SOUND = {
    "saferlhf-helpful": SAFE_SECOND,
    "hh": {"chosen": START + " Yes.", "rejected": START + " No."},
    "hh-messages": {"context": [{"role": "human", "text": "Hi"}], "chosen": {"text": "a"}, "rejected": {"text": "b"}},
    "summarize-from-feedback": COMPARISON,
    "ultrafeedback": ULTRA,
    "preference": {"prompt": "p", "chosen": turns("p", "a"), "rejected": turns("p", "b"), "margin": 1.0, "subset": "s"},
    "rewardbench": {"prompt": "p", "chosen": "a", "rejected": "b", "subset": "s", "id": 1},
    "demonstration": {"instruction": "Add.", "input": "1", "output": "1"},
    "tldr": {"subreddit": "s", "title": "t", "post": "p", "summary": "s"},
}


@pytest.mark.parametrize("name", SOUND)
def test_any_damage_to_a_field_is_a_finding_not_a_crash(name):
    schema, broken = data.schema(name), 0
    assert len(list(schema(SOUND[name]))) == 1
    for path in places(SOUND[name]):
        for wrong in (None, 7, -1.5, True, "", "x", [], [3], {}, {"a": 1}):
            row = json.loads(json.dumps(SOUND[name]))
            inner = row
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = wrong
            try:
                for record in schema(row):
                    record_texts = (
                        record.prompt,
                        *(getattr(record, n, "x") for n in ("chosen", "rejected", "response")),
                    )
                    assert all(isinstance(t, (str, tuple)) and t for t in record_texts)
            except data.BrokenRow:
                broken += 1
            except data.DroppedRow:
                pass
    assert broken > 5


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_broken_rows_are_counted_and_named_by_line(tmp_path, name):
    same = SAFE | {"response_1": SAFE["response_0"]}
    path = write(tmp_path / name, [SAFE, "{cut", "", {"prompt": "only"}, same, "[1]", SAFE])
    loaded = data.load(data.saferlhf(), path)
    assert len(loaded.records) == 2
    assert [b.where for b in loaded.broken] == [f"{path}:{n}" for n in (2, 4, 6)]
    assert loaded.broken[0].reason.startswith("no JSON")
    assert "has no field" in loaded.broken[1].reason
    assert loaded.dropped == {"identical responses": 1}
    assert "3 broken rows" in loaded.summary()
    assert f"{path}:2" in loaded.summary()
    assert len(data.load(data.saferlhf(), path, limit=1).records) == 1


def test_a_truncated_archive_is_reported(tmp_path):
    path = write(tmp_path / "rows.jsonl.gz", [SAFE] * 200)
    path.write_bytes(path.read_bytes()[:-20])
    loaded = data.load(data.saferlhf(), path)
    assert 0 < len(loaded.records) < 201
    assert "cannot be read from here on" in loaded.broken[-1].reason


def test_nothing_usable_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"0 records, 1 broken rows \(.*rows.jsonl:1: .*check that it has the schema"):
        data.load(data.saferlhf(), write(tmp_path / "rows.jsonl", [{"a": 1}]))
    with pytest.raises(UserError, match="0 records"):
        data.load(data.saferlhf(), write(tmp_path / "empty.jsonl", []))
    with pytest.raises(UserError, match="There is no file or folder"):
        data.load(data.saferlhf(), tmp_path / "missing.jsonl")
    with pytest.raises(UserError, match="unknown kind"):
        data.load(data.saferlhf(), write(tmp_path / "rows.csv", [SAFE]))
    (tmp_path / "list.json").write_text('{"prompt": 1}')
    with pytest.raises(UserError, match="a list of objects is needed"):
        data.load(data.saferlhf(), tmp_path / "list.json")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no data file"):
        data.load(data.saferlhf(), tmp_path / "none")
    with pytest.raises(UserError, match="no schema 'safe'; choose one of preference, saferlhf-helpful"):
        data.schema("safe")


@pytest.mark.parametrize(
    ("files", "split", "read"),
    [
        (("train.jsonl", "train_sft.jsonl"), "train", ("train.jsonl",)),
        (("train.jsonl", "train_sft.jsonl"), "train_sft", ("train_sft.jsonl",)),
        (("train.jsonl", "train_sft.jsonl"), "test", None),
        (("train/data.jsonl", "test/data.jsonl"), "test", ("test/data.jsonl",)),
        (("data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl"), "train", ("train-00000.jsonl",)),
        (("part1.jsonl", "testimony.jsonl"), "train", ("part1.jsonl", "testimony.jsonl")),
    ],
)  # fmt: skip
def test_a_folder_gives_the_files_of_the_split_and_no_others(files, split, read, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, [SAFE])
    if read is None:
        with pytest.raises(UserError, match="no split 'test'; there are train, train_sft"):
            data.load(data.saferlhf(), tmp_path, split=split)
        return
    assert len(data.load(data.saferlhf(), tmp_path, split=split).records) == len(read)


def test_a_prompt_that_is_given_is_kept(tmp_path):
    """Though both answers begin with the same turns."""
    turn = lambda role, content: {"role": role, "content": content}
    question, begin = turn("user", "Q"), [turn("assistant", "ok"), turn("user", "and?")]
    row = {
        "prompt": [question],
        "chosen": [*begin, turn("assistant", "good")],
        "rejected": [*begin, turn("assistant", "bad")],
    }
    whole = {name: [question, *row[name]] for name in ("chosen", "rejected")}
    rows = [row, row | {"prompt": "Q"}, whole, whole | {"prompt": "Q"}, whole | {"prompt": [question]}]
    write(tmp_path / "p.jsonl", [*rows, whole | {"prompt": " Q\n"}])
    records = data.load(data.schema("preference"), tmp_path / "p.jsonl").records
    assert [record.prompt for record in records] == [(question, *begin)] * 6
    order = turn("system", "Be short.")
    told = {name: [order, *messages] for name, messages in whole.items()}
    write(tmp_path / "s.jsonl", [told, told | {"prompt": "Q"}, told | {"prompt": [question]}])
    records = data.load(data.schema("preference"), tmp_path / "s.jsonl").records
    assert [record.prompt for record in records] == [(order, question, *begin)] * 3
    assert records[0].chosen == (turn("assistant", "good"),)


def test_json_lists_and_folders(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.json").write_text(json.dumps([SAFE, 3, SAFE]))
    write(tmp_path / "a" / "test.jsonl", [SAFE])
    loaded = data.load(data.schema("saferlhf-harmless"), tmp_path, split="train")
    assert len(loaded.records) == 2
    assert loaded.broken[0].where.endswith("train.json:2")
    assert len(data.load(data.saferlhf(), tmp_path, split="test").records) == 1


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    rows = [SAFE_SECOND, SAFE_SECOND | {"response_0": None}, SAFE_SECOND]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    loaded = data.load(data.saferlhf("harmless"), path)
    assert [b.where for b in loaded.broken] == [f"{path}:2"]
    assert loaded.records[0] == one(data.saferlhf("harmless"), SAFE_SECOND)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        data.load(data.saferlhf(), path)


def test_the_hub_goes_through_datasets(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(name, config, split):
        assert (name, config, split) == ("PKU-Alignment/PKU-SafeRLHF", "alpaca-7b", "test")
        return datasets.Dataset.from_list([SAFE_SECOND, SAFE_SECOND])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    loaded = data.load(data.saferlhf(), "PKU-Alignment/PKU-SafeRLHF", split="test", config="alpaca-7b")
    assert loaded.records[1] == one(data.saferlhf(), SAFE_SECOND)


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("imdb-positive", {"text": "a b c d e f g h i j", "label": 1}, [("a b c d e f g h", " i j")]),
        ("imdb-negative", {"text": "a b c d e f g h i j", "label": 0}, [("a b c d e f g h", " i j")]),
        ("beavertails-safe", {"prompt": "p", "response": "r", "category": {}, "is_safe": True}, [("p", "r")]),
        ("beavertails-unsafe", {"prompt": "p", "response": "r", "category": {}, "is_safe": False}, [("p", "r")]),
        (
            "truthfulqa-true",
            {"question": "q", "best_answer": "b", "correct_answers": ["a", "b"], "incorrect_answers": ["x"]},
            [("q", "b"), ("q", "a")],
        ),
        (
            "truthfulqa-false",
            {"question": "q", "best_answer": "b", "correct_answers": ["a", "b"], "incorrect_answers": ["x", "y"]},
            [("q", "x"), ("q", "y")],
        ),
    ],
)
def test_demonstrations_of_one_label(name, row, expected):
    assert [(d.prompt, d.response) for d in data.schema(name)(row)] == expected


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("imdb-positive", {"text": "a b c d e f g h i j", "label": 0}, "other label"),
        ("imdb-positive", {"text": "too short", "label": 1}, "no longer than"),
        ("beavertails-safe", {"prompt": "p", "response": "r", "is_safe": False}, "other label"),
    ],
)
def test_demonstrations_of_another_label_are_dropped(name, row, reason):
    with pytest.raises(data.DroppedRow, match=reason):
        data.schema(name)(row)


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("imdb-positive", {"text": "a b", "label": 2}, "from 0 to 1"),
        ("beavertails-safe", {"prompt": "p", "response": "r", "is_safe": 1}, "not true or false"),
        ("truthfulqa-true", {"question": "q", "best_answer": "b", "correct_answers": "a"}, "not a list of texts"),
    ],
)
def test_broken_demonstrations_are_named(name, row, reason):
    with pytest.raises(data.BrokenRow, match=reason):
        data.schema(name)(row)
