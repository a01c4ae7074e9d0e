"""Pictures and films of every environment: in perspective by MuJoCo, or flat by matplotlib where there is no OpenGL."""

from envs_mjx.render.episode import Frame, frames
from envs_mjx.render.film import RENDERERS, check, video
from envs_mjx.render.flat import plot
from envs_mjx.render.gl import GLUnavailable, picture
from envs_mjx.render.stage import seen

__all__ = ["RENDERERS", "Frame", "GLUnavailable", "check", "frames", "picture", "plot", "seen", "video"]
