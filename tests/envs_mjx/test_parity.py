"""`envs_mjx.parity` accepts the recordings of Safety-Gymnasium and refuses each way in which they can be wrong."""

import re
import shutil
import zipfile

import numpy as np
import pytest

from envs_mjx import parity, registry
from envs_mjx.parity import navigation, states

POSE = ["agent position", "agent rotation", "agent velocity"]
SENSORS = [f"obs {name}" for name in ("accelerometer", "velocimeter", "gyro", "magnetometer")]
LIDARS = ["obs goal_lidar", "obs hazards_lidar", "obs vases_lidar"]
COSTS = ["cost_hazards", "cost_vases_contact", "cost_vases_velocity"]
TOTAL = "cost (indicator of the sum)"
ENDING = "terminated, truncated"
VASES = ["vases position"]
END = [TOTAL, "terminated, truncated"]
LINES = {
    level: [*POSE, *vases, *SENSORS, *LIDARS[:lidars], "reward", "goal_met", *COSTS[:costs], *END]
    for level, lidars, costs, vases in ((0, 1, 0, []), (1, 3, 1, VASES), (2, 3, 3, VASES))
}


def verdicts(printed):
    """Lines of each recording: name, error, tolerance and verdict."""
    pattern = re.compile(r"  (.{38}) +(\d\.\d\de[+-]\d\d) +(\de[+-]\d\d) (ok|FAILED)")
    out = []
    for line in printed.splitlines():
        if line.endswith(".npz"):
            out.append([])
        elif match := pattern.match(line):
            name, error, limit, verdict = match.groups()
            out[-1].append((name.strip(), float(error), float(limit), verdict))
    return out


def failed(printed):
    return [[name for name, *_, verdict in lines if verdict == "FAILED"] for lines in verdicts(printed)]


def check_report(lines, level, engine):
    assert [name for name, *_ in lines] == [*LINES[level], f"one-step qpos ({engine})"]
    exact = ("goal_met", "terminated, truncated", "cost")
    for name, error, limit, verdict in lines:
        assert limit == (0 if name.startswith(exact) else 1e-4 if name.startswith("one-step") else 1e-5)
        assert error <= limit
        assert verdict == "ok"


def test_mjx_agrees_with_the_recordings(mjx_replay):
    assert mjx_replay.status == 0
    printed = mjx_replay.printed
    assert printed.splitlines()[0].split() == ["largest", "absolute", "error", "of", "allowed"]
    assert printed.endswith("2 of 2 recordings agree\n")
    for level, lines in zip((0, 2), verdicts(printed), strict=True):
        assert f"\nSafetyPointGoal{level}-v0.npz\n" in printed
        check_report(lines, level, "mjx")
    assert re.search(r"one-step qpos \(mjx\), contact +\d\.\d\de-\d\d +\d+ steps; median \d.*, 99 % \d", printed)


def test_mujoco_agrees_with_the_recordings(golden, capsys):
    assert parity.main([str(golden / "SafetyPointGoal1-v0.npz"), "--engine", "mujoco"]) == 0
    printed = capsys.readouterr().out
    check_report(*verdicts(printed), 1, "mujoco")
    assert printed.endswith("1 of 1 recordings agree\n")
    assert re.search(r"one-step qpos \(mujoco\), contact .* steps; median", printed)


def test_table_has_a_row_for_each_recording_engine_and_kind_of_step(golden, tmp_path):
    """Also where two recordings have one name."""
    file, table = str(golden / "SafetyPointGoal0-v0.npz"), tmp_path / "table.md"
    assert parity.main([file, file, "--engine", "mujoco", "--table", str(table)]) == 0
    rows = [line for line in table.read_text().splitlines() if line.startswith("| SafetyPointGoal0-v0 | mujoco |")]
    assert len(rows) == 2
    assert all(re.search(r"\| floor \| \d+ \| \S+ \| \S+ \| \S+ \| ok \|$", row) for row in rows)


# --- recordings that disagree


@pytest.fixture
def altered(recording, tmp_path):
    """Return a function that saves a copy of a recording with some arrays changed, or removed if None."""
    count = iter(range(100))

    def save(level=0, **changes):
        data = recording(level)
        for name, change in changes.items():
            data[name] = change(data[name].copy()) if change else None
        path = tmp_path / str(next(count)) / f"SafetyPointGoal{level}-v0.npz"
        path.parent.mkdir()
        np.savez(path, **{name: array for name, array in data.items() if array is not None})
        return str(path)

    return save


def changed(index, change):
    def apply(array):
        array[index] = change(array[index])
        return array

    return apply


def shift_lidar(obs):
    obs[300, 12:] = np.roll(obs[300, 12:], 1)
    return obs


WRONG = {
    "reward": dict(step_reward=changed(100, lambda r: r + 1e-3)),
    "obs goal_lidar": dict(state_obs=shift_lidar),
    "cost (indicator of the sum)": dict(step_cost=changed(-1, lambda c: 1 - c)),
    "goal_met": dict(step_goal_met=changed(5, np.logical_not)),
    "agent velocity": dict(state_agent_vel=changed((-1, 1), lambda v: v + 1e-3)),
    "agent rotation": dict(state_agent_mat=changed((7, 0), lambda row: -row)),
    "terminated, truncated": dict(step_truncated=changed(-1, np.logical_not)),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_wrong_entry_among_thousands_is_found(altered, capsys, monkeypatch, name):
    monkeypatch.setattr(navigation, "check_physics", lambda *args: [])  # compiles longest, and sees none of this
    assert parity.main([altered(**WRONG[name])]) == 1
    printed = capsys.readouterr()
    assert failed(printed.out) == [[name]]
    assert printed.out.endswith("0 of 1 recordings agree\n")
    assert printed.err == ""


def test_one_wrong_recording_is_enough(altered, golden, capsys, monkeypatch):
    monkeypatch.setattr(navigation, "check_physics", lambda *args: [])
    assert parity.main([altered(**WRONG["reward"]), str(golden / "SafetyPointGoal0-v0.npz")]) == 1
    printed = capsys.readouterr().out
    assert failed(printed) == [["reward"], []]
    assert printed.endswith("1 of 2 recordings agree\n")


def test_one_wrong_step_of_the_physics_is_found(recording):
    data = recording(0)
    data["state_qpos"][-1, 1] += 1.1e-4
    nav = registry.navigation("SafetyPointGoal0-v0", "mujoco")
    check, *_ = navigation.check_physics(data, nav, states.recorded_states(data, nav))
    assert (check.name, check.tolerance, check.passed) == ("one-step qpos (mujoco)", 1e-4, False)
    assert check.error == pytest.approx(1.1e-4, rel=0.1)


def check_costs(data, level):
    nav = registry.navigation(f"SafetyPointGoal{level}-v0", "mujoco")
    checks = navigation.check_reward_and_cost(data, nav, states.recorded_states(data, nav))
    return [check.name for check in checks if not check.passed]


def test_each_wrong_cost_is_found(recording):
    data = recording(2)
    assert check_costs(data, 2) == []
    names = list(data["cost_names"])
    for name, row in zip(COSTS, (3, 30, 60), strict=True):
        data["step_cost_terms"][row, names.index(name)] = 1 - data["step_cost_terms"][row, names.index(name)]
    assert check_costs(data, 2) == COSTS


def test_a_cost_at_its_edge_is_forgiven_and_nothing_else(recording, monkeypatch):
    data = recording(1)
    hazard = list(data["cost_names"]).index("cost_hazards")
    names = np.char.startswith(data["obj_names"], "hazard")
    robot = data["episode_agent_xy"][data["state_episode"]]  # of the states, by the recorded yaw
    yaw = data["episode_agent_rot"][data["state_episode"]]
    local = data["state_qpos"][:, :2]
    robot = robot + np.column_stack(
        [np.cos(yaw) * local[:, 0] - np.sin(yaw) * local[:, 1], np.sin(yaw) * local[:, 0] + np.cos(yaw) * local[:, 1]]
    )
    depth = np.abs(np.linalg.norm(data["state_obj_pos"][:, names, :2] - robot[:, None], axis=2) - 0.2).min(axis=1)
    depth = depth[data["step_s_to"]]
    row = depth.argmin()
    data["step_cost_terms"][row, hazard] = 1 - data["step_cost_terms"][row, hazard]
    data["step_cost"][row] = 1 - data["step_cost"][row]
    assert check_costs(data, 1) == ["cost_hazards", TOTAL]
    monkeypatch.setattr(navigation, "EDGE", 1.1 * depth[row])
    assert check_costs(data, 1) == []


def test_cost_names_of_another_task_are_refused(recording):
    data = recording(1)
    data["cost_names"] = np.array(["cost_pillars", "cost_sum"])
    with pytest.raises(parity.CorruptRecordingError, match=r"cost_pillars.*cost_hazards"):
        check_costs(data, 1)


# --- files that cannot be read


def refused(path, capsys, *parts):
    """The run ends with status 2 and one clear line."""
    assert parity.main([str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("parity: ")
    for part in parts:
        assert part in printed.err
    assert "agree" not in printed.out


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_file(golden, tmp_path, capsys, share):
    path = tmp_path / "SafetyPointGoal0-v0.npz"
    data = (golden / path.name).read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, capsys, str(path), "not a readable .npz archive")


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_flipped_bytes(golden, tmp_path, capsys, place):
    path = tmp_path / "SafetyPointGoal0-v0.npz"
    data = bytearray((golden / path.name).read_bytes())
    middle = int(place * len(data))
    data[middle : middle + 64] = bytes(b ^ 0xFF for b in data[middle : middle + 64])
    path.write_bytes(data)
    refused(path, capsys, str(path), "not a readable .npz archive")


def test_broken_compression(golden, tmp_path, capsys):
    path = tmp_path / "SafetyPointGoal0-v0.npz"
    shutil.copy(golden / path.name, path)
    with zipfile.ZipFile(path) as archive:
        begin = archive.getinfo("state_obs.npy").header_offset
    data = bytearray(path.read_bytes())
    name, extra = (int.from_bytes(data[begin + i : begin + i + 2], "little") for i in (26, 28))
    data[begin + 30 + name + extra] = 0xFF  # no such type of block
    path.write_bytes(data)
    refused(path, capsys, str(path), "not a readable .npz archive")


def test_unknown_compression(golden, tmp_path, capsys):
    path = tmp_path / "SafetyPointGoal0-v0.npz"
    data = bytearray((golden / path.name).read_bytes())
    for at in re.finditer(b"PK\x01\x02", data):
        data[at.start() + 10] = 99
    path.write_bytes(data)
    refused(path, capsys, str(path), "not a readable .npz archive")


def test_files_of_another_kind(tmp_path, capsys):
    path = tmp_path / "SafetyPointGoal0-v0.npz"
    path.write_text("state_qpos,state_qvel\n")
    refused(path, capsys, str(path), "not a readable .npz archive")
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    refused(path, capsys, str(path), "not a readable .npz archive")
    path.unlink()
    refused(path, capsys, str(path), "no such file")
    path.mkdir()
    refused(path, capsys, str(path))


@pytest.mark.parametrize("name", ["state_qpos", "step_reward", "obs_names", "contact_offset", "agent_geom_ids"])
def test_missing_array(altered, capsys, name):
    refused(altered(**{name: None}), capsys, f"'{name}' is missing")


@pytest.mark.parametrize("name", ["state_qpos", "state_obs", "step_reward", "step_action", "episode_agent_rot"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_value_that_is_not_finite(altered, capsys, name, value):
    refused(altered(**{name: changed(3, lambda _: value)}), capsys, name, "not finite")


def test_recording_without_transitions(altered, recording, capsys):
    steps = [name for name in recording(0) if name.startswith("step_")]
    refused(altered(**{name: lambda x: x[:0] for name in steps}), capsys, "no transitions")
    rows = [name for name in recording(0) if name.startswith(("state_", "step_"))]
    refused(altered(**{name: lambda x: x[:0] for name in rows}), capsys, "no transitions")


def test_wrong_shapes(altered, capsys):
    refused(altered(step_reward=lambda x: x[:-1]), capsys, "step_")
    refused(altered(state_obs=lambda x: x[:, :-1]), capsys, "state_obs", "27", "28")
    refused(altered(state_qpos=lambda x: np.column_stack([x, x])), capsys, "state_qpos", "6", "3")
    refused(altered(1, state_qpos=lambda x: x[:, :3]), capsys, "state_qpos", "3", "10")
    refused(altered(step_action=lambda x: x[:, :1]), capsys, "step_action")
    refused(altered(state_qacc=lambda x: x[:, :2]), capsys, "state_qacc")
    refused(altered(obs_sizes=lambda x: x + 1), capsys, "obs_sizes")
    refused(altered(episode_agent_rot=lambda x: x[0]), capsys, "episode_agent")
    refused(altered(contact_offset=lambda x: x[:-1]), capsys, "contact_offset")


def test_rows_out_of_range(altered, capsys):
    refused(altered(step_s_to=changed(0, lambda _: 100_000)), capsys, "step_s_to", "outside")
    refused(altered(step_s_from=changed(0, lambda _: -1)), capsys, "step_s_from", "outside")
    refused(altered(state_episode=changed(0, lambda _: 99)), capsys, "state_episode")


def test_arrays_of_another_type(altered, capsys):
    refused(altered(state_qpos=lambda x: x.astype(str)), capsys, "state_qpos")
    refused(altered(step_reward=lambda x: x.astype(object)), capsys)


def test_unknown_id_and_engine(golden, tmp_path, capsys):
    path = tmp_path / "SafetyPointGoal7-v0.npz"
    shutil.copy(golden / "SafetyPointGoal0-v0.npz", path)
    refused(path, capsys, "Unknown environment id 'SafetyPointGoal7-v0'", "Did you mean")
    assert parity.main([str(golden / "SafetyPointGoal0-v0.npz"), "--engine", "warp9"]) == 2
    assert capsys.readouterr().err == "parity: Unknown physics engine 'warp9'; choose one of: mjx, mujoco.\n"


def test_a_recording_of_another_level_is_refused(golden, tmp_path, capsys):
    path = tmp_path / "SafetyPointGoal1-v0.npz"
    shutil.copy(golden / "SafetyPointGoal0-v0.npz", path)
    refused(path, capsys, "state_qpos", "SafetyPointGoal1-v0", "10")


def test_no_file_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as error:
        parity.main([])
    assert error.value.code == 2
    assert "FILE.npz" in capsys.readouterr().err
