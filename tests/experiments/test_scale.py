"""The dry run at real sizes: counts are the published ones, and bytes those of arrays that can be allocated."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign import dist
from jaxalign.core.errors import UserError
from jaxalign.lm import count_parameters, network, sharding
from jaxalign.lm.config import TINY
from jaxalign.lm.published import PUBLISHED, published
from jaxalign.lm.transformer import parameter_shapes


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("qwen2.5-0.5b", 494_032_768),
        ("llama-3.2-1b", 1_235_814_400),
        ("gemma-2-2b", 2_614_341_888),
        ("llama-2-7b", 6_738_415_616),
    ],
)
def test_sizes_are_the_published_ones(name, count):
    """As their makers' pages give them."""
    assert count_parameters(published(name)) == count
    published(name).to_hf()
    with pytest.raises(UserError, match=r"no published model 'gpt'; choose one of qwen2\.5-0\.5b"):
        published("gpt")


def test_the_largest_on_sixteen_devices(scale):
    """Parameters and moments by hand: everything is split 16 ways but norms and what is counted per layer."""
    sft, scalar, _, ppo = scale.stages(scale.Scale("llama-2-7b", fsdp=8, tensor=2))
    count = 6_738_415_616
    norms = (2 * 32 + 1) * 4096
    share = 4 * ((count - norms) // 16 + norms)
    assert sft.trained == share
    assert sft.moments == 2 * share + 2 * 4, "and the counters of Adam and of the schedule"
    assert sft.gradients == share
    head = 4 * 4096
    assert scalar.trained == share + head
    assert ppo.trained == 2 * share + head
    assert ppo.frozen == 2 * share // 2, "bfloat16"
    row = 2 * 2 * 32 * 1024 * 4096  # keys and values of a row, bfloat16
    assert ppo.cache == pytest.approx(8 * row, rel=0.01)
    assert ppo.total < 40 * 2**30


def test_shares_are_those_of_a_real_mesh(scale):
    """Eight devices, and a model with axes that do not split evenly."""
    shapes = parameter_shapes(dataclasses.replace(TINY["llama3"], vocab_size=50, intermediate_size=44))
    for sizes in ((2, 2, 2), (1, 8, 1), (1, 1, 8)):
        here = scale.Scale(**dict(zip(dist.mesh.AXES, sizes, strict=True)))
        assert scale.on_device(here, shapes) == sharding.bytes_per_device(shapes, dist.make_mesh(*sizes))


def test_activations_are_what_a_gradient_keeps(scale, monkeypatch):
    """Of a tiny model: the residual stream at each layer, kept once, whatever the devices."""
    tiny = dataclasses.replace(TINY["llama3"], num_layers=6, vocab_size=4096)
    monkeypatch.setitem(PUBLISHED, "tiny", tiny)
    small = scale.Scale("tiny", rows=4, length=32, prompts=8, prompt=8, response=8, minibatches=2)
    kept = [
        scale.residuals(
            lambda p, x: network(small.config).apply(p, x, hidden=True).sum(),
            jax.eval_shape(network(tiny).init, jax.random.key(0)),
            jax.ShapeDtypeStruct((n, 32), jnp.int32),
        )
        for n in (1, 2)
    ]
    stream = 4 * 32 * tiny.hidden_size
    assert kept[1] - kept[0] >= tiny.num_layers * stream
    assert kept[1] - kept[0] < (tiny.num_layers + 8) * stream, "layers are recomputed"
    alone, split = (scale.stages(dataclasses.replace(small, fsdp=n)) for n in (1, 2))
    row = alone[0].activations / small.rows - scale.layer(small, 32) - scale.logits(small, 32 // small.pieces)
    assert tiny.num_layers * stream < row < (tiny.num_layers + 12) * stream, "no parameters among them"
    for a, b in zip(alone, split, strict=True):
        assert b.activations * 2 == a.activations
        assert a.trained / 2 <= b.trained < 0.6 * a.trained
    params = network(tiny).init(jax.random.key(0))
    assert alone[0].trained == sum(np.asarray(x).nbytes for x in jax.tree.leaves(params))


def test_what_does_not_fit_is_said(scale):
    text = scale.table(scale.Scale("qwen2.5-0.5b", rows=2, prompts=8, hbm=1.0))
    assert "494,032,768 parameters on 1 devices" in text
    assert text.count("exceeds 1") == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fsdp": 3}, "16 rows cannot be dealt out over 3 devices"),
        ({"tensor": 0}, "1 x 1 x 0 devices is not possible"),
        ({"length": 40_000}, "40000 tokens are more than the context of 32768"),
        ({"prompt": 32_700}, "33212 tokens are more than the context"),
        ({"minibatches": 7}, "cannot be split into 7 minibatches"),
    ],
)
def test_runs_that_make_no_sense(scale, wrong, message):
    with pytest.raises(UserError, match=message):
        scale.stages(scale.Scale(**({"rows": 16} | wrong)))


@pytest.fixture(scope="module")
def scale():
    path = Path(__file__).parents[2] / "experiments" / "seq2seq_rm" / "scale.py"
    spec = importlib.util.spec_from_file_location("seq2seq_rm_scale", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
