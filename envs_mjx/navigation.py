"""A navigation environment: a robot, a task and a physics engine put together.

One step follows the order of Safety-Gymnasium 1.0.0: move; reward and costs from the new state with the old goal; if
the goal was reached draw a new one and forget the old distance; then the observation. See `tasks` for the formulas.
Source: https://github.com/PKU-Alignment/safety-gymnasium (Ji et al. 2023, https://arxiv.org/abs/2310.12567).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from envs_mjx import lanes, layout, physics
from envs_mjx.agents import Agent
from envs_mjx.api import FAILED_REWARD, Env, EnvSpec, PRNGKey, TimeStep, full_precision
from envs_mjx.geometry import quat_z
from envs_mjx.layout import Placement
from envs_mjx.objects import Objects
from envs_mjx.physics import HUGE, PhysicsState
from envs_mjx.sensors import LIDAR_BINS, proprioception, pseudo_lidar
from envs_mjx.tasks import Task, World


class State(NamedTuple):
    """Everything an episode needs to go on.

    Attributes:
        physics: robot and objects that can be touched.
        points: planar positions of the ghost objects by group, ``[n, 2]``, m.
        memory: what the task remembers for its next reward.
        time: steps since the reset.
        dead: whether the episode cannot go on: no layout was found at the reset.
        key: randomness of this episode.
    """

    physics: PhysicsState
    points: dict[str, Float[Array, "*batch n 2"]]
    memory: Any
    time: Int[Array, "*batch"]
    dead: Bool[Array, "*batch"]
    key: PRNGKey


class Navigation:
    """Builds the pure functions of one environment; `env` holds them. Keeps no state.

    Args:
        env_id: registered name.
        agent: robot.
        task: task.
        engine: see `physics`.

    Raises:
        ValueError: the objects cannot be placed, or the task names a group that it does not have.
    """

    def __init__(self, env_id: str, agent: Agent, task: Task, engine: str):
        self.agent, self.task = agent, task
        keepout = agent.keepout if task.robot_keepout is None else task.robot_keepout
        robot = Placement("agent", 1, keepout, task.robot_area)
        self.placements = (robot, *(_placement(group) for group in task.objects))
        self._check()
        self.physics = physics.make(agent, task.objects, engine, task.horizon)
        self.shapes = physics.robot_shapes(agent) if task.touches else None
        blocks = tuple((name, 3) for name in ("accelerometer", "velocimeter", "gyro", "magnetometer"))
        self.spec = EnvSpec(
            id=env_id,
            obs_blocks=blocks + agent.sense_blocks + tuple((f"{name}_lidar", LIDAR_BINS) for name in task.lidars),
            action_low=agent.action_low,
            action_high=agent.action_high,
            cost_names=task.cost_names,
            horizon=task.horizon,
            control_dt=physics.SUBSTEPS * agent.timestep,
            engine=engine,
        )
        self.env = Env(full_precision(self.reset), full_precision(self.step), self.spec)

    def _check(self) -> None:
        names = [group.name for group in self.task.objects]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.task.name}: two groups of objects share a name among {', '.join(names)}.")
        for name in {*self.task.lidars, *self.task.touches} - {*names}:
            raise ValueError(f"{self.task.name}: no group of objects is called {name!r}; there are {', '.join(names)}.")
        costs = self.task.cost_names
        if len(set(costs)) < len(costs) or "cost" in costs:
            raise ValueError(f"{self.task.name}: costs need names that differ, and none may be 'cost', their sum.")
        if not (isinstance(self.task.horizon, int) and self.task.horizon >= 1):
            raise ValueError(
                f"{self.task.name}: the horizon is {self.task.horizon} steps; choose a whole number above 0."
            )
        for name in ("reward_clip", "lidar_range"):
            if not getattr(self.task, name) > 0:
                raise ValueError(f"{self.task.name}: {name} is {getattr(self.task, name)}; choose a positive number.")
        self._check_objects()
        layout.check(self.placements)

    def _check_objects(self) -> None:
        ghosts = {group.name for group in self.task.objects if group.kind == "ghost"}
        if self.task.new_goal and "goal" not in ghosts:
            kind = "ghosts" if any(group.name == "goal" for group in self.task.objects) else "objects"
            raise ValueError(f"{self.task.name}: a new goal needs a group of {kind} called 'goal'.")
        for name in ghosts & {*self.task.touches}:
            raise ValueError(f"{self.task.name}: nothing can touch {name!r}, a group of ghosts.")
        for group in self.task.objects:
            if any(not size > 0 for shape in group.shapes for size in shape.size):
                raise ValueError(f"{self.task.name}: {group.name} has a shape without size; choose positive lengths.")
            if group.kind in ("free", "orbiting") and not group.density > 0:
                raise ValueError(
                    f"{self.task.name}: {group.name} can be moved but has density {group.density:g}; choose a positive "
                    "one, in kg/m^3."
                )

    def check(self) -> None:
        """Traces one step and draws layouts, and refuses a task whose parts do not fit.

        Raises:
            ValueError: no layout is found, a function of the task fails, or rewards, costs or memory have another shape
                than they must.
        """
        action = jax.ShapeDtypeStruct((self.spec.action_size,), jnp.float32)
        try:
            state, _ = jax.eval_shape(self.reset, jax.random.key(0))
            after, out = jax.eval_shape(self.step, state, action)
        except Exception as error:
            raise ValueError(
                f"{self.spec.id}: a function of the task {self.task.name} fails with {type(error).__name__} "
                f"({str(error).splitlines()[0]}); correct its reward, costs, remember or new_goal."
            ) from error
        if out.reward.shape != () or out.cost.shape != (len(self.task.cost_names),):
            raise ValueError(
                f"{self.spec.id}: reward has shape {out.reward.shape} and costs {out.cost.shape}; a task with costs "
                f"{self.task.cost_names} needs () and ({len(self.task.cost_names)},)."
            )
        kinds = [jax.tree.map(lambda x: (x.shape, x.dtype), s.memory) for s in (state, after)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"{self.spec.id}: remember returns {kinds[0]} after a reset but {kinds[1]} after a step.")
        draw = jax.jit(jax.vmap(lambda key: layout.sample(key, self.placements)))
        if not draw(jax.random.split(jax.random.key(0), 4))[1].any():
            raise ValueError(
                f"{self.spec.id}: the objects cannot fit: {layout.RESTARTS} random layouts all failed; use fewer "
                "objects, smaller keepouts or a larger area."
            )

    def reset(self, key: PRNGKey) -> tuple[State, Float[Array, " O"]]:
        """A new episode: a random layout, then the goal drawn once more among all other objects."""
        agent, task = self.agent, self.task
        key, key_layout, key_yaw, key_goal, key_robot = jax.random.split(key, 5)
        places, found = layout.sample(key_layout, self.placements)
        ends = np.cumsum([group.number for group in self.placements])
        place = {g.name: places[end - g.number : end] for g, end in zip(self.placements, ends, strict=True)}
        bodies = self.physics.bodies
        yaw = jax.random.uniform(key_yaw, (1 + bodies.starts[-1],), maxval=2 * jnp.pi)
        homes = [_home(group, place[group.name], yaw[1:][bodies.slice(group.name)]) for group in bodies.groups]
        home = jnp.concatenate([*homes, jnp.zeros((0, 7))])
        body = self.physics.init(agent.place(key_robot, place["agent"][0], yaw[0]), home)
        points = {group.name: place[group.name] for group in task.objects if group.kind == "ghost"}
        world = self._untouched(body, points)
        if task.new_goal:
            goal, free = task.new_goal(key_goal, world, lambda key: self._free_place(key, world))
            points, found = points | {"goal": goal[None]}, found & free
            world = self._untouched(body, points)
        memory = task.remember(None, world._replace(touching=self._no_touch()), jnp.bool_(False))
        return State(body, points, memory, jnp.int32(0), ~found, key), self.observe(world, memory)

    def step(self, state: State, action: Float[Array, " A"]) -> tuple[State, TimeStep]:
        """One control step. Actions are clipped to the actuators' range, as in the original.

        Raises:
            ValueError: the action has the wrong shape.
        """
        if action.shape != (self.spec.action_size,):
            raise ValueError(
                f"{self.spec.id}: an action needs shape ({self.spec.action_size},), got {action.shape}; "
                "batch environments with jax.vmap(env.step)."
            )
        task = self.task
        moved = self.physics.step(state.physics, action.astype(jnp.float32))
        numbers = [jnp.all(jnp.abs(x) < HUGE) for x in jax.tree.leaves(moved) if jnp.issubdtype(x.dtype, jnp.floating)]
        sane = jnp.isfinite(action).all() & jnp.stack(numbers).all()
        body = jax.tree.map(lambda new, old: jnp.where(sane, new, old), moved, state.physics)
        world = self.world(body, state.points)

        reward, reached = task.reward(state.memory, world)
        reward = jnp.where(sane, jnp.clip(reward, -task.reward_clip, task.reward_clip), FAILED_REWARD)
        reached &= sane
        cost = jnp.where(sane, (task.costs(state.memory, world) > 0).astype(jnp.float32), 1.0)
        total = jnp.where(sane, jnp.any(cost > 0).astype(jnp.float32), 1.0)

        world, found = self._renew(state, world, reached)
        points = {name: world.pos[name][:, :2] for name in state.points}
        memory = task.remember(state.memory, world, reached)
        time = state.time + 1
        dead = state.dead | ~found | ~self.agent.alive(world.agent)
        after = TimeStep(
            obs=self.observe(world, memory),
            reward=reward,
            cost=cost,
            terminated=dead,
            truncated=(time >= self.spec.horizon) | ~sane,
            info={"cost": total, "goal_met": reached, "diverged": ~sane},
        )
        return State(body, points, memory, time, state.dead, state.key), after

    def _renew(self, state: State, world: World, reached) -> tuple[World, Bool[Array, ""]]:
        """The world with a new goal where the old one was reached, and whether there was room for one."""
        if not self.task.new_goal:
            return world, jnp.bool_(True)
        draw = self.task.new_goal

        def new_goal(key, world):
            return draw(key, world, lambda key: self._free_place(key, world))

        old = world.pos["goal"][0, :2], jnp.bool_(True)
        goal, found = lanes.where(reached, new_goal, old, jax.random.fold_in(state.key, state.time), world)
        height = world.pos["goal"][:, 2:]
        pos = world.pos | {"goal": jnp.concatenate([goal[None], height], axis=1)}
        return world._replace(pos=pos), found

    def world(self, body: PhysicsState, points: dict[str, Array]) -> World:
        """The snapshot that rewards, costs and lidars read."""
        world, pose = self._untouched(body, points), self._poses(body)
        if self.shapes is None:
            return world
        touching = {}
        for group in self.physics.bodies.groups:
            if group.name in self.task.touches:
                examine = physics.touching(self.shapes, self.agent.radius, group)
                rows = self.physics.bodies.slice(group.name)
                touching[group.name] = examine(body.qpos[: self.agent.nq], world.agent.pos, pose[rows])
        return world._replace(touching=touching)

    def _no_touch(self) -> dict[str, Bool[Array, " n"]]:
        groups = [group for group in self.physics.bodies.groups if group.name in self.task.touches]
        return {group.name: jnp.zeros(group.number, bool) for group in groups}

    def _poses(self, body: PhysicsState) -> Float[Array, "B 7"]:
        return jnp.concatenate([body.qpos[self.agent.nq :].reshape(-1, 7), body.home[self.physics.bodies.movable :]])

    def _untouched(self, body: PhysicsState, points: dict[str, Array]) -> World:
        """The world without looking who touches whom, which takes longer than all the rest to compile."""
        nq, nv, bodies, pose = self.agent.nq, self.agent.nv, self.physics.bodies, self._poses(body)
        velocity = body.qvel[nv:].reshape(-1, 6)[:, :3]
        motion = self.agent.motion(body.qpos[:nq], body.qvel[:nv], body.qacc)
        pos = {group.name: pose[bodies.slice(group.name), :3] for group in bodies.groups}
        for group in self.task.objects:
            if group.kind == "ghost":
                height = jnp.full((group.number, 1), group.height)
                pos[group.name] = jnp.concatenate([points[group.name], height], axis=1)
        moving = {g.name: velocity[bodies.slice(g.name)] for g in bodies.groups if g.kind != "fixed"}
        orbits = {g.name: body.home[bodies.slice(g.name), :3] for g in bodies.groups if g.kind == "orbiting"}
        senses = self.agent.senses(body.qpos[:nq], body.qvel[:nv], body.touch)
        return World(motion, pos, moving, {}, senses, orbits)

    def observe(self, world: World, memory: Any) -> Float[Array, " O"]:
        """The flat observation, blocks in the order of ``spec.obs_blocks``."""
        visible = self.task.visible(memory)
        lidars = [jnp.where(visible.get(name, True), self._lidar(world, name), 0.0) for name in self.task.lidars]
        return jnp.concatenate([proprioception(world.agent, self.agent.sensor_site), world.senses, *lidars])

    def _lidar(self, world: World, name: str):
        return pseudo_lidar(world.pos[name][:, :2], world.agent.pos, world.agent.mat, self.task.lidar_range)

    def _free_place(self, key, world: World):
        """A free place for the goal among the robot and all objects where they are now, and whether there was one.

        Orbiting objects count at the centre of their orbit.
        """
        robot, *groups = self.placements
        places, keepouts = [world.agent.pos[None, :2]], [robot.keepout]
        for group in groups:
            if group.name != "goal":
                places.append(world.orbit_centre.get(group.name, world.pos[group.name])[:, :2])
                keepouts += [group.keepout] * group.number
        goal = next(group for group in groups if group.name == "goal")
        return layout.redraw(key, goal, jnp.concatenate(places), jnp.array(keepouts, jnp.float32))


def _placement(group: Objects) -> Placement:
    return Placement(group.name, group.number, group.keepout, group.area, group.at)


def _home(group: Objects, xy: Float[Array, "n 2"], yaw: Float[Array, " n"]) -> Float[Array, "n 7"]:
    """Poses of a group's objects at the start."""
    height = jnp.full((group.number, 1), group.height)
    return jnp.concatenate([xy, height, jax.vmap(quat_z)(yaw)], axis=1)
