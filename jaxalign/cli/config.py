"""The whole of a training run as one frozen config, from the command line or from a file."""

import dataclasses
import importlib.util
import json
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from jaxalign import saferl, track
from jaxalign.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A whole training run; `jaxalign train` without arguments runs the defaults.

    Attributes:
        algorithm: name in the catalogue (see `jaxalign list`).
        env: environment id (see `jaxalign list`).
        cost_limit: highest allowed cost per episode, one number per entry of `costs`.
        costs: what is constrained: "cost" is the total that Safety-Gymnasium returns, or name single costs.
        steps: environment steps to train for (rounded up to whole iterations).
        seed: of everything random.
        devices: how many to spread the environments over; by default all (on a CPU: its cores).
        mesh: YAML file that says how devices are arranged, such as tpu/mesh/cpu8.yaml, instead of `devices`.
        distributed: "off"; "auto" where Slurm, Cloud TPU, GKE or Open MPI start several processes; or in every process
            "coordinator=HOST:PORT,process=I,of=N".
        engine: physics engine, "mjx" or "mujoco"; by default the faster one on this platform.
        name: of the folder under `out`; by default made from algorithm, environment and seed.
        out: where runs are written.
        checkpoint_seconds: time between checkpoints; 0 saves after every iteration.
        eval_episodes: episodes of the closing evaluation.
        video: whether to film the final policy.
        wandb: project at Weights & Biases to report to (extra "wandb"); by default none.
        learner: sizes of on-policy learners.
        off_policy: sizes of off-policy learners (DDPG, TD3, SAC).
    """

    algorithm: str = "ppo_lag"
    env: str = "SafetyPointGoal1-v0"
    cost_limit: tuple[float, ...] = (25.0,)
    costs: tuple[str, ...] = ("cost",)
    steps: int = 10_000_000
    seed: int = 0
    devices: int | None = None
    mesh: Path | None = None
    distributed: str = "off"
    engine: str | None = None
    name: str | None = None
    out: Path = Path("runs")
    checkpoint_seconds: float = 60.0
    eval_episodes: int = 100
    video: bool = True
    wandb: str | None = None
    learner: saferl.OnPolicyConfig = dataclasses.field(default_factory=saferl.OnPolicyConfig)
    off_policy: saferl.OffPolicyConfig = dataclasses.field(default_factory=saferl.OffPolicyConfig)

    @property
    def sizes(self) -> saferl.OnPolicyConfig | saferl.OffPolicyConfig:
        """Those of the family that the algorithm belongs to."""
        default = saferl.CATALOGUE[saferl.resolve(self.algorithm)].config
        return self.off_policy if isinstance(default, saferl.OffPolicyConfig) else self.learner

    @property
    def iterations(self) -> int:
        """Learner iterations of the whole run."""
        return -(-self.steps // self.sizes.steps_per_iteration)


def check(config: TrainConfig) -> None:
    """Raises UserError for numbers that make no sense, before anything is built."""
    sizes, group = config.sizes, "learner" if config.sizes is config.learner else "off-policy"
    for name, value in (("num-envs", sizes.num_envs), ("rollout-length", sizes.rollout_length)):
        if value < 1:
            raise UserError(f"--{group}.{name} is {value}; choose 1 or more.")
    if config.seed < 0 or config.seed >= 2**32:
        raise UserError(f"--seed is {config.seed}; choose 0 to 4294967295.")
    if len({*config.costs}) < len(config.costs):
        raise UserError(f"--costs names one twice ({', '.join(config.costs)}); give each its one limit.")
    if config.steps < 1:
        raise UserError(f"--steps is {config.steps}; choose a positive number of environment steps.")
    if config.eval_episodes < 2:
        raise UserError(f"--eval-episodes is {config.eval_episodes}; an interval needs at least 2 episodes.")
    if config.wandb and importlib.util.find_spec("wandb") is None:
        raise UserError('--wandb needs the package wandb: pip install "jaxalign[wandb]".')
    if len(config.cost_limit) != len(config.costs):
        raise UserError(
            f"--cost-limit has {len(config.cost_limit)} numbers for {len(config.costs)} costs "
            f"({', '.join(config.costs)}); give one per cost."
        )


def to_json(config: Any) -> dict[str, Any]:
    """A config as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def make_folder(folder: Path) -> Path:
    """Makes the folder of results, before anything is computed for it.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot create the folder {folder} ({error.strerror}); choose another --out.") from None
    return folder


def keep_config(config: Any, folder: Path, free: tuple[str, ...]) -> None:
    """Writes a config into the folder that collects its results, which must hold none of another config.

    Args:
        config: dataclass.
        folder: of the results, made if need be.
        free: fields that may differ from those of earlier results.

    Raises:
        UserError: results of another config are there; the message names the fields.
    """
    settings = {name: value for name, value in to_json(config).items() if name not in free}
    path = folder / "config.json"
    if path.exists():
        found = _read(path, "give another folder")
        names = sorted(name for name in settings.keys() | found.keys() if settings.get(name) != found.get(name))
        if names:
            raise UserError(
                f"The results in {folder} have other settings than asked for ({', '.join(names)}); "
                "choose another --out, or delete the folder."
            )
    make_folder(folder)
    with track.replacing(path) as temporary:
        temporary.write_text(json.dumps(settings) + "\n")


def read_config(folder: Path) -> TrainConfig:
    """The config of an existing run.

    Raises:
        UserError: missing or unreadable.
    """
    path = folder / "config.json"
    raw = _read(path, "give the folder of a run, such as runs/NAME")
    raw.pop("versions", None)
    missing = {field.name for field in dataclasses.fields(TrainConfig)} - {*raw, "wandb", "distributed", "mesh"}
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}; it is damaged or of another version.")
    return dataclasses.replace(_config(raw, path), out=folder.parent, name=folder.name, distributed="off")


def read_file(path: Path) -> TrainConfig:
    """A config from a JSON file: any of the fields of `TrainConfig`, as in a run's config.json; the rest are defaults.

    Raises:
        UserError: missing or unreadable, a field that is not known, or a value of the wrong kind.
    """
    raw = _read(path, "give a JSON file")
    raw.pop("versions", None)
    return _config(raw, path)


def _read(path: Path, remedy: str) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text())
        if not isinstance(raw, dict):
            raise ValueError(f"a JSON {type(raw).__name__}")
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path} does not exist; {remedy}.") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); it is damaged or no JSON object.") from None
    return raw


def _config(raw: dict[str, Any], path: Path) -> TrainConfig:
    families = {"learner": saferl.OnPolicyConfig, "off_policy": saferl.OffPolicyConfig}
    _check_fields(TrainConfig, {name: x for name, x in raw.items() if name not in families}, path)
    values: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in raw.items()}
    for name in families.keys() & raw.keys():
        if not isinstance(raw[name], dict):
            raise UserError(f"{path}: {name} is {raw[name]!r}, but an object with its fields is needed.")
        _check_fields(families[name], raw[name], path)
        values[name] = families[name](**{k: tuple(x) if isinstance(x, list) else x for k, x in raw[name].items()})
    for name in ("out", "mesh"):
        if values.get(name) is not None:
            values[name] = Path(values[name])
    return TrainConfig(**values)


def _check_fields(family: type, values: dict[str, Any], path: Path) -> None:
    """Raises UserError for a field that the family does not have, or a value of another kind than its annotation."""
    hints = get_type_hints(family)
    for name, value in sorted(values.items()):
        if name not in hints:
            raise UserError(f"{path}: unknown field {name!r}; choose among {', '.join(hints)}.")
        if not _is_a(value, hints[name]):
            kind = getattr(hints[name], "__name__", str(hints[name])) if not get_args(hints[name]) else hints[name]
            raise UserError(f"{path}: {name} is {value!r}, but it is of the kind {kind}.")


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a JSON value can stand for a field with this annotation."""
    if get_origin(hint) is UnionType:
        return any(_is_a(value, part) for part in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, list) and all(_is_a(x, get_args(hint)[0]) for x in value)
    kinds = {float: (int, float), Path: str, NoneType: NoneType}.get(hint, hint)
    return isinstance(value, kinds) and isinstance(value, bool) == (hint is bool)
