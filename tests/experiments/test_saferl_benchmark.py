"""The report of the benchmark, on cells that were never trained."""

import csv
import json

import pytest


@pytest.fixture
def grid(saferl_benchmark, tmp_path):
    """Two algorithms, two seeds; every run earned its seed plus 10 (ppo) or 5, at a cost of 50 or 20."""
    config = saferl_benchmark.config.Config(
        algorithms=("ppo", "ppo_lag", "cpo"), envs=("SafetyPointGoal1-v0",), seeds=(0, 1), out=tmp_path
    )
    for cell, base, cost in zip(saferl_benchmark.cell.cells(config), (10.0, 5.0), (50.0, 20.0), strict=False):
        for member in cell.members:
            folder = cell.folder / member.name
            folder.mkdir(parents=True)
            found = {"return": [base + member.seed - 1, base + member.seed + 1], "cost": {"cost": [cost, cost]}}
            (folder / "evaluation.json").write_text(json.dumps(found))
            row = {"env_steps": 1, "episode_return": base, "episode_cost/cost": cost}
            (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return config


def test_cells_are_all_combinations(saferl_benchmark, tmp_path):
    config = saferl_benchmark.config.Config(seeds=(0, 1), limits=(5.0, 25.0), learning_rates=(None, 1e-2), out=tmp_path)
    cell = next(saferl_benchmark.cell.cells(config))
    assert len({member.name for member in cell.members}) == 8
    assert {member.learning_rate for member in cell.members} == {1e-3, 1e-2}
    assert not cell.done


def test_report_has_what_was_evaluated_beside_what_was_published(saferl_benchmark, grid):
    saferl_benchmark.report.report(grid)
    rows = list(csv.DictReader((grid.out / "results.csv").read_text().splitlines()))
    assert [(r["algorithm"], float(r["return"]), float(r["cost"])) for r in rows] == [
        ("ppo", 10.0, 50.0),
        ("ppo", 11.0, 50.0),
        ("ppo_lag", 5.0, 20.0),
        ("ppo_lag", 6.0, 20.0),
    ]
    table = (grid.out / "table.md").read_text()
    half = 12.706 / 2  # Student's factor for two seeds, times their standard error
    assert f"| ppo | 2 | 10.50 [{10.5 - half:.2f}, {10.5 + half:.2f}] | 50.00" in table
    assert "25.44 ± 5.43 | 55.72 ± 35.55 |" in table
    assert "cpo" not in table  # not finished
    assert "| ppo | 1.00 [" in table
    assert "| ppo_lag | 0.52 [" in table  # 5.5 / 10.5
    assert (grid.out / "SafetyPointGoal1-v0.png").stat().st_size > 1000
