"""Code tracking: the error an echo causes, and the noise of the loop. Delays and errors in chips unless named."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxalign.core.errors import UserError


def multipath_error(
    amplitude: Float[Array, "..."], delay: Float[Array, "..."], spacing: float = 0.5
) -> Float[Array, "..."]:
    """Error (chips) of a coherent early-minus-late loop tracking a direct signal and one echo.

    For a BPSK code of unlimited bandwidth, with a the echo's amplitude times the cosine of its carrier phase against
    the direct signal (negative in counter phase), delay t and spacing d, the discriminator is zero at

        a t / (1 + a)                 t <= (1 + a) d / 2
        a d / 2                       t <= 1 - (1 - a) d / 2
        a (1 + d/2 - t) / (2 - a)     t <= 1 + d / 2,           0 beyond

    Args:
        amplitude: a, between -1 and 1 exclusively.
        delay: t of the echo against the direct signal.
        spacing: d between early and late correlator.

    Raises:
        UserError: a spacing outside (0, 1].
    """
    if not 0 < spacing <= 1:
        raise UserError(f"The correlator spacing is {spacing} chips; give a number above 0 and at most 1.")
    rising = amplitude * delay / (1 + amplitude)
    falling = amplitude * jnp.maximum(1 + spacing / 2 - delay, 0.0) / (2 - amplitude)
    late = jnp.where(delay <= 1 - (1 - amplitude) * spacing / 2, amplitude * spacing / 2, falling)
    return jnp.where(delay <= (1 + amplitude) * spacing / 2, rising, late)


def tracking_noise(
    cn0_dbhz: Float[Array, "..."],
    chip_m: Float[Array, "..."] | float,
    *,
    bandwidth_hz: Array | float = 1.0,
    spacing: float = 0.5,
    integration_s: float = 0.02,
) -> Float[Array, "..."]:
    """Standard deviation (m) of the code, non-coherent early-late power loop.

    sigma = chip sqrt(B d / (2 C/N0) (1 + 2 / ((2 - d) T C/N0)))

    Args:
        cn0_dbhz: C/N0, dB-Hz.
        chip_m: length of a chip, m.
        bandwidth_hz: B of the loop.
        spacing: d, chips.
        integration_s: T, before detection.
    """
    cn0 = 10 ** (cn0_dbhz / 10)
    squaring = 1 + 2 / ((2 - spacing) * integration_s * cn0)
    return chip_m * jnp.sqrt(bandwidth_hz * spacing / (2 * cn0) * squaring)
