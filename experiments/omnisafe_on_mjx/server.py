"""Worlds for another process; started by `wire.launch`, runs under the Python that has `envs_mjx`.

python server.py ENV_ID NUM_ENVS FILE_DESCRIPTOR [ENGINE]
"""

import json
import socket
import sys
import time
from pathlib import Path

import numpy as np

from envs_mjx.adapters.gymnasium import VectorEnvironment

sys.path.insert(0, str(Path(__file__).parent))
import wire


def serve(sock: socket.socket, worlds: VectorEnvironment) -> None:
    """Compiles, greets, and answers until the other side closes.

    Args:
        sock: connected to a `wire.RemoteWorlds`.
        worlds: what is served.
    """
    wire.send(sock, wire.HELLO, json.dumps(_hello(worlds)).encode())
    while (message := wire.receive(sock)) is not None:
        letter, body = message
        try:
            if letter == wire.RESET:
                seed = int(np.frombuffer(body, "<i8")[0])
                answer = wire.OBS, worlds.reset(seed=None if seed < 0 else seed)[0].astype("<f4").tobytes()
            else:
                answer = wire.AFTER, _step(worlds, body).tobytes()
        except (ValueError, RuntimeError) as error:  # bad seeds and actions; whoever asked is told
            answer = wire.ERROR, str(error).encode()
        wire.send(sock, *answer)


def _hello(worlds: VectorEnvironment) -> dict:
    spec, start = worlds.env_spec, time.perf_counter()
    worlds.reset(seed=0)
    worlds.step(np.zeros((worlds.num_envs, spec.action_size), np.float32))
    return {
        "num_envs": worlds.num_envs,
        "obs_size": spec.obs_size,
        "action_low": spec.action_low,
        "action_high": spec.action_high,
        "horizon": spec.horizon,
        "compile_seconds": time.perf_counter() - start,
    }


def _step(worlds: VectorEnvironment, body: bytearray) -> np.ndarray:
    actions = np.frombuffer(body, "<f4").reshape(worlds.num_envs, -1)
    obs, reward, terminated, truncated, info = worlds.step(actions)
    after = np.zeros((), wire.step_dtype(worlds.num_envs, worlds.env_spec.obs_size))
    after["obs"], after["reward"], after["cost"] = obs, reward, info["cost"]
    after["terminated"], after["truncated"] = terminated, truncated
    for lane in np.flatnonzero(terminated | truncated):
        after["final_obs"][lane] = info["final_obs"][lane]
    return after


def main(env_id: str, num_envs: str, descriptor: str, engine: str | None = None) -> None:
    """Serves `num_envs` worlds on an inherited socket; a mistake in the arguments is its first and last message."""
    with socket.socket(fileno=int(descriptor)) as sock:
        try:
            worlds = VectorEnvironment(env_id, int(num_envs), engine)
        except ValueError as error:
            wire.send(sock, wire.ERROR, str(error).encode())
            return
        serve(sock, worlds)


if __name__ == "__main__":
    main(*sys.argv[1:])
