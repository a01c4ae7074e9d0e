"""Broadcast positions and clocks, from the file to the state, against RTKLIB's recordings."""

import jax
import numpy as np
import pytest
from gnss.recordings import committed, shared, table

from jaxalign.gnss import broadcast, frames, glonass, orbits, rinex_nav
from jaxalign.gnss.time import GpsTime

FILES = {
    "sept2021078": "SEPT078M.21P.gz",
    "vill2018170": "VILL00ESP_R_20181700000_01D_MN.rnx.gz",
    "elko2018210": "ELKO00USA_R_20182100000_01D_MN.rnx.gz",
    "brdc2010182": "brdc1820.10n.gz",
}
STATE_FIELDS = ("gps_week", "gps_sow", "xyz_ecef_at_t", "clk_with_relativity", "clk_poly_only")


def case(name):
    if name == "sept2021078":
        return rinex_nav.read(committed(FILES[name])), table(committed(f"satpos_{name}.npz"))
    return rinex_nav.read(shared(f"inputs/{FILES[name]}")), table(shared(f"satpos_{name}.npz"))


def take(elements, rows):
    return jax.tree.map(lambda x: x[rows], elements)


def recorded_elements(navigation, recording):
    """The file's elements of each recorded ephemeris and which of the recorded ones the reader kept.

    Left out may only be records of an orbit within the Earth: ELKO holds some, received with bit errors.
    """
    names = [f"{s}{p - 192 * (s == 'J'):02d}" for s, p in zip(recording["eph_sys"], recording["eph_prn"])]
    kepler = navigation.kepler
    keys = zip(navigation.satellite, kepler.mean_anomaly_rad, kepler.clock_s, kepler.clock_rate)
    rows = {key: row for row, key in enumerate(keys)}
    wanted = zip(names, recording["eph_M0"], recording["eph_f0"], recording["eph_f1"])
    found = np.array([rows.get(key, -1) for key in wanted])
    assert (recording["eph_A"][found < 0] < 6.378e6).all()
    return take(kepler, found), found >= 0


@pytest.mark.parametrize("name", FILES)
def test_kepler_states(name):
    navigation, recording = case(name)
    elements, kept = recorded_elements(navigation, recording)
    of_state = recording["eph_index"]
    shown = kept[of_state]
    recording = {key: recording[key][shown] for key in STATE_FIELDS}
    elements = take(elements, of_state[shown])
    at = GpsTime(recording["gps_week"], recording["gps_sow"])
    states = orbits.satellite_states(elements, at)
    assert states.valid.all()
    np.testing.assert_allclose(states.pos_ecef_m, recording["xyz_ecef_at_t"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(states.clock_s, recording["clk_with_relativity"], atol=1e-15, rtol=0)
    np.testing.assert_allclose(orbits.clock_polynomial_s(elements, at), recording["clk_poly_only"], atol=1e-15, rtol=0)


@pytest.mark.parametrize("name", ["vill2018170", "elko2018210"])
def test_glonass_states(name):
    navigation, recording = case(name)
    names = [f"R{p:02d}" for p in recording["geph_prn"]]
    keys = zip(navigation.glonass_satellite, navigation.glonass.pos_ecef_m[:, 0])
    rows = {key: row for row, key in enumerate(keys)}
    found = np.array([rows[key] for key in zip(names, recording["geph_pos"][:, 0])])
    elements = take(navigation.glonass, found[recording["glo_geph_index"]])
    states = glonass.satellite_states(elements, GpsTime(recording["glo_gps_week"], recording["glo_gps_sow"]))
    inside = np.abs(recording["glo_dt"]) <= 1800
    assert (states.valid == inside).all()
    np.testing.assert_allclose(states.pos_ecef_m[inside], recording["glo_xyz"][inside], atol=1e-3, rtol=0)
    np.testing.assert_allclose(states.clock_s[inside], recording["glo_clk"][inside], atol=1e-15, rtol=0)


def test_sky_is_that_of_rtklib():
    navigation, _ = case("sept2021078")
    recording = table(committed("spp_sept078_GEJ.npz"))
    times = GpsTime(recording["gps_week"], recording["gps_sow"])
    sky = broadcast.sky(navigation, frames.geodetic_from_ecef(recording["truth_xyz"][0]), times)
    column = {name: s for s, name in enumerate(sky.satellite)}
    for e in (0, 30, 59):
        count = recording["nsat"][e]
        names = zip(recording["sys"][e, :count], recording["prn"][e, :count])
        here = [column[f"{s}{p - 192 * (s == 'J'):02d}"] for s, p in names]
        assert sky.usable[e, here].all()
        # the signal was under way for 0.08 s, in which a satellite moves 300 m: 1e-5 rad
        np.testing.assert_allclose(sky.elevation_rad[e, here], recording["el"][e, :count], atol=2e-5)
        np.testing.assert_allclose(sky.azimuth_rad[e, here], recording["az"][e, :count], atol=2e-4)
    assert (sky.elevation_rad[~sky.usable] == -np.pi / 2).all()


def test_glonass_under_jit():
    navigation = rinex_nav.read(shared("inputs/046r_rnx.nav.gz"))
    at = navigation.glonass.toe.plus(700.0)
    expected = glonass.satellite_states(navigation.glonass, at)
    with jax.enable_x64(True):
        elements, time = jax.tree.map(jax.numpy.asarray, (navigation.glonass, at))
        states = jax.jit(glonass.satellite_states)(elements, time)
    np.testing.assert_allclose(states.pos_ecef_m, expected.pos_ecef_m, atol=1e-6, rtol=0)
    assert np.asarray(states.valid).all()


def test_states_under_jit_in_float64():
    navigation, recording = case("sept2021078")
    kepler, _ = recorded_elements(navigation, recording)
    with jax.enable_x64(True):
        elements = jax.tree.map(jax.numpy.asarray, take(kepler, recording["eph_index"][:64]))
        at = GpsTime(*(jax.numpy.asarray(recording[key][:64]) for key in ("gps_week", "gps_sow")))
        states = jax.jit(orbits.satellite_states)(elements, at)
    np.testing.assert_allclose(states.pos_ecef_m, recording["xyz_ecef_at_t"][:64], atol=1e-6, rtol=0)


def test_kepler_converges_on_eccentric_orbits():
    mean = np.linspace(-np.pi, np.pi, 501)
    for eccentricity in (0.0, 0.16, 0.6):
        anomaly = orbits.eccentric_anomaly_rad(mean, eccentricity)
        np.testing.assert_allclose(anomaly - eccentricity * np.sin(anomaly), mean, atol=1e-14, rtol=0)


def test_old_ephemeris_gives_an_invalid_state():
    navigation, _ = case("sept2021078")
    satellite = np.array(["G02", "G99"])
    first = navigation.kepler.toe.at(np.flatnonzero(navigation.satellite == "G02")[-1])
    times = GpsTime(np.full(2, first.week), first.second_of_week + np.array([7000.0, 7300.0]))
    states, record = broadcast.states_at(navigation, satellite, times)
    assert states.valid.tolist() == [[True, False], [False, False]]
    assert (record[:, 1] == broadcast.NO_RECORD).all()
    assert np.isnan(states.pos_ecef_m[1]).all()
