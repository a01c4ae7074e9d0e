"""One picture of all worlds: robots by rows, tasks by columns, and the robots that run below.

    python -m envs_mjx.render docs/worlds.png

It takes some minutes, nearly all of them to compile the resets.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from PIL import Image

import envs_mjx
from envs_mjx.render.gl import GLUnavailable, picture

ROBOTS = ("Point", "Car", "Racecar", "Doggo", "Ant")
TASKS = ("Goal2", "Push2", "Button2", "Circle2", "Run0")
RUNNERS = ("Ant", "HalfCheetah", "Hopper", "Humanoid", "Swimmer", "Walker2d")
SIDE, SEED = 192, 3  # pixels of a world
_COLOURS = 200  # of the file


def main(argv: list[str]) -> int:
    """Writes the picture; returns the exit status."""
    if len(argv) != 1 or not argv[0].endswith(".png"):
        print("usage: python -m envs_mjx.render FILE.png", file=sys.stderr)
        return 2
    try:
        rows = [
            np.hstack([_world(f"Safety{robot}{task}-v0", SIDE, seed) for task in TASKS])
            for seed, robot in enumerate(ROBOTS, start=SEED)
        ]
        width = SIDE * len(TASKS) // len(RUNNERS)
        rows.append(np.hstack([_world(f"Safety{robot}Velocity-v1", width) for robot in RUNNERS]))
    except GLUnavailable as error:
        print(f"envs_mjx.render: {error}", file=sys.stderr)
        return 2
    Path(argv[0]).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(rows)).quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1).save(
        argv[0], optimize=True
    )
    print(f"Written: {argv[0]}")
    return 0


def _world(env_id: str, width: int, seed: int = SEED) -> np.ndarray:
    env = envs_mjx.make(env_id, "mujoco")
    state, obs = jax.jit(env.reset)(jax.random.key(seed))
    return picture(env_id, state, width, SIDE, "track", obs=obs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
