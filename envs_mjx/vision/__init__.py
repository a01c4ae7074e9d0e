"""Environments that are seen: the observation holds a picture taken by the robot."""

from envs_mjx.vision.pixels import VisionEnv, ids, make

__all__ = ["VisionEnv", "ids", "make"]
