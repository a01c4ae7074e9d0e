"""Our worlds as OmniSafe environments; importing this module registers them under ids that begin with ``MJX-``.

    import omnisafe, bridge
    omnisafe.Agent("PPOLag", "MJX-SafetyPointGoal1-v0", custom_cfgs={"env_cfgs": {"python": PATH}}).learn()

Runs in OmniSafe's Python (3.8 to 3.10). PATH is the Python with ``envs_mjx``, in which `server.py` steps the worlds.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import wire
from gymnasium.spaces import Box
from omnisafe.envs.core import CMDP, env_register
from omnisafe.envs.safety_gymnasium_env import SafetyGymnasiumEnv

PREFIX = "MJX-"
_known: dict[tuple[str, str, str | None], tuple[Box, Box, int]] = {}  # spaces and horizon by id, python, engine


@env_register
class MJXEnv(CMDP):
    """`num_envs` worlds that begin their next episode in the step that ends the last, as OmniSafe's vectors do.

    ``info["final_observation"]`` holds the observations that ended (zeros in other rows), and
    ``info["_final_observation"]`` says which rows did. A single world has no batch axis.

    OmniSafe makes two of these and only ever resets one (the other is for evaluation), so the process with the worlds
    is started when it is needed.

    Args:
        env_id: ``"MJX-"`` before one of OmniSafe's own ids.
        num_envs: how many, ``B``.
        device: of the tensors.
        python: interpreter that has ``envs_mjx``.
        engine: physics engine; by default the faster there.

    Raises:
        wire.WorldsError: the worlds cannot be made.
    """

    need_auto_reset_wrapper = False
    need_time_limit_wrapper = False
    _support_envs: ClassVar[list[str]] = [PREFIX + env_id for env_id in SafetyGymnasiumEnv.support_envs()]

    def __init__(
        self, env_id: str, num_envs: int = 1, device: Any = "cpu", python: str = "python3", engine: str | None = None
    ):
        super().__init__(env_id)
        self._num_envs, self._device, self._metadata = num_envs, torch.device(device), {}
        self._what = (python, env_id[len(PREFIX) :], num_envs, engine)
        self._remote: wire.RemoteWorlds | None = None
        key = (env_id, python, engine)
        if key not in _known:
            remote = self._worlds()
            obs = Box(-np.inf, np.inf, (remote.obs_size,), np.float32)
            _known[key] = obs, Box(remote.action_low, remote.action_high, dtype=np.float32), remote.horizon
        self._observation_space, self._action_space, self._horizon = _known[key]

    def _worlds(self) -> wire.RemoteWorlds:
        if self._remote is None:
            self._remote = wire.launch(*self._what)
            print(f"{self._what[1]}: {self._num_envs} worlds compiled in {self._remote.compile_seconds:.1f} s")
        return self._remote

    @property
    def max_episode_steps(self) -> int:
        """Steps after which an episode is truncated."""
        return self._horizon

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[torch.Tensor, dict]:
        """Begins an episode in every world.

        Args:
            seed: of the first world; the next has ``seed + 1``. None: the next episodes of the last seed.
            options: ignored, as by Safety-Gymnasium.

        Returns:
            Observations ``[B, O]`` and an empty dictionary.
        """
        return self._tensor(self._worlds().reset(seed)), {}

    def step(self, action: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """One step in every world.

        Args:
            action: ``[B, A]``.

        Returns:
            Observations ``[B, O]``; rewards, costs, terminated, truncated, ``[B]`` each; info, see the class.
        """
        actions = action.detach().cpu().numpy().reshape(self._num_envs, -1)
        after = self._worlds().step(actions)
        over, info = after["terminated"] | after["truncated"], {}
        if over.any():
            info = {"final_observation": self._tensor(after["final_obs"]), "_final_observation": over}
        return (*(self._tensor(after[k]) for k in ("obs", "reward", "cost", "terminated", "truncated")), info)

    def _tensor(self, x: np.ndarray) -> torch.Tensor:
        rows = x if self._num_envs > 1 else x[0]
        return torch.tensor(rows, dtype=torch.float32, device=self._device)

    def set_seed(self, seed: int) -> None:
        """Begins the first episodes of `seed`."""
        self.reset(seed=seed)

    def render(self) -> Any:
        """Refuses: pictures are drawn in the other Python.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            f"{self._what[1]}: draw it with `envs_mjx.render` in {self._what[0]}; the bridge carries none."
        )

    def close(self) -> None:
        """Ends the process with the worlds."""
        if self._remote is not None:
            self._remote.close()
            self._remote = None
