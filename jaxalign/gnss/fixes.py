"""Fixes of receivers from files (CSV as ``output`` writes it, NMEA 0183), and corrected places into files."""

import csv
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.core.errors import UserError
from jaxalign.gnss import frames, time
from jaxalign.gnss.correction import Corrected, Reason
from jaxalign.gnss.frames import Geodetic
from jaxalign.gnss.output import sentence
from jaxalign.gnss.time import GpsTime

_NEEDED = ("gps_week", "second_of_week_s", "latitude_deg", "longitude_deg")


class Fixes(NamedTuple):
    """E fixes.

    Attributes:
        time: of each.
        place: geodetic; NaN where the receiver had none, height NaN where unknown.
        skipped: lines that could not be read.
    """

    time: GpsTime
    place: Geodetic
    skipped: int

    def local_m(self, origin: Geodetic) -> Float[np.ndarray, "E 3"]:
        """East, north and up around `origin`; up is NaN where the height is unknown."""
        height = np.where(np.isnan(self.place.height_m), origin.height_m, self.place.height_m)
        place = self.place._replace(height_m=height)
        local = frames.enu_from_ecef(frames.ecef_from_geodetic(place), origin)
        local[:, 2] = np.where(np.isnan(self.place.height_m), np.nan, local[:, 2])
        return local


def read(path: str | Path) -> Fixes:
    """Reads a CSV or NMEA file.

    Raises:
        UserError: the file is missing, is neither, or holds no fix.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a file of fixes, CSV or NMEA.") from None
    rows, skipped = _nmea(text) if text.lstrip().startswith(("$", "!")) else _csv(text, path)
    if not rows:
        raise UserError(f"{path} holds no readable fix ({skipped} lines skipped); give CSV or NMEA with GGA and RMC.")
    week, second, latitude, longitude, height = np.array(rows, float).T
    place = Geodetic(np.deg2rad(latitude), np.deg2rad(longitude), height)
    return Fixes(GpsTime(week.astype(int), second), place, skipped)


def _csv(text, path):
    reader = csv.DictReader(text.splitlines())
    missing = [name for name in _NEEDED if name not in (reader.fieldnames or [])]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; a CSV of fixes needs {', '.join(_NEEDED)}.")
    rows, skipped = [], 0
    for row in reader:
        try:
            when = [float(row[name]) for name in _NEEDED[:2]]
            where = [_number(row[name]) for name in _NEEDED[2:]]
            rows.append([*when, *where, _number(row.get("height_m") or "")])
        except (TypeError, ValueError):
            skipped += 1
    return rows, skipped


def _number(text: str) -> float:
    return float(text) if text.strip() else np.nan


def _nmea(text):
    """GGA for place and time of day, dated by the RMC sentences beside them; damaged sentences are counted."""
    entries, dates, skipped = [], [], 0  # entries with the number of dates before them; dates with times of day
    for line in text.split():
        body = line[1:].split("*")[0]
        try:
            if sentence(body) != line:
                raise ValueError("damaged")
            part = body.split(",")
            if part[0].endswith("RMC"):
                date = np.datetime64(f"20{part[9][4:6]}-{part[9][2:4]}-{part[9][:2]}")
                dates.append((date, _second_of_day(part[1])))
            elif part[0].endswith("GGA"):
                entries.append((len(dates), *_gga(part)))
        except (ValueError, IndexError):
            skipped += 1
    if not dates:
        return [], skipped
    dated = lambda k, second, *place: _dated(_date(dates[max(k - 1, 0) : k + 1], second), second, *place)
    return [dated(*entry) for entry in entries], skipped


def _second_of_day(clock: str) -> float:
    return int(clock[:2]) * 3600 + int(clock[2:4]) * 60 + float(clock[4:])


def _date(dates, second):
    """Date of a time of day, from the RMC before or behind, whichever is nearer; midnight may lie between."""
    day_s = time.SECONDS_PER_DAY
    date, other = min(dates, key=lambda entry: abs((entry[1] - second + day_s / 2) % day_s - day_s / 2))
    return date + round((other - second) / day_s)


def _gga(part):
    second = _second_of_day(part[1])
    if not part[6] or part[6] == "0":
        return second, np.nan, np.nan, np.nan
    latitude, longitude = (
        (int(value[:digits]) + float(value[digits:]) / 60) * (-1 if side in "SW" else 1)
        for value, side, digits in ((part[2], part[3], 2), (part[4], part[5], 3))
    )
    height = _number(part[9]) + (_number(part[11]) if part[11] else 0.0)  # above the geoid, and the geoid's own
    return second, latitude, longitude, height


def _dated(date, second, latitude, longitude, height):
    at = time.gps_from_utc(np.array([date]), np.array([second]))
    return float(at.week[0]), float(at.second_of_week[0]), latitude, longitude, height


def write(path: str | Path, fixes: Fixes, answer: Corrected, origin: Geodetic) -> None:
    """Writes corrected places as .csv or .geojson, each with its standard deviations and the reason.

    Raises:
        UserError: another ending.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".geojson"):
        raise UserError(f"{path} has no known ending for corrected fixes; choose .csv or .geojson.")
    height = np.nan_to_num(fixes.place.height_m, nan=origin.height_m)
    local = np.column_stack([answer.pos_m.astype(float), np.zeros(len(height))])
    place = frames.geodetic_from_ecef(frames.ecef_from_enu(local, origin))
    degrees = np.degrees(np.stack([place.latitude_rad, place.longitude_rad], axis=1))
    sigma = np.sqrt(np.asarray(answer.covariance_m2)[:, [0, 2]])
    text = (_geojson if path.suffix == ".geojson" else _table)(fixes, degrees, sigma, answer.reason)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _table(fixes, degrees, sigma, reason):
    lines = ["gps_week,second_of_week_s,latitude_deg,longitude_deg,sigma_east_m,sigma_north_m,correction"]
    for k, code in enumerate(reason):
        at = f"{fixes.time.week[k]},{fixes.time.second_of_week[k]:.3f}"
        place = ",".join(f"{value:.9f}" if np.isfinite(value) else "" for value in degrees[k])
        spread = ",".join(f"{value:.2f}" if np.isfinite(value) else "" for value in sigma[k])
        lines.append(f"{at},{place},{spread},{Reason(int(code)).name.lower()}")
    return "\n".join(lines) + "\n"


def _geojson(fixes, degrees, sigma, reason):
    features = []
    for k, code in enumerate(reason):
        known = np.isfinite(degrees[k]).all()
        properties = {
            "gps_week": int(fixes.time.week[k]),
            "second_of_week_s": float(fixes.time.second_of_week[k]),
            "correction": Reason(int(code)).name.lower(),
            "sigma_m": [round(float(value), 2) for value in sigma[k]] if np.isfinite(sigma[k]).all() else None,
        }
        point = {"type": "Point", "coordinates": [float(degrees[k, 1]), float(degrees[k, 0])]} if known else None
        features.append({"type": "Feature", "geometry": point, "properties": properties})
    return json.dumps({"type": "FeatureCollection", "features": features}, allow_nan=False)
