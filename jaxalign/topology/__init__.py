"""The topology of preference data: how far comparisons carry from one response to another.

Source: arXiv 2402.10184 (reward generalisation in RLHF, a topological perspective).
"""

from jaxalign.topology.autoencoder import Autoencoded, World, autoencode
from jaxalign.topology.best_path import (
    distances,
    distances_on_device,
    inference_variance,
    logistic_variance,
    mean_distance,
)
from jaxalign.topology.bounds import Bound, Order, bound, proposition, separation
from jaxalign.topology.comparisons import SIZES, Chain, Tree
from jaxalign.topology.exact import resistances, resistances_on_device
from jaxalign.topology.graph import Graph, make_graph, reduce_graph, stack
from jaxalign.topology.monte_carlo import NOISES, Cell, Measured, measure, measure_on_device, sweep
from jaxalign.topology.network import Network, induced_network
from jaxalign.topology.slopes import Slope, fit_slope, hop_cost
from jaxalign.topology.structural import FAMILIES, Structural

__all__ = [
    "FAMILIES",
    "NOISES",
    "SIZES",
    "Autoencoded",
    "Bound",
    "Cell",
    "Chain",
    "Graph",
    "Measured",
    "Network",
    "Order",
    "Slope",
    "Structural",
    "Tree",
    "World",
    "autoencode",
    "bound",
    "distances",
    "distances_on_device",
    "fit_slope",
    "hop_cost",
    "induced_network",
    "inference_variance",
    "logistic_variance",
    "make_graph",
    "mean_distance",
    "measure",
    "measure_on_device",
    "proposition",
    "reduce_graph",
    "resistances",
    "resistances_on_device",
    "separation",
    "stack",
    "sweep",
]
