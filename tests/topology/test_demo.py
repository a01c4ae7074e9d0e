"""The demonstration from the command's config to its pictures, at a small size."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxalign.cli import topology as command
from jaxalign.core.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = command.Demo(
        alphas=(0.5,), exponents=(4, 6), seeds=2, queries=6, macro_exponent=11, out=tmp_path_factory.mktemp("demo")
    )
    return command.demo(config)


def test_it_leaves_a_table_and_pictures(folder):
    text = (folder / "tables.txt").read_text()
    for told in ("RLHF as autoencoding", "holds for every response", "By exact inference the tree", "I log n / n^0.5"):
        assert told in text
    for name in ("mean_distances", "advantage", "bounds", "autoencoding"):
        with Image.open(folder / f"{name}.png") as image:
            assert np.ptp(np.asarray(image)[..., :3]) > 100


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"alphas": (1.5,)}, "alpha is 1.5"),
        ({"alphas": ()}, "--alphas is"),
        ({"exponents": (8,)}, "different exponents"),
        ({"exponents": (8, 8)}, "different exponents"),
        ({"exponents": (8, 40)}, "from 4 to 20"),
        ({"seeds": 1}, "--seeds is 1"),
        ({"macro_exponent": 5}, "--macro-exponent is 5"),
        ({"gamma": -1.0}, "gamma is -1"),
        ({"gamma": 9.0}, "gamma at most"),
        ({"queries": 1}, "1 queries"),
        ({"workers": 0}, "--workers is 0"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(change, told, tmp_path):
    with pytest.raises(UserError, match=told):
        command.demo(command.Demo(**change, out=tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_the_code_in_the_docs_runs(capsys):
    text = (Path(__file__).parents[2] / "docs" / "topology.md").read_text()
    exec(compile("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), "topology.md", "exec"), {})
    said = capsys.readouterr().out
    assert [float(line) for line in said.splitlines()[:2]] == pytest.approx([2.0, 1.0])
    assert "I log n / n^0.5" in said
