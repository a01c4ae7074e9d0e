"""``jaxalign topology demo``: does it matter how comparisons are arranged? The paper's answer, and the exact one."""

import dataclasses
import time
from pathlib import Path

from tqdm import tqdm

from jaxalign import topology, track
from jaxalign.cli.config import make_folder
from jaxalign.cli.run import keep_programs
from jaxalign.core.errors import UserError
from jaxalign.topology import bounds, figures, report
from jaxalign.topology.monte_carlo import Cell


@dataclasses.dataclass(frozen=True)
class Demo:
    """Measure mean inference distances of chains and trees of comparisons, and RLHF as autoencoding.

    Attributes:
        alphas: exponents of the structural function F(M) = M^-alpha, each between 0 and 1.
        exponents: comparisons are 2 to these powers.
        seeds: random networks per cell.
        gamma: how much closer leaves of a subtree are than subtrees are to each other.
        queries: responses whose distances are averaged, per network.
        workers: processes that share the work.
        macro_exponent: RLHF as autoencoding goes up to 2 to this power comparisons.
        out: folder for the tables and pictures.
    """

    alphas: tuple[float, ...] = (0.25, 0.5, 0.9)
    exponents: tuple[int, ...] = (8, 10, 12, 14)
    seeds: int = 5
    gamma: float = 2.0
    queries: int = 32
    workers: int = 1
    macro_exponent: int = 16
    out: Path = Path("runs/topology_demo")

    def __post_init__(self):
        if not self.alphas or len(self.exponents) < 2 or len(set(self.exponents)) < len(self.exponents):
            raise UserError(
                f"--alphas is {self.alphas} and --exponents {self.exponents}; give one alpha or more, and two or more "
                f"different exponents."
            )
        if not (min(self.exponents) >= 4 and max(self.exponents) <= 20):
            raise UserError(f"--exponents is {self.exponents}; choose from 4 to 20.")
        if not 10 < self.macro_exponent <= 20:
            raise UserError(f"--macro-exponent is {self.macro_exponent}; choose from 11 to 20.")
        if self.seeds < 2:
            raise UserError(f"--seeds is {self.seeds}; intervals need 2 or more.")


def cells(config: Demo) -> list[Cell]:
    """Everything that the demonstration measures, small networks first.

    Raises:
        UserError: alpha or gamma out of range, or no workers.
    """
    if config.workers < 1:
        raise UserError(f"--workers is {config.workers}; choose 1 or more.")
    shapes = [topology.Chain(), *(topology.Tree(size, config.gamma) for size in ("n/2", "n/(3 log n)"))]
    return [
        Cell(topology.Structural("polynomial", alpha), shape, 2**exponent, queries=config.queries, seed=seed)
        for exponent in sorted(config.exponents)
        for alpha in config.alphas
        for shape in shapes
        for seed in range(config.seeds)
    ]


def demo(config: Demo) -> Path:
    """Runs the demonstration, prints what it shows and returns the folder of tables and pictures.

    Raises:
        UserError: a mistake in `config`.
    """
    begin, todo = time.monotonic(), cells(config)
    make_folder(config.out)
    keep_programs()
    weight = sum(cell.comparisons for cell in todo)
    results: dict[Cell, topology.Measured] = {}
    form = "{desc:<18}{bar} {percentage:3.0f} %  {elapsed} < {remaining}"
    print(f"{len(todo)} random networks of comparisons, both read-outs", flush=True)
    with tqdm(total=weight, desc="inference distances", bar_format=form, disable=None) as bar:
        for cell, measured in topology.sweep(todo, config.workers):
            results[cell] = measured
            bar.update(cell.comparisons)
    outcome = topology.autoencode(topology.World(), [2**k for k in range(6, config.macro_exponent + 1)], seeds=10)
    text = "\n\n".join([report.layout(bounds.table()), autoencoder_table(outcome), report.tables(results)])
    with track.replacing(config.out / "tables.txt") as temporary:
        temporary.write_text(text + "\n")
    figures.mean_distances(results, config.out / "mean_distances.png")
    figures.advantages(results, config.out / "advantage.png")
    figures.against_bounds(results, config.out / "bounds.png")
    figures.autoencoding(outcome, config.out / "autoencoding.png")
    print(f"{text}\n\n{time.monotonic() - begin:.0f} s; tables.txt and four pictures in {config.out}")
    return config.out


def autoencoder_table(outcome: topology.Autoencoded) -> str:
    """Distance of p_LM from p_H and the error bound, by size."""
    rows = [("comparisons", "total variation of p_LM from p_H", "sup conditional variance", "largest error / bound")]
    share = outcome.error / outcome.bound[..., None]
    for k, n in enumerate(outcome.comparisons):
        mean, half = track.interval(outcome.total_variation[k])
        variance = f"{outcome.variance[k].mean():.3g}"
        rows.append((str(n), f"{mean:.4f} +- {half:.4f}", variance, f"{share[k].max():.4f}"))
    held = "holds for every response of every sample" if (share <= 1).all() else "is violated"
    title = "RLHF as autoencoding (theorem 3.1), 64 responses"
    slope = f"slope of log total variation: {outcome.convergence} (-0.5 is the rate of means)"
    return f"{title}\n{report.layout(rows)}\n{slope}; the error bound {held}"
