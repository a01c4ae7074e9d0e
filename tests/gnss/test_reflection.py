"""Echoes against Sionna RT's recorded paths, against closed forms, and against laws; diffraction over roofs."""

import jax
import jax.numpy as jnp
import numpy as np
from gnss_cities import GOLDEN, as_polygons, box_city, sky, street

from jaxalign.gnss import diffraction, rays
from jaxalign.gnss.city import outdoor_grid
from jaxalign.gnss.city_generator import Plan, generate_city
from jaxalign.gnss.facing import facing_pairs
from jaxalign.gnss.reflection import double_bounce, single_bounce
from jaxalign.gnss.tiles import build_tiles, by_receiver

LOW = np.deg2rad(5.0)
SATELLITES, CAPACITY = 10, 8


def tiled(city, receivers):
    return build_tiles(city, receivers, elevation_mask_rad=LOW, capacity=CAPACITY, reflector_range_m=1e3)


def listed(echoes, tiles, count):
    """Excess by (receiver, satellite, nearest wall, farther wall)."""
    fields = echoes.excess_m, echoes.wall, echoes.second
    excess, wall, second = (np.asarray(by_receiver(tiles, field, count)) for field in fields)
    return {(i, j, int(wall[i, j, k]), int(second[i, j, k])): excess[i, j, k]
            for i, j, k in zip(*np.nonzero(np.isfinite(excess)))}  # fmt: skip


def test_all_recorded_paths_and_no_others():
    with np.load(GOLDEN / "paths_city16.npz") as file:
        data = dict(file)
    city = as_polygons(box_city(data["boxes_cx_cy_hx_hy_theta_h"]), every=2)  # half through either kernel
    walls = np.bincount(city.wall_building)
    side = np.concatenate([4 * b + np.arange(count) // (count // 4) for b, count in enumerate(walls)] + [[-1]])
    faces = np.append(data["face_building"] * 4 + np.arange(len(data["face_building"])) % 5, -1)
    paths = {0: {}, 1: {}, 2: {}}
    for receiver, satellite, order, near, far, excess in data["planewave_paths_rx_sat_order_face1_face2_excess"]:
        key = int(receiver), int(satellite), int(faces[int(near)]), int(faces[int(far)])
        paths[int(order)][key] = excess
    receivers, directions = data["receivers"], jnp.asarray(data["sat_dirs_enu"], jnp.float32)
    tiles = tiled(city, receivers)
    assert min(tiles.boxes.x.size, tiles.walls.x.size) > 0
    free = ~np.asarray(by_receiver(tiles, rays.occluded(tiles, directions), len(receivers)))
    assert {(i, j, -1, -1) for i, j in zip(*np.nonzero(free))} == set(paths[0])
    pairs = facing_pairs(city, tiles, range_m=1e3, wall_range_m=1e3, most_cos=1.0)
    found = {1: single_bounce(tiles, directions, 3, 1e4), 2: double_bounce(tiles, pairs, directions, 3, 1e4)}
    for order, echoes in found.items():
        assert not echoes.missed.any()
        all_listed = listed(echoes, tiles, len(receivers))
        whole = {(i, j, int(side[near]), int(side[far])): excess for (i, j, near, far), excess in all_listed.items()}
        assert set(whole) == set(paths[order])
        assert len(whole) > 3
        for key, excess in whole.items():
            assert abs(excess - paths[order][key]) < 1e-3


def test_a_street_in_closed_form():
    """The opposite wall at distance d echoes 2 d cos E |cos(A - A_n)| later, if the wall is high enough there."""
    height, width, z = 40.0, 20.0, 1.5
    directions = sky(SATELLITES, seed=5)
    x = np.linspace(1.0, 19.0, 6)
    tiles = tiled(street(width, height), np.column_stack([x, np.zeros(6), np.full(6, z)]))
    echoes = single_bounce(tiles, jnp.asarray(directions), 3, 1e4)
    excess = np.asarray(by_receiver(tiles, echoes.excess_m, 6))
    east, up = directions[:, 0], directions[:, 2]
    distance = np.where(east > 0, x[:, None], width - x[:, None])  # the wall that faces the satellite is across from it
    meets = z + distance * up / np.abs(east) < height
    clears = z + (distance + width) * up / np.abs(east) > height  # on its way in, over the wall behind the receiver
    there = meets & clears
    assert 5 < there.sum() < there.size
    np.testing.assert_array_equal(np.isfinite(excess[..., 0]), there)
    np.testing.assert_allclose(excess[..., 0][there], (2 * distance * np.abs(east))[there], rtol=1e-5)
    cosine = np.asarray(by_receiver(tiles, echoes.cos_incidence, 6))[..., 0]
    np.testing.assert_allclose(cosine[there], np.broadcast_to(np.abs(east), there.shape)[there], rtol=1e-5)


def test_delays_do_not_depend_on_where_north_is():
    city = generate_city(5, Plan(blocks=(3, 3)))
    receivers, directions = outdoor_grid(city, spacing_m=11.0)[::3][:40], sky(SATELLITES, seed=6)
    c, s = np.cos(2.0), np.sin(2.0)
    turn = np.array([[c, s], [-s, c]])
    turned = city._replace(start=city.start @ turn + 5000.0)
    places = np.column_stack([receivers[:, :2] @ turn + 5000.0, receivers[:, 2]])
    aims = np.column_stack([directions[:, :2] @ turn, directions[:, 2]]).astype(np.float32)
    found = []
    for world, where, sight in ((city, receivers, directions), (turned, places, aims)):
        tiles = tiled(world, where)
        found.append(listed(single_bounce(tiles, jnp.asarray(sight), 3, 1e4), tiles, len(receivers)))
    common = found[0].keys() & found[1].keys()
    assert len(common) > 50
    assert len(common) >= 0.98 * max(map(len, found))
    assert max(abs(found[0][key] - found[1][key]) for key in common) < 5e-3


def test_no_echoes_where_nothing_is_seen():
    low = np.tile(np.array([[0.0, np.cos(0.05), np.sin(0.05)]], np.float32), (SATELLITES, 1))
    places = np.tile([[5.0, 0.0, 1.5], [-5.0, 0.0, 1.5]], (3, 1))
    tiles = tiled(street(20.0, 25.0), places)
    assert not np.isfinite(single_bounce(tiles, jnp.asarray(low), 3, 1e4).excess_m).any()
    echoes = single_bounce(tiles, jnp.asarray(sky(SATELLITES, seed=7)), 3, 1e4)
    outdoors = np.isfinite(by_receiver(tiles, echoes.excess_m, 6)).any(axis=(1, 2))
    np.testing.assert_array_equal(outdoors, [True, False] * 3)


def test_knife_edge_loss():
    with np.load(GOLDEN / "knife_edge.npz") as data:
        nu, exact, itu = data["nu"], data["loss_db_exact"], data["loss_db_itu_p526"]
    with jax.enable_x64(True):
        loss = np.asarray(diffraction.knife_edge_loss_db(jnp.asarray(nu)))
    valid = nu > -0.7
    np.testing.assert_allclose(loss[valid], itu[valid], rtol=1e-9, atol=1e-9)
    assert np.abs(loss - exact)[valid].max() < 0.13
    assert (loss[nu < -0.78] == 0).all()


def test_edge_of_a_street_in_closed_form():
    """nu = h sqrt(2 / (lambda d)) with h the depth of the roof edge above the ray, d its distance."""
    height, z, x, wavelength = 25.0, 1.5, 12.0, 0.19
    elevation = np.linspace(0.6, 1.5, SATELLITES)
    directions = np.column_stack([-np.cos(elevation), np.zeros(SATELLITES), np.sin(elevation)])
    tiles = tiled(street(20.0, height), np.tile([[x, 0.0, z]], (6, 1)))
    nu, detour = diffraction.roof_edge(tiles, jnp.asarray(directions, jnp.float32), wavelength)
    nu, detour = (np.asarray(by_receiver(tiles, part, 6))[0] for part in (nu, detour))
    ascent = x * np.tan(elevation)
    depth, distance = (height - z - ascent) * np.cos(elevation), x / np.cos(elevation)
    near = np.tan(elevation) - 0.1 < (height - z) / x
    assert near.sum() > 4
    np.testing.assert_allclose(nu[near], (depth * np.sqrt(2 / (wavelength * distance)))[near], rtol=1e-4, atol=1e-4)
    shadow = depth > 0
    np.testing.assert_allclose(detour[shadow], (depth**2 / (2 * distance))[shadow], rtol=1e-3)
