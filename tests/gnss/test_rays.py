"""Rays against Embree's recorded answers, against closed forms, and against laws that need no reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gnss_cities import GOLDEN, as_polygons, box_city, sky, street

from jaxalign.core.errors import UserError
from jaxalign.dist import make_mesh, over_envs
from jaxalign.gnss import rays
from jaxalign.gnss.city import Building, make_city, outdoor_grid
from jaxalign.gnss.city_generator import Plan, generate_city
from jaxalign.gnss.horizon import below_skyline, bin_azimuths, skyline
from jaxalign.gnss.tiles import build_tiles, by_receiver

LOW = np.deg2rad(5.0)
RECEIVERS, SATELLITES, CAPACITY = 400, 24, 64  # one shape for most tests: compiled once


def tiled(city, receivers):
    return build_tiles(city, receivers, elevation_mask_rad=LOW, capacity=CAPACITY, multiple=4)


def blocked(city, receivers, directions):
    tiles = tiled(city, receivers)
    return np.asarray(by_receiver(tiles, rays.occluded(tiles, jnp.asarray(directions, jnp.float32)), len(receivers)))


@pytest.fixture(scope="module")
def recorded():
    with np.load(GOLDEN / "raycast_city60.npz") as data:
        return dict(data)


@pytest.fixture(scope="module", params=["boxes", "polygons"])
def recorded_city(recorded, request):
    city = box_city(recorded["boxes_cx_cy_hx_hy_theta_h"])
    return city if request.param == "boxes" else as_polygons(city)


def test_agrees_with_embree(recorded, recorded_city):
    receivers, directions = recorded["receivers"], recorded["sat_dirs_enu"]
    tiles = tiled(recorded_city, receivers)
    assert (tiles.boxes.x.shape[1] > 0) == (tiles.walls.x.shape[1] == 0)
    distance, building = rays.nearest_hit(tiles, jnp.asarray(directions, jnp.float32))
    distance, building = (np.asarray(by_receiver(tiles, part, len(receivers))) for part in (distance, building))
    certain, hit = recorded["margin_m"] >= 1e-3, recorded["occluded"]
    assert certain.mean() > 0.999
    np.testing.assert_array_equal(blocked(recorded_city, receivers, directions)[certain], hit[certain])
    assert np.isinf(distance[certain & ~hit]).all()
    hit &= certain
    np.testing.assert_allclose(distance[hit], recorded["first_hit_distance"][hit], atol=1e-3)
    np.testing.assert_array_equal(building[hit], recorded["first_hit_building"][hit])


@pytest.fixture(scope="module")
def mixed():
    """A generated city with all kinds of footprints, receivers on its streets, and a sky."""
    city = generate_city(3, Plan(blocks=(4, 4)))
    receivers = outdoor_grid(city, spacing_m=12.0)[::2][:RECEIVERS]
    grazing = np.array([[np.sin(a), np.cos(a), np.tan(LOW) + 1e-3] for a in range(6)])  # these visit whole lists
    grazing /= np.linalg.norm(grazing, axis=1, keepdims=True)
    return city, receivers, np.concatenate([grazing, sky(SATELLITES - 6, seed=1)]).astype(np.float32)


def test_a_canyon_in_closed_form():
    """Receiver at distance d from a wall of height H: blocked if tan E < (H - z) cos(A - A_n) / d, either side."""
    height, width, z = 25.0, 20.0, 1.5
    directions = sky(SATELLITES, seed=2)
    distance = np.linspace(0.5, 19.5, RECEIVERS)[:, None]
    receivers = np.concatenate([distance, np.zeros_like(distance), np.full_like(distance, z)], axis=1)
    slope = directions[:, 2] / np.abs(directions[:, 0])
    limit = (height - z) / np.where(directions[:, 0] < 0, distance, width - distance)
    clear_cut = np.abs(slope - limit) > 1e-4 * limit
    assert clear_cut.mean() > 0.99
    for city in (street(width, height), as_polygons(street(width, height))):
        found = blocked(city, receivers, directions)
        np.testing.assert_array_equal(found[clear_cut], (slope < limit)[clear_cut])
        assert 0.2 < found.mean() < 0.8


def test_raising_a_building_never_opens_the_sky(mixed):
    city, receivers, directions = mixed
    before = blocked(city, receivers, directions)
    after = blocked(city._replace(top_m=city.top_m + 5.0), receivers, directions)
    assert not (before & ~after).any()
    assert (after & ~before).any()


def test_turning_and_moving_the_world_changes_nothing(mixed):
    city, receivers, directions = mixed
    c, s = np.cos(0.7), np.sin(0.7)
    turn, shift = np.array([[c, s], [-s, c]]), np.array([30_000.0, -20_000.0])
    moved = city._replace(start=city.start @ turn + shift)
    places = np.column_stack([receivers[:, :2] @ turn + shift, receivers[:, 2]])
    sky_turned = np.column_stack([directions[:, :2] @ turn, directions[:, 2]])
    different = blocked(city, receivers, directions) != blocked(moved, places, sky_turned)
    assert different.mean() < 2e-4  # rays within a millimetre of an edge


def test_boxes_and_polygons_are_one_city(mixed):
    city, receivers, directions = generate_city(4, Plan(blocks=(4, 4), plain=True)), mixed[1], mixed[2]
    different = blocked(city, receivers, directions) != blocked(as_polygons(city), receivers, directions)
    outdoors = ~np.asarray(_indoors(city, receivers))
    assert outdoors.sum() > 100
    assert different[outdoors].mean() < 2e-4


def _indoors(city, receivers):
    tiles = build_tiles(city, receivers, capacity=CAPACITY)
    return by_receiver(tiles, tiles.indoors, len(receivers))


def test_blocked_means_below_the_skyline(mixed):
    city, receivers, _ = mixed
    tiles = tiled(city, receivers)
    line = skyline(tiles, bins=SATELLITES)
    azimuth = np.asarray(bin_azimuths(SATELLITES))
    for elevation in (0.15, 0.5, 0.9):
        flat = np.cos(elevation)
        directions = np.column_stack(
            [flat * np.sin(azimuth), flat * np.cos(azimuth), np.full(SATELLITES, np.sin(elevation))]
        )
        exact = np.asarray(rays.occluded(tiles, jnp.asarray(directions, jnp.float32)))
        near_edge = np.abs(np.asarray(line, np.float32) - elevation) < 1e-3
        assert near_edge.mean() < 0.02
        np.testing.assert_array_equal((np.asarray(line) > elevation)[~near_edge], exact[~near_edge])
    hidden, certain = below_skyline(line, jnp.asarray(azimuth[:3]), jnp.full(3, 0.5))
    assert hidden.shape == certain.shape == (len(tiles.source), 3, CAPACITY)
    agrees = np.asarray(hidden) == np.asarray(line[:, :3] > 0.5)
    assert agrees.all()


def test_split_over_devices(mixed):
    city, receivers, directions = mixed
    tiles = tiled(city, receivers)
    together = rays.occluded(tiles, jnp.asarray(directions))
    apart = over_envs(rays.occluded, make_mesh(4), (0, None), 0)(tiles, jnp.asarray(directions))
    np.testing.assert_array_equal(np.asarray(together), np.asarray(apart))


def test_all_tiles_at_once_as_on_an_accelerator(mixed, monkeypatch):
    city, receivers, directions = mixed
    tiles, directions = tiled(city, receivers), jnp.asarray(directions)
    one_by_one = rays.occluded(tiles, directions)
    monkeypatch.setattr(rays, "tiles_at_once", lambda count: count)
    together = jax.jit(lambda tiles: rays.occluded.__wrapped__(tiles, directions))(tiles)
    np.testing.assert_array_equal(np.asarray(one_by_one), np.asarray(together))


def test_below_the_mask_is_not_visible(mixed):
    city, receivers, _ = mixed
    low = np.tile(np.array([[0.0, np.cos(0.05), np.sin(0.05)], [0.0, 0.8, -0.6]]), (SATELLITES // 2, 1))
    assert blocked(city, receivers, low).all()


def test_over_a_roof_and_indoors():
    square = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]])
    yard = make_city([Building((square * 3, square + 10), 20.0)])
    places = np.array([[5.0, 5.0, 1.5], [5.0, 5.0, 21.5], [15.0, 15.0, 1.5], [-5.0, 0.0, 1.5]])
    np.testing.assert_array_equal(_indoors(yard, places), [True, False, False, False])
    zenith = np.tile([[0.0, 0.0, 1.0]], (SATELLITES, 1))
    found = blocked(yard, np.repeat(places, 100, axis=0), zenith)
    np.testing.assert_array_equal(found[::100, 0], [True, False, False, False])


@pytest.mark.parametrize(
    ("receivers", "mask", "said"),
    [
        (np.zeros((0, 3)), LOW, "no receivers"),
        (np.array([[0.0, np.nan, 1.5]]), LOW, "Receiver 0"),
        (np.array([[9e4, 0.0, 1.5]]), LOW, "km from the city"),
        (np.zeros((1, 3)), 0.0, "elevation mask"),
    ],
)
def test_what_is_refused(receivers, mask, said):
    with pytest.raises(UserError, match=said):
        build_tiles(street(20.0, 25.0), receivers, elevation_mask_rad=mask)
