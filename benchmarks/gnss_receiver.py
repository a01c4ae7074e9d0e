"""What a correction costs the receiver: microseconds per fix and bytes to be sent, by method.

    python benchmarks/gnss_receiver.py [--half-width 150] [--fixes 4096] [--repeats 7]

One slice of the twin of a generated city. `look-up` is all that the paper's receiver does: a row, a column, an addition
in NumPy; one fix at a time and a whole file at once. The others run on JAX, in batches: the posterior over the cells
within 80 m, filter and smoother over all cells, and ranging over the cells within 60 m, for which the server also has
to predict the signals. Best of the repeats; a first call, which compiles, does not count.
"""

import argparse
import time

import jax
import numpy as np

from jaxalign.gnss import correction, database, evaluation, filtering, heldout
from jaxalign.gnss.building import CELLS_PER_TILE, Settings, build, filled_up
from jaxalign.gnss.constellation import constellation, time_slices
from jaxalign.gnss.grid import make_grid
from jaxalign.gnss.study import SHIPPED_PLACE, SHIPPED_START, demo_city, shipped_navigation
from jaxalign.gnss.tiles import build_tiles
from jaxalign.gnss.twin import Conditions, predict, scatter, wall_permittivity


def best(run, repeats: int) -> float:
    """Shortest wall time of `run`, s."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half-width", type=float, default=150.0)
    parser.add_argument("--fixes", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()

    half, city = args.half_width, demo_city(5)
    grid = make_grid(city, 3.0, np.array([[-half, -half], [half, half]]))
    sky = constellation(shipped_navigation(), SHIPPED_PLACE, time_slices(SHIPPED_START, 1, 1.0))
    twin = build(city, grid, sky, Settings())
    cells = grid.cells_m()
    tiles = build_tiles(city, cells, capacity=CELLS_PER_TILE, multiple=filled_up(len(cells)))
    walls, view = wall_permittivity(city), sky.at(0)

    def signals():
        return scatter(tiles, predict(tiles, walls, view.direction_enu, Conditions()), len(cells))

    truth = heldout.perturb(city, 6)
    world = heldout.World(truth, heldout.street_receivers(grid, truth, args.fixes, 7))
    epoch = world.epoch(jax.random.key(0), sky, 0)
    product, fix, one = correction.product(twin, 0), epoch.spatial_m, epoch.fix_m[epoch.has_fix][:1]
    followed = fix[:256]
    zeros = np.zeros(len(followed), int)
    ranging = evaluation.ranging_methods(twin, signals(), sky, 0)["ranging"]
    print(f"{len(cells)} cells, {len(sky.satellite)} satellites, {jax.device_count()} x {jax.default_backend()}")
    print("| step | microseconds |\n|---|---|")
    for name, program, count in (
        ("look-up, one fix", lambda: product.look_up(one), 1),
        (f"look-up, {args.fixes} fixes", lambda: product.look_up(fix[:, :2]), args.fixes),
        ("posterior, per fix", lambda: correction.correct(twin, 0, fix), args.fixes),
        ("filter and smoother, per fix", lambda: filtering.follow(twin, zeros, followed), len(followed)),
        ("ranging, per fix", lambda: ranging(epoch), args.fixes),
        ("predicted signals, per cell", signals, len(cells)),
    ):
        print(f"| {name} | {best(program, args.repeats) / count * 1e6:.1f} |", flush=True)
    every = grid.outdoor.size
    print(
        f"Sent: look-up product {product.nbytes / every:.0f} bytes per cell ({product.nbytes / 1e3:.0f} kB for "
        f"{every} cells), database {database.bytes_per_record(twin)} bytes per outdoor cell and slice."
    )


if __name__ == "__main__":
    main()
