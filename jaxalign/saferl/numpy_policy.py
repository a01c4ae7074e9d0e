"""A trained policy as plain NumPy. This file and the .npz beside it are all it takes to act, in any Python from 3.8.

import numpy as np
import numpy_policy

policy = numpy_policy.load("policy.npz")
action = policy.action(obs)  # without noise
action = policy.sample(obs, np.random.default_rng(0))  # as in training, which is what cost limits hold for
"""

from typing import NamedTuple

import numpy as np

GAUSSIAN, SQUASHED, DETERMINISTIC = "gaussian", "squashed", "deterministic"


class Policy(NamedTuple):
    """A perceptron on standardised observations, and what makes an action of its outputs.

        x = clip((obs - shift) / scale, +-clip),  y = W_n f(... f(W_1 x + b_1) ...) + b_n

    "gaussian": f = tanh, the action is ``y + exp(log_std) noise``, which environments clip to their range themselves.
    "squashed": f = relu, y holds m and s, the action is ``tanh(m + exp(s) noise)`` stretched to [low, high].
    "deterministic": f = relu, the action is ``tanh(y)`` stretched to [low, high]; there is no noise.

    Attributes:
        kind: one of those.
        shift: mean of each observation component, ``[O]``.
        scale: standard deviation of each, ``[O]``.
        clip: largest standardised magnitude.
        weights: of the layers, first to last, ``[in, out]`` each.
        biases: of the layers, ``[out]`` each.
        log_std: "gaussian" only, ``[A]``.
        low: lowest action, ``[A]``.
        high: highest action, ``[A]``.
        about: where it comes from and what it observes, JSON.
    """

    kind: str
    shift: np.ndarray
    scale: np.ndarray
    clip: float
    weights: "tuple[np.ndarray, ...]"
    biases: "tuple[np.ndarray, ...]"
    log_std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    about: str = "{}"

    def outputs(self, obs: np.ndarray) -> np.ndarray:
        """Outputs y of the network for observations ``[..., O]``."""
        x = np.clip((np.float32(obs) - self.shift) / self.scale, -self.clip, self.clip)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1]):
            x = x @ weight + bias
            x = np.tanh(x) if self.kind == GAUSSIAN else np.maximum(x, 0.0)
        return x @ self.weights[-1] + self.biases[-1]

    def action(self, obs: np.ndarray, noise: "np.ndarray | float" = 0.0) -> np.ndarray:
        """Actions ``[..., A]`` for observations ``[..., O]`` and standard normal noise ``[..., A]``; 0 is none."""
        y, draw = self.outputs(obs), np.asarray(noise, np.float32)
        if self.kind == GAUSSIAN:
            return y + np.exp(self.log_std) * draw
        if self.kind == SQUASHED:
            mean, log_std = np.split(y, 2, axis=-1)
            y = mean + np.exp(np.clip(log_std, -20.0, 2.0)) * draw
        return self.low + 0.5 * (np.tanh(y) + 1.0) * (self.high - self.low)

    def sample(self, obs: np.ndarray, random: "np.random.Generator | np.random.RandomState") -> np.ndarray:
        """Actions with noise from `random`."""
        return self.action(obs, random.standard_normal((*np.shape(obs)[:-1], len(self.low))))


def save(path, policy: Policy) -> None:
    """Writes `policy` as a compressed ``.npz``."""
    rest = policy._asdict()
    layers = {f"{kind}{i}": x for kind in ("weights", "biases") for i, x in enumerate(rest.pop(kind))}
    np.savez_compressed(path, **layers, **rest)


def load(path) -> Policy:
    """What `save` wrote.

    Raises:
        ValueError: the file is something else.
    """
    with np.load(path) as file:
        if "weights0" not in file:
            raise ValueError(f"{path} holds {', '.join(file.files)} but no policy; write one with `jaxalign export`.")
        number = sum(name.startswith("weights") for name in file.files)
        layers = {kind: tuple(file[f"{kind}{i}"] for i in range(number)) for kind in ("weights", "biases")}
        arrays = {name: file[name] for name in ("shift", "scale", "log_std", "low", "high")}
        scalars = {name: file[name].item() for name in ("kind", "clip", "about")}
        return Policy(**layers, **arrays, **scalars)
