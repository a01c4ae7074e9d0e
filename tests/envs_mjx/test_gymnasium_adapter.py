"""Gymnasium's door: Gymnasium's own checker and wrappers, the functional environment, and what the docs promise."""

import copy
import sys

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from probe_envs import probe

import envs_mjx
from envs_mjx import registry, render
from envs_mjx.adapters import gymnasium as door
from envs_mjx.adapters import host

GOAL1 = "SafetyPointGoal1-v0"
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (12, 2)).astype(np.float32)


def episode(functional, seed, number, actions):
    """Observations and steps of the documented episode `number` of `seed`, by the functional environment."""
    reset, step = functional
    state, obs = reset(jax.random.fold_in(jax.random.key(seed), number))
    seen = [np.asarray(obs)]
    for action in actions:
        state, after = step(state, action)
        seen.append(jax.device_get(after))
    return seen


@pytest.fixture(scope="module")
def functional():
    env = envs_mjx.make(GOAL1)
    return jax.jit(env.reset), jax.jit(env.step)


@pytest.fixture(scope="module")
def counter():
    """Reward and cost are the action, an episode lasts 3 steps: what the door does is all there is to see."""
    return probe("Counter-v0", lambda o, a: a[0], lambda o, a: a, 3, lambda key: jax.random.uniform(key, (1,)), False)


def has_gl():
    try:
        env = door.Environment(GOAL1, render_mode="rgb_array")
        env.reset(seed=0)
        env.render()
    except render.GLUnavailable:
        return False
    return True


@pytest.mark.filterwarnings("ignore:.*A Box observation space (min|max)imum value is -?infinity:UserWarning")
def test_passes_gymnasiums_checker():
    env = gymnasium.make(GOAL1, disable_env_checker=True).unwrapped
    check_env(env, skip_render_check=not has_gl())


def test_every_id_is_registered_twice(monkeypatch):
    monkeypatch.setattr(registry, "_OWN", {})  # those that other tests have registered
    for env_id in envs_mjx.ids():
        name, version = env_id.rsplit("-", 1)
        for spelling in (env_id, f"{name}Gymnasium-{version}"):
            spec = gymnasium.spec(spelling)
            assert spec.kwargs == {"env": env_id}
            assert spec.entry_point == "envs_mjx.adapters.gymnasium:Environment"
            assert spec.vector_entry_point == "envs_mjx.adapters.gymnasium:VectorEnvironment"


def test_single_and_vector_play_the_documented_episodes(functional):
    env = gymnasium.make(GOAL1, max_episode_steps=5)
    vector = gymnasium.make_vec(GOAL1, num_envs=2, max_episode_steps=5)
    assert isinstance(vector.unwrapped, door.VectorEnvironment)
    obs, _ = env.reset(seed=7)
    rows, _ = vector.reset(seed=6)  # the second environment has the seed 7
    played = {number: episode(functional, 7, number, ACTIONS[5 * number : 5 * number + 5]) for number in (0, 1)}
    for number in (0, 1):
        first, *steps = played[number]
        np.testing.assert_allclose(obs, first, atol=1e-6)
        np.testing.assert_allclose(rows[1], first, atol=1e-6)
        for t, want in enumerate(steps):
            action = ACTIONS[5 * number + t]
            obs, reward, terminated, truncated, info = env.step(action)
            rows, rewards, ends, cuts, infos = vector.step(np.stack([action, action]))
            # three programs, of which each rounds its own way, and accelerations in which the servo chatters
            np.testing.assert_allclose(obs, want.obs, atol=2e-3)
            np.testing.assert_allclose(reward, want.reward, atol=1e-6)
            np.testing.assert_allclose(rewards[1], want.reward, atol=1e-6)
            assert info == {"cost": float(want.info["cost"]), "cost_hazards": float(want.cost[0])} | {
                "cost_sum": float(want.info["cost"])
            }
            assert not terminated
            assert not ends.any()
            assert truncated == (t == 4) == cuts[1] == ("final_obs" in infos)
        np.testing.assert_allclose(infos["final_obs"][1], obs, atol=2e-3)
        if number == 0:
            np.testing.assert_allclose(rows[1], played[1][0], atol=1e-6)  # reset in the same step
            obs, _ = env.reset()


def test_a_goal_is_told_only_when_reached():
    goal = probe("Goal-v0", lambda o, a: a[0], horizon=4)

    def step(state, action):
        state, after = goal.step(state, action)
        return state, after._replace(info=after.info | {"goal_met": action[0] > 0})

    env = door.Environment(goal._replace(step=step))
    env.reset(seed=0)
    assert "goal_met" not in env.step([-1.0])[-1]
    assert env.step([1.0])[-1]["goal_met"] is True
    vector = door.VectorEnvironment(goal._replace(step=step), 2)
    vector.reset(seed=0)
    assert "goal_met" not in vector.step([[-1.0], [-1.0]])[-1]
    infos = vector.step([[-1.0], [1.0]])[-1]
    np.testing.assert_array_equal(infos["goal_met"], [False, True])
    np.testing.assert_array_equal(infos["_goal_met"], [False, True])


def test_vector_keeps_what_ended(counter):
    """Lane 1 has a later start, as a reset in another step would give it."""
    vector = door.VectorEnvironment(counter, 2)
    start, _ = vector.reset(seed=[4, 5])
    for _ in range(2):
        vector.step([[0.5], [0.0]])
    obs, reward, terminated, truncated, infos = vector.step([[0.5], [0.0]])
    assert truncated.all()
    assert not terminated.any()
    np.testing.assert_array_equal(reward, [0.5, 0.0])
    np.testing.assert_array_equal(infos["cost"], [0.5, 0.0])  # of this step, also in rows that were reset
    for lane in (0, 1):
        np.testing.assert_allclose(infos["final_obs"][lane], [start[lane, 0], 1.0])
        drawn = jax.random.uniform(jax.random.fold_in(jax.random.key(4 + lane), 1), (1,))[0]
        np.testing.assert_allclose(obs[lane], [drawn, 0.0])
    np.testing.assert_array_equal(infos["final_info"]["cost"], [0.5, 0.0])
    assert "final_obs" not in vector.step([[0.5], [0.0]])[-1]


def test_gymnasiums_own_vector_of_single_environments_agrees(counter):
    """Gymnasium's SyncVectorEnv with the same autoreset mode is the reference for keys and shapes."""
    mode = gymnasium.vector.AutoresetMode.SAME_STEP
    reference = gymnasium.vector.SyncVectorEnv([lambda: door.Environment(counter)] * 2, autoreset_mode=mode)
    vector = door.VectorEnvironment(counter, 2)
    assert vector.observation_space == reference.observation_space
    assert vector.action_space == reference.action_space
    np.testing.assert_array_equal(vector.reset(seed=3)[0], reference.reset(seed=3)[0])
    for _ in range(4):
        got, want = vector.step([[0.2], [0.3]]), reference.step(np.array([[0.2], [0.3]], np.float32))
        for x, y in zip(got[:4], want[:4], strict=True):
            np.testing.assert_allclose(x, y)
        if "final_info" in want[4]:
            np.testing.assert_allclose(got[4]["final_info"]["cost"], want[4]["final_info"]["cost"])
            np.testing.assert_allclose(np.stack(got[4]["final_obs"]), np.stack(want[4]["final_obs"]))
        else:
            assert got[4].keys() == want[4].keys()


def test_a_deep_copy_goes_on_identically():
    env = gymnasium.make(GOAL1)
    env.reset(seed=1)
    env.step(ACTIONS[0])
    twin = copy.deepcopy(env)
    for action in ACTIONS[1:]:
        mine, other = env.step(action), twin.step(action)
        np.testing.assert_array_equal(mine[0], other[0])
        assert mine[1:] == other[1:]
    env.step(ACTIONS[0])
    np.testing.assert_array_equal(env.reset()[0], twin.reset()[0])


def test_seeds_are_honoured_and_continue(counter):
    env, other = door.Environment(counter), door.Environment(counter)
    starts = [env.reset(seed=1)[0], env.reset()[0], env.reset()[0], env.reset(seed=1)[0]]
    np.testing.assert_array_equal(starts[0], starts[3])
    assert len({float(start[0]) for start in starts}) == 3
    other.reset(seed=1)
    np.testing.assert_array_equal(other.reset()[0], starts[1])
    assert door.Environment(counter).reset()[0][0] != door.Environment(counter).reset()[0][0]


def test_actions_are_clipped_and_float64_is_welcome(counter):
    env = gymnasium.make(GOAL1, disable_env_checker=True)
    env.reset(seed=0)
    one = env.step(np.array([3.0, -2.0]))[0]
    env.reset(seed=0)
    np.testing.assert_array_equal(one, env.step(np.array([1.0, -1.0], np.float32))[0])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda env: env.step([0.0, 0.0]), r"action has shape \(2,\); pass an array of shape \(1,\)"),
        (lambda env: env.step([np.nan]), r"action\[0\] is nan; pass finite numbers"),
        (lambda env: env.reset(seed=-1), "seed=-1 is out of range"),
        (lambda env: env.reset(seed=2**32), "seed=4294967296 is out of range"),
        (lambda env: env.reset(options={"where": 1}), "no option 'where'"),
    ],
)
def test_bad_input_is_refused(counter, act, message):
    env = door.Environment(counter)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        act(env)


def test_bad_construction_is_refused(counter):
    with pytest.raises(ValueError, match="render_mode 'ascii'"):
        door.Environment(counter, render_mode="ascii")
    with pytest.raises(ValueError, match="max_episode_steps=0"):
        door.Environment(counter, max_episode_steps=0)
    with pytest.raises(ValueError, match="num_envs=0"):
        door.VectorEnvironment(counter, 0)
    with pytest.raises(ValueError, match="too late"):
        door.Environment(counter, engine="mjx")
    with pytest.raises(ValueError, match="Unknown environment id 'SafetyPointGoal1'"):
        door.Environment("SafetyPointGoal1")
    with pytest.raises(ValueError, match="3 seeds for 2 environments"):
        door.VectorEnvironment(counter, 2).reset(seed=[1, 2, 3])
    vector = door.VectorEnvironment(counter, 2)
    vector.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(2, 1\)"):
        vector.step([[0.0]])


def test_steps_need_an_episode(counter):
    env = door.Environment(counter, max_episode_steps=1, render_mode="rgb_array")
    for act in (lambda: env.step([0.0]), env.render):
        with pytest.raises(host.EpisodeNotStartedError, match="no episode has begun"):
            act()
    env.reset(seed=0)
    assert env.step([0.0])[3]
    with pytest.raises(host.EpisodeNotStartedError, match="the episode is over"):
        env.step([0.0])
    with pytest.raises(host.EpisodeNotStartedError, match="no episode has begun"):
        door.VectorEnvironment(counter, 1).step([[0.0]])


def test_a_longer_limit_has_no_effect(counter):
    env = door.Environment(counter, max_episode_steps=10)
    env.reset(seed=0)
    assert [env.step([0.0])[3] for _ in range(3)] == [False, False, True]


def test_pictures_follow_the_state(monkeypatch):
    """What is asked of the renderer, whose own tests are elsewhere."""
    asked = []

    def picture(env_id, state, width, height, **further):
        asked.append((env_id, float(state.time), width, height, further["cost"], further.get("camera")))
        return np.full((height, width, 3), len(asked), np.uint8)

    monkeypatch.setattr(render, "picture", picture)
    env = gymnasium.make(GOAL1, render_mode="rgb_array", width=8, height=6, camera_name="fixedfar")
    env.reset(seed=0)
    assert env.render().shape == (6, 8, 3)
    env.step(ACTIONS[0])
    env.render()
    assert asked == [(GOAL1, 0.0, 8, 6, 0.0, "fixedfar"), (GOAL1, 1.0, 8, 6, 0.0, "fixedfar")]


def test_a_window_shows_every_step(monkeypatch):
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    shown = []
    monkeypatch.setattr(render, "picture", lambda *_, **__: np.full((6, 8, 3), 40 + len(shown), np.uint8))
    monkeypatch.setattr(pygame.display, "flip", lambda: shown.append(pygame.display.get_surface().get_at((0, 0))[0]))
    with pytest.warns(UserWarning, match="HumanRendering"):
        env = gymnasium.make(GOAL1, render_mode="human", width=8, height=6)
    env.reset(seed=0)
    env.step(ACTIONS[0])
    env.close()
    assert shown == [40, 41]


def test_render_without_a_mode_says_so(counter):
    env = door.Environment(counter)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode"):
        assert env.render() is None


def test_without_gymnasium_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    monkeypatch.delitem(sys.modules, "envs_mjx.adapters.gymnasium")
    with pytest.raises(ImportError, match=r'pip install "jaxalign\[gymnasium\]"'):
        __import__("envs_mjx.adapters.gymnasium")
