"""What a film shows, frame by frame."""

from typing import Any, NamedTuple

import jax
import numpy as np

from envs_mjx.render.stage import seen


class Frame(NamedTuple):
    """One moment of an episode.

    Attributes:
        state: of the environment, or what is `seen` of it.
        time: steps since the start of the episode.
        episode_return: sum of its rewards so far.
        episode_cost: sum of its costs so far.
        cost: of the step; above 0 the robot violates a constraint and is marked red.
    """

    state: Any
    time: int
    episode_return: float
    episode_cost: float
    cost: float


def frames(states: Any, reward: np.ndarray, cost: np.ndarray, stride: int = 1) -> list[Frame]:
    """Frames of a recorded episode, every `stride`-th step.

    Args:
        states: of an environment, stacked over time, ``[T]``, or what is `seen` of them; each after the step that
            earned the reward.
        reward: of every step, ``[T]``.
        cost: of every step, ``[T]``; the worst within a stride is shown.
        stride: steps per frame.
    """
    shown = jax.tree.map(np.asarray, seen(states))
    returns, costs = np.cumsum(reward), np.cumsum(cost)
    return [
        Frame(
            state=jax.tree.map(lambda x, t=t: x[t], shown),
            time=t + 1,
            episode_return=float(returns[t]),
            episode_cost=float(costs[t]),
            cost=float(np.max(cost[max(0, t - stride + 1) : t + 1])),
        )
        for t in range(0, len(reward), stride)
    ]


def labels(frame: Frame) -> list[tuple[str, str]]:
    """Names and values written on a frame."""
    numbers = f"{frame.episode_return:.2f}", f"{frame.episode_cost:.0f}", f"{frame.time}"
    return list(zip(("return", "cost", "time step"), numbers, strict=True))
