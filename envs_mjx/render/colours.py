"""Colours of robots by the names of their geoms, those of Safety-Gymnasium 1.0.0; robots that run are tan all over."""

import mujoco

from envs_mjx.objects import RGBA

CRIMSON: RGBA = (0.7412, 0.0431, 0.1843, 1.0)
NAVY: RGBA = (0.0039, 0.1529, 0.3961, 1.0)
TAN: RGBA = (0.8, 0.6, 0.4, 1.0)
BLACK: RGBA = (0.0, 0.0, 0.0, 1.0)
GREEN: RGBA = (0.0, 0.8, 0.0, 1.0)

_DEFAULT = {"Point": CRIMSON, "Car": CRIMSON, "Racecar": BLACK}
_PARTS = {
    "Point": {NAVY: ("arrow",)},
    "Car": {NAVY: ("back_bumper", "back_connector", "front_bumper", "front_connector")},
    "Racecar": {CRIMSON: ("car_body_0",), NAVY: ("pos_change_0",), GREEN: ("diff_ring_0",)},
    "Doggo": {NAVY: ("aux_1", "hip_1", "aux_4", "hip_4"), CRIMSON: ("aux_2", "hip_2", "aux_3", "hip_3")},
    "Ant": {
        NAVY: ("aux_1_geom", "left_leg_geom", "aux_2_geom", "right_leg_geom"),
        CRIMSON: ("aux_3_geom", "back_leg_geom", "aux_4_geom", "rightback_leg_geom"),
    },
}


def paint(spec: mujoco.MjSpec, robot: str = "") -> None:
    """Gives all geoms of `spec`, as yet those of a robot alone, their colours."""
    colours = {name: colour for colour, names in _PARTS.get(robot, {}).items() for name in names}
    for geom in spec.geoms:
        geom.rgba = colours.get(geom.name, _DEFAULT.get(robot, TAN))
