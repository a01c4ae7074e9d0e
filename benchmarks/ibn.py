"""Monte Carlo of the induced Bayesian network: both read-outs, by SciPy and JAX beside NetworkX, on the same networks.

    python benchmarks/ibn.py [--exponent 14] [--seeds 10] [--queries 20] [--networkx-exponent 10]
    python benchmarks/ibn.py --exponent 17 --seeds 2 --skip jax

Networks of a chain and of a tree (B = n/2) of n = 2^exponent exact comparisons, F = M^-0.5. Per backend the seconds for
all seeds of both topologies, with and without compilation, and the largest difference from SciPy's answer. "whole" is
what a user waits for: drawing and simplifying the networks included. NetworkX (if installed) runs one seed at a smaller
size, by Dijkstra from every query and by its resistance distance between two; SciPy at that size stands beside.
"""

import argparse
import time

import jax
import numpy as np

from jaxalign import topology
from jaxalign.topology.monte_carlo import Cell, draw
from jaxalign.topology.network import Network

SHAPES = (topology.Chain(), topology.Tree("n/2", 2.0))


def cells(exponent: int, seeds: int, queries: int) -> list[Cell]:
    """What is measured, chain first."""
    structural = topology.Structural("polynomial", 0.5)
    return [
        Cell(structural, shape, 2**exponent, queries=queries, seed=seed) for shape in SHAPES for seed in range(seeds)
    ]


def timed(name: str, function, reference=None):
    """Runs, prints seconds and the largest relative difference, returns the result."""
    begin = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - begin
    if reference is not None:
        apart = np.abs(np.asarray(result) / np.asarray(reference) - 1).max()
        print(f"{name:44s}{seconds:9.2f} s   largest difference from SciPy {apart:.1e}", flush=True)
    else:
        print(f"{name:44s}{seconds:9.2f} s", flush=True)
    return result


def mean(distances) -> list[float]:
    """MID of every network."""
    return [float(topology.mean_distance(d)) for d in distances]


def scipy_backend(networks: list[Network]) -> dict[str, list[float]]:
    """One network after the other."""
    return {
        "best path": timed("SciPy, best path (Dijkstra)", lambda: mean(topology.distances(*n) for n in networks)),
        "exact": timed("SciPy, exact (conjugate gradients)", lambda: mean(topology.resistances(*n) for n in networks)),
    }


def jax_backend(networks: list[Network], reference: dict[str, list[float]]) -> None:
    """All networks of a call as one batch; the first call compiles."""
    graphs, queries = topology.stack([n.graph for n in networks]), np.stack([n.queries for n in networks])
    functions = {"best path": topology.distances_on_device, "exact": topology.resistances_on_device}
    for name, function in functions.items():
        for when in ("with compilation", "compiled"):
            timed(f"JAX, {name}, {when}", lambda function=function: mean(function(graphs, queries)), reference[name])


def networkx_backend(exponent: int, queries: int) -> None:
    """One seed of the chain at a small size."""
    try:
        import networkx
    except ImportError:
        print("NetworkX is not installed")
        return
    network = draw(cells(exponent, 1, queries)[0])
    graph, nodes = network.graph, network.queries.tolist()
    print(f"n = 2^{exponent}, one chain: {graph.nodes} nodes, {len(graph.variance)} edges")
    other = networkx.MultiGraph()
    other.add_weighted_edges_from(
        (*ends, v) for ends, v in zip(graph.ends.tolist(), graph.variance.tolist(), strict=True)
    )
    path = timed("SciPy, best path, all queries", lambda: topology.distances(*network))
    exact = timed("SciPy, exact, all queries", lambda: topology.resistances(*network))

    def dijkstra():
        found = [networkx.single_source_dijkstra_path_length(other, u) for u in nodes]
        return [found[i][nodes[j]] for i, j in pairs]

    pairs = [(i, j) for i in range(len(nodes)) for j in range(i)]
    timed("NetworkX, best path, all queries", dijkstra, [path[i, j] for i, j in pairs])
    resistance = lambda: networkx.resistance_distance(other, nodes[0], nodes[1], weight="weight")
    timed("NetworkX, exact, one pair", resistance, exact[0, 1])


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--exponent", type=int, default=14)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--networkx-exponent", type=int, default=10)
    parser.add_argument("--skip", choices=("jax", "networkx"), nargs="*", default=())
    options = parser.parse_args()
    todo = cells(options.exponent, options.seeds, options.queries)
    print(f"n = 2^{options.exponent}, {options.seeds} seeds, {options.queries} queries; {jax.devices()[0].device_kind}")
    begin = time.perf_counter()
    networks = timed("drawing and simplifying the networks", lambda: [draw(cell) for cell in todo])
    reference = scipy_backend(networks)
    print(f"{'SciPy, whole (goal: 60 s at 2^14)':44s}{time.perf_counter() - begin:9.2f} s")
    for k, shape in enumerate(SHAPES):
        some = slice(k * options.seeds, (k + 1) * options.seeds)
        told = (
            f"{name} {np.mean(values[some]) * 2 ** (options.exponent / 2):.3f}" for name, values in reference.items()
        )
        print(f"  MID sqrt(n), {shape}: {', '.join(told)}")
    if "jax" not in options.skip:
        jax_backend(networks, reference)
    if "networkx" not in options.skip:
        networkx_backend(options.networkx_exponent, options.queries)


if __name__ == "__main__":
    main()
