"""Rays of the GNSS twin per second beside Embree, on the same rays, on all cores, and one whole epoch.

    python benchmarks/gnss_rays.py [--buildings 500 5000 50000] [--cells 10000] [--repeats 7]

A 3 m grid of outdoor cells in the middle of a generated city of rectangular buildings, 30 satellites above 10 degrees.
Embree runs through `embreex` (single precision, occlusion query), one process per core with its share of the rays; the
time is from the moment all are ready to the moment the last is done. Ours is one program over as many devices as there
are cores. Both are the best of the repeats; `wrong` counts rays on which they disagree.

What bounds it. A shadow test of a box is about 25 additions, multiplications and comparisons, of which the inner loop
keeps about 18; a ray visits only the boxes that rise above it, about 20 of the 80 in the list of its tile. "G tests/s"
is the rate of these tests, to be compared with cores x lanes x 2 x clock / 18, for example 2 x 8 x 2 x 3 GHz / 18 =
5 G tests/s with 256-bit vectors.
"""

import argparse
import multiprocessing
import os
import time
from functools import partial

import jax

CORES = os.cpu_count() or 1
jax.config.update("jax_num_cpu_devices", CORES)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from jaxalign.dist import make_mesh, over_envs  # noqa: E402
from jaxalign.gnss.channel import Receiver, channel, draw_errors, echo_amplitudes  # noqa: E402
from jaxalign.gnss.city import buildings_of, outdoor_grid  # noqa: E402
from jaxalign.gnss.city_generator import Plan, generate_city  # noqa: E402
from jaxalign.gnss.materials import permittivity  # noqa: E402
from jaxalign.gnss.pvt import linear_fix  # noqa: E402
from jaxalign.gnss.rays import GROUP, nearest_hit, occluded, steps_above  # noqa: E402
from jaxalign.gnss.reflection import single_bounce  # noqa: E402
from jaxalign.gnss.tiles import CHUNK, build_tiles, by_receiver  # noqa: E402

SATELLITES, DRAWS = 30, 256


def sky() -> np.ndarray:
    """Unit vectors to satellites, uniform above 10 degrees."""
    rng = np.random.default_rng(2)
    up, azimuth = rng.uniform(np.sin(np.deg2rad(10)), 1, SATELLITES), rng.uniform(0, 2 * np.pi, SATELLITES)
    flat = np.sqrt(1 - up**2)
    return np.stack([flat * np.sin(azimuth), flat * np.cos(azimuth), up], axis=1).astype(np.float32)


def triangles_of(city) -> np.ndarray:
    """Triangles [n, 3, 3] of all boxes, with floors and roofs."""
    corners = np.stack([np.stack(building.rings) for building in buildings_of(city)])[:, 0]
    low = np.concatenate([corners, np.zeros((city.size, 4, 1))], axis=2)
    high = np.concatenate([corners, np.broadcast_to(city.top_m[:, None, None], (city.size, 4, 1))], axis=2)
    points = np.concatenate([low, high], axis=1)
    faces = [(0, 2, 1), (0, 3, 2), (4, 5, 6), (4, 6, 7)]
    for i in range(4):
        j = (i + 1) % 4
        faces += [(i, j, j + 4), (i, j + 4, i + 4)]
    return points[:, np.array(faces)].reshape(-1, 3, 3).astype(np.float32)


def best(run, repeats: int) -> float:
    """Shortest wall time of `run`, s; the first call, which compiles, does not count."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


def _embree_worker(triangles, receivers, directions, ready, results):
    from embreex import rtcore_scene
    from embreex.mesh_construction import TriangleMesh

    scene = rtcore_scene.EmbreeScene()
    _mesh = TriangleMesh(scene, triangles)
    origin = np.repeat(receivers, len(directions), axis=0).astype(np.float32)
    ray = np.tile(directions, (len(receivers), 1)).astype(np.float32)
    scene.run(origin[:1000], ray[:1000], query="OCCLUDED")
    while True:
        ready.wait()
        start = time.perf_counter()
        hit = np.asarray(scene.run(origin, ray, query="OCCLUDED"))
        results.put((start, time.perf_counter(), receivers[0].tobytes(), hit if hit.dtype == bool else hit >= 0))


def embree(city, receivers, directions, repeats: int) -> tuple[float, np.ndarray]:
    """Best wall time (s) of all cores together, and blocked [N, S]."""
    spawn = multiprocessing.get_context("spawn")
    ready, results = spawn.Barrier(CORES + 1), spawn.Queue()
    shares = np.array_split(receivers, CORES)
    order = [share[0].tobytes() for share in shares]
    triangles = triangles_of(city)
    workers = [spawn.Process(target=_embree_worker, args=(triangles, share, directions, ready, results), daemon=True)
               for share in shares]  # fmt: skip
    for worker in workers:
        worker.start()
    times, hits = [], []
    for _ in range(repeats):
        ready.wait()
        parts = sorted((results.get() for _ in workers), key=lambda part: order.index(part[2]))
        times.append(max(part[1] for part in parts) - min(part[0] for part in parts))
        hits = [part[3].reshape(-1, len(directions)) for part in parts]
    for worker in workers:
        worker.terminate()
    return min(times), np.concatenate(hits)


def epoch(walls, key, tiles, directions):
    """LOS, single bounce, measurements, draws and fixes: mean and spread of the simulated fix of every cell."""
    echoes = single_bounce(tiles, directions)
    amplitude = echo_amplitudes(echoes, walls)
    arrived = channel(directions, occluded(tiles, directions), echoes.excess_m, amplitude)
    system = jnp.zeros(SATELLITES, jnp.int32)

    def one_tile(arrived):
        arrived = jax.tree.map(lambda field: field[None], arrived)
        errors = draw_errors(key, arrived, Receiver(), DRAWS, shared=True)[:, 0]  # [draws, S, C]
        weight = jnp.where(arrived.tracked, 1 / jnp.maximum(arrived.sigma_m, 0.1) ** 2, 0.0)[0]

        def fix(errors, weight):
            one = partial(linear_fix, direction_enu=directions, weight=weight, system=system, num_systems=1)
            return jax.vmap(lambda error: one(error)[0])(errors)

        shift = jax.vmap(fix, in_axes=(2, 1))(errors, weight)
        return shift.mean(axis=1), shift.std(axis=1)

    return jax.lax.map(one_tile, arrived)


def tests_per_ray(tiles, directions) -> float:
    """Shadow tests per ray that the sorted lists leave."""
    tangent = np.sort(directions[:, 2] / np.hypot(directions[:, 0], directions[:, 1]))
    lowest = jnp.asarray(np.repeat(tangent[::GROUP], GROUP)[: len(tangent)])
    return float(sum(steps_above(rows, lowest).mean() * CHUNK for rows in (tiles.boxes, tiles.walls)))


def measure(buildings: int, cells: int, repeats: int) -> None:
    """One row of the table."""
    side = int(np.ceil(np.sqrt(buildings / 4)))
    city = generate_city(0, Plan(blocks=(side, side), plain=True, plaza=False))
    extent = np.sqrt(cells) * 3.0
    receivers = outdoor_grid(city, 3.0, area=np.array([[-extent, -extent], [extent, extent]]))[:cells]
    start = time.perf_counter()
    tiles = build_tiles(city, receivers, multiple=CORES)
    built = time.perf_counter() - start
    directions = sky()
    seen = jnp.asarray(directions)
    mesh = make_mesh(CORES)
    walls = jnp.asarray(permittivity(city.materials, 1575.42e6), jnp.complex64)[city.wall_building]
    spread = partial(over_envs, mesh=mesh, in_axes=(0, None), out_axes=0)
    rays = len(receivers) * SATELLITES
    programs = {"occlusion": occluded, "nearest hit": nearest_hit, "single bounce": single_bounce,
                "whole epoch": partial(epoch, walls, jax.random.key(0))}  # fmt: skip
    seconds = {}
    for name, program in programs.items():
        compiled = jax.jit(spread(program))
        seconds[name] = best(partial(compiled, tiles, seen), repeats)
    mine = np.asarray(by_receiver(tiles, occluded(tiles, seen), len(receivers)))
    theirs, hit = embree(city, receivers, directions, repeats)
    tests = tests_per_ray(tiles, directions)
    print(
        f"| {city.size} | {len(receivers)} | {built:.2f} | {rays / theirs / 1e6:.1f} | "
        f"{rays / seconds['occlusion'] / 1e6:.1f} | {theirs / seconds['occlusion']:.1f} | {(mine != hit).sum()} | "
        f"{tests:.0f} | {rays * tests / seconds['occlusion'] / 1e9:.2f} | "
        f"{rays / seconds['nearest hit'] / 1e6:.1f} | "
        f"{seconds['single bounce'] * 1e3:.0f} | {seconds['whole epoch'] * 1e3:.0f} |",
        flush=True,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--buildings", type=int, nargs="+", default=[500, 5000, 50_000])
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    print(f"{CORES} cores")
    print(
        "| buildings | cells | lists s | Embree M rays/s | ours M rays/s | ratio | wrong | tests per ray | "
        "G tests/s | nearest hit M rays/s | single bounce ms | epoch ms |"
    )
    print("|---" * 12 + "|")
    for buildings in args.buildings:
        measure(buildings, args.cells, args.repeats)


if __name__ == "__main__":
    main()
