"""Checkpoints in the Hugging Face layout, read and written without torch.

A folder holds `config.json` and either `model.safetensors` or numbered shards with `model.safetensors.index.json`.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.core.errors import UserError
from jaxalign.lm import chat
from jaxalign.lm.config import ModelConfig
from jaxalign.lm.hf_names import TRANSPOSED, Slot, slots
from jaxalign.lm.transformer import Params, parameter_shapes

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_DERIVED = re.compile(r"rotary_emb\.inv_freq$")  # old files store what follows from the config
_SHOWN = 8


def load_pretrained(folder: str | Path, shardings: Any = None) -> tuple[ModelConfig, Params]:
    """Config and parameters of a checkpoint folder.

    Args:
        folder: with config.json and safetensors.
        shardings: tree like the parameters of where to put them; None: the default device.

    Returns:
        The config, and parameters in its dtype (bit for bit those of the file when that has the same).

    Raises:
        UserError: a file is absent or damaged, the architecture is unknown, tensors are missing, too many or of another
            shape.
    """
    folder = Path(folder)
    config = ModelConfig.from_hf(_read_json(folder / "config.json"))
    expected = slots(config)
    shapes = parameter_shapes(config)
    host = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
    problems, seen = [], set()
    for name, tensor in _tensors(folder):
        if name not in expected:
            problems += _unexpected(name, config)
        elif tensor.shape != expected[name].shape:
            problems.append(f"{name} has shape {tensor.shape}, not {expected[name].shape}")
        else:
            _place(host, expected[name], tensor)
        seen.add(name)
    problems += [f"{name} is missing" for name in expected if name not in seen]
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UserError(
            f"The tensors in {folder} are not those of its config.json ({config.family}, {config.num_layers} layers): "
            f"{'; '.join(problems[:_SHOWN])}{more}; check that both belong to the same model."
        )
    if shardings is None:
        return config, jax.tree.map(jnp.asarray, host)
    return config, jax.device_put(host, shardings)


def save_pretrained(
    folder: str | Path,
    config: ModelConfig,
    params: Params,
    *,
    tokenizer: Any = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes a checkpoint folder that `load_pretrained` and `transformers` read.

    Args:
        folder: is made if need be.
        config: of the model.
        params: as `network(config).init` shapes them; written in ``config.dtype``.
        tokenizer: written too, and where its turns end, so that whoever serves the model stops there; without one,
            `transformers` takes the family's own ids.
        max_shard_bytes: tensors go into several files when together they are larger.

    Raises:
        UserError: parameters of another shape, or a model that Hugging Face has no architecture for.
    """
    safetensors = _safetensors()
    raw, expected = config.to_hf(), slots(config)
    _check_shapes(config, params)
    host = jax.device_get(params)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (folder / _SINGLE, folder / _INDEX, *folder.glob("model-*-of-*.safetensors")):
        stale.unlink(missing_ok=True)
    if tokenizer is not None:
        ends = {tokenizer.eos_token_id, chat.end_of_turn(tokenizer)} - {None}
        ids = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
        raw |= {**ids, "eos_token_id": sorted(ends) if len(ends) > 1 else ends.pop()}
        served = {name: raw[name] for name in (*ids, "eos_token_id")}
        (folder / "generation_config.json").write_text(json.dumps(served, indent=2) + "\n")
        tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
    shards = _shards(expected, config.compute_dtype.itemsize, max_shard_bytes)
    where = {}
    for i, names in enumerate(shards):
        file = _SINGLE if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: _take(host, expected[name], config.compute_dtype) for name in names}
        safetensors.save_file(tensors, str(folder / file), metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(_nbytes(slot, config.compute_dtype.itemsize) for slot in expected.values())
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise UserError('Checkpoints need safetensors; install it with pip install "jaxalign[lm]".') from error
    return safetensors.numpy


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file} does not exist; name a folder with config.json and safetensors.")
    try:
        return json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is not valid JSON ({error}); download it again.") from error


def _tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """All tensors of all files, one at a time."""
    _safetensors()
    from safetensors import SafetensorError, safe_open

    for file in _files(folder):
        try:
            with safe_open(file, framework="numpy") as opened:
                for name in opened.keys():  # noqa: SIM118 (not a dictionary)
                    yield name, opened.get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"{file} cannot be read ({error}); download it again.") from error


def _files(folder: Path) -> list[Path]:
    sharded = (folder / _INDEX).is_file()
    names = sorted({*_read_json(folder / _INDEX)["weight_map"].values()}) if sharded else [_SINGLE]
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{folder} lacks {', '.join(absent)}; complete the download (only safetensors are read).")
    return [folder / name for name in names]


def _unexpected(name: str, config: ModelConfig) -> list[str]:
    """A complaint, unless the tensor follows from others (a tied output matrix, rotary frequencies)."""
    if _DERIVED.search(name) or (name == "lm_head.weight" and config.tie_embeddings):
        return []
    return [f"{name} is not expected"]


def _home(host: Params, slot: Slot) -> tuple[Params, str]:
    return (host if slot.layer is None else host["layers"]), slot.name


def _place(host: Params, slot: Slot, tensor: np.ndarray) -> None:
    parent, name = _home(host, slot)
    target = parent[name] if slot.layer is None else parent[name][slot.layer]
    target[...] = tensor.T if name in TRANSPOSED else tensor


def _take(host: Params, slot: Slot, dtype: Any) -> np.ndarray:
    parent, name = _home(host, slot)
    array = np.asarray(parent[name] if slot.layer is None else parent[name][slot.layer])
    return np.ascontiguousarray(array.T if name in TRANSPOSED else array, dtype)


def _nbytes(slot: Slot, itemsize: int) -> int:
    return int(np.prod(slot.shape)) * itemsize


def _shards(expected: dict[str, Slot], itemsize: int, limit: int) -> list[list[str]]:
    """Names in files of at most `limit` bytes, in order; a larger tensor has a file of its own."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, slot in expected.items():
        size = _nbytes(slot, itemsize)
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _check_shapes(config: ModelConfig, params: Params) -> None:
    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}

    ours, given = shapes(parameter_shapes(config)), shapes(params)
    wrong = sorted(name for name in ours.keys() | given.keys() if ours.get(name) != given.get(name))
    if wrong:
        raise UserError(
            f"Parameters and config differ at {', '.join(wrong[:_SHOWN])}; save what network(config).init shapes "
            f"(merge LoRA first)."
        )
