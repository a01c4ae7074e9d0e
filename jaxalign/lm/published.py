"""Sizes of published checkpoints, from the config.json of each: to plan and time runs with, without their weights."""

from collections.abc import Mapping

from jaxalign.core.errors import UserError
from jaxalign.lm.config import ModelConfig, RopeScaling

PUBLISHED: Mapping[str, ModelConfig] = {
    "qwen2.5-0.5b": ModelConfig(
        family="qwen2",
        vocab_size=151_936,
        hidden_size=896,
        num_layers=24,
        num_heads=14,
        num_kv_heads=2,
        head_dim=64,
        intermediate_size=4864,
        max_position=32_768,
        rope_theta=1_000_000.0,
        tie_embeddings=True,
        attention_bias=True,
        dtype="bfloat16",
    ),
    "llama-3.2-1b": ModelConfig(
        vocab_size=128_256,
        hidden_size=2048,
        num_layers=16,
        num_heads=32,
        num_kv_heads=8,
        head_dim=64,
        intermediate_size=8192,
        max_position=131_072,
        rope_theta=500_000.0,
        rope_scaling=RopeScaling("llama3", 32.0, 1.0, 4.0, 8192),
        norm_eps=1e-5,
        tie_embeddings=True,
        dtype="bfloat16",
    ),
    "gemma-2-2b": ModelConfig(
        family="gemma2",
        vocab_size=256_000,
        hidden_size=2304,
        num_layers=26,
        num_heads=8,
        num_kv_heads=4,
        head_dim=256,
        intermediate_size=9216,
        max_position=8192,
        norm_offset=1.0,
        tie_embeddings=True,
        embed_scale=True,
        activation="gelu_tanh",
        post_norms=True,
        query_scale=256.0,
        attention_softcap=50.0,
        logit_softcap=30.0,
        sliding_window=4096,
        sliding_layers=(True, False) * 13,
        dtype="bfloat16",
    ),
    "llama-2-7b": ModelConfig(
        vocab_size=32_000,
        hidden_size=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=32,
        head_dim=128,
        intermediate_size=11_008,
        max_position=4096,
        norm_eps=1e-5,
        dtype="bfloat16",
    ),
}
"""By name; 0.5 to 7 billion parameters, bfloat16."""


def published(name: str) -> ModelConfig:
    """The sizes of the checkpoint `name` of `PUBLISHED`.

    Raises:
        UserError: there is none of that name.
    """
    if name not in PUBLISHED:
        raise UserError(f"There is no published model {name!r}; choose one of {', '.join(PUBLISHED)}.")
    return PUBLISHED[name]
