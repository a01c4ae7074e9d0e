"""Batches in an order that depends on the seed and the position alone, so that a run can go on from any of them."""

from typing import Generic, TypeVar

import jax
import numpy as np

from jaxalign.core.errors import UserError

Rows = TypeVar("Rows")


class Stream(Generic[Rows]):
    """Endless passes over rows, each in an order of its own.

    The row at place p of the stream is ``order_e[p mod n]`` with e = p div n, where order_e is a permutation drawn from
    (seed, e). The position, an integer, is all that a checkpoint must hold.

    Args:
        rows: NumPy arrays with a common leading axis n, in any tree (a `Batch` for instance).
        size: rows in a batch.
        seed: of the orders.

    Raises:
        UserError: there are no rows, or the size is not positive.
    """

    def __init__(self, rows: Rows, size: int, seed: int = 0):
        self.rows, self.size, self.seed = rows, size, seed
        self.num_rows = len(jax.tree.leaves(rows)[0])
        if size < 1 or self.num_rows < 1:
            raise UserError(f"Batches of {size} of {self.num_rows} rows cannot be made; both must be at least 1.")
        self._orders: dict[int, np.ndarray] = {}

    def at(self, position: int) -> Rows:
        """The batch whose first row is the one at place `position` of the stream."""
        places = range(position, position + self.size)
        chosen = np.array([self._order(p // self.num_rows)[p % self.num_rows] for p in places])
        return jax.tree.map(lambda x: x[chosen], self.rows)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.num_rows)
        return self._orders[epoch]
