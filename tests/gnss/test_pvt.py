"""Least squares, dilution of precision, exclusion and flags, against RTKLIB's recordings and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gnss.recordings import committed, shared, table

from jaxalign.gnss import frames, pvt
from jaxalign.gnss.constants import LIGHT_SPEED_M_S
from jaxalign.gnss.pvt import Status

CLOCK = {"G": 0, "J": 0, "E": 1, "C": 2}
BATCH, SATELLITES = 60, 24


@pytest.fixture(scope="module")
def solve():
    """One compiled solver of [60, 24] for all tests: two exclusions at most."""

    @jax.jit
    def batch(ranges, places, weight, system, max_exclusions):
        one = functools.partial(
            pvt.solve,
            num_systems=3,
            initial_pos_ecef_m=jnp.zeros(3),
            screening=pvt.Screening(max_exclusions=max_exclusions),
        )
        return jax.vmap(one)(ranges, places, weight, system)

    def call(ranges, places, weight, system, max_exclusions=0):
        count, satellites = ranges.shape
        pad = [(0, BATCH - count), (0, SATELLITES - satellites)]
        with jax.enable_x64(True):
            fix = batch(
                np.pad(ranges, pad),
                np.pad(places, [*pad, (0, 0)]),
                np.pad(weight, pad),
                np.pad(system, pad).astype(np.int32),
                max_exclusions,
            )
            return jax.tree.map(lambda x: np.asarray(x)[:count], fix)

    return call


def inputs(case):
    """Corrected ranges, weights and systems from a recording of RTKLIB's own intermediate values."""
    system = np.vectorize(lambda letter: CLOCK.get(letter, 0))(case["sys"])
    ranges = case["P"] + LIGHT_SPEED_M_S * case["sat_clk"] - case["tgd_m"] - case["iono_m"] - case["trop_m"]
    used = (np.arange(case["P"].shape[1]) < case["nsat"][:, None]) & (case["el"] >= np.radians(15))
    used &= (case["svh"] == 0) & (case["meas_var"] > 0)
    weight = np.where(used, 1 / np.where(used, case["meas_var"], 1), 0)
    return tuple(np.nan_to_num(part)[:, :SATELLITES] for part in (ranges, case["sat_xyz"], weight, system))


def test_open_sky_fixes(solve):
    case = table(committed("spp_sept078_GEJ.npz"))
    fix = solve(*inputs(case))
    assert (fix.status == Status.GOOD).all()
    assert np.linalg.norm(fix.pos_ecef_m - case["rtklib_xyz"], axis=1).max() < 5e-3
    assert (fix.used.sum(1) == case["rtklib_ns"]).all()


def test_urban_fixes(solve):
    case = table(shared("spp_tst1_GC.npz"))
    with_fix = np.flatnonzero(np.isfinite(case["rtklib_xyz"][:, 0]))[:BATCH]
    case = {name: value[with_fix] for name, value in case.items()}
    fix = solve(*inputs(case))
    assert (fix.status == Status.GOOD).all()
    # RTKLIB evaluates the atmosphere at its own position, the recording at the true one
    assert np.linalg.norm(fix.pos_ecef_m - case["rtklib_xyz"], axis=1).max() < 0.05


@pytest.fixture
def sky():
    """Eight satellites of two systems over a known place with known clocks, one epoch."""
    place = frames.Geodetic(np.radians(22.3), np.radians(114.17), 30.0)
    truth = frames.ecef_from_geodetic(place)
    azimuth, elevation = np.radians([[0, 45, 90, 150, 200, 260, 310, 30], [20, 65, 35, 50, 25, 70, 40, 15]])
    local = np.stack([np.cos(elevation) * np.sin(azimuth), np.cos(elevation) * np.cos(azimuth), np.sin(elevation)], -1)
    satellites = frames.ecef_from_enu(2.2e7 * local, place)
    system = np.array([0, 0, 0, 0, 0, 2, 2, 2])
    with jax.enable_x64(True):
        distance, _ = pvt.geometric_range_m(jnp.asarray(truth), jnp.asarray(satellites))
    ranges = np.asarray(distance) + np.array([1000.0, 0.0, -2500.0])[system]
    return truth, local, ranges[None], satellites[None], np.ones((1, 8)), system[None]


def test_exact_ranges_give_position_and_clocks(solve, sky):
    truth, _, *data = sky
    fix = solve(*data)
    np.testing.assert_allclose(fix.pos_ecef_m[0], truth, atol=1e-6)
    np.testing.assert_allclose(fix.clock_bias_m[0], [1000.0, 0.0, -2500.0], atol=1e-6)  # none of the second system


def test_dilution_is_that_of_the_local_geometry(solve, sky):
    _, local, *data = sky
    fix = solve(*data)
    design = np.concatenate([-local, np.eye(3)[data[3][0]][:, [0, 2]]], axis=1)
    diagonal = np.diag(np.linalg.inv(design.T @ design))
    expected = [diagonal.sum(), diagonal[:3].sum(), diagonal[:2].sum(), diagonal[2]]
    np.testing.assert_allclose([dop[0] for dop in fix.dop], np.sqrt(expected), rtol=1e-5)


def test_covariance_is_that_of_repeated_noise(solve, sky):
    truth, _, ranges, places, weight, system = sky
    weight = weight * np.array([1, 0.2, 2, 1, 0.5, 1, 1, 3])
    noise = np.random.default_rng(0).normal(size=(2400, 8)) / np.sqrt(weight)
    found = []
    for start in range(0, 2400, BATCH):
        many = [np.repeat(part, BATCH, axis=0) for part in (places, weight, system)]
        fix = solve(ranges + noise[start : start + BATCH], *many)
        found.append(fix.pos_ecef_m - truth)
    measured = np.cov(np.concatenate(found).T)
    expected = fix.covariance_m2[0, :3, :3]
    scale = np.sqrt(np.diag(expected))
    assert np.abs((measured - expected) / np.outer(scale, scale)).max() < 0.12  # 4 sigma of 2,400 draws


def test_a_fault_is_detected_and_excluded(solve, sky):
    truth, _, ranges, places, weight, system = sky
    ranges = ranges.copy()
    ranges[0, 2] += 80.0
    flagged = solve(ranges, places, weight, system)
    assert flagged.status[0] == Status.INCONSISTENT
    assert np.linalg.norm(flagged.pos_ecef_m[0] - truth) > 10
    mended = solve(ranges, places, weight, system, max_exclusions=2)
    assert mended.status[0] == Status.GOOD
    assert mended.used[0, :8].tolist() == [True, True, False, True, True, True, True, True]
    assert np.linalg.norm(mended.pos_ecef_m[0] - truth) < 1e-5


def test_what_cannot_be_fixed_is_flagged(solve, sky):
    _, _, ranges, places, weight, system = sky
    ranges, places, weight, system = (np.repeat(part, 4, axis=0) for part in (ranges, places, weight, system))
    weight = weight.copy()
    weight[0] = 0  # nothing in view
    weight[1, 4:7] = 0  # five satellites, of two systems: one more is needed if both clocks are unknown
    weight[1, 0] = 0
    places[2] = places[2, :1]  # all in one place
    ranges[3, 0] = np.nan  # no measurement: not used
    fix = solve(ranges, places, weight, system)
    assert fix.status.tolist() == [Status.TOO_FEW, Status.TOO_FEW, Status.SINGULAR, Status.GOOD]
    assert np.isnan(fix.pos_ecef_m[:3]).all()
    assert fix.used[3].sum() == 7
    assert np.isfinite(fix.pos_ecef_m[3]).all()


def test_linear_fix_predicts_the_error_of_the_full_solution(solve, sky):
    truth, local, ranges, places, weight, system = sky
    error = np.array([30.0, 0.0, -4.0, 0.0, 12.0, 0.0, 5.0, 0.0])
    full = solve(ranges + error, places, weight, system)
    place = frames.geodetic_from_ecef(truth)
    expected = frames.enu_from_ecef(full.pos_ecef_m[0], place)
    found, solution, status = jax.jit(pvt.linear_fix, static_argnums=4)(
        *(jnp.asarray(part, jnp.float32) for part in (error, local, weight[0])), jnp.asarray(system[0], jnp.int32), 3
    )
    assert status == Status.GOOD
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_allclose(solution.step[3:], full.clock_bias_m[0] - [1000.0, 0.0, -2500.0], atol=2e-3)


def test_inverse_of_small_matrices():
    factors = np.random.default_rng(0).normal(size=(50, 12, 4)).astype(np.float32)
    matrices = np.einsum("nsp,nsq->npq", factors, factors)
    matrices[7] = np.ones((4, 4))
    inverse, regular = jax.jit(pvt.inverse_positive)(jnp.asarray(matrices))
    assert np.flatnonzero(~np.asarray(regular)).tolist() == [7]
    good = np.asarray(regular)
    np.testing.assert_allclose(inverse[good], np.linalg.inv(matrices[good]), rtol=2e-3, atol=1e-4)
