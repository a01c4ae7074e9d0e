"""Safety-Gymnasium's door: programs written for the original run unchanged and see the same, and its numbers."""

import copy
import sys

import gymnasium
import jax
import numpy as np
import pytest
from probe_envs import probe
from safety_gymnasium_programs import LOOK, PROGRAMS, SEEN

import envs_mjx.adapters.safety_gymnasium as door
from envs_mjx import render
from envs_mjx.adapters.safety_gymnasium import vector, wrappers
from envs_mjx.adapters.safety_gymnasium.vector import SafetySyncVectorEnv, SafetyVectorEnv

# as recorded: observation size, lowest and highest action, episode limit, names in info beside cost_sum
KNOWN = {
    "SafetyPointGoal0-v0": (28, (-1, -1), (1, 1), 1000, ()),
    "SafetyPointGoal1-v0": (60, (-1, -1), (1, 1), 1000, ("cost_hazards",)),
    "SafetyPointGoal2-v0": (60, (-1, -1), (1, 1), 1000, ("cost_hazards", "cost_vases_contact", "cost_vases_velocity")),
    "SafetyPointPush2-v0": (76, (-1, -1), (1, 1), 1000, ("cost_hazards", "cost_pillars")),
    "SafetyPointButton1-v0": (76, (-1, -1), (1, 1), 1000, ("cost_buttons", "cost_gremlins", "cost_hazards")),
    "SafetyPointCircle1-v0": (28, (-1, -1), (1, 1), 500, ("cost_out_of_boundary",)),
    "SafetyPointRun0-v0": (12, (-1, -1), (1, 1), 500, ("cost_out_of_boundary",)),
    "SafetyCarGoal1-v0": (72, (-1, -1), (1, 1), 1000, ("cost_hazards",)),
    "SafetyRacecarGoal1-v0": (60, (-20, -0.785), (20, 0.785), 1000, ("cost_hazards",)),
    "SafetyAntGoal1-v0": (88, (-1,) * 8, (1,) * 8, 1000, ("cost_hazards",)),
    "SafetyDoggoGoal1-v0": (104, (-1,) * 12, (1,) * 12, 1000, ("cost_hazards",)),
}


class Script(gymnasium.Env):
    """Six values from a formula; an episode has three steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-20.0, 40.0, (1,), np.float64)

    def __init__(self, start=0):
        self.n = start

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self._obs(), {}

    def _obs(self):
        return np.array([np.sin(self.n), self.n**2 / 10])

    def step(self, action):
        self.n, self.t = self.n + 1, self.t + 1
        return self._obs(), float(np.cos(self.n)) + float(action[0]), float(self.n % 2), self.t == 3, False, {}


@pytest.fixture(scope="module")
def counter():
    """Reward and cost are the action, an episode lasts 3 steps."""
    return probe("Counter-v0", lambda o, a: a[0], lambda o, a: a, 3, lambda key: jax.random.uniform(key, (1,)), False)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_for_the_original_see_the_same(name, monkeypatch):
    for module in (door, vector, wrappers):  # the changed import
        monkeypatch.setitem(sys.modules, module.__name__.replace("envs_mjx.adapters.", ""), module)
    world = {}
    exec(LOOK + PROGRAMS[name], world)
    assert world["seen"] == SEEN[name]


@pytest.mark.parametrize("env_id", KNOWN)
def test_spaces_limits_and_names_of_the_original(env_id):
    size, low, high, limit, costs = KNOWN[env_id]
    env = door.make(env_id)
    assert env.observation_space.shape == (size,)
    assert env.observation_space.dtype == env.action_space.dtype == np.float64
    lidars = env.observation_space.low == 0
    assert (env.observation_space.high[lidars] == 1).all()
    assert np.isinf(env.observation_space.high[~lidars]).all()
    assert lidars.sum() % 16 == 0
    np.testing.assert_allclose(env.action_space.low, low)
    np.testing.assert_allclose(env.action_space.high, high)
    assert env.spec.max_episode_steps == limit
    assert sorted(env.unwrapped.env_spec.cost_names) == sorted(costs)


# What the original's SafeNormalizeCost(SafeNormalizeReward(SafeNormalizeObservation(...))) made of `Script`:
# observation, reward and cost of steps 0, 1, 2; of one environment also in SafeRescaleAction(..., -1, 1)
ONE = [
    ([0.9999087721316461, 0.9901955928987426], 99.56282886002795, 70.71421321062337),
    ([0.7874751024487197, 1.3720549576924999], 2.016578155198471, 0.0),
    ([-0.8168689666196715, 1.5712931833150239], 2.9072756834997877, 106.19506941630253),
]
TWO = [
    (
        [[1.4574357688040456, -0.9354540029861659], [-0.2791910881566641, 1.32259876101987]],
        [2.571462534575182, 4.56974159117562],
        [1.9998000025025, 0.0],
    ),
    (
        [[1.0578798171945853, -0.804032302398016], [0.6842582756116746, 1.5816082915477279]],
        [-0.5685859564713637, 1.3558833580414007],
        [0.0, 2.3168077277354504],
    ),
    (
        [[-0.2278263267152975, -0.6406450550358544], [1.0925271092130977, 1.789437141839627]],
        [-0.9952469188669343, -0.18330358954826526],
        [2.126478925694095, 0.0],
    ),
]


def normalised(env):
    return wrappers.SafeNormalizeCost(wrappers.SafeNormalizeReward(wrappers.SafeNormalizeObservation(env)))


def test_normalising_wrappers_give_the_originals_numbers():
    one = normalised(wrappers.SafeRescaleAction(Script(), -1.0, 1.0))
    two = normalised(SafetySyncVectorEnv([lambda: Script(0), lambda: Script(5)]))
    one.reset()
    two.reset()
    for t in range(3):
        for want, got in zip(ONE[t], one.step(np.array([0.1 * t])), strict=False):
            np.testing.assert_allclose(got, want, rtol=1e-9)
        result = two.step(np.array([[0.1 * t], [0.0]]))
        for want, got in zip(TWO[t], result, strict=False):
            np.testing.assert_allclose(got, want, rtol=1e-9)
    # the original mixes up the axes of final observations; here they are normalised by the moments of all seen so far,
    # which are those of n = 0, 1, 2, 3, 3 (the reset does not change n) and the same from 5 on
    raw = np.stack(result[-1]["original_final_observation"])
    seen = np.array(
        [[np.sin(n), n**2 / 10] for start in (0, 5) for n in (start, start + 1, start + 2, start + 3, start + 3)]
    )
    want = (raw - seen.mean(axis=0)) / seen.std(axis=0)
    np.testing.assert_allclose(np.stack(result[-1]["final_observation"]), want, rtol=1e-3)  # a prior counts 1e-4


def test_the_compiled_vector_is_the_vector_of_single_environments(counter):
    """Also when lanes end at different times, which the reference gets from other time limits."""
    compiled = SafetyVectorEnv(counter, 2)
    reference = SafetySyncVectorEnv([lambda: door.make(counter)] * 2)
    np.testing.assert_array_equal(compiled.reset(seed=3)[0], reference.reset(seed=3)[0])
    for t in range(5):
        got, want = (env.step(np.array([[0.25 * t], [1.0]])) for env in (compiled, reference))
        for x, y in zip(got[:5], want[:5], strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype
        assert got[5].keys() == want[5].keys()
        for name in got[5]:
            if name == "final_observation":
                np.testing.assert_array_equal(np.stack(got[5][name]), np.stack(want[5][name]))
            else:
                np.testing.assert_array_equal(got[5][name], want[5][name])


def test_rows_that_end_alone():
    """Dying at will: the mask tells the row that ended from the one that goes on."""
    base = probe("Mortal-v0", lambda o, a: a[0], lambda o, a: a, 9)

    def step(state, action):
        state, after = base.step(state, action)
        return state, after._replace(terminated=action[0] > 0.5)

    compiled = SafetyVectorEnv(base._replace(step=step), 2)
    compiled.reset(seed=0)
    compiled.step([[0.1], [0.1]])
    obs, reward, cost, terminated, truncated, infos = compiled.step([[0.25], [0.75]])
    np.testing.assert_array_equal(terminated, [False, True])
    np.testing.assert_array_equal(truncated, [False, False])
    np.testing.assert_array_equal(reward, [0.25, 0.75])
    np.testing.assert_array_equal(cost, [0.25, 0.75])
    np.testing.assert_allclose(obs[:, 1], [2 / 9, 0.0])
    np.testing.assert_array_equal(infos["_cost_sum"], [True, False])
    np.testing.assert_array_equal(infos["cost_sum"], [0.25, 0.0])
    assert infos["final_observation"][0] is None
    np.testing.assert_allclose(infos["final_observation"][1], [0.0, 2 / 9])
    assert infos["final_info"][0] is None
    assert infos["final_info"][1] == {"cost0": 0.75, "cost_sum": 0.75}
    np.testing.assert_array_equal(infos["_final_info"], [False, True])


def test_deep_copies_and_time_limits(counter):
    env = wrappers.SafeTimeLimit(door.make(counter), 2)
    env.reset(seed=0)
    env.step([0.5])
    twin = copy.deepcopy(env)
    mine, other = env.step([0.5]), twin.step([0.5])
    np.testing.assert_array_equal(mine[0], other[0])
    assert mine[1:] == other[1:]
    assert mine[4]
    env.reset()
    assert not env.step([0.5])[4]


def test_a_cost_must_be_there():
    class Plain(Script):
        def step(self, action):
            obs, reward, _, terminated, truncated, info = super().step(action)
            return obs, reward, terminated, truncated, info

    env = wrappers.Gymnasium2SafetyGymnasium(Plain())
    env.reset()
    with pytest.raises(ValueError, match="its info has no 'cost'"):
        env.step([0.0])


def test_pictures_of_one_and_of_many(monkeypatch, counter):
    def picture(env_id, state, width, height, **further):
        return np.full((height, width, 3), round(100 * float(state.obs[0])), np.uint8)

    monkeypatch.setattr(render, "picture", picture)
    env = door.make(counter, render_mode="rgb_array_list", width=4, height=2)
    env.reset(seed=0)
    env.step([0.0])
    frames = env.render()
    assert [frame.shape for frame in frames] == [(2, 4, 3)] * 2
    envs = door.vector.make(counter, num_envs=3, render_mode="rgb_array", width=4, height=2)
    obs, _ = envs.reset(seed=0)
    grid = envs.render()
    assert grid.shape == (4, 8, 3)
    shades = np.round(100 * obs[:, 0].astype(np.float32)).astype(np.uint8)
    np.testing.assert_array_equal(grid[::2, ::4, 0], [[shades[0], shades[1]], [shades[2], 0]])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda env: door.make(env, camera_id=1), "pass camera_name"),
        (lambda env: door.make(env, render_mode="depth_array"), "unknown render_mode 'depth_array'"),
        (lambda env: door.make("SafetyPointGoal9-v0"), "Unknown environment id"),
        (lambda env: door.vector.make(env, 0), "num_envs=0"),
        (lambda env: SafetySyncVectorEnv([]), "at least one environment"),
        (lambda env: SafetySyncVectorEnv([Script, lambda: door.make(env)]), "different spaces"),
        (lambda env: SafetySyncVectorEnv([Script]).reset(seed=[1, 2]), "2 seeds for 1 environments"),
        (lambda env: SafetySyncVectorEnv([Script]).step([[0.0], [0.0]]), "2 actions for 1 environments"),
        (lambda env: wrappers.SafeRescaleAction(Script(), 1.0, -1.0), "must be below"),
        (lambda env: wrappers.SafeUnsqueeze(SafetySyncVectorEnv([Script])), "is a vector already"),
    ],
)
def test_bad_input_is_refused(counter, act, message):
    with pytest.raises(ValueError, match=message):
        act(counter)


def test_a_vector_takes_no_keyword_that_it_does_not_know():
    with pytest.raises(TypeError, match="'max_episode_step'"):
        door.vector.make("SafetyPointGoal0-v0", num_envs=2, max_episode_step=5)
