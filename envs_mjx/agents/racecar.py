"""Racecar: a driven rear axle (a velocity servo) and two steered front wheels (a position servo on the left one)."""

from envs_mjx import models
from envs_mjx.agents.base import from_model

RACECAR = from_model("Racecar", models.load("racecar"), sensor_site=(0.02, 0.0, 0.0))
