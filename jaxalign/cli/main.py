"""The program ``jaxalign``."""

import os

# Before jaxlib is loaded: programs from the compilation cache are announced on stderr, at level "error"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

import envs_mjx
from jaxalign import saferl
from jaxalign.cli import compare, config, export, play, run
from jaxalign.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Resume:
    """Continue an interrupted run from its last checkpoint, bit for bit.

    Attributes:
        run: folder of the run, such as runs/NAME.
        distributed: as in `jaxalign train`.
        devices: how many to go on with; by default as before.
    """

    run: tyro.conf.Positional[Path]
    distributed: str = "off"
    devices: int | None = None


@dataclasses.dataclass(frozen=True)
class Eval:
    """Evaluate the last checkpoint of a run.

    Attributes:
        run: folder of the run, such as runs/NAME.
        episodes: number of episodes.
        seed: of the evaluation.
        deterministic: take the policy's mean action instead of sampling (limits hold for the sampled policy).
        video: whether to film an episode.
    """

    run: tyro.conf.Positional[Path]
    episodes: int = 100
    seed: int = 1
    deterministic: bool = False
    video: bool = False


@dataclasses.dataclass(frozen=True)
class List:
    """List algorithms and environment ids, a line each."""


@dataclasses.dataclass(frozen=True)
class Rlhf:
    """Reward models and RLHF on language: `jaxalign rlhf demo`."""


@dataclasses.dataclass(frozen=True)
class Gnss:
    """Digital twin of a city for GNSS: `jaxalign gnss demo|twin|correct|evaluate`."""


@dataclasses.dataclass(frozen=True)
class Elasticity:
    """Do aligned models revert? Compression, exact theory and life cycle: `jaxalign elasticity demo|protocol`."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Preference data as a graph, and what a reward model infers from it: `jaxalign topology demo`."""


_TRAIN = (
    "Train a policy under cost limits. --config FILE takes defaults from a JSON file, such as the config.json of a run."
)

Command = (
    Annotated[run.TrainConfig, tyro.conf.subcommand("train", description=_TRAIN)]
    | Annotated[Resume, tyro.conf.subcommand("resume")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[play.Play, tyro.conf.subcommand("play")]
    | Annotated[compare.Compare, tyro.conf.subcommand("compare")]
    | Annotated[export.Export, tyro.conf.subcommand("export")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Rlhf, tyro.conf.subcommand("rlhf")]
    | Annotated[Gnss, tyro.conf.subcommand("gnss")]
    | Annotated[Elasticity, tyro.conf.subcommand("elasticity")]
    | Annotated[Topology, tyro.conf.subcommand("topology")]
)

# Rooms with commands of their own, which are loaded when asked for: command to the config's class and its function
ROOMS = {
    "elasticity": {"demo": ("Demo", "demo"), "protocol": ("Protocol", "protocol")},
    "topology": {"demo": ("Demo", "demo")},
    "rlhf": {"demo": ("RlhfDemo", "demo")},
    "gnss": {
        "demo": ("Demo", "demo"),
        "twin": ("Twin", "twin"),
        "correct": ("Correct", "correct"),
        "evaluate": ("Evaluate", "evaluate"),
    },
}


def _list(_: List) -> None:
    print("algorithms")
    width = max(map(len, saferl.names()))
    for name in saferl.names():
        print(f"  {name:{width}s} {saferl.CATALOGUE[name].summary}")
    print("environments")
    width = max(map(len, envs_mjx.ids()))
    for env_id in envs_mjx.ids():
        spec = envs_mjx.make(env_id).spec
        costs = ", ".join(spec.cost_names) or "no costs"
        print(f"  {env_id:{width}s} observation {spec.obs_size}, action {spec.action_size}; {costs}")


def _from_file(argv: list[str]) -> tuple[list[str], Any]:
    """Takes ``--config FILE`` out of `jaxalign train`: the arguments left, and what they have as defaults."""
    argv = [part for word in argv for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    if argv[:1] != ["train"] or "--config" not in argv:
        return argv, tyro.MISSING_NONPROP
    at = argv.index("--config")
    if at + 1 == len(argv):
        raise UserError("--config needs a JSON file, such as the config.json of a run.")
    return argv[:at] + argv[at + 2 :], config.read_file(Path(argv[at + 1]))


def _room(name: str, argv: list[str]) -> int:
    """Runs a command of a room."""
    room = importlib.import_module(f"jaxalign.cli.{name}")
    classes = {command: getattr(room, config) for command, (config, _) in ROOMS[name].items()}
    chosen = tyro.extras.subcommand_cli_from_dict(classes, prog=f"jaxalign {name}", args=argv)
    command = next(command for command, config in classes.items() if type(chosen) is config)
    getattr(room, ROOMS[name][command][1])(chosen)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and runs it; returns the exit status."""
    description = "Alignment experiments on accelerators."
    try:
        argv = sys.argv[1:] if argv is None else argv
        if argv[:1] and argv[0] in ROOMS:
            return _room(argv[0], argv[1:])
        argv, default = _from_file(argv)
        command = tyro.cli(Command, prog="jaxalign", description=description, args=argv, default=default)
        return _HANDLERS[type(command)](command)
    except UserError as error:
        print(f"jaxalign: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("\njaxalign: interrupted; what was saved stays.", file=sys.stderr)
        return 130


def _status(result: run.Result) -> int:
    return 130 if result.stopped else 0


def _silent(function: Callable[[Any], Any]) -> Callable[[Any], int]:
    """A handler of a command whose outcome is not an exit status."""

    def handle(command: Any) -> int:
        function(command)
        return 0

    return handle


_HANDLERS: dict[type, Callable[[Any], int]] = {
    run.TrainConfig: lambda command: _status(run.train(command)),
    Resume: lambda command: _status(run.resume(command.run, command.distributed, command.devices)),
    Eval: _silent(lambda c: run.evaluate(c.run, c.episodes, c.seed, c.deterministic, c.video)),
    play.Play: _silent(play.play),
    compare.Compare: _silent(compare.compare),
    export.Export: _silent(export.export),
    List: _silent(_list),
}
