"""All agents and tasks: what they observe and cost, what the original recorded of them, and how they fail."""

import inspect
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_mjx
from envs_mjx import parity, registry
from envs_mjx.parity import navigation, report
from envs_mjx.physics import contact

IDS = tuple(
    sorted(
        f"Safety{robot}{task}{level}-{version}"
        for version, robots in (("v0", ("Point", "Car", "Racecar", "Doggo", "Ant")), ("v1", ("Ant",)))
        for robot in robots
        for task in ("Goal", "Push", "Button", "Circle", "Run")
        for level in (range(3) if task != "Run" else range(1))
    )
)
COSTS = {
    **{key: set() for key in ("Goal0", "Push0", "Circle0", "Button0")},
    **{key: {"cost_hazards"} for key in ("Goal1", "Push1")},
    "Goal2": {"cost_hazards", "cost_vases_contact", "cost_vases_velocity"},
    "Push2": {"cost_hazards", "cost_pillars"},
    **{key: {"cost_buttons", "cost_gremlins", "cost_hazards"} for key in ("Button1", "Button2")},
    **{key: {"cost_out_of_boundary"} for key in ("Circle1", "Circle2", "Run0")},
}
CONTROL_DT = {"Point": 0.02, "Car": 0.04, "Racecar": 0.04, "Ant": 0.1, "Doggo": 0.1}
RECORDED = {  # what happens in each recording besides the reset
    "SafetyCarGoal1-v0": {"goal_met", "cost_hazards", "contact"},
    "SafetyRacecarGoal1-v0": {"goal_met", "cost_hazards", "contact"},
    "SafetyDoggoGoal1-v0": {"goal_met", "cost_hazards", "contact"},
    "SafetyAntGoal1-v0": {"goal_met", "cost_hazards", "contact", "terminated"},
    "SafetyAntGoal1-v1": {"goal_met", "cost_hazards"},
    "SafetyPointPush1-v0": {"goal_met", "cost_hazards", "contact"},
    "SafetyPointButton1-v0": {"goal_met", "cost_hazards", "cost_buttons", "cost_gremlins", "contact"},
    "SafetyPointCircle1-v0": {"cost_out_of_boundary"},
    "SafetyPointRun0-v0": {"cost_out_of_boundary", "truncated"},
}


# --- contract


def test_ids_are_those_of_the_original(monkeypatch):
    monkeypatch.setattr(registry, "_OWN", {})  # those that other tests have registered
    assert [name for name in envs_mjx.ids() if "Velocity" not in name] == list(IDS)


@pytest.fixture(scope="module")
def dimensions(golden):
    return json.loads((golden / "obs_dims.json").read_text())


@pytest.mark.parametrize("env_id", IDS)
def test_specification_and_types(dimensions, env_id, monkeypatch):
    """As the original says, and the state is closed under step."""
    # tracing takes seconds where shapes meet; all pairs of them meet in Goal2, Push2 and Button0 of -v0
    if any(name in env_id for name in ("Button1", "Button2", "v1")):
        monkeypatch.setattr(contact, "any_overlap", lambda *_: jnp.bool_(False))
    nav, original = registry.navigation(env_id, "mujoco"), dimensions[env_id]
    spec = nav.spec
    assert (spec.id, spec.engine) == (env_id, "mujoco")
    assert list(spec.obs_blocks) == [*original["blocks"].items()]
    assert (spec.horizon, spec.action_low) == (original["steps"], pytest.approx(original["low"], abs=1e-6))
    assert spec.action_high == pytest.approx(original["high"], abs=1e-6)
    assert spec.control_dt == pytest.approx(CONTROL_DT[nav.agent.name])
    assert {*spec.cost_names} == COSTS[nav.task.name]
    assert len(spec.cost_names) == len({*spec.cost_names})
    assert_closed_under_step(nav.env)


@pytest.mark.parametrize("env_id", ["SafetyPointGoal1-v0", "SafetyPointButton0-v0", "SafetyCarRun0-v0"])
def test_types_with_the_other_engine(env_id):
    env = envs_mjx.make(env_id, "mjx")
    assert env.spec.engine == "mjx"
    assert_closed_under_step(env)


def assert_closed_under_step(env):
    state, obs = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.ShapeDtypeStruct((env.spec.action_size,), jnp.float32)
    after, timestep = jax.eval_shape(env.step, state, action)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (new.shape, new.dtype, new.weak_type) == (old.shape, old.dtype, old.weak_type)
    assert timestep.obs.shape == obs.shape == (env.spec.obs_size,)
    assert timestep.obs.dtype == obs.dtype == timestep.reward.dtype == timestep.cost.dtype == jnp.float32
    assert (timestep.obs.weak_type, timestep.reward.weak_type, timestep.cost.weak_type) == (False, False, False)
    assert timestep.cost.shape == (len(env.spec.cost_names),)
    assert [x.shape for x in (timestep.reward, timestep.terminated, timestep.truncated)] == [()] * 3
    assert timestep.terminated.dtype == timestep.truncated.dtype == jnp.bool_
    assert {*timestep.info} == {"cost", "goal_met", "diverged"}
    assert all(x.shape == () for x in timestep.info.values())


# --- what was recorded


class Compiled:
    """`jax`, compiling what a replay compiles once per environment: each replay builds the environment anew."""

    def __init__(self):
        self.known, self.env_id = {}, ""

    def __getattr__(self, name):
        return getattr(jax, name)

    def jit(self, fun):
        return self.known.setdefault((self.env_id, inspect.unwrap(fun).__code__), jax.jit(fun))


@pytest.fixture(scope="module")
def replay():
    """`parity.replay` with engine "mujoco"."""
    compiled = Compiled()

    def run(path):
        compiled.env_id = path.name
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(navigation, "jax", compiled)
            return parity.replay(path, "mujoco")

    return run


def read(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def happens(data):
    """Which events occur in some steps of a recording and not in others."""
    terms = np.nan_to_num(data["step_cost_terms"])
    columns = {name: terms[:, k] > 0 for k, name in enumerate(data["cost_names"])}
    columns |= {name: data[f"step_{name}"].astype(bool) for name in ("goal_met", "terminated", "truncated")}
    columns["contact"] = navigation._touched(data)
    return {str(name) for name, column in columns.items() if column.any() and not column.all()} - {"cost_sum"}


@pytest.mark.parametrize("env_id", RECORDED)
def test_recordings_agree(golden, replay, env_id):
    path = golden / f"{env_id}.npz"
    results = replay(path)
    checks = [result for result in results if isinstance(result, parity.Check)]
    assert [check for check in checks if not check.passed] == []
    spec, names = envs_mjx.make(env_id, "mujoco").spec, {check.name.partition(",")[0] for check in checks}
    assert names >= {"agent position", "agent rotation", "agent velocity", "reward", "goal_met", "terminated"}
    assert names >= {*spec.cost_names, "cost (indicator of the sum)", "one-step qpos (mujoco)"}
    assert names >= {f"obs {name}" for name, _ in spec.obs_blocks if not name.startswith("touch")}
    assert happens(read(path)) == RECORDED[env_id]
    floor = next(result for result in results if result.name == "one-step qpos (mujoco), floor")
    assert floor.steps > 35


def test_touch_sensors_agree_with_the_recording(golden, replay):
    """`parity` reports, but does not judge them: forces depend on the engine. This one is nearly the same."""
    path = golden / "SafetyDoggoGoal1-v0.npz"
    touch = [result for result in replay(path) if result.name.startswith("obs touch")]
    assert len(touch) == 8
    assert read(path)["state_obs"][:, 12:20].max() > 0.05  # N
    assert max(result.maximum for result in touch) < 1e-5


def test_recordings_of_the_later_ant_are_known_by_their_version(golden, tmp_path):
    """Its repository calls it -v0, too."""
    path = tmp_path / "SafetyAntGoal1-v0.npz"
    shutil.copy(golden / "SafetyAntGoal1-v1.npz", path)
    assert report.environment_of(path) == "SafetyAntGoal1-v1"
    assert report.environment_of(golden / path.name) == "SafetyAntGoal1-v0"


def add(name, row, by):
    def alter(data):
        data[name][row] += by

    return alter


def block(name):
    """Changes the first entry of an observation block in one state."""

    def alter(data):
        begin = data["obs_sizes"][: list(data["obs_names"]).index(name)].sum()
        data["state_obs"][3, begin] += 1e-3

    return alter


def flip(name):
    """One cost, goal or end is the other way round."""

    def alter(data):
        if name.startswith("cost"):
            column = data["step_cost_terms"][:, list(data["cost_names"]).index(name)]
            column[7] = 1.0 - np.nan_to_num(column[7])
        else:
            data[f"step_{name}"][5] = ~data[f"step_{name}"][5]

    return alter


CORRUPTED = {  # of each recording: what is changed, and the only check that sees it
    "SafetyCarGoal1-v0": {
        "obs ballquat_rear": block("ballquat_rear"),
        "obs ballangvel_rear": block("ballangvel_rear"),
        "reward": add("step_reward", 30, 1e-3),
        "cost_hazards": flip("cost_hazards"),
    },
    "SafetyRacecarGoal1-v0": {"obs velocimeter": block("velocimeter"), "obs goal_lidar": block("goal_lidar")},
    "SafetyDoggoGoal1-v0": {
        "obs jointvel_hip_2_z": block("jointvel_hip_2_z"),
        "obs jointpos_ankle_4": block("jointpos_ankle_4"),
    },
    "SafetyAntGoal1-v0": {
        "obs ankle_3": block("ankle_3"),
        "obs agent_pos": block("agent_pos"),
        "terminated, truncated": flip("terminated"),
    },
    "SafetyPointPush1-v0": {
        "reward": add("step_last_box_goal", 30, 1e-3),
        "obs push_box_lidar": block("push_box_lidar"),
        "obs pillars_lidar": block("pillars_lidar"),
        "goal_met": flip("goal_met"),
    },
    "SafetyPointButton1-v0": {
        **{name: flip(name) for name in ("cost_buttons", "cost_gremlins", "cost_hazards")},
        "reward": add("step_reward", 30, 1e-3),
        "obs buttons_lidar": block("buttons_lidar"),
        "obs gremlins_lidar": block("gremlins_lidar"),
    },
    "SafetyPointCircle1-v0": {
        "reward": add("step_reward", 30, 1e-4),
        "cost_out_of_boundary": flip("cost_out_of_boundary"),
        "obs circle_lidar": block("circle_lidar"),
    },
    "SafetyPointRun0-v0": {
        "reward": add("step_reward", 30, 1e-2),
        "cost_out_of_boundary": flip("cost_out_of_boundary"),
        "terminated, truncated": flip("truncated"),
    },
}


def failing(results):
    return {result.name for result in results if isinstance(result, parity.Check) and not result.passed}


@pytest.mark.parametrize(("env_id", "name"), [(env_id, name) for env_id, names in CORRUPTED.items() for name in names])
def test_a_corrupted_entry_is_found(golden, tmp_path, replay, env_id, name):
    data, path = read(golden / f"{env_id}.npz"), tmp_path / f"{env_id}.npz"
    CORRUPTED[env_id][name](data)
    np.savez(path, **data)
    assert failing(replay(path)) == {name}


@pytest.mark.parametrize("env_id", RECORDED)
def test_a_corrupted_coordinate_is_found(golden, tmp_path, replay, env_id):
    """The robot's last one, in a state without contact that ends a run of steps."""
    data, path = read(golden / f"{env_id}.npz"), tmp_path / f"{env_id}.npz"
    ends = np.setdiff1d(data["step_s_to"], data["step_s_from"])
    before = data["step_s_from"][[list(data["step_s_to"]).index(end) for end in ends]]
    touched = navigation._touched(data)
    end = ends[~touched[ends] & ~touched[before] & (data["state_step_in_episode"][before] > 0)][-1]
    data["state_qpos"][end, registry.navigation(env_id, "mujoco").agent.nq - 1] += 5e-3
    np.savez(path, **data)
    moved = failing(replay(path))
    assert {name.partition(",")[0] for name in moved} >= {"one-step qpos (mujoco)"}
    assert "obs goal_lidar" not in moved or "Point" in env_id  # which turns by its last coordinate
