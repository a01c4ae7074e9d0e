"""The other read-out: exact inference, which uses all paths.

With Gaussian edges the posterior variance of r(u) - r(v) is the effective resistance between u and v when every edge is
a resistor of its variance: b' L^+ b with b = e_u - e_v and L the Laplacian of conductances 1 / variance. It is at most
the best path's variance (Rayleigh), so it says what assumption B.10 of arXiv 2402.10184 leaves out.

Solved by conjugate gradients with the diagonal as preconditioner, all right-hand sides at once: factorising is out of
the question, since comparisons make these graphs expanders, whose factors are dense.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import sparse

from jaxalign.core.errors import UserError
from jaxalign.topology.best_path import directed
from jaxalign.topology.graph import Graph, check_all_connected, check_connected, contract

TOLERANCE = 1e-12  # on the squared preconditioned residual, relative to its start
MAX_ITERATIONS = 20_000


def resistances(graph: Graph, nodes: Int[np.ndarray, " Q"]) -> Float[np.ndarray, "Q Q"]:
    """Posterior variances of differences between some nodes of one graph, in float64 (SciPy).

    Raises:
        UserError: nodes that do not exist or are not connected, or variances too different for the solver.
    """
    check_connected(graph, nodes)
    smaller, new = contract(graph)
    where = new[nodes]
    if smaller.nodes == 1:
        return np.zeros((len(nodes), len(nodes)))
    laplacian = _laplacian(smaller)
    diagonal = laplacian.diagonal()[:, None]
    diagonal[diagonal == 0] = 1.0  # a node without edges
    b = _right_hand_sides(smaller.nodes, where)
    return _pairwise(*_solve(laplacian, diagonal, b), where)


def resistances_on_device(graph: Graph, nodes: Int[np.ndarray, "S Q"]) -> Float[np.ndarray, "S Q Q"]:
    """Effective resistances in a batch of graphs at once, by the same iteration in JAX, in float64.

    Args:
        graph: a batch without variances of 0 (`graph.contract` them away first), such as `graph.stack` returns.
        nodes: of every graph, shape (S, Q).

    Raises:
        UserError: as `resistances`, a variance of 0, or no batch.
    """
    check_all_connected(graph, nodes)
    if not (graph.variance > 0).all():
        raise UserError("An edge has a variance of 0, which conducts without limit; contract the graph first.")
    with jax.enable_x64(True):
        b = jnp.stack([_right_hand_sides(graph.nodes, q) for q in nodes])
        solved = _solved_on_device(jnp.asarray(graph.ends), jnp.asarray(1 / graph.variance), b, graph.nodes)
        x, residual, iterations = (np.asarray(values) for values in solved)
    _check_converged(int(iterations.max()))
    return np.stack([_pairwise(*one) for one in zip(x, residual, nodes, strict=True)])


def _right_hand_sides(nodes: int, where: Int[np.ndarray, " Q"]) -> Float[np.ndarray, "N Q"]:
    """A unit current into every query, which leaves by all of them equally."""
    b = np.repeat(-np.bincount(where, minlength=nodes)[:, None] / len(where), len(where), axis=1)
    b[where, np.arange(len(where))] += 1.0
    return b


def _pairwise(
    x: Float[np.ndarray, "N Q"], residual: Float[np.ndarray, "N Q"], where: Int[np.ndarray, " Q"]
) -> Float[np.ndarray, "Q Q"]:
    """Resistances between queries from potentials under their currents (columns) and what is left of these.

    B' L^+ B = B' X + X' (B - L X) up to the square of the solver's error.
    """
    potential = x[where] + x.T @ residual
    own = np.diag(potential)
    return np.maximum(own[:, None] + own[None, :] - potential - potential.T, 0.0)


def _laplacian(graph: Graph) -> sparse.csr_array:
    u, v = graph.ends.T
    conductance = 1 / graph.variance
    rows, columns = np.concatenate([u, v, u, v]), np.concatenate([v, u, u, v])
    values = np.concatenate([-conductance, -conductance, conductance, conductance])
    return sparse.coo_array((values, (rows, columns)), shape=(graph.nodes, graph.nodes)).tocsr()


def _solve(
    laplacian: sparse.csr_array, diagonal: Float[np.ndarray, "N 1"], b: Float[np.ndarray, "N Q"]
) -> tuple[Float[np.ndarray, "N Q"], Float[np.ndarray, "N Q"]]:
    """Potentials, up to a constant, and residuals, by preconditioned conjugate gradients."""
    x, residual = np.zeros_like(b), b.copy()
    z = residual / diagonal
    direction = z.copy()
    size = (residual * z).sum(0)
    goal = TOLERANCE * size
    for _ in range(MAX_ITERATIONS):
        if (size <= goal).all():
            break
        flow = laplacian @ direction
        step = _ratio(size, (direction * flow).sum(0))
        x += step * direction
        residual -= step * flow
        z = residual / diagonal
        before, size = size, (residual * z).sum(0)
        direction *= _ratio(size, before)
        direction += z
    else:
        _check_converged(MAX_ITERATIONS)
    return x, residual


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Quotients, and 0 where the divisor is: a column that is solved stays so."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _check_converged(iterations: int) -> None:
    if iterations >= MAX_ITERATIONS:
        raise UserError(
            f"Exact inference did not converge in {MAX_ITERATIONS} iterations; the variances are too different: choose "
            f"a larger variance of comparisons, or 0, which is treated exactly."
        )


@functools.partial(jax.jit, static_argnums=3)
def _solved_on_device(
    ends: Int[Array, "S E 2"], conductance: Float[Array, "S E"], b: Float[Array, "S N Q"], nodes: int
) -> tuple[Float[Array, "S N Q"], Float[Array, "S N Q"], Int[Array, " S"]]:
    return jax.vmap(lambda e, c, right: _conjugate_gradients(e, c, right, nodes))(ends, conductance, b)


def _conjugate_gradients(
    ends: Int[Array, "E 2"], conductance: Float[Array, " E"], b: Float[Array, "N Q"], nodes: int
) -> tuple[Float[Array, "N Q"], Float[Array, "N Q"], Int[Array, ""]]:
    sender, receiver, through = directed(ends, conductance)
    total = lambda values: jax.ops.segment_sum(values, receiver, nodes, indices_are_sorted=True)
    diagonal = jnp.maximum(total(through), jnp.finfo(b.dtype).tiny)[:, None]
    ratio = lambda a, b: jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)
    start = (b * b / diagonal).sum(0)

    def advance(carry):
        x, residual, direction, size, count = carry
        # Currents through edges, not diagonal times potential minus the rest: no cancellation
        flow = total(through[:, None] * (direction[receiver] - direction[sender]))
        step = ratio(size, (direction * flow).sum(0))
        residual = residual - step * flow
        z = residual / diagonal
        after = (residual * z).sum(0)
        return x + step * direction, residual, z + ratio(after, size) * direction, after, count + 1

    unsolved = lambda carry: (carry[3] > TOLERANCE * start).any() & (carry[4] < MAX_ITERATIONS)
    first = jnp.zeros_like(b), b, b / diagonal, start, jnp.int32(0)
    x, residual, _, _, count = jax.lax.while_loop(unsolved, advance, first)
    return x, residual, count
