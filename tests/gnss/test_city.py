"""City files in and out, generated cities, and what is said about bad ones."""

import json

import numpy as np
import pytest
from gnss_cities import GOLDEN, box_city
from matplotlib.path import Path as Polygon

from jaxalign.core.errors import UserError
from jaxalign.gnss.city import Building, buildings_of, inside, make_city, outdoor_grid, rectangles
from jaxalign.gnss.city_files import Options, read_city, write_city
from jaxalign.gnss.city_generator import Plan, generate_city
from jaxalign.gnss.frames import Geodetic

SQUARE = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]])
BOW = SQUARE[[0, 2, 1, 3]]
MADRID = Geodetic(np.deg2rad(40.42), np.deg2rad(-3.7), 650.0)


@pytest.fixture(scope="module")
def generated():
    return generate_city(1, Plan(blocks=(4, 5)), MADRID)


def test_a_generated_city_has_what_was_asked_for(generated):
    again, other = generate_city(1, Plan(blocks=(4, 5)), MADRID), generate_city(2, Plan(blocks=(4, 5)))
    np.testing.assert_array_equal(generated.start, again.start)
    assert generated.start.shape != other.start.shape or (generated.start != other.start).any()
    rings = np.bincount(generated.ring_building)
    corners = np.bincount(generated.ring)
    assert (rings == 2).any()  # courtyards
    assert {4, 5, 6} <= set(corners)
    assert {*generated.materials} == {"concrete", "brick", "glass"}
    boxes = np.isfinite(rectangles(generated)[:, 0])
    assert 0.2 < boxes.mean() < 0.9
    plain = generate_city(1, Plan(blocks=(4, 5), plain=True))
    assert plain.size == 4 * 19  # one block is the plaza
    assert np.isfinite(rectangles(plain)).all()


def test_outer_rings_run_counter_clockwise_and_holes_clockwise(generated):
    start, end = generated.start, generated.end
    twice_area = np.bincount(generated.ring, start[:, 0] * end[:, 1] - start[:, 1] * end[:, 0])
    first = np.flatnonzero(np.diff(generated.ring_building, prepend=-1))
    outer = np.isin(np.arange(len(twice_area)), first)
    assert (twice_area[outer] > 0).all()
    assert (twice_area[~outer] < 0).all()
    np.testing.assert_allclose(np.bincount(generated.ring, (end - start)[:, 0]), 0, atol=1e-9)


def test_inside_as_matplotlib_says(generated):
    points = np.random.default_rng(0).uniform(*generated.bounds(), size=(3000, 2))
    expected = np.zeros(len(points), bool)
    for building in buildings_of(generated):
        outer, *holes = (Polygon(ring).contains_points(points) for ring in building.rings)
        expected |= outer & ~np.any([*holes, np.zeros_like(outer)], axis=0)
    np.testing.assert_array_equal(inside(generated, points), expected)
    assert 0.3 < expected.mean() < 0.7
    grid = outdoor_grid(generated, 9.0)
    assert not inside(generated, grid).any()
    assert (grid[:, 2] == 1.5).all()
    above = np.column_stack([points, np.full(len(points), 500.0)])
    assert not inside(generated, above).any()


@pytest.mark.parametrize("suffix", ["geojson", "city.json", "obj"])
def test_round_trip(generated, suffix, tmp_path):
    path = tmp_path / f"city.{suffix}"
    write_city(generated, path)
    back = read_city(path, Options(origin=MADRID) if suffix == "geojson" else Options())
    assert back.names == generated.names
    assert back.materials == generated.materials
    assert back.notes == ()
    np.testing.assert_allclose(back.top_m, generated.top_m, atol=1e-4)
    for old, new in zip(buildings_of(generated), buildings_of(back), strict=True):
        for ring, other in zip(old.rings, new.rings, strict=True):
            shift = np.argmin(np.linalg.norm(other - ring[0], axis=1))
            np.testing.assert_allclose(np.roll(other, -shift, axis=0), ring, atol=1e-3)
    if suffix != "obj":
        np.testing.assert_allclose(back.origin, MADRID)


def test_a_recorded_triangle_mesh_is_its_boxes(tmp_path):
    with np.load(GOLDEN / "raycast_city60.npz") as file:
        vertices, triangles, boxes = file["vertices"], file["triangles"], file["boxes_cx_cy_hx_hy_theta_h"]
    lines = [f"v {x} {y} {z}" for x, y, z in vertices] + [f"f {a + 1}// {b + 1}// {c + 1}//" for a, b, c in triangles]
    (tmp_path / "mesh.obj").write_text("\n".join(lines))
    city, wanted = read_city(tmp_path / "mesh.obj"), box_city(boxes)
    assert city.size == 60
    order, wanted_order = (np.argsort(rectangles(c)[:, 0]) for c in (city, wanted))
    np.testing.assert_allclose(rectangles(city)[order, :2], rectangles(wanted)[wanted_order, :2], atol=1e-6)
    np.testing.assert_allclose(city.top_m[order], wanted.top_m[wanted_order], atol=1e-6)


def cityjson(version, reference=None):
    """Three buildings by hand: a solid, a part with a gabled roof on a slope, and one that is a bare roof."""
    base = [[0, 0, 0], [8000, 0, 0], [8000, 6000, 0], [0, 6000, 0]]
    cube = base + [[x, y, 9000] for x, y, _ in base]
    walls = [[[0, 1, 5, 4]], [[1, 2, 6, 5]], [[2, 3, 7, 6]], [[3, 0, 4, 7]]]
    house = [[x + 20000, y, z + 2000] for x, y, z in [*base, *[[x, y, 5000] for x, y, _ in base]]]
    ridge = [[20000, 3000, 9000], [28000, 3000, 9000]]
    gables = [[[8, 9, 13, 12]], [[9, 10, 14, 17, 13]], [[10, 11, 15, 14]], [[11, 8, 12, 16, 15]]]
    roof = [[[12, 13, 17, 16]], [[14, 15, 16, 17]]]
    floor, top = [[3, 2, 1, 0]], [[4, 5, 6, 7]]
    solid = {"type": "Solid", "lod": "1", "boundaries": [[floor, top, *walls]]}
    roofed = {"type": "MultiSurface", "lod": "2", "boundaries": [*gables, *roof]}
    objects = {
        "cube": {"type": "Building", "geometry": [solid]},
        "house": {"type": "BuildingPart", "geometry": [roofed]},
        "slab": {"type": "Building", "geometry": [{"type": "MultiSurface", "lod": "2", "boundaries": [top]}]},
        "tree": {"type": "SolitaryVegetationObject", "geometry": []},
    }
    metadata = {"referenceSystem": reference} if reference else {}
    transform = {"scale": [0.001] * 3, "translate": [440_000.0, 4_474_000.0, 600.0]}
    return {"type": "CityJSON", "version": version, "transform": transform, "metadata": metadata,
            "CityObjects": objects, "vertices": cube + house + ridge}  # fmt: skip


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_cityjson_in_a_projected_system(version, tmp_path):
    pyproj = pytest.importorskip("pyproj")
    path = tmp_path / "city.json"
    path.write_text(json.dumps(cityjson(version, "https://www.opengis.net/def/crs/EPSG/0/25830")))
    city = read_city(path)
    assert city.names == ("cube", "house")
    np.testing.assert_allclose(city.top_m, [9.0, 7.0])
    assert len(city.notes) == 2
    assert "slab" in city.notes[0]
    assert "ground is at 601.0 m in the file's own heights" in city.notes[1]
    east, north = pyproj.Transformer.from_crs("EPSG:25830", "EPSG:4326", always_xy=True).transform(440_014, 4_474_003)
    np.testing.assert_allclose(np.rad2deg(city.origin[:2]), [north, east], atol=1e-6)
    box = rectangles(city)
    np.testing.assert_allclose(np.hypot(*(box[1, :2] - box[0, :2])), 20.0, atol=0.02)  # UTM scale is 0.9996


def test_geojson_heights_and_levels(tmp_path):
    ring = [[-3.7, 40.42], [-3.6999, 40.42], [-3.6999, 40.4201], [-3.7, 40.4201], [-3.7, 40.42]]
    said = [
        {"height": "12.5 m"},
        {"building:levels": "4", "building:material": "brick"},
        {},
        {"height": 0, "building:levels": 5},
        {"height": -1},
        {"height": "100 ft"},
        {"height": "30'"},
        {"levels": 2},
    ]
    shapes = [{"type": "Polygon", "coordinates": [ring]}] * 7 + [
        {"type": "MultiPolygon", "coordinates": [[ring], [ring]]}
    ]
    features = [{"type": "Feature", "id": None, "properties": p, "geometry": g} for p, g in zip(said, shapes)]
    features.append({"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": ring[0]}})
    path = tmp_path / "footprints.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    city = read_city(path)
    np.testing.assert_allclose(city.top_m, [12.5, 12.0, 10.0, 15.0, 10.0, 30.48, 9.144, 6.0, 6.0])
    assert city.materials[:2] == ("concrete", "brick")
    assert len({*city.names}) == 9
    assert len(city.notes) == 1
    assert "2 buildings say neither height nor levels" in city.notes[0]
    size = rectangles(city)[0, 2:4] * 2
    np.testing.assert_allclose(sorted(size), [8.484, 11.104], rtol=2e-3)  # 1e-4 degrees there


def obj(name, *boxes):
    """An object of boxes (low x, y, z, high x, y, z), corners not shared."""
    corner = ((0, 0), (1, 0), (1, 1), (0, 1))
    lines, count = [f"o {name}"], 1
    for x0, y0, z0, x1, y1, z1 in boxes:
        lines += [f"v {(x0, x1)[a]} {(y0, y1)[b]} {z}" for z in (z0, z1) for a, b in corner]
        lines += [f"f {count + k} {count + (k + 1) % 4} {count + 4 + (k + 1) % 4} {count + 4 + k}" for k in range(4)]
        lines.append(f"f {count + 4} {count + 5} {count + 6} {count + 7}")
        count += 8
    return "\n".join(lines)


def test_an_object_of_several_parts(tmp_path):
    """Apart: two buildings, each with its height. Touching: one. Upon each other: one, as high as the upper."""
    path = tmp_path / "parts.obj"
    path.write_text(obj("apart", (0, 0, 0, 10, 10, 60), (30, 0, 0, 40, 10, 6)))
    city = read_city(path)
    assert city.names == ("apart", "apart#2")
    np.testing.assert_array_equal(city.top_m, [60.0, 6.0])
    assert inside(city, np.array([[5.0, 5.0], [35.0, 5.0], [20.0, 5.0]])).tolist() == [True, True, False]
    path.write_text(obj("row", (0, 0, 0, 10, 10, 9), (10, 0, 0, 20, 10, 12), (30, 0, 0, 40, 10, 6)))
    city = read_city(path)
    np.testing.assert_array_equal(city.top_m, [12.0, 6.0])
    assert len(city.ring_building) == 2
    assert inside(city, np.array([[5.0, 5.0], [10.0, 5.0], [15.0, 5.0], [35.0, 5.0], [25.0, 5.0]])).tolist() == [
        True
    ] * 4 + [False]
    path.write_text(obj("tower", (0, 0, 0, 40, 40, 9), (10, 10, 9, 20, 20, 80)))
    city = read_city(path)
    np.testing.assert_array_equal(city.top_m, [80.0])
    assert len(city.ring_building) == 1
    assert city.notes == ()


def test_walls_that_close_no_ring_are_told(tmp_path):
    text = obj("house", (0, 0, 0, 10, 10, 9)) + "\nv 50 0 0\nv 60 0 0\nv 60 0 5\nf 9 10 11"
    (tmp_path / "house.obj").write_text(text)
    city = read_city(tmp_path / "house.obj")
    assert city.size == 1
    assert "1 of its walls close no ring" in city.notes[0]


def test_equal_names_stay_apart_in_files(tmp_path):
    city = make_city([Building((SQUARE + 20 * k,), 5.0 + k, "same") for k in range(3)])
    assert city.names == ("same", "same#2", "same#3")
    for suffix in ("city.json", "obj"):
        write_city(city, tmp_path / f"city.{suffix}")
        assert read_city(tmp_path / f"city.{suffix}").names == city.names


@pytest.mark.parametrize(
    ("building", "said"),
    [
        (Building((BOW,), 10.0, "bow"), "Building bow: ring 0 of its footprint crosses itself"),
        (Building((SQUARE * 3, BOW + 5), 10.0, "yard"), "Building yard: ring 1 of its footprint crosses itself"),
        (Building((SQUARE,), 0.0, "flat"), "Building flat has height 0 m"),
        (Building((SQUARE,), float("nan"), "unknown"), "Building unknown has height nan m"),
        (Building((SQUARE[:2],), 9.0, "line"), "Building line: ring 0 of its footprint needs three"),
        (
            Building((SQUARE[[0, 1, 2]] * [1, 1e-6],), 9.0, "sliver"),
            "Building sliver: ring 0 of its footprint has no area",
        ),
        (Building((SQUARE * np.nan,), 9.0, "nowhere"), "Building nowhere: ring 0"),
        (Building((), 9.0, "void"), "Building void has no footprint"),
        (Building((SQUARE * 3, SQUARE + 50), 9.0, "off"), "Building off: ring 1 of its footprint is not within"),
        (Building((SQUARE * 3, SQUARE * 2 + 15), 9.0, "over"), "Building over: ring 1 of its footprint is not within"),
    ],
)
def test_bad_buildings(building, said):
    with pytest.raises(UserError, match=said):
        make_city([building])
    city = make_city([building, Building((SQUARE,), 5.0, "good")], strict=False)
    assert city.names == ("good",)
    assert said.split(":")[0] in city.notes[0]
    assert "left out" in city.notes[0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", json.dumps(cityjson("2.0")), "coordinate system"),
        ("b.json", "{", "not valid JSON"),
        ("c.json", '{"type": "Topology"}', "Topology"),
        ("d.json", '{"type": "CityJSON", "CityObjects": {}}', "breaks the CityJSON format"),
        ("e.geojson", '{"type": "FeatureCollection", "features": []}', "no usable building"),
        ("f.obj", "v 0 0 zero", "breaks the OBJ format"),
        ("g.obj", "v 0 0 0\nf 1 2 3", "corner that does not exist"),
    ],
)
def test_bad_files(name, text, said, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        read_city(tmp_path / name)


def test_files_that_cannot_be(generated, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_city(tmp_path / "missing.obj")
    with pytest.raises(UserError, match="suffix"):
        write_city(generated, tmp_path / "city.ifc")
    with pytest.raises(UserError, match="no origin"):
        write_city(generated._replace(origin=None), tmp_path / "city.geojson")
    degrees = make_city([Building((SQUARE + 1000,), 5.0)], origin=MADRID)
    write_city(degrees, tmp_path / "metres.obj")
    with pytest.raises(UserError, match="not degrees"):
        read_city(tmp_path / "metres.obj", Options(crs="EPSG:4326"))
    with pytest.raises(UserError, match="spacing"):
        outdoor_grid(generated, 0.0)
    with pytest.raises(UserError, match="cannot be built"):
        generate_city(0, Plan(blocks=(0, 3)))
