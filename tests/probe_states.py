"""States of environments put together by hand, for tests of pictures: nothing is compiled, all lies where one says."""

import functools
from types import SimpleNamespace

import numpy as np

from envs_mjx import models, registry
from envs_mjx.navigation import State
from envs_mjx.physics import PhysicsState


@functools.cache
def navigation(env_id):
    """The builder of a navigation environment."""
    return registry.navigation(env_id, "mujoco")


def navigation_state(env_id, qpos, places):
    """A state with the robot's `qpos` and, by group of objects, `places` [n, 2] or poses [n, 7]."""
    nav = navigation(env_id)
    groups = {group.name: group for group in nav.task.objects}
    poses = {name: _poses(groups[name], np.asarray(at, float)) for name, at in places.items()}
    assert {name: len(at) for name, at in poses.items()} == {g.name: g.number for g in nav.task.objects}
    bodies = nav.physics.bodies
    home = np.concatenate([np.zeros((0, 7)), *(poses[group.name] for group in bodies.groups)])
    nv = nav.agent.nv + 6 * bodies.movable
    body = PhysicsState(
        qpos=np.concatenate([qpos, home[: bodies.movable].reshape(-1)]),
        qvel=np.zeros(nv),
        qacc=np.zeros(nav.agent.nv),
        warmstart=np.zeros(nv),
        touch=np.zeros(nav.agent.touch_sensors),
        home=home,
        steps=np.int32(0),
    )
    points = {name: poses[name][:, :2] for name, group in groups.items() if group.kind == "ghost"}
    return State(body, points, (), np.int32(0), np.bool_(False), np.zeros(2))


def spread_state(env_id, xy=(0.0, 0.0), yaw=0.0):
    """A navigation state with the robot at a place, and all its objects apart from each other on a grid around it."""
    nav = navigation(env_id)
    grid = [(x, y) for y in (1.6, 1.1, 0.6, -0.6, -1.1, -1.6) for x in (-1.6, -0.8, 0.0, 0.8, 1.6)]
    places = {}
    for group in nav.task.objects:
        places[group.name] = group.at or [grid.pop() for _ in range(group.number)]
    if nav.agent.name == "Point":
        return navigation_state(env_id, [*xy, yaw], places), places
    robot = models.load(nav.agent.name.lower())
    qpos = np.array([*xy, robot.bodies[0].pos[2], np.cos(yaw / 2), 0, 0, np.sin(yaw / 2), *robot.qpos0[7:]])
    return navigation_state(env_id, qpos, places), places


def velocity_state(env_id, **change):
    """A velocity state in the start pose, with some of its coordinates, given as ``q3=0.1``, changed."""
    made = registry.builder(env_id, "mujoco")
    qpos = np.array(models.load(made.robot.model).qpos0)
    for name, value in change.items():
        qpos[int(name[1:])] = value
    return SimpleNamespace(physics=SimpleNamespace(qpos=qpos))


def _poses(group, at):
    if at.ndim == 2 and at.shape[1] == 7:
        return at
    at = at.reshape(-1, 2)
    upright = np.tile([group.height, 1.0, 0.0, 0.0, 0.0], (len(at), 1))
    return np.column_stack([at, upright])
