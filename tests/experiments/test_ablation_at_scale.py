"""A small grid has the same table on any number of devices, and after an interruption."""

import dataclasses

import pytest

from jaxalign import dist, saferl, track
from jaxalign.core.errors import UserError


@pytest.fixture
def grid(ablation, tmp_path):
    return ablation.config.Config(
        algorithms=("ppo_lag",),
        envs=("SafetySwimmerVelocity-v1",),
        limits=(5.0, 200.0),  # of costs of 40 to 280: below, so that multipliers rise, and among them
        learning_rates=(1e-3,),
        seeds=(0, 1, 2),
        together=2,
        steps=2 * 8 * 20,
        eval_episodes=2,
        on_policy=saferl.OnPolicyConfig(num_envs=8, rollout_length=20, hidden=(8,)),
        out=tmp_path / "out",
    )


def run(ablation, config):
    for program in ablation.config.programs(config):
        assert ablation.waves.run(program)
    ablation.report.report(config)
    return (config.out / "results.csv").read_text()


def test_groups_hold_every_run_once(ablation, grid):
    (program,) = ablation.config.programs(dataclasses.replace(grid, together=4))
    members = [member for group in program.groups for member in group.members]
    assert len(program.groups) == 2
    assert set(members) == set(program.members)
    assert members[:6] == list(program.members)
    assert members[6:] == [program.members[-1]] * 2


@pytest.mark.slow
def test_tables_do_not_depend_on_devices(ablation, grid, tmp_path):
    """On a single device XLA does not run its partitioner and rounds otherwise, which episodes then amplify."""
    one, two, eight = (run(ablation, dataclasses.replace(grid, devices=n, out=tmp_path / str(n))) for n in (1, 2, 8))
    assert two == eight
    assert two.count("\n") == 1 + 6
    assert len({line.split(",")[-2] for line in two.splitlines()[1:]}) == 6  # every run is another one
    (program,) = ablation.config.programs(grid)
    for member in program.members:
        curves = [
            track.read_jsonl(tmp_path / n / program.folder.relative_to(grid.out) / member.name / "metrics.jsonl")
            for n in ("1", "2")
        ]
        assert len(curves[0]) == 2
        for a, b in zip(*curves, strict=True):
            assert a == pytest.approx(b, rel=1e-4)
    assert one.count("\n") == 1 + 6
    table = (tmp_path / "8" / "table.md").read_text()
    assert "| SafetySwimmerVelocity-v1 | ppo_lag | 5 | 0.001 | 0.001 | 3 |" in table
    assert (tmp_path / "8" / "results.parquet").exists()
    assert (tmp_path / "8" / "SafetySwimmerVelocity-v1.png").stat().st_size > 1000


@pytest.mark.slow
def test_an_interrupted_grid_goes_on_with_other_devices(ablation, grid, tmp_path, monkeypatch):
    whole = run(ablation, dataclasses.replace(grid, devices=2, out=tmp_path / "whole"))
    config = dataclasses.replace(grid, devices=2, out=tmp_path / "parts")

    class Stopped(dist.StopRequest):
        def __init__(self):
            super().__init__()
            self.received = 15  # from the beginning

    (program,) = ablation.config.programs(config)
    with monkeypatch.context() as patch:
        patch.setattr(dist, "StopRequest", Stopped)
        assert not ablation.waves.run(program)
    assert not any(group.done for group in program.groups)
    assert (program.groups[0].folder / "state.npz").exists()
    assert run(ablation, dataclasses.replace(config, devices=8)) == whole
    (program.groups[0].folder / "state.npz").write_bytes(b"nothing")
    (program.folder / program.members[0].name / "evaluation.json").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        ablation.waves.run(program)


def test_device_counts_that_make_no_sense(ablation, grid):
    (program,) = ablation.config.programs(dataclasses.replace(grid, devices=9))
    with pytest.raises(UserError, match="--devices is 9, but JAX sees 8"):
        ablation.waves.Trainer(program)
