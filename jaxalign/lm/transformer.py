"""The decoder-only transformer as a pure function of a dictionary of arrays.

Parameters (shapes in `parameter_shapes`): ``embed`` [V, D], ``layers`` with every array stacked over the layers
[L, ...], ``final_norm`` [D] and, unless tied, ``unembed`` [D, V]. Matrices map the second last axis to the last.
A stack is scanned, so that one layer is compiled. ``layers`` may also be a tuple of one dictionary per layer
(`unstack`), which run one after the other: longer to compile, faster to decode with.

Shapes: B rows, T tokens, S keys, D width, V vocabulary, K key heads, G query heads per key head.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxalign.core.errors import UserError
from jaxalign.core.prng import stream
from jaxalign.core.types import Network, PRNGKey
from jaxalign.lm import rope
from jaxalign.lm.config import ModelConfig

Params = dict[str, Any]

_ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}
_MASKED = -1e30
_EMBED_STD = 0.02
_SHALLOW = 4  # stacks up to here are unrolled: on a CPU the loop costs 15 to 40 % of a training step


class Cache(NamedTuple):
    """Keys and values of the tokens so far.

    Attributes:
        keys: of all layers [L, B, K, head_dim, S], rotated; or, beside parameters that are unstacked, a tuple of them.
            Columns come last: a CPU forms the scores of one query three times as fast as from [S, head_dim].
        values: likewise, [L, B, K, S, head_dim].
        segment_ids: of the columns; 0: padding.
        length: columns filled: of all rows, or by row [B], where each goes on behind its own.
    """

    keys: Any
    values: Any
    segment_ids: Int[Array, "B S"]
    length: Int[Array, "*B"]


class _View(NamedTuple):
    """What a layer's queries see (mask [B or 1, 1, 1, T, S]) and how they are turned ([B, T, 1, head_dim / 2])."""

    mask: Array
    cos: Array
    sin: Array


@functools.lru_cache(maxsize=128)
def network(config: ModelConfig) -> Network:
    """The transformer of `config`; the same object for equal configs, so that compiled functions are found again.

    ``init(key) -> params`` and ``apply(params, tokens, positions=None, segment_ids=None, cache=None, hidden=False,
    last=False)``, which is `apply_transformer`.
    """
    return Network(functools.partial(init_params, config), functools.partial(apply_transformer, config))


def parameter_shapes(config: ModelConfig) -> Params:
    """The tree of parameters as `jax.ShapeDtypeStruct`, without allocating anything."""
    D, F, L, V = config.hidden_size, config.intermediate_size, config.num_layers, config.vocab_size
    width = config.head_dim
    queries, keys = config.num_heads * width, config.num_kv_heads * width
    layer: dict[str, tuple[int, ...]] = {"attention_norm": (D,), "mlp_norm": (D,)}
    layer |= {"q": (D, queries), "k": (D, keys), "v": (D, keys), "o": (queries, D)}
    layer |= {"gate": (D, F), "up": (D, F), "down": (F, D)}
    if config.attention_bias:
        layer |= {"q_bias": (queries,), "k_bias": (keys,), "v_bias": (keys,)}
    if config.output_bias:
        layer |= {"o_bias": (D,)}
    if config.qk_norm:
        layer |= {"q_norm": (width,), "k_norm": (width,)}
    if config.post_norms:
        layer |= {"post_attention_norm": (D,), "post_mlp_norm": (D,)}
    shapes: dict[str, Any] = {"embed": (V, D), "layers": {k: (L, *v) for k, v in layer.items()}, "final_norm": (D,)}
    if not config.tie_embeddings:
        shapes["unembed"] = (D, V)
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, config.compute_dtype), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )


def count_parameters(config: ModelConfig) -> int:
    """How many numbers the model has; a tied output matrix counts once."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameter_shapes(config)))


def init_params(config: ModelConfig, key: PRNGKey) -> Params:
    """Fresh parameters, each from its own stream of `key`.

    Norms act as the identity, biases are 0, embeddings normal with standard deviation 0.02, matrices normal with
    variance 1 / fan-in; the two that write to the residual stream are divided by sqrt(2 L) besides.
    """
    residual = (2 * config.num_layers) ** -0.5

    def draw(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> Array:
        name = path[-1].key
        if name.endswith("norm"):
            return jnp.full(shape.shape, 1.0 - config.norm_offset, shape.dtype)
        if name.endswith("bias"):
            return jnp.zeros(shape.shape, shape.dtype)
        scale = _EMBED_STD if name == "embed" else shape.shape[-2] ** -0.5
        scale *= residual if name in ("o", "down") else 1.0
        return (scale * jax.random.normal(stream(key, name), shape.shape)).astype(shape.dtype)

    return jax.tree_util.tree_map_with_path(draw, parameter_shapes(config))


def unstack(params: Params) -> Params:
    """The parameters with ``layers`` as a tuple of one dictionary per layer; nothing happens if they are already."""
    return params | {"layers": _apart(params["layers"])}


def unstack_cache(cache: Cache) -> Cache:
    """The same for a cache."""
    return cache._replace(keys=_apart(cache.keys), values=_apart(cache.values))


def _apart(stack: Any) -> Any:
    if isinstance(stack, tuple):
        return stack
    layers = range(len(jax.tree.leaves(stack)[0]))
    return tuple(jax.tree.map(operator.itemgetter(i), stack) for i in layers)


def empty_cache(config: ModelConfig, batch: int, size: int) -> Cache:
    """A cache with room for `size` columns of `batch` rows."""
    heads, dtype = (config.num_layers, batch, config.num_kv_heads), config.compute_dtype
    keys, values = jnp.zeros((*heads, config.head_dim, size), dtype), jnp.zeros((*heads, size, config.head_dim), dtype)
    return Cache(keys, values, jnp.zeros((batch, size), jnp.int32), jnp.zeros((), jnp.int32))


def segment_positions(segment_ids: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Index of each token within its run of equal segment ids."""
    column = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)
    starts = jnp.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (1, 0)))
    return column - lax.cummax(jnp.where(starts, column, 0), axis=1)


def apply_transformer(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "B T"],
    positions: Int[Array, "B T"] | None = None,
    segment_ids: Int[Array, "B T"] | None = None,
    cache: Cache | None = None,
    *,
    hidden: bool = False,
    last: bool = False,
) -> Any:
    """Logits of the next token at every position, float32.

    Args:
        config: static.
        params: see the module; of any float type, cast to ``config.dtype`` where they are used.
        tokens: columns to read; with a cache, those that follow what it holds.
        positions: for the rotary embedding; None: count from the start of each segment (from the filled part of the
            cache when there is one).
        segment_ids: tokens attend to earlier tokens of equal id only; 0 is padding. None: one segment.
        cache: keys and values of earlier columns, as `empty_cache` makes them.
        hidden: give the normed states [B, T, D] float32 in place of logits (for reward and value heads).
        last: of the last column only (T becomes 1).

    Returns:
        Logits [B, T, V] or states; with a cache, a pair of that and the cache with the new columns.

    Raises:
        UserError: more tokens than the context holds.
    """
    columns = tokens.shape[1] if cache is None else cache.segment_ids.shape[1]
    check_context(config, columns)
    start = jnp.zeros((), jnp.int32) if cache is None else cache.length
    key_ids: Any = segment_ids
    if cache is None:
        counted = jnp.arange(columns, dtype=jnp.int32)[None] if segment_ids is None else segment_positions(segment_ids)
    else:
        segment_ids = jnp.ones_like(tokens) if segment_ids is None else segment_ids
        key_ids = _append(cache.segment_ids, segment_ids.astype(jnp.int32), start, axis=1)
        counted = start[..., None] + jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    views = _views(config, counted if positions is None else positions, segment_ids, key_ids, start, cache is not None)

    x = params["embed"][tokens].astype(config.compute_dtype)
    if config.embed_scale:
        x = x * jnp.asarray(config.hidden_size**0.5, x.dtype)
    past = None if cache is None else (cache.keys, cache.values)
    x, kept = _layers(config, params["layers"], x, views, past, start)
    x = _norm(config, x[:, -1:] if last else x, params["final_norm"])
    out = x if hidden else unembed(config, params, x)
    return out if cache is None else (out, Cache(kept[0], kept[1], key_ids, start + tokens.shape[1]))


def unembed(config: ModelConfig, params: Params, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
    """Logits, float32, of normed states; for losses that read the vocabulary in pieces."""
    matrix, axis = (params["embed"], 1) if config.tie_embeddings else (params["unembed"], 0)
    dtype = config.compute_dtype
    rows = hidden.reshape(-1, hidden.shape[-1]).astype(dtype)  # flat: see _linear
    contract = (((1,), (axis,)), ((), ()))
    logits = lax.dot_general(rows, matrix.astype(dtype), contract, preferred_element_type=jnp.float32)
    return _softcap(logits, config.logit_softcap).reshape(*hidden.shape[:-1], config.vocab_size)


def check_context(config: ModelConfig, columns: int) -> None:
    """Raises UserError if `columns` tokens are more than the model's context."""
    if columns > config.max_position:
        raise UserError(
            f"{columns} tokens are more than the context of {config.max_position} (max_position); shorten the prompts "
            f"or ask for fewer new tokens."
        )


def _views(config: ModelConfig, positions, query_ids, key_ids, start, cached: bool) -> tuple[_View, _View]:
    """What full and windowed layers see."""
    T = positions.shape[1]
    S = T if key_ids is None else key_ids.shape[1]
    back = start[..., None, None] + jnp.arange(T)[:, None] - jnp.arange(S)  # columns from key to query
    back = back.reshape(-1, 1, 1, T, S)
    mask = back >= 0
    if key_ids is not None:
        mask = mask & (query_ids[:, :, None] == key_ids[:, None, :])[:, None, None]
    full = _View(mask, *rope.angles(positions, _frequencies(config, local=False)))
    if not any(config.windowed):
        return full, full
    # without a cache by position, which does not count padding between tokens; a cache holds no gaps
    apart = (positions[:, :, None] - positions[:, None, :])[:, None, None] if not cached else back
    local = _View(mask & (apart < config.sliding_window), *rope.angles(positions, _frequencies(config, local=True)))
    return full, local


def _frequencies(config: ModelConfig, *, local: bool):
    if local and config.rope_theta_local is not None:
        return rope.frequencies(config.head_dim, config.rope_theta_local)
    return rope.frequencies(config.head_dim, config.rope_theta, config.rope_scaling)


def _seen(views: tuple[_View, _View], windowed: bool | Bool[Array, ""]) -> _View:
    full, local = views
    if isinstance(windowed, bool):
        return local if windowed else full
    return jax.tree.map(lambda a, b: jnp.where(windowed, a, b), local, full)


def _layers(
    config: ModelConfig, layers: Any, x: Array, views: tuple[_View, _View], past: Any, start: Array
) -> tuple[Array, Any]:
    """All layers, each appending to its part of the cache if there is one: a scan over stacks, or one by one."""

    def layer(x, weights, view, past):
        return _block(config, x, weights, view, past, start)

    if config.remat:
        layer = jax.checkpoint(layer, prevent_cse=isinstance(layers, tuple) or config.num_layers <= _SHALLOW)
    if isinstance(layers, tuple):
        kept = []
        for i, (weights, windowed) in enumerate(zip(layers, config.windowed, strict=True)):
            x, k = layer(x, weights, _seen(views, windowed), None if past is None else (past[0][i], past[1][i]))
            kept.append(k)
        return x, None if past is None else tuple(zip(*kept, strict=True))
    unroll = config.num_layers <= _SHALLOW
    if len({*config.windowed}) == 1:
        view = _seen(views, config.windowed[0])
        return lax.scan(lambda x, xs: layer(x, xs[0], view, xs[1]), x, (layers, past), unroll=unroll)
    flags = jnp.array(config.windowed)
    return lax.scan(lambda x, xs: layer(x, xs[0], _seen(views, xs[2]), xs[1]), x, (layers, past, flags), unroll=unroll)


def _block(config: ModelConfig, x: Array, weights: Params, view: _View, past: Any, start: Array) -> tuple[Array, Any]:
    """One layer: attention, then the gated MLP, each added to the residual stream."""
    h = _norm(config, x, weights["attention_norm"]).astype(x.dtype)
    h, kept = _attention(config, h, weights, view, past, start)
    x = x + (_norm(config, h, weights["post_attention_norm"]).astype(x.dtype) if config.post_norms else h)
    h = _norm(config, x, weights["mlp_norm"]).astype(x.dtype)
    gate = _ACTIVATIONS[config.activation](_linear(h, weights["gate"]))
    h = _linear(gate * _linear(h, weights["up"]), weights["down"])
    return x + (_norm(config, h, weights["post_mlp_norm"]).astype(x.dtype) if config.post_norms else h), kept


def _attention(config: ModelConfig, x: Array, weights: Params, view: _View, past: Any, start: Array):
    """The attention's output, and keys and values with those of before if there is a cache."""
    B, T, _ = x.shape
    K, G = config.num_kv_heads, config.num_heads // config.num_kv_heads

    def project(name: str, norm: str | None = None):
        heads = _linear(x, weights[name], weights.get(f"{name}_bias")).reshape(B, T, -1, config.head_dim)
        if norm is None:
            return heads
        if config.qk_norm:
            heads = _norm(config, heads, weights[norm]).astype(x.dtype)
        return rope.rotate(heads, view.cos, view.sin)

    q = project("q", "q_norm").reshape(B, T, K, G, -1).transpose(0, 2, 3, 1, 4).reshape(B, K, G * T, -1)
    k, v = project("k", "k_norm").transpose(0, 2, 3, 1), project("v").swapaxes(1, 2)
    if past is not None:
        k, v = _append(past[0], k, start, axis=3), _append(past[1], v, start, axis=2)
        past = k, v
    scale = (config.query_scale or config.head_dim) ** -0.5
    scores = scale * jnp.einsum("bkqd,bkds->bkqs", q, k, preferred_element_type=jnp.float32).reshape(B, K, G, T, -1)
    scores = jnp.where(view.mask, _softcap(scores, config.attention_softcap), _MASKED)
    chances = jax.nn.softmax(scores, axis=-1).astype(x.dtype).reshape(B, K, G * T, -1)
    weighted = jnp.einsum("bkqs,bksd->bkqd", chances, v).reshape(B, K, G, T, -1).transpose(0, 3, 1, 2, 4)
    return _linear(weighted.reshape(B, T, -1), weights["o"], weights.get("o_bias")), past


def _append(past: Array, new: Array, start: Array, axis: int) -> Array:
    """`past` with `new` written from column `start` on, one for all rows or one for each."""
    if start.ndim == 0:
        return lax.dynamic_update_slice_in_dim(past, new, start, axis)
    return jax.vmap(lambda past, new, start: lax.dynamic_update_slice_in_dim(past, new, start, axis - 1))(
        past, new, start
    )


def _linear(x: Array, matrix: Any, bias: Array | None = None) -> Array:
    """On rows: a gradient that sums over two axes takes twice the time on a CPU."""
    y = (x.reshape(-1, x.shape[-1]) @ matrix.astype(x.dtype)).reshape(*x.shape[:-1], matrix.shape[-1])
    return y if bias is None else y + bias.astype(x.dtype)


def _norm(config: ModelConfig, x: Array, weight: Array) -> Array:
    """RMSNorm over the last axis, float32: x / sqrt(mean x^2 + eps) times (offset + weight)."""
    x = x.astype(jnp.float32)
    x = x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + config.norm_eps)
    return x * (config.norm_offset + weight.astype(jnp.float32))


def _softcap(x: Array, cap: float | None) -> Array:
    return x if cap is None else cap * jnp.tanh(x / cap)
