"""Sky masks: in a city of ground-standing prisms a ray is blocked exactly if it is lower than the skyline there."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxalign.gnss.rays import GROUP, box_entry, box_gap, place_of, visit, wall_entry, wall_gap
from jaxalign.gnss.tiles import CHUNK, Tiles

_FAR_M = 3e3  # along a horizontal ray, which meets everything in its vertical plane
_NEAREST_M = 1e-3


def bin_azimuths(bins: int) -> Float[Array, " bins"]:
    """Centres of the azimuth bins, rad from north over east."""
    return (jnp.arange(bins, dtype=jnp.float32) + 0.5) * (2 * jnp.pi / bins)


@jax.jit(static_argnames="bins")
def skyline(tiles: Tiles, bins: int = 360) -> Float[Array, "T bins C"]:
    """Elevation (rad) of the skyline at the centres of the azimuth bins, float16; 0 where it is below the mask.

    Args:
        tiles: T tiles of C receivers.
        bins: of azimuth, a multiple of 8.
    """
    azimuth = bin_azimuths(bins).reshape(-1, GROUP)

    def one_tile(tile):
        x, y, z = place_of(tile)
        lists, gaps, entries = (tile.boxes, tile.walls), (box_gap, wall_gap), (box_entry, wall_entry)

        def group(azimuth):
            slope = jnp.sin(azimuth)[:, None], jnp.cos(azimuth)[:, None]
            tangent = jnp.zeros((GROUP, x.shape[0]), jnp.float32)
            for rows, gap_of, entry_of in zip(lists, gaps, entries, strict=True):
                steps = (rows.reach[::CHUNK] > tile.mask_tan).sum()

                def higher(tangent, row, _, gap_of=gap_of, entry_of=entry_of):
                    hit = gap_of(row, x, y, *slope, jnp.float32(_FAR_M)) <= 0
                    rise = (row.top - z) / jnp.maximum(entry_of(row, x, y, *slope), _NEAREST_M)
                    return jnp.maximum(tangent, jnp.where(hit, rise, 0.0))

                if rows.x.shape[-1]:
                    tangent = visit(rows, steps, higher, tangent)
            return jnp.arctan(tangent)

        return lax.map(group, azimuth).reshape(bins, -1)

    elevation = lax.map(one_tile, tiles)
    mask = jnp.arctan(tiles.mask_tan)[:, None, None]
    return jnp.where(elevation > mask, elevation, 0.0).astype(jnp.float16)


def below_skyline(
    elevations: Float[Array, "T bins C"], azimuth_rad: Float[Array, " S"], elevation_rad: Float[Array, " S"]
) -> tuple[Bool[Array, "T S C"], Bool[Array, "T S C"]]:
    """Look-up of satellites in sky masks: hidden or not, and whether the answer is certain.

    Certain means that the bin and both neighbours agree; else the exact test (``rays.occluded``) decides.
    """
    bins = elevations.shape[1]
    here = jnp.floor(azimuth_rad * (bins / (2 * jnp.pi))).astype(jnp.int32) % bins
    hidden = [elevation_rad[:, None] < elevations[:, (here + step) % bins] for step in (-1, 0, 1)]
    return hidden[1], (hidden[0] == hidden[1]) & (hidden[1] == hidden[2])
