"""The protocol on a tiny checkpoint and files of the published schemas, end to end; numbers against plain ones."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_lm

from jaxalign.cli import elasticity_protocol
from jaxalign.cli.elasticity_protocol import Protocol
from jaxalign.cli.main import main
from jaxalign.core.errors import UserError
from jaxalign.dist import make_mesh
from jaxalign.elasticity.protocol import PRESETS, Settings, Tuner
from jaxalign.lm import ModelConfig, load_pretrained, network, save_pretrained
from jaxalign.lm.data import SCHEMAS, load
from jaxalign.lm.tokenizer import demo_tokenizer

pytest.importorskip("transformers")

MODEL = dataclasses.replace(tiny_lm.MODEL, vocab_size=512, max_position=64)
GOOD = (
    "a warm and clever film with a fine cast",
    "we laughed and cried and left happy",
    "every scene is a joy to watch",
)
BAD = (
    "a dull and empty film with no heart",
    "we yawned and sighed and left early",
    "every scene is a chore to sit through",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    save_pretrained(folder, MODEL, tiny_lm.params(MODEL))
    demo_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "imdb.jsonl"
    text = lambda i, label: f"film number {i} of this year is " + (BAD, GOOD)[label][i % 3]
    rows = [{"text": text(i, label), "label": label} for i in range(60) for label in (1, 0)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def instructions(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "alpaca.json"
    rows = [{"instruction": f"count to {i}", "input": "", "output": "one two three"} for i in range(30)]
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def sizes(checkpoint, reviews, instructions, tmp_path_factory):
    """Of a run of seconds."""
    return Protocol(
        checkpoint=checkpoint,
        task="imdb",
        data=str(reviews),
        neutral=str(instructions),
        aligned=(8, 24),
        perturbation=(8, 18),
        probe=6,
        batch=4,
        length=48,
        learning_rate=3e-3,
        answer=6,
        fsdp=1,
        out=tmp_path_factory.mktemp("out"),
    )


@pytest.fixture(scope="module")
def results(sizes):
    return elasticity_protocol.protocol(sizes)


def test_every_curve_starts_where_its_model_is(results, sizes):
    curves = {(c["aligned"], c["perturbation"]): c["points"] for c in results["rebound"]}
    assert {*curves} == {(n, kind) for n in (0, 8, 24) for kind in ("opposite", "neutral")}
    for (aligned, kind), points in curves.items():
        assert [point["examples"] for point in points] == [0, 8, 16]  # whole batches
        assert points[0]["kl"] == pytest.approx(0, abs=1e-6) if not aligned else points[0]["kl"] > 1e-4
        assert points[0] == curves[aligned, "opposite"][0]
        nats = points[-1]["nats"]
        assert points[-1]["score"] == pytest.approx(nats["opposite"] - nats["aligned"])
        change = points[-1]["nats"]["opposite"] - points[0]["nats"]["opposite"]
        assert kind == "neutral" or change < 0, "what is learned becomes likelier"
    assert curves[24, "opposite"][0]["kl"] > curves[8, "opposite"][0]["kl"]
    assert curves[24, "opposite"][0]["nats"]["aligned"] < curves[0, "opposite"][0]["nats"]["aligned"]


def test_numbers_are_those_of_one_text_at_a_time(results, sizes, reviews):
    """Without padding, batches or the protocol's masks."""
    tokenizer, net = demo_tokenizer(), network(MODEL)
    aligned = load(SCHEMAS["imdb-positive"], reviews).records[-6:]
    opposite = load(SCHEMAS["imdb-negative"], reviews).records[-6:]
    base, model = load_pretrained(sizes.checkpoint)[1], load_pretrained(sizes.out / "models" / "aligned-24")[1]
    kl, nats, count = 0.0, [], 0
    for kind in (aligned, opposite):
        total, tokens = 0.0, 0
        for record in kind:
            prompt = tokenizer(record.prompt)["input_ids"]
            response = [*tokenizer(record.response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            ids = jnp.array([[*prompt, *response][:48]])
            logits = (tiny_lm.jit(net.apply)(p, ids)[0, len(prompt) - 1 : -1] for p in (model, base))
            now, then = map(jax.nn.log_softmax, logits)
            kl += float(jnp.sum(jnp.exp(now) * (now - then)))
            total -= float(jnp.take_along_axis(now, ids[0, len(prompt) :, None], axis=1).sum())
            tokens += len(now)
        nats.append(total / tokens)
        count += tokens
    found = next(c for c in results["rebound"] if c["aligned"] == 24)["points"][0]
    assert found["kl"] == pytest.approx(kl / count, rel=1e-3)
    assert [found["nats"][kind] for kind in ("aligned", "opposite")] == pytest.approx(nats, rel=1e-4)


def test_resistance_has_both_directions(results):
    rows = {(row["k"], row["l"], row["direction"]): row for row in results["resistance"]}
    assert len(rows) == 6
    for row in rows.values():
        assert row["examples"] == 8  # a third of 24
        assert 0 <= row["entropy"] < row["loss"] < 2 * math.log(512)
    # at a temperature of 0.05 answers are nearly certain
    assert max(row["entropy"] for row in rows.values()) < 0.5


def test_files_are_left_and_a_run_goes_on(results, sizes, capsys):
    for name in ("rebound.png", "resistance.png", "rebound.md", "resistance.md"):
        assert (sizes.out / name).stat().st_size > 100
    gone = sizes.out / "results" / "rebound-8-opposite.json"
    kept = sizes.out / "results" / "rebound-24-opposite.json"
    text, before = gone.read_text(), kept.stat().st_mtime_ns
    gone.unlink()
    again = elasticity_protocol.protocol(sizes)
    assert gone.read_text() == text
    assert kept.stat().st_mtime_ns == before
    assert again == results
    assert "| opposite | 24 |" in capsys.readouterr().out


def test_devices_share_a_model(sizes, results):
    """Parameters spread over four devices give the numbers of one."""
    spread = dataclasses.replace(sizes, fsdp=4, experiments=("rebound",), neutral="", out=sizes.out / "spread")
    found = elasticity_protocol.protocol(spread)["rebound"]
    one = {curve["aligned"]: curve["points"] for curve in results["rebound"] if curve["perturbation"] == "opposite"}
    for curve in found:
        kl = [[point["kl"] for point in points] for points in (curve["points"], one[curve["aligned"]])]
        np.testing.assert_allclose(*kl, rtol=2e-2, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--aligned", "500"], "60 aligned examples, fewer than the 500"),
        (["--perturbation", "80"], "60 opposite examples, fewer than the 80"),
        (["--aligned", "3"], "3 examples are fewer than a batch of 4"),
        (["--checkpoint", "nowhere"], "There is no nowhere/config.json"),
        (["--data", "nowhere.jsonl"], "There is no file or folder nowhere.jsonl"),
        (["--task", "safe"], "of no use"),
    ],
)
def test_what_cannot_be_is_refused(sizes, change, message, tmp_path, capsys):
    given = {"--checkpoint": str(sizes.checkpoint), "--task": "imdb", "--data": sizes.data, "--aligned": "8"}
    given |= {
        "--perturbation": "8",
        "--probe": "6",
        "--batch": "4",
        "--length": "48",
        "--out": str(tmp_path),
        "--fsdp": "1",
    }
    given[change[0]] = change[1]
    assert main(["elasticity", "protocol", *[word for pair in given.items() for word in pair]]) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())  # so that the corrected command may use the folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "instruction"}, "no opposite text"),
        ({"probe": 0}, "choose 1 or more"),
        ({"aligned": ()}, "give at least one value"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(sizes, change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(sizes, **change)


def test_presets_are_the_papers(checkpoint):
    assert (PRESETS["imdb"].batch, PRESETS["imdb"].length, PRESETS["imdb"].learning_rate) == (8, 512, 1e-5)
    assert (PRESETS["safe"].batch, PRESETS["safe"].length, PRESETS["safe"].temperature) == (32, 2048, 0.05)
    tuner = Tuner(MODEL, demo_tokenizer(), dataclasses.replace(PRESETS["safe"], length=64), make_mesh(1))
    (example,) = tuner.examples(load(SCHEMAS["demonstration"], _alpaca(checkpoint)).records)
    assert demo_tokenizer().decode(example.tokens) == "BEGINNING OF CONVERSATION: USER: Say hi. ASSISTANT:hi<eos>"
    with pytest.raises(UserError, match="whole number of batches"):
        tuner.tune(None, [example] * 40, (33,))
    with pytest.raises(UserError, match="no place for the prompt"):
        Settings(template="USER:")


def _alpaca(folder):
    path = folder / "one.jsonl"
    path.write_text(json.dumps({"instruction": "Say hi.", "output": "hi"}) + "\n")
    return path


def test_the_model_is_named_by_its_files(checkpoint):
    assert ModelConfig.from_hf(json.loads((checkpoint / "config.json").read_text())).vocab_size == 512
