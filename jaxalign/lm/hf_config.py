"""Between `ModelConfig` and the `config.json` of Hugging Face, as transformers 4 and 5 write it.

Files leave out what equals the architecture's default, so the defaults stand here, one dictionary per family.
"""

import dataclasses
from typing import Any

from jaxalign.core.errors import UserError
from jaxalign.lm.config import Activation, ModelConfig, RopeScaling

_LLAMA = {
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}
_QWEN = _LLAMA | {"max_position_embeddings": 32_768, "num_key_value_heads": 32, "max_window_layers": 28}
_GEMMA = _LLAMA | {
    "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "head_dim": 256,
    "tie_word_embeddings": True,
    "vocab_size": 256_000,
}
_GEMMA2 = _GEMMA | {
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window_pattern": 2,
}
_GEMMA3 = _GEMMA2 | {
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "sliding_window_pattern": 6,
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA | {"vocab_size": 32_000},
    "qwen2": _QWEN | {"vocab_size": 151_936, "sliding_window": 4096},
    "qwen3": _QWEN | {"vocab_size": 151_936, "sliding_window": 4096, "head_dim": 128},
    "gemma": _GEMMA | {"num_key_value_heads": 16},
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
}
"""Per `model_type`, the fields that a config.json may leave out; its keys are the supported architectures."""

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
_FROM_HF_ACTIVATION: dict[str, Activation] = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
_TO_HF_ACTIVATION = {ours: theirs for theirs, ours in _FROM_HF_ACTIVATION.items()}
_REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_REFUSED = ("mlp_bias", "use_bidirectional_attention", "quantization_config", "num_local_experts")


def from_hf(raw: dict[str, Any]) -> ModelConfig:
    """The config of a parsed `config.json`; see `ModelConfig.from_hf`."""
    family = raw.get("model_type")
    if family not in DEFAULTS:
        raise UserError(f"model_type {family!r} is not supported; choose a checkpoint of {', '.join(DEFAULTS)}.")
    for name in _REFUSED:
        if raw.get(name):
            raise UserError(
                f"config.json sets {name} = {raw[name]!r}, which is not supported; take a plain checkpoint."
            )
    known = DEFAULTS[family] | raw
    missing = [name for name in _REQUIRED if known.get(name) is None]
    if missing:
        raise UserError(f"config.json lacks {', '.join(missing)}; it does not describe a {family} model.")
    gemma, later_gemma = family.startswith("gemma"), family in ("gemma2", "gemma3_text")
    theta, theta_local, scaling = _rope(known, family)
    sliding = _sliding_layers(known, family)
    return ModelConfig(
        family=family,
        vocab_size=known["vocab_size"],
        hidden_size=known["hidden_size"],
        num_layers=known["num_hidden_layers"],
        num_heads=known["num_attention_heads"],
        num_kv_heads=known.get("num_key_value_heads") or known["num_attention_heads"],
        head_dim=known.get("head_dim") or known["hidden_size"] // known["num_attention_heads"],
        intermediate_size=known["intermediate_size"],
        max_position=known["max_position_embeddings"],
        rope_theta=theta,
        rope_theta_local=theta_local,
        rope_scaling=scaling,
        norm_eps=float(known["rms_norm_eps"]),
        norm_offset=1.0 if gemma else 0.0,
        tie_embeddings=known["tie_word_embeddings"],
        embed_scale=gemma,
        activation=_activation(known, gemma),
        attention_bias=family == "qwen2" or bool(known.get("attention_bias")),
        output_bias=family != "qwen2" and bool(known.get("attention_bias")),
        qk_norm=family in ("qwen3", "gemma3_text"),
        post_norms=later_gemma,
        query_scale=_float(known["query_pre_attn_scalar"]) if later_gemma else None,
        attention_softcap=_float(known["attn_logit_softcapping"]) if later_gemma else None,
        logit_softcap=_float(known["final_logit_softcapping"]) if later_gemma else None,
        sliding_window=known["sliding_window"] if any(sliding) else None,
        sliding_layers=sliding,
        dtype="bfloat16" if (known.get("dtype") or known.get("torch_dtype")) == "bfloat16" else "float32",
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    """Contents of a `config.json`; the spelling of transformers 4, which version 5 reads as well.

    Raises:
        UserError: no architecture at Hugging Face has this combination of features.
    """
    if config.family not in DEFAULTS:
        raise UserError(f"family {config.family!r} has no Hugging Face layout; choose one of {', '.join(DEFAULTS)}.")
    raw: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[config.family]],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_scaling_to_hf(config.rope_scaling),
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_act": _TO_HF_ACTIVATION[config.activation],
        "attention_bias": config.attention_bias and config.family != "qwen2",
        "torch_dtype": config.dtype,
    }
    if config.family.startswith("gemma"):
        raw["hidden_activation"] = raw["hidden_act"]
    if config.family in ("gemma2", "gemma3_text"):
        raw["query_pre_attn_scalar"] = _whole(config.query_scale or config.head_dim)
        raw["attn_logit_softcapping"] = config.attention_softcap
        raw["final_logit_softcapping"] = config.logit_softcap
    if config.rope_theta_local is not None:
        raw["rope_local_base_freq"] = config.rope_theta_local
    if any(config.sliding_layers):
        raw |= {"use_sliding_window": True, "sliding_window": config.sliding_window, "max_window_layers": 0}
    if config.family in ("qwen2", "qwen3", "gemma2", "gemma3_text"):
        raw["layer_types"] = ["sliding_attention" if s else "full_attention" for s in config.windowed]
    if from_hf(raw) != _comparable(config):
        differing = [k for k, v in vars(from_hf(raw)).items() if v != getattr(_comparable(config), k)]
        raise UserError(
            f"A {config.family} model at Hugging Face cannot express {', '.join(differing)} as set here; "
            f"choose another family, or keep the checkpoint in orbax's format."
        )
    return raw


def _comparable(config: ModelConfig) -> ModelConfig:
    """The config with what the file spells otherwise or not at all set to the form in which it is read back."""
    return dataclasses.replace(
        config,
        remat=False,
        sliding_layers=config.sliding_layers if any(config.sliding_layers) else (),
        sliding_window=config.sliding_window if any(config.sliding_layers) else None,
    )


def _float(number: int | float | None) -> float | None:
    return None if number is None else float(number)


def _whole(number: float) -> int | float:
    """As an int if it is one: transformers 5 insists."""
    return int(number) if number == int(number) else number


def _activation(known: dict[str, Any], gemma: bool) -> Activation:
    """Gemma names it `hidden_activation`; early Gemma files say "gelu" in `hidden_act` and mean the tanh form."""
    name = known.get("hidden_activation") or "gelu_pytorch_tanh" if gemma else known["hidden_act"]
    if name not in _FROM_HF_ACTIVATION:
        raise UserError(f"The activation {name!r} is not supported; known are {', '.join(_FROM_HF_ACTIVATION)}.")
    return _FROM_HF_ACTIVATION[name]


def _sliding_layers(known: dict[str, Any], family: str) -> tuple[bool, ...]:
    """Which layers are windowed; empty if none is."""
    layers = known["num_hidden_layers"]
    if family in ("gemma2", "gemma3_text"):
        default = [(i + 1) % known["sliding_window_pattern"] != 0 for i in range(layers)]
    elif family in ("qwen2", "qwen3") and known.get("use_sliding_window"):
        default = [i >= known["max_window_layers"] for i in range(layers)]
    else:
        return ()
    types = known.get("layer_types")
    flags = default if types is None else [kind == "sliding_attention" for kind in types]
    return tuple(flags) if any(flags) else ()


def _rope(known: dict[str, Any], family: str) -> tuple[float, float | None, RopeScaling | None]:
    """Base, base of windowed layers, scaling. Version 5 keeps all in `rope_parameters`, Gemma 3 one per layer type."""
    parameters = known.get("rope_parameters") or {}
    local = known["rope_local_base_freq"] if family == "gemma3_text" else None
    if "full_attention" in parameters:
        local = parameters.get("sliding_attention", {}).get("rope_theta", local)
        parameters = parameters["full_attention"]
    scaling = parameters or known.get("rope_scaling") or {}
    theta = parameters.get("rope_theta", known["rope_theta"])
    return float(theta), _float(local), _rope_scaling(scaling)


_SCALINGS = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def _rope_scaling(raw: dict[str, Any]) -> RopeScaling | None:
    kind = raw.get("rope_type", raw.get("type", "default" if "factor" not in raw else None))
    if kind == "default":
        return None
    if kind not in _SCALINGS:
        raise UserError(f"rope_scaling of type {kind!r} is not supported; known are default, linear, llama3.")
    missing = [name for name in _SCALINGS[kind] if not isinstance(raw.get(name), int | float)]
    if missing:
        raise UserError(f"rope_scaling of type {kind!r} lacks the number {missing[0]!r}; repair config.json.")
    return RopeScaling(kind, *(raw[name] for name in _SCALINGS[kind]))


def _rope_scaling_to_hf(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_position,
    }
