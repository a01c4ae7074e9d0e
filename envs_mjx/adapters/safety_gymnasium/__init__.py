"""Safety-Gymnasium's interface, with its six values: change the import and the code goes on.

    import envs_mjx.adapters.safety_gymnasium as safety_gymnasium

    env = safety_gymnasium.make("SafetyPointGoal1-v0")
    obs, info = env.reset(seed=0)
    obs, reward, cost, terminated, truncated, info = env.step(env.action_space.sample())

    envs = safety_gymnasium.vector.make("SafetyPointGoal1-v0", num_envs=64)  # one compiled program, no processes

Spaces, types, names in ``info`` and what happens at the end of an episode are those of Safety-Gymnasium 1.0.0, with
float64 at this door although the numbers inside are float32. What differs:

- A seed stands for another layout than in the original, drawn from the same distribution (`envs_mjx.layout`).
- ``cost_buttons`` is in ``info`` in every step of Button1 and Button2, as 0.0 where the original leaves it out because
  its timer runs. A failed simulation adds ``diverged`` instead of an exception.
- Velocity tasks add their costs and planar velocities to ``info`` and leave the parts of the reward out.
- Time limits: an episode never goes on beyond the task's own horizon, whatever ``max_episode_steps``.
- An action that is not finite is refused, and so are options of a reset.
- There are no Race, Fading and Debug tasks, and no ``config=``; pictures in observations are `envs_mjx.vision`'s.
- Cameras have names only, and ``env.unwrapped`` has no ``task``: the world is in `envs_mjx`, as functions.
- ``SafetyAsyncVectorEnv(functions)`` steps one environment after another; it is there for the name.

Original: https://github.com/PKU-Alignment/safety-gymnasium (Ji et al. 2023, https://arxiv.org/abs/2310.12567).
"""

from envs_mjx.adapters.gymnasium import register
from envs_mjx.adapters.safety_gymnasium import vector, wrappers
from envs_mjx.adapters.safety_gymnasium.environment import Environment, make

__all__ = ["Environment", "make", "register", "vector", "wrappers"]
