"""Fixes as NMEA 0183 sentences and as CSV, measurements as CSV."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxalign.gnss import frames, time
from jaxalign.gnss.pvt import Fix, Status
from jaxalign.gnss.rinex_obs import Observations
from jaxalign.gnss.time import GpsTime


class Track(NamedTuple):
    """Fixes to be written, every field ``[E]``: GPS time, geodetic place, satellites in the fix, HDOP, `Status`."""

    time: GpsTime
    place: frames.Geodetic
    satellites: np.ndarray
    hdop: np.ndarray
    status: np.ndarray


def track(at: GpsTime, fixes: Fix) -> Track:
    """Track of a batch of fixes ``[E]``."""
    place = frames.geodetic_from_ecef(np.asarray(fixes.pos_ecef_m))
    return Track(at, place, np.asarray(fixes.used).sum(-1), np.asarray(fixes.dop.horizontal), np.asarray(fixes.status))


def sentence(body: str) -> str:
    """NMEA sentence with its checksum: the exclusive or of the characters between $ and *."""
    checksum = 0
    for character in body.encode("ascii"):
        checksum ^= character
    return f"${body}*{checksum:02X}"


def _angle(angle_rad: float, degree_digits: int, hemispheres: str) -> str:
    """Degrees and minutes to 1e-7 minutes (0.2 mm), such as 2218.0693270,N."""
    units = round(abs(np.degrees(angle_rad)) * 60e7)
    degrees, rest = divmod(units, 60 * 10**7)
    minutes, fraction = divmod(rest, 10**7)
    return f"{degrees:0{degree_digits}d}{minutes:02d}.{fraction:07d},{hemispheres[int(angle_rad < 0)]}"


def nmea(points: Track) -> list[str]:
    """GGA and RMC sentences of each epoch, in UTC; an epoch without a position says so (quality 0, status V).

    Height is above the ellipsoid: the geoid separation field is empty.
    """
    date, second = time.utc_from_gps(points.time)
    sentences = []
    for k, status in enumerate(points.status):
        # to the hundredth of a second, but never to 60.00
        clock = min(round(second[k] * 100), 8640000 - 1)
        minute, hundredths = divmod(clock, 6000)
        stamp = f"{minute // 60:02d}{minute % 60:02d}{hundredths // 100:02d}.{hundredths % 100:02d}"
        year, month, day = str(date[k]).split("-")
        positioned = status < Status.TOO_FEW and bool(np.isfinite(points.place.height_m[k]))
        where, height, hdop = ",,,", "", ""
        if positioned:
            latitude = _angle(points.place.latitude_rad[k], 2, "NS")
            where = f"{latitude},{_angle(points.place.longitude_rad[k], 3, 'EW')}"
            height, hdop = f"{points.place.height_m[k]:.3f}", f"{points.hdop[k]:.1f}"
        count = f"{points.satellites[k]:02d}"
        sentences.append(sentence(f"GPGGA,{stamp},{where},{int(positioned)},{count},{hdop},{height},M,,M,,"))
        validity = "A" if positioned else "V"
        sentences.append(
            sentence(f"GPRMC,{stamp},{validity},{where},,,{day}{month}{year[2:]},,,{'AN'[not positioned]}")
        )
    return sentences


def write_nmea(path: str | Path, points: Track) -> None:
    """Writes :func:`nmea` sentences with the line ends that NMEA asks for."""
    Path(path).write_bytes(("\r\n".join(nmea(points)) + "\r\n").encode("ascii"))


def write_fixes_csv(path: str | Path, points: Track) -> None:
    """Writes one line for each epoch; an epoch without a position leaves the place empty and names its status."""
    lines = ["gps_week,second_of_week_s,latitude_deg,longitude_deg,height_m,satellites,hdop,status"]
    for k, status in enumerate(points.status):
        at = f"{points.time.week[k]},{points.time.second_of_week[k]:.3f}"
        place = ",,"
        hdop = ""
        if status < Status.TOO_FEW:
            latitude, longitude = np.degrees([points.place.latitude_rad[k], points.place.longitude_rad[k]])
            place = f"{latitude:.9f},{longitude:.9f},{points.place.height_m[k]:.4f}"
            hdop = f"{points.hdop[k]:.2f}"
        lines.append(f"{at},{place},{points.satellites[k]},{hdop},{Status(int(status)).name.lower()}")
    Path(path).write_text("\n".join(lines) + "\n")


def write_observations_csv(path: str | Path, observations: Observations) -> None:
    """Writes one line for each epoch and satellite with the RINEX codes as columns; what is absent stays empty."""
    codes = list(observations.values)
    cube = np.stack([observations.values[code] for code in codes], axis=-1)
    lines = [",".join(["gps_week", "second_of_week_s", "satellite", *codes])]
    for e, s in zip(*np.nonzero(np.isfinite(cube).any(-1))):
        at = f"{observations.time.week[e]},{observations.time.second_of_week[e]:.7f},{observations.satellite[s]}"
        lines.append(at + "".join("," + (f"{x:.4f}" if np.isfinite(x) else "") for x in cube[e, s]))
    Path(path).write_text("\n".join(lines) + "\n")
