"""Worlds of one's own: the documented example runs, and mistakes are refused in one sentence."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs_mjx
from envs_mjx import objects, registry, tasks
from envs_mjx.agents import CAR

FILE = Path(__file__).parents[2] / "experiments" / "orbiting_push" / "world.py"
ID = f"{FILE}:CarOrbitingPush-v0"


@pytest.fixture(scope="module")
def nav():
    return registry.builder(ID, "mujoco")


def test_the_example_is_a_world_like_any_other(nav):
    env, lanes = nav.env, 16
    assert "CarOrbitingPush-v0" in envs_mjx.ids()
    assert env.spec.cost_names == ("cost_gremlins",)
    state, obs = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), lanes))
    assert obs.shape == (lanes, 24 + 3 * 16)
    # half of the cars are put where their first gremlin will be dragged: away from its home, along y
    home = np.asarray(state.physics.home[:, nav.physics.bodies.slice("gremlins")])[:, 0, :2]
    qpos = np.array(state.physics.qpos)
    qpos[: lanes // 2, :2] = home[: lanes // 2] + np.array([0.0, 0.1])
    state = state._replace(physics=state.physics._replace(qpos=jnp.asarray(qpos)))
    _, after = jax.jit(jax.vmap(env.step))(state, jnp.zeros((lanes, 2)))
    assert after.cost[: lanes // 2].mean() > 0.8
    np.testing.assert_array_equal(after.cost[lanes // 2 :], 0)
    assert jnp.isfinite(after.obs).all()


def test_its_reward_is_progress_of_car_and_box(nav):
    state, _ = nav.env.reset(jax.random.key(1))
    now = np.asarray(state.memory)
    box = np.asarray(state.physics.qpos[nav.agent.nq :]).reshape(-1, 7)[nav.physics.bodies.slice("push_box")][0, :2]
    robot, goal = np.asarray(state.physics.qpos[:2]), np.asarray(state.points["goal"][0])
    np.testing.assert_allclose(now, [np.linalg.norm(box - robot), np.linalg.norm(box - goal)], atol=1e-6)
    reward, reached = nav.task.reward(jnp.asarray(now + np.array([0.25, 0.5])), nav.world(state.physics, state.points))
    assert not reached
    assert float(reward) == pytest.approx(0.75, abs=1e-5)


def wrong(nav, **changes):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        envs_mjx.register("SafetyCarMistake-v0", CAR, nav.task._replace(**changes))
    assert "SafetyCarMistake-v0" not in envs_mjx.ids()
    return str(error.value)


def test_mistakes_are_refused(nav):
    more = lambda number: (*nav.task.objects, objects.pillars(number, 1.5))
    assert "cannot fit: 10000 random layouts all failed" in wrong(nav, objects=more(14))
    assert "cannot fit" in wrong(nav, objects=more(100))
    assert "pillars: number -1" in wrong(nav, objects=more(-1))
    assert "no group of objects is called 'pillars'; there are goal, gremlins, push_box" in wrong(
        nav, touches=("pillars",)
    )
    assert "costs (2,)" in wrong(nav, costs=lambda memory, world: jnp.zeros(2))
    assert "fails with" in wrong(nav, costs=lambda memory, world: 0.0)
    assert "fails with TypeError" in wrong(nav, reward=lambda memory, world: 0.0)
    assert "fails with KeyError ('nothing')" in wrong(nav, reward=lambda memory, world: world.pos["nothing"])
    grows = lambda memory, world, reached: jnp.zeros(1) if memory is None else jnp.zeros(2)
    assert "remember returns" in wrong(
        nav, remember=grows, reward=lambda memory, world: (memory.sum(), jnp.bool_(False))
    )


def test_ids_are_taken_once(nav):
    envs_mjx.register("CarOrbitingPush-v0", CAR, nav.task)
    with pytest.raises(ValueError, match="is taken by another world"):
        envs_mjx.register("CarOrbitingPush-v0", CAR, nav.task._replace(horizon=5))
    with pytest.raises(ValueError, match="is one of Safety-Gymnasium's"):
        envs_mjx.register("SafetyPointGoal1-v0", CAR, nav.task)
    for env_id in ("a:b", " ", "MyWorld", "my world-v0", "A+B-v0", "My-World-v0", "World-v1.5"):
        with pytest.raises(ValueError, match="is not a name of letters, digits and _ with a version"):
            envs_mjx.register(env_id, CAR, nav.task)
    with pytest.raises(ValueError, match="horizon is 0 steps"):
        envs_mjx.register("CarBrief-v0", CAR, nav.task._replace(horizon=0))
    with pytest.raises(ValueError, match="none may be 'cost'"):
        envs_mjx.register("CarCost-v0", CAR, nav.task._replace(cost_names=("cost",)))
    goal, *others = nav.task.objects
    for change, message in (
        ({"horizon": 2.5}, "horizon is 2.5 steps"),
        ({"reward_clip": -1.0}, "reward_clip is -1.0"),
        ({"lidar_range": 0.0}, "lidar_range is 0.0"),
        ({"touches": ("goal",)}, "nothing can touch 'goal'"),
        ({"objects": (goal._replace(kind="fixed"), *others)}, "needs a group of ghosts called 'goal'"),
        ({"objects": (goal, *(group._replace(density=0.0) for group in others))}, "can be moved but has density 0"),
        (
            {"objects": (goal._replace(shapes=(goal.shapes[0]._replace(size=(-0.3, 0.1)),)), *others)},
            "goal has a shape without size",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            envs_mjx.register("CarNonsense-v0", CAR, nav.task._replace(**change))
    endless = nav.task.objects[0]._replace(area=float("nan"))
    with pytest.raises(ValueError, match="must be finite, in m"):
        envs_mjx.register("CarNowhere-v0", CAR, nav.task._replace(objects=(endless, *nav.task.objects[1:])))


def test_touches_can_be_remembered_from_the_start(nav):
    """The memory after a reset sees that nothing is touched."""
    count = lambda memory, world, reached: tasks.touched(world, "gremlins") + (0.0 if memory is None else memory)
    task = nav.task._replace(remember=count, reward=lambda memory, world: (memory, jnp.bool_(False)))
    envs_mjx.register("SafetyCarCount-v0", CAR, task)
    state, _ = jax.eval_shape(envs_mjx.make("SafetyCarCount-v0", "mujoco").reset, jax.random.key(0))
    assert state.memory.shape == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_like_this", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def (", "SyntaxError"),
    ],
)
def test_files_that_do_not_run(tmp_path, text, message):
    path = tmp_path / "world.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"world\.py cannot be imported \({message}.*name a Python file or module"):
        envs_mjx.make(f"{path}:Some-v0")
    with pytest.raises(ValueError, match="cannot be imported"):
        envs_mjx.make(f"{tmp_path}/missing.py:Some-v0")
