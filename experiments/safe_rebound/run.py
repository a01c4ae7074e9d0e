"""Does a safe policy lose its safety faster than it lost its return?

    python experiments/safe_rebound/run.py

Every phase is a file under ``--out``; what is there is not made again.
"""

import os

# Before jaxlib is loaded: programs from the compilation cache are announced on stderr, at level "error"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parent))
from config import Config
from life import PERTURBATIONS, Life, Mind, Record
from report import report

from jaxalign import track
from jaxalign.cli.config import keep_config
from jaxalign.cli.run import keep_programs
from jaxalign.core.errors import UserError


def main(config: Config) -> dict[tuple[int, str], Record]:
    """Runs what is missing; records by alignment (0: none) and perturbation, alignment's own under "alignment".

    Raises:
        UserError: results of another configuration under the same folder.
    """
    keep_programs()
    keep_config(config, config.out, free=("out",))
    life, found = Life(config), {}
    (base,), _, situations = _phase(config, life, "base", "ppo", config.base_steps, None)
    beside = base, situations
    stops = tuple(sorted(config.aligned))
    minds, found[stops[-1], "alignment"], _ = _phase(
        config, life, "alignment", "ppo_lag", stops[-1], base, stops=stops, base=beside
    )
    for aligned, mind in zip((0, *stops), (base, *minds), strict=True):
        for kind in PERTURBATIONS:
            name = f"{kind} after {aligned}"
            found[aligned, kind] = _phase(config, life, name, "ppo", config.perturbation, mind, base=beside)[1]
    report(config, found)
    return found


def _phase(config: Config, life: Life, name: str, *args: Any, **kwargs: Any) -> tuple[list[Mind], Record, np.ndarray]:
    """Of `Life.phase`, from its file or made and written."""
    path = config.out / f"{name.replace(' ', '-')}.npz"
    if not path.exists():
        minds, record, situations = life.phase(name, *args, **kwargs)
        arrays = {f"record-{k}": v for k, v in record._asdict().items()} | {"situations": situations}
        arrays |= {f"mind{m}-{i}": x for m, mind in enumerate(minds) for i, x in enumerate(jax.tree.leaves(mind))}
        with track.replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    shape = jax.eval_shape(jax.vmap(life.learner("ppo").init), life.roots)
    like = jax.tree.structure(Mind.of(shape))
    with np.load(path) as saved:
        number = len({key.split("-")[0] for key in saved.files if key.startswith("mind")})
        mind = lambda m: jax.tree.unflatten(like, [saved[f"mind{m}-{i}"] for i in range(like.num_leaves)])
        minds = [mind(m) for m in range(number)]
        record = Record(*(saved[f"record-{field}"] for field in Record._fields))
        return minds, record, saved["situations"]


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except UserError as error:
        sys.exit(f"safe_rebound: {error}")
