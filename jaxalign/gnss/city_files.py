"""City files: CityJSON 1.1 and 2.0, GeoJSON footprints with heights, Wavefront OBJ. Read and write.

Whatever the file holds becomes prisms: the footprint is the outline on which the walls stand, the height is that of the
highest point above it. Buildings that cannot be used are left out, each with a sentence in ``City.notes``.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxalign.core.errors import UserError
from jaxalign.gnss.city import Building, City, buildings_of, encloses, make_city, within
from jaxalign.gnss.frames import Geodetic, ecef_from_enu, ecef_from_geodetic, enu_from_ecef, geodetic_from_ecef
from jaxalign.gnss.materials import MATERIALS

LOCAL = "local"
_LOCAL_FRAME = "+local-frame"  # our CityJSON root property: where the local metres are on Earth
_HEIGHTS = ("height", "building:height", "measuredHeight", "render_height", "HEIGHT")
_LEVELS = ("building:levels", "levels", "num_floors")
_MATERIAL = "building:material"
_FOOT_M = 0.3048
_UNIT_M = 1e-4  # of CityJSON vertices


class Options(NamedTuple):
    """How a city file is read.

    Attributes:
        crs: of the coordinates, as pyproj understands it (``"EPSG:28992"``), or ``"local"`` for metres; None to take
            what the file says.
        origin: where to put the local frame; the middle of the city if None.
        default_height_m: of buildings without height and levels.
        level_m: height of a storey.
    """

    crs: str | None = None
    origin: Geodetic | None = None
    default_height_m: float = 10.0
    level_m: float = 3.0


def read_city(path: str | Path, options: Options = Options()) -> City:
    """The city of a file (.geojson, .json, .obj).

    Raises:
        UserError: the file is missing, broken or of another format, says no coordinate system, or has no usable
            building.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}); give an existing text file.") from error
    if path.suffix.lower() == ".obj":
        (buildings, notes), crs = _from_obj(path, text), LOCAL
    else:
        buildings, crs, notes = _from_json(path, text, options)
    crs = options.crs or crs
    if crs is None:
        raise UserError(
            f"{path} does not say its coordinate system; give one, for example crs='EPSG:28992', "
            "or crs='local' for metres."
        )
    try:
        placed, origin = _placed(list(buildings), crs, options.origin)
        return make_city(placed, origin=origin, strict=False, notes=notes)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def write_city(city: City, path: str | Path) -> None:
    """Writes .geojson (needs an origin), .json (CityJSON 2.0) or .obj (roofs over courtyards stay open).

    Raises:
        UserError: another suffix, or GeoJSON for a city that stands nowhere on Earth.
    """
    path = Path(path)
    writers = {".geojson": _geojson, ".json": _cityjson, ".obj": _obj}
    if path.suffix.lower() not in writers:
        raise UserError(f"{path} has a suffix that no city format has; choose from {', '.join(writers)}.")
    path.write_text(writers[path.suffix.lower()](city), encoding="utf-8")


def _from_json(path, text, options):
    """Buildings, coordinate system (None if not said) and notes of CityJSON or GeoJSON."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); repair the file.") from error
    kind = data.get("type") if isinstance(data, dict) else None
    try:
        if kind == "CityJSON":
            return _from_cityjson(data, options)
        if kind == "FeatureCollection":
            return _from_geojson(data, options)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path} breaks the {kind} format ({type(error).__name__}: {error}); repair the file."
        ) from error
    raise UserError(f"{path} has type {kind!r}; give CityJSON or a GeoJSON FeatureCollection.")


def _from_geojson(data, options):
    crs = (data.get("crs") or {}).get("properties", {}).get("name", "EPSG:4326")
    buildings, defaulted = [], 0
    for number, feature in enumerate(data["features"]):
        shape = feature.get("geometry") or {}
        if shape.get("type") not in ("Polygon", "MultiPolygon"):
            continue
        polygons = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
        properties = feature.get("properties") or {}
        height = _height(properties, options.level_m)
        defaulted += height is None
        height = options.default_height_m if height is None else height
        names = feature.get("id"), properties.get("name"), f"building-{number}"
        name = str(next(name for name in names if name not in (None, "")))
        for part, polygon in enumerate(polygons):
            rings = tuple(np.array([corner[:2] for corner in ring], float) for ring in polygon)
            label = name if len(polygons) == 1 else f"{name}#{part}"
            buildings.append(Building(rings, height, label, _material(properties)))
    notes = ()
    if defaulted:
        notes = (f"{defaulted} buildings say neither height nor levels; {options.default_height_m:g} m was assumed.",)
    return buildings, "EPSG:4326" if crs.endswith("CRS84") else crs, notes


def _height(properties, level_m):
    """Height (m) from the first property that is a positive number, from levels, or None.

    OpenStreetMap's heights are in metres unless they say feet ("40 ft", "40'"); other sources write 0 or -1 for none.
    """
    for names, unit in ((_HEIGHTS, 1.0), (_LEVELS, level_m)):
        for name in names:
            found = re.match(r"\s*([-+]?\d+(?:\.\d+)?)\s*(ft|feet|')?", str(properties.get(name, "")))
            if found and float(found[1]) > 0:
                return float(found[1]) * (_FOOT_M if found[2] else unit)
    return None


def _material(properties):
    name = properties.get(_MATERIAL)
    return name if name in MATERIALS else "concrete"


def _from_cityjson(data, options):
    transform = data.get("transform", {"scale": [1, 1, 1], "translate": [0, 0, 0]})
    vertices = np.array(data["vertices"], float).reshape(-1, 3) * transform["scale"] + transform["translate"]
    buildings, feet, notes = [], [], []
    for name, thing in data["CityObjects"].items():
        geometry = [g for g in thing.get("geometry", []) if "boundaries" in g]
        if thing["type"] not in ("Building", "BuildingPart") or not geometry:
            continue
        best = max(geometry, key=lambda g: (str(g.get("lod", "")).startswith("1"), str(g.get("lod", ""))))
        attributes = thing.get("attributes", {})
        faces = [vertices[ring] for surface in _surfaces(best["boundaries"]) for ring in surface]
        prisms, foot, complaint = _prisms(faces)
        if complaint:
            notes.append(f"Building {name}: {complaint}")
        feet += [foot] * len(prisms)
        buildings += [Building(*prism, name, _material(attributes)) for prism in prisms]
    if np.ptp(feet or [0.0]) > 5.0:
        notes.append(f"The ground rises by {np.ptp(feet):.0f} m; the city was laid flat.")
    crs = data.get("metadata", {}).get("referenceSystem")
    if _LOCAL_FRAME in data:
        crs = LOCAL
        frame = data[_LOCAL_FRAME]
        if frame:
            crs = Geodetic(np.deg2rad(frame["latitude_deg"]), np.deg2rad(frame["longitude_deg"]), frame["height_m"])
    elif crs:
        crs = "EPSG:" + re.findall(r"\d+", crs)[-1]
        notes.append(
            f"The ground is at {np.median(feet or [0.0]):.1f} m in the file's own heights; how high that is above the "
            "ellipsoid it does not say, and 0 m was taken."
        )
    return buildings, crs, tuple(notes)


def _surfaces(boundaries) -> Iterator[Any]:
    """Surfaces (lists of rings) of boundaries nested to any depth."""
    if boundaries and isinstance(boundaries[0][0], int):
        yield boundaries
        return
    for part in boundaries:
        yield from _surfaces(part)


def _prisms(faces: Iterable[np.ndarray]):
    """Prisms (rings with the outer first, height) among `faces`, the height of their ground, and what did not fit.

    Rings run along the walls that stand on the lowest level; walls between touching parts stand inside and drop out.
    A ring within another is a courtyard, one beside it another prism. What hangs higher adds to the height below it.
    """
    faces = [face for face in faces if len(face)]
    if not faces:
        return [], 0.0, "it has no faces and was left out."
    corners = np.concatenate(faces)
    foot, top = corners[:, 2].min(), corners[:, 2].max()
    low = foot + 1e-3 * max(1.0, top - foot)
    rings, loose = _ground_rings([face for face in faces if face[:, 2].max() > low], low)
    rings.sort(key=lambda ring: -np.ptp(ring, axis=0).prod())
    outer: list[list[np.ndarray]] = []
    for ring in rings:
        around = next((prism for prism in outer if encloses(prism[0], ring)), None)
        if around is not None and not any(encloses(hole, ring) for hole in around[1:]):
            around.append(ring)
        else:
            outer.append([ring])
    if not outer:
        return [], float(foot), "it has no walls that stand on its lowest level; it was left out."
    middles = np.stack([(face[:, :2].min(axis=0) + face[:, :2].max(axis=0)) / 2 for face in faces])
    tops = np.array([face[:, 2].max() for face in faces])
    nearest = np.argmin([_distance(prism[0], middles) for prism in outer], axis=0)
    heights = [float(tops[nearest == k].max(initial=low) - foot) for k in range(len(outer))]
    said = f"{loose} of its walls close no ring; they were left out." if loose else ""
    return [(tuple(prism), height) for prism, height in zip(outer, heights, strict=True)], float(foot), said


def _ground_edges(walls, low):
    """Ends of the lower edges of `walls` by start, and where they are. An edge and its opposite cancel."""
    place, edges = {}, {}
    for wall in walls:
        for start, end in zip(wall, np.roll(wall, -1, axis=0), strict=True):
            edge = _key(start), _key(end)
            if start[2] <= low and end[2] <= low and edge[0] != edge[1]:
                place[edge[0]] = start[:2]
                if edges.pop(edge[::-1], None) is None:
                    edges[edge] = True
    following: dict[Any, list] = {}
    for start, end in edges:
        following.setdefault(start, []).append(end)
    return following, place


def _ground_rings(walls, low):
    """Closed rings of the lower edges of `walls`, and how many edges are in none."""
    following, place = _ground_edges(walls, low)
    rings, loose = [], 0
    while following:
        path = [next(iter(following))]
        while path[-1] in following:
            last = path[-1]
            key = following[last].pop()
            if not following[last]:
                del following[last]
            if key not in path:
                path.append(key)
                continue
            first = path.index(key)  # a ring ends where it meets itself
            ring, path = path[first:], path[: first + 1]
            if len(ring) > 2:
                rings.append(np.array([place[corner] for corner in ring]))
        loose += len(path) - 1
    return rings, loose


def _distance(ring, points):
    """Distance of points [n, 2] from what a ring encloses, 0 within."""
    start, along = ring, np.roll(ring, -1, axis=0) - ring
    to = points[:, None] - start
    share = np.clip((to * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12), 0.0, 1.0)
    gap = np.linalg.norm(to - share[..., None] * along, axis=-1).min(axis=1)
    return np.where(within(ring, points), 0.0, gap)


def _key(corner):
    return round(float(corner[0]), 3), round(float(corner[1]), 3)


def _from_obj(path, text):
    """One building per object or group; without any, one per connected piece. z is up."""
    try:
        points, groups, materials = _obj_groups(text)
    except ValueError as error:
        raise UserError(f"{path} breaks the OBJ format ({error}); repair the file.") from error
    if any(min(face) < 0 or max(face) >= len(points) for faces in groups.values() for face in faces):
        raise UserError(f"{path} has a face with a corner that does not exist; repair the file.")
    if set(groups) == {""}:
        groups = dict(enumerate(_pieces(groups[""], len(points))))
    buildings, notes = [], []
    for label, faces in groups.items():
        prisms, _, complaint = _prisms([points[face] for face in faces])
        if complaint:
            notes.append(f"Building {label}: {complaint}")
        material = materials.get(label, "concrete")
        material = material if material in MATERIALS else "concrete"
        buildings += [Building(*prism, str(label), material) for prism in prisms]
    return buildings, tuple(notes)


def _obj_groups(text):
    """Vertices ``[n, 3]``, faces by group and material by group."""
    vertices, groups, materials = [], {}, {}
    name = ""
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "v":
            vertices.append([float(value) for value in rest.split()[:3]])
        elif word in ("o", "g"):
            name = rest.strip()
        elif word == "usemtl":
            materials[name] = rest.strip()
        elif word == "f":
            corners = [int(corner.split("/")[0]) for corner in rest.split()]
            groups.setdefault(name, []).append([i - 1 if i > 0 else len(vertices) + i for i in corners])
    return np.array(vertices, float).reshape(-1, 3), groups, materials


def _pieces(faces, count):
    """Faces grouped by what their corners connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    start = np.concatenate([[face[0]] * len(face) for face in faces])
    end = np.concatenate(faces)
    links = coo_array((np.ones(len(start)), (start, end)), shape=(count, count))
    _, label = connected_components(links, directed=False)
    pieces = {}
    for face in faces:
        pieces.setdefault(label[face[0]], []).append(face)
    return list(pieces.values())


def _placed(buildings, crs, origin):
    """Buildings in local metres, and the origin of their frame."""
    if isinstance(crs, Geodetic):
        return buildings, crs
    if crs == LOCAL or not buildings:
        return buildings, origin
    corners = np.concatenate([ring for building in buildings for ring in building.rings])
    east, north = _geographic(corners, crs)
    if np.abs(north).max() > 90 or np.abs(east).max() > 360:
        raise UserError(f"The coordinates are not degrees, as {crs} demands; give the true crs.")
    if origin is None:
        origin = Geodetic(np.deg2rad(np.ptp(north) / 2 + north.min()), np.deg2rad(np.ptp(east) / 2 + east.min()), 0.0)
    place = Geodetic(np.deg2rad(north), np.deg2rad(east), np.full(len(east), float(origin.height_m)))
    local = enu_from_ecef(ecef_from_geodetic(place), origin)[:, :2]
    sizes = np.cumsum([len(ring) for building in buildings for ring in building.rings])
    rings = iter(np.split(local, sizes[:-1]))
    return [b._replace(rings=tuple(next(rings) for _ in b.rings)) for b in buildings], origin


def _geographic(points, crs):
    """Longitude and latitude in degrees."""
    if crs in ("EPSG:4326", "EPSG:4979"):
        return points.T
    try:
        from pyproj import Transformer
        from pyproj.exceptions import CRSError
    except ImportError as error:
        raise UserError(f'Coordinates in {crs} need pyproj; install it with pip install "jaxalign[gnss]".') from error
    try:
        transformer = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    except CRSError as error:
        raise UserError(f"{crs!r} is not a coordinate system that pyproj knows; give an EPSG code.") from error
    return np.array(transformer.transform(*points.T))


def _geojson(city):
    if city.origin is None:
        raise UserError("GeoJSON needs degrees, but the city has no origin; write .json or .obj, or give it one.")
    features = []
    for building in buildings_of(city):
        rings = [_degrees(np.concatenate([ring, ring[:1]]), city.origin) for ring in building.rings]
        properties = {"height": building.top_m, _MATERIAL: building.material}
        shape = {"type": "Polygon", "coordinates": rings}
        features.append({"type": "Feature", "id": building.name, "properties": properties, "geometry": shape})
    return json.dumps({"type": "FeatureCollection", "features": features})


def _degrees(ring, origin):
    place = geodetic_from_ecef(ecef_from_enu(np.column_stack([ring, np.zeros(len(ring))]), origin))
    return np.rad2deg(np.column_stack([place.longitude_rad, place.latitude_rad])).tolist()


def _cityjson(city):
    vertices, things = [], {}
    for building in buildings_of(city):
        floor, roof, walls = [], [], []
        for ring in building.rings:
            low = np.arange(len(ring)) + len(vertices)
            high = low + len(ring)
            for z in (0.0, building.top_m):
                vertices += np.round(np.column_stack([ring, np.full(len(ring), z)]) / _UNIT_M).astype(int).tolist()
            floor.append(low[::-1].tolist())
            roof.append(high.tolist())
            walls += [[list(map(int, q))] for q in zip(low, np.roll(low, -1), np.roll(high, -1), high, strict=True)]
        shape = {"type": "Solid", "lod": "1.2", "boundaries": [[floor, roof, *walls]]}
        attributes = {"measuredHeight": building.top_m, _MATERIAL: building.material}
        things[building.name] = {"type": "Building", "attributes": attributes, "geometry": [shape]}
    frame = None
    if city.origin is not None:
        latitude, longitude = np.rad2deg(city.origin[:2])
        frame = {"latitude_deg": float(latitude), "longitude_deg": float(longitude), "height_m": float(city.origin[2])}
    data = {"type": "CityJSON", "version": "2.0", "transform": {"scale": [_UNIT_M] * 3, "translate": [0.0] * 3}}
    return json.dumps({**data, "CityObjects": things, "vertices": vertices, _LOCAL_FRAME: frame})


def _obj(city):
    lines, count = [], 1
    for building in buildings_of(city):
        lines += [f"o {building.name}", f"usemtl {building.material}"]
        for ring in building.rings:
            low, high = np.arange(len(ring)) + count, np.arange(len(ring)) + count + len(ring)
            lines += [f"v {x:.4f} {y:.4f} {z:.4f}" for z in (0.0, building.top_m) for x, y in ring]
            walls = zip(low, np.roll(low, -1), np.roll(high, -1), high, strict=True)
            lines += [f"f {a} {b} {c} {d}" for a, b, c, d in walls]
            if len(building.rings) == 1:
                lines.append("f " + " ".join(map(str, high)))
            count += 2 * len(ring)
    return "\n".join(lines) + "\n"
