"""Neural networks: Flax NNX modules behind `Network(init, apply)`."""

from jaxalign.nets.mlp import mlp

__all__ = ["mlp"]
