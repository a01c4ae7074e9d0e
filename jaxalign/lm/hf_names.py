"""What Hugging Face calls our parameters: one table per family.

Tables map our path to the tensor's name, ``{}`` being the layer. Matrices are stored there as [out, in], here as
[in, out]; embeddings alike.
"""

from typing import NamedTuple

import jax

from jaxalign.core.errors import UserError
from jaxalign.lm.config import ModelConfig
from jaxalign.lm.transformer import parameter_shapes

_TOP = {"embed": "model.embed_tokens.weight", "final_norm": "model.norm.weight", "unembed": "lm_head.weight"}
_MATRICES = {
    "q": "model.layers.{}.self_attn.q_proj.weight",
    "k": "model.layers.{}.self_attn.k_proj.weight",
    "v": "model.layers.{}.self_attn.v_proj.weight",
    "o": "model.layers.{}.self_attn.o_proj.weight",
    "gate": "model.layers.{}.mlp.gate_proj.weight",
    "up": "model.layers.{}.mlp.up_proj.weight",
    "down": "model.layers.{}.mlp.down_proj.weight",
}
_BIASES = {f"{name}_bias": f"model.layers.{{}}.self_attn.{name}_proj.bias" for name in "qkvo"}
_QK_NORMS = {f"{name}_norm": f"model.layers.{{}}.self_attn.{name}_norm.weight" for name in "qk"}
_TWO_NORMS = {
    "attention_norm": "model.layers.{}.input_layernorm.weight",
    "mlp_norm": "model.layers.{}.post_attention_layernorm.weight",
}
_FOUR_NORMS = {
    "attention_norm": "model.layers.{}.input_layernorm.weight",
    "post_attention_norm": "model.layers.{}.post_attention_layernorm.weight",
    "mlp_norm": "model.layers.{}.pre_feedforward_layernorm.weight",
    "post_mlp_norm": "model.layers.{}.post_feedforward_layernorm.weight",
}
_PLAIN = _TOP | _MATRICES | _BIASES | _TWO_NORMS

TABLES: dict[str, dict[str, str]] = {
    "llama": _PLAIN,
    "qwen2": _PLAIN,
    "qwen3": _PLAIN | _QK_NORMS,
    "gemma": _PLAIN,
    "gemma2": _TOP | _MATRICES | _BIASES | _FOUR_NORMS,
    "gemma3_text": _TOP | _MATRICES | _BIASES | _FOUR_NORMS | _QK_NORMS,
}
"""Per family, our name of a parameter to that of the tensor."""

TRANSPOSED = frozenset({*_MATRICES, "unembed"})
"""Our names of the parameters that are stored the other way round."""


class Slot(NamedTuple):
    """Where a tensor belongs: the parameter, the layer (None: not of a layer) and its shape in the file."""

    name: str
    layer: int | None
    shape: tuple[int, ...]


def slots(config: ModelConfig) -> dict[str, Slot]:
    """The tensors of a checkpoint of this model, by their Hugging Face name, in order of the layers.

    Raises:
        UserError: the family has no layout at Hugging Face, or none for one of the parameters.
    """
    if config.family not in TABLES:
        raise UserError(f"family {config.family!r} has no Hugging Face layout; choose one of {', '.join(TABLES)}.")
    table = TABLES[config.family]
    shapes = parameter_shapes(config)
    flat = {path[-1].key: leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)}
    homeless = [name for name in flat if name not in table]
    if homeless:
        raise UserError(
            f"Hugging Face's {config.family} has no place for {', '.join(homeless)}; choose another family."
        )
    found: dict[str, Slot] = {}
    for name, shape in flat.items():
        layered = name in shapes["layers"]
        inner = shape[1:] if layered else shape
        stored = inner[::-1] if name in TRANSPOSED else inner
        for layer in range(config.num_layers) if layered else (None,):
            found[table[name].format(layer)] = Slot(name, layer, stored)
    return found
