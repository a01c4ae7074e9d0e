"""Diffraction over roof edges: a satellite does not vanish at the skyline, it fades.

Knife edge for a far source: nu = h sqrt(2 / (lambda d)), with h the depth of the edge above the direct ray, positive in
the shadow, and d the distance from the edge to the receiver. Vertical edges are left out.
Source: ITU-R P.526, single knife edge.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxalign.gnss.rays import (
    box_entry,
    box_gap,
    in_groups,
    observable,
    place_of,
    slope_of,
    visit,
    wall_entry,
    wall_gap,
)
from jaxalign.gnss.tiles import Tiles

NO_LOSS_NU = -0.78  # the approximation holds above; below there is no loss
HIDDEN_NU = 1e3  # below the elevation mask and indoors
FAR_NU = -10.0  # where no edge comes near
_MARGIN_M = 5.0
_SLACK_TAN = 0.1  # edges up to about 6 degrees below the ray are looked at


def knife_edge_loss_db(nu: Float[Array, "..."]) -> Float[Array, "..."]:
    """6.9 + 20 log10(sqrt((nu - 0.1)^2 + 1) + nu - 0.1) dB for nu > -0.78, else 0; 6.0 at the geometric edge."""
    shifted = jnp.maximum(nu, NO_LOSS_NU) - 0.1
    return jnp.where(nu > NO_LOSS_NU, 6.9 + 20 * jnp.log10(jnp.sqrt(shifted**2 + 1) + shifted), 0.0)


@jax.jit
def roof_edge(
    tiles: Tiles, directions: Float[Array, "S 3"], wavelength_m: Float[Array, ""] | float = 0.1903
) -> tuple[Float[Array, "T S C"], Float[Array, "T S C"]]:
    """The parameter nu of the roof edge that matters most, and the detour h^2 / (2 d) (m) over it where it shadows.

    nu is ``FAR_NU`` where no edge comes near the ray and ``HIDDEN_NU`` below the elevation mask and indoors.

    Args:
        tiles: T tiles of C receivers.
        directions: unit vectors to the satellites, east, north, up.
        wavelength_m: of the carrier.
    """

    def kernel(tile, lists, directions, steps):
        x, y, z = place_of(tile)
        slope = slope_of(directions)
        up = directions[:, 2:]
        flat = jnp.hypot(directions[:, :1], directions[:, 1:2])
        far = jnp.full((directions.shape[0], x.shape[0]), FAR_NU, jnp.float32)
        best = far, jnp.zeros_like(far)
        functions = (box_gap, box_entry), (wall_gap, wall_entry)
        for rows, count, (gap_of, entry_of) in zip(lists, steps, functions, strict=True):

            def worse(best, row, _, gap_of=gap_of, entry_of=entry_of):
                meets = gap_of(row, x, y, *slope, 1.5 * (row.top - z) + _MARGIN_M) <= 0
                ascent = jnp.maximum(entry_of(row, x, y, *slope), 1e-3)
                depth = (row.top - z - ascent) * flat
                nu = depth * jnp.sqrt(2 * up / (wavelength_m * ascent))
                nu = jnp.where(meets & (row.top > z), nu, FAR_NU)
                detour = jnp.where(depth > 0, depth**2 * up / (2 * ascent), 0.0)
                return jnp.maximum(best[0], nu), jnp.where(nu > best[0], detour, best[1])

            if rows.x.shape[-1]:
                best = visit(rows, count, worse, best)
        return best

    nu, detour = in_groups(kernel, tiles, (tiles.boxes, tiles.walls), directions, _SLACK_TAN)
    return jnp.where(observable(tiles, directions), nu, HIDDEN_NU), detour
