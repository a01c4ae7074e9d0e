"""The config that a folder of results keeps."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxalign.cli.config import keep_config
from jaxalign.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Study:
    width: int = 8
    rates: tuple[float, ...] = (0.1, 0.2)
    seeds: tuple[int, ...] = (0, 1)
    out: Path = Path("results")


def keep(study, folder):
    keep_config(study, folder, free=("seeds", "out"))


def test_what_is_free_may_change_and_the_rest_may_not(tmp_path):
    folder = tmp_path / "results" / "study"
    keep(Study(), folder)
    keep(Study(seeds=(0, 1, 2), out=Path("elsewhere")), folder)
    kept = (folder / "config.json").read_text()
    assert json.loads(kept) == {"width": 8, "rates": [0.1, 0.2]}
    with pytest.raises(UserError, match=r"settings than asked for \(rates, width\); choose another --out"):
        keep(Study(width=9, rates=(0.1,)), folder)
    assert (folder / "config.json").read_text() == kept


def test_fields_come_and_go_with_versions(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"width": 8, "rates": [0.1, 0.2], "depth": 2}))
    with pytest.raises(UserError, match=r"\(depth\)"):
        keep(Study(), tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"width": ')
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        keep(Study(), tmp_path)
    assert (tmp_path / "config.json").read_text() == '{"width": '
