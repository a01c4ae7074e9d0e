"""What a decoder-only language model is made of: one frozen config for the Llama, Qwen and Gemma families."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax.numpy as jnp

from jaxalign.core.errors import UserError

Activation = Literal["silu", "gelu_tanh", "gelu"]


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the context of pre-training.

    Attributes:
        kind: "linear" divides every frequency by `factor`; "llama3" only the slow ones, with a smooth passage between.
        factor: of stretching.
        low_freq_factor: wavelengths above ``original_max_position / low_freq_factor`` are stretched in full.
        high_freq_factor: wavelengths below ``original_max_position / high_freq_factor`` stay.
        original_max_position: context of pre-training, tokens.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer: rotary positions, grouped-query attention, RMSNorm before each block, gated MLP.

    Attributes:
        family: name of the architecture at Hugging Face (`model_type`); only weights.py and hf_config.py look at it.
        vocab_size: V, tokens.
        hidden_size: D, width of the residual stream.
        num_layers: L.
        num_heads: H, query heads.
        num_kv_heads: K, key and value heads; divides H.
        head_dim: width of a head, even.
        intermediate_size: F, width of the MLP.
        max_position: context, tokens.
        rope_theta: base of the rotary frequencies.
        rope_theta_local: the same in sliding-window layers (Gemma 3); None: `rope_theta`, scaled likewise.
        rope_scaling: stretching of the frequencies of `rope_theta`.
        norm_eps: added to the mean square in RMSNorm.
        norm_offset: RMSNorm multiplies by ``offset + weight``: 0 in Llama and Qwen, 1 in Gemma.
        tie_embeddings: the output matrix is the embedding.
        embed_scale: embeddings are multiplied by sqrt(D) (Gemma).
        activation: of the gate.
        attention_bias: biases on queries, keys and values (Qwen 2).
        output_bias: bias on the attention's output.
        qk_norm: RMSNorm on the queries and keys of each head (Qwen 3, Gemma 3).
        post_norms: RMSNorm after each block too, before the residual sum (Gemma 2 and 3).
        query_scale: attention scores are divided by its root; None: `head_dim` (`query_pre_attn_scalar` of Gemma).
        attention_softcap: c in ``c tanh(scores / c)``; None: no cap.
        logit_softcap: likewise for logits.
        sliding_window: tokens that a windowed layer sees, itself included.
        sliding_layers: per layer, whether it is windowed; empty: none is.
        dtype: of parameters as initialised and of computation; norms, softmax and logits are float32 in any case.
        remat: recompute each layer in the backward pass instead of keeping its activations.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    family: str = "llama"
    max_position: int = 2048
    rope_theta: float = 10_000.0
    rope_theta_local: float | None = None
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-6
    norm_offset: float = 0.0
    tie_embeddings: bool = False
    embed_scale: bool = False
    activation: Activation = "silu"
    attention_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    query_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    sliding_window: int | None = None
    sliding_layers: tuple[bool, ...] = ()
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False

    def __post_init__(self):
        sizes = ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim")
        for name in (*sizes, "intermediate_size", "max_position"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; a model needs at least 1.")
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"num_heads is {self.num_heads}, which num_kv_heads {self.num_kv_heads} does not divide; every key and "
                f"value head serves the same number of query heads."
            )
        if self.head_dim % 2:
            raise UserError(f"head_dim is {self.head_dim}; rotary positions turn pairs, so it must be even.")
        if self.sliding_layers and len(self.sliding_layers) != self.num_layers:
            raise UserError(
                f"sliding_layers has {len(self.sliding_layers)} entries for {self.num_layers} layers; give one each."
            )
        if any(self.sliding_layers) and self.sliding_window is None:
            raise UserError("sliding_layers asks for windows, but sliding_window is None; say how many tokens it has.")
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"dtype is {self.dtype!r}; choose float32 or bfloat16.")

    @property
    def compute_dtype(self) -> Any:
        """`dtype` as JAX's."""
        return jnp.dtype(self.dtype)

    @property
    def windowed(self) -> tuple[bool, ...]:
        """Per layer, whether it sees a sliding window only; always L entries."""
        return self.sliding_layers or (False,) * self.num_layers

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> "ModelConfig":
        """The config of a Hugging Face `config.json`.

        Raises:
            UserError: unknown `model_type` or a feature that is not supported.
        """
        from jaxalign.lm.hf_config import from_hf

        return from_hf(raw)

    def to_hf(self) -> dict[str, Any]:
        """Contents of a Hugging Face `config.json` of this model."""
        from jaxalign.lm.hf_config import to_hf

        return to_hf(self)


_TINY = ModelConfig(
    vocab_size=96,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    intermediate_size=48,
    max_position=128,
    norm_eps=1e-5,
)
_TINY_GEMMA = replace(
    _TINY,
    family="gemma",
    num_kv_heads=1,
    norm_eps=1e-6,
    norm_offset=1.0,
    tie_embeddings=True,
    embed_scale=True,
    activation="gelu_tanh",
)

TINY: dict[str, ModelConfig] = {
    "llama2": replace(_TINY, num_kv_heads=4),
    "llama3": replace(_TINY, rope_theta=500_000.0, rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 32)),
    "qwen2": replace(_TINY, family="qwen2", attention_bias=True, norm_eps=1e-6, tie_embeddings=True),
    "qwen3": replace(_TINY, family="qwen3", qk_norm=True, norm_eps=1e-6, head_dim=16),
    "gemma": _TINY_GEMMA,
    "gemma2": replace(
        _TINY_GEMMA,
        family="gemma2",
        num_kv_heads=2,
        post_norms=True,
        query_scale=24.0,
        attention_softcap=5.0,
        logit_softcap=3.0,
        sliding_window=6,
        sliding_layers=(True, False),
    ),
    "gemma3": replace(
        _TINY_GEMMA,
        family="gemma3_text",
        post_norms=True,
        qk_norm=True,
        query_scale=24.0,
        rope_theta=1_000_000.0,
        rope_theta_local=10_000.0,
        rope_scaling=RopeScaling("linear", 8.0),
        sliding_window=6,
        sliding_layers=(False, True),
    ),
}
"""One tiny model of each family, for tests: every feature of the family is present, with few parameters."""


def preset(name: str) -> ModelConfig:
    """The tiny model `name` of `TINY`.

    Raises:
        UserError: there is none of that name.
    """
    if name not in TINY:
        raise UserError(f"There is no preset {name!r}; choose one of {', '.join(TINY)}.")
    return TINY[name]
