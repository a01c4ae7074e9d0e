"""Language models: one decoder-only transformer for the Llama, Qwen and Gemma families, its weights and its text."""

from jaxalign.lm.config import TINY, ModelConfig, RopeScaling, preset
from jaxalign.lm.generation import Generation, generate
from jaxalign.lm.sampling import Sampling
from jaxalign.lm.transformer import Cache, count_parameters, network, unembed
from jaxalign.lm.tree import Branching, Forest, grow
from jaxalign.lm.weights import load_pretrained, save_pretrained

__all__ = [
    "TINY",
    "Branching",
    "Cache",
    "Forest",
    "Generation",
    "ModelConfig",
    "RopeScaling",
    "Sampling",
    "count_parameters",
    "generate",
    "grow",
    "load_pretrained",
    "network",
    "preset",
    "save_pretrained",
    "unembed",
]
