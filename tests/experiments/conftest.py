"""Modules of experiments, which are scripts: each is imported with its folder on the path, and forgotten afterwards."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def load(experiment, *names):
    """The modules `names` of an experiment by name."""
    folder = str(EXPERIMENTS / experiment)
    before = set(sys.modules)
    sys.path.insert(0, folder)
    try:
        return SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        while folder in sys.path:  # scripts put it there too
            sys.path.remove(folder)
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
                del sys.modules[name]


@pytest.fixture(scope="session")
def sim_to_sim():
    return load("sim_to_sim", "peer", "comparison")


@pytest.fixture(scope="session")
def bridge():
    return load("omnisafe_on_mjx", "wire", "server")


@pytest.fixture(scope="session")
def saferl_benchmark():
    return load("saferl_benchmark", "config", "cell", "report")


@pytest.fixture(scope="session")
def ablation():
    return load("ablation_at_scale", "config", "waves", "report", "run")


@pytest.fixture(scope="session")
def seq2seq_rm():
    return load("seq2seq_rm", "worlds", "config", "tables", "rm_level", "judges", "run")


@pytest.fixture(scope="session")
def tree_rm():
    return load("tree_rm", "world", "config", "preferences", "models", "decoders", "report", "run")


@pytest.fixture(scope="session")
def safe_rebound():
    return load("safe_rebound", "config", "life", "report", "run")
