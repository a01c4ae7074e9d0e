"""A navigation environment: a robot, a task and a physics engine put together.

One step follows the order of Safety-Gymnasium 1.0.0: move; reward and costs from the new state with the old goal; if
the goal was reached draw a new one and forget the old distance; then the observation. See `tasks` for the formulas.
Source: https://github.com/PKU-Alignment/safety-gymnasium (Ji et al. 2023, https://arxiv.org/abs/2310.12567).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from envs_mjx import lanes, layout, physics
from envs_mjx.agents import Agent
from envs_mjx.api import Env, EnvSpec, PRNGKey, TimeStep
from envs_mjx.geometry import box_box_overlap, quat_to_mat, quat_z, sphere_box_overlap
from envs_mjx.layout import Placement
from envs_mjx.physics import PhysicsState
from envs_mjx.sensors import LIDAR_BINS, BodyMotion, proprioception, pseudo_lidar
from envs_mjx.tasks import Task, World

REWARD_CLIP = 10.0
HUGE = 1e10  # beyond which MuJoCo, too, calls a state bad
FAILED_REWARD = -10.0  # of a step whose simulation diverged


class State(NamedTuple):
    """Everything an episode needs to go on.

    Attributes:
        physics: robot and boxes.
        points: planar positions of the ghost objects by group, ``[n, 2]``, m.
        memory: what the task remembers for its next reward.
        time: steps since the reset.
        key: randomness of this episode.
    """

    physics: PhysicsState
    points: dict[str, Float[Array, "_ 2"]]
    memory: Any
    time: Int[Array, ""]
    key: PRNGKey


class Navigation:
    """Builds the pure functions of one environment; `env` holds them. Keeps no state.

    Args:
        env_id: registered name.
        agent: robot.
        task: task.
        engine: see `physics`.
    """

    def __init__(self, env_id: str, agent: Agent, task: Task, engine: str):
        self.agent, self.task = agent, task
        self.physics = physics.make(agent, task.box, task.boxes.number, engine)
        blocks = tuple((name, 3) for name in ("accelerometer", "velocimeter", "gyro", "magnetometer"))
        self.spec = EnvSpec(
            id=env_id,
            obs_blocks=blocks + tuple((f"{name}_lidar", LIDAR_BINS) for name in task.lidars),
            action_low=agent.action_low,
            action_high=agent.action_high,
            cost_names=task.cost_names,
            horizon=task.horizon,
            control_dt=physics.SUBSTEPS * agent.timestep,
            engine=engine,
        )
        self.env = Env(self.reset, self.step, self.spec)

    def reset(self, key: PRNGKey) -> tuple[State, Float[Array, " O"]]:
        """A new episode: a random layout, then the goal drawn once more among all other objects."""
        agent, task = self.agent, self.task
        key, key_layout, key_yaw, key_goal = jax.random.split(key, 4)
        robot = Placement("agent", 1, agent.keepout, task.half_extent)
        groups = (robot, *task.ghosts, task.boxes)
        places, _ = layout.sample(key_layout, groups)
        ends = np.cumsum([group.number for group in groups])
        place = {group.name: places[end - group.number : end] for group, end in zip(groups, ends, strict=True)}
        yaw = jax.random.uniform(key_yaw, (1 + task.boxes.number,), maxval=2 * jnp.pi)
        boxes = jax.vmap(self._box_pose)(place[task.boxes.name], yaw[1:])
        body = self.physics.init(jnp.concatenate([agent.place(place["agent"][0], yaw[0]), boxes.reshape(-1)]))
        points = {group.name: place[group.name] for group in task.ghosts}
        goal, _ = self._new_goal(key_goal, points, self.world(body, points))
        points = points | {"goal": goal[None]}
        world = self.world(body, points)
        return State(body, points, task.memory(world), jnp.int32(0), key), self.observe(world)

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
        moved = self.physics.step(state.physics, action.astype(jnp.float32))
        sane = jnp.isfinite(action).all() & jnp.stack([jnp.all(jnp.abs(x) < HUGE) for x in moved]).all()
        body = jax.tree.map(lambda new, old: jnp.where(sane, new, old), moved, state.physics)
        world = self.world(body, state.points)

        reward, reached = self.task.reward(state.memory, world)
        reward = jnp.where(sane, jnp.clip(reward, -REWARD_CLIP, REWARD_CLIP), FAILED_REWARD)
        reached &= sane
        cost = (self.costs(world) > 0).astype(jnp.float32)
        total = jnp.where(sane, jnp.any(cost > 0).astype(jnp.float32), 1.0)

        key_goal = jax.random.fold_in(state.key, state.time)
        old = state.points["goal"][0], jnp.bool_(True)
        goal, found = lanes.where(reached, self._new_goal, old, key_goal, state.points, world)
        points = state.points | {"goal": goal[None]}
        world = world._replace(points=points)
        time = state.time + 1
        after = TimeStep(
            obs=self.observe(world),
            reward=reward,
            cost=cost,
            terminated=~found,
            truncated=(time >= self.spec.horizon) | ~sane,
            info={"cost": total, "goal_met": reached, "diverged": ~sane},
        )
        return State(body, points, self.task.memory(world), time, state.key), after

    def world(self, body: PhysicsState, points: dict[str, Array]) -> World:
        """The snapshot that rewards, costs and lidars read."""
        nq, nv, count = self.agent.nq, self.agent.nv, self.task.boxes.number
        pose, velocity = body.qpos[nq:].reshape(count, 7), body.qvel[nv:].reshape(count, 6)
        motion = self.agent.motion(body.qpos[:nq], body.qvel[:nv], body.qacc)
        return World(motion, points, pose[:, :3], jax.vmap(quat_to_mat)(pose[:, 3:]), velocity[:, :3])

    def observe(self, world: World) -> Float[Array, " O"]:
        """The flat observation, blocks in the order of ``spec.obs_blocks``."""
        points = world.points | {self.task.boxes.name: world.box_pos[:, :2]}
        pos, mat = world.agent.pos, world.agent.mat
        lidars = [pseudo_lidar(points[name], pos, mat, self.task.lidar_range) for name in self.task.lidars]
        return jnp.concatenate([proprioception(world.agent), *lidars])

    def costs(self, world: World) -> Float[Array, " K"]:
        """Raw costs by ``spec.cost_names``; above zero means violated."""
        return self.task.costs(world, jax.vmap(self._touches, (None, 0, 0))(world.agent, world.box_pos, world.box_mat))

    def _touches(self, robot: BodyMotion, pos, mat):
        """Whether any shape of the robot touches a box."""
        half = jnp.full(3, self.task.box.half)
        touching = jnp.bool_(False)
        for shape in self.agent.shapes:
            centre = robot.pos + robot.mat @ jnp.array(shape.pos)
            if shape.kind == "sphere":
                touching |= sphere_box_overlap(centre, shape.size[0], pos, mat, half)
            else:
                touching |= box_box_overlap(centre, robot.mat, jnp.array(shape.size), pos, mat, half)
        return touching

    def _box_pose(self, xy, yaw):
        return jnp.concatenate([xy, jnp.array([self.task.box.height]), quat_z(yaw)])

    def _new_goal(self, key, points, world: World):
        """A free place for the goal among the robot and all objects where they are now, and whether there was one."""
        goal, *others = self.task.ghosts
        places = [world.agent.pos[None, :2], *(points[group.name] for group in others), world.box_pos[:, :2]]
        keepout = [(self.agent.keepout, 1), *((g.keepout, g.number) for g in (*others, self.task.boxes))]
        sizes = np.concatenate([np.full(count, radius) for radius, count in keepout])
        return layout.redraw(key, goal, jnp.concatenate(places), jnp.array(sizes, jnp.float32))
