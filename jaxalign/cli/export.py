"""Taking the policy out of a run, to where there is no jaxalign."""

import dataclasses
import json
from pathlib import Path

import tyro

from jaxalign.cli import run
from jaxalign.core.errors import UserError
from jaxalign.saferl import export as exporting


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the policy of a run's last checkpoint for NumPy and as StableHLO.

    Attributes:
        run: folder of the run, such as runs/NAME.
        out: the .npz file; by default policy.npz in the run's folder. Beside it come numpy_policy.py, which reads it,
            and a .stablehlo program.
    """

    run: tyro.conf.Positional[Path]
    out: Path | None = None


def export(config: Export) -> tuple[Path, Path, Path]:
    """Exports, prints what was written and how to use it; returns the three files.

    Raises:
        UserError: there is no such run or no checkpoint, or the files cannot be written.
    """
    path = config.out or config.run / "policy.npz"
    if path.suffix != ".npz":
        raise UserError(f"--out is {path}; give a file that ends in .npz.")
    trained = run.read_config(config.run)
    env, state = run.restore(config.run, trained)
    about = {
        "algorithm": trained.algorithm,
        "env": trained.env,
        "seed": trained.seed,
        "iteration": int(state.iteration),
    }
    about |= {"observation": dict(env.spec.obs_blocks)}
    try:
        files = exporting.write(path, env, trained.sizes, state, json.dumps(about))
    except OSError as error:
        raise UserError(f"Cannot write {path} ({error.strerror or error}); choose another --out.") from None
    npz, reader, program = files
    print(f"{npz}: weights; in Python with NumPy: numpy_policy.load({npz.name!r}).action(obs)")
    print(f"{reader}: the module for that")
    print(f"{program}: jax.export.deserialize(bytearray(...)).call(noise, obs), noise [N, A], obs [N, O]")
    return files
