"""Figures: over-optimisation, gold by share of harmful prompts, and what each token of a wrong answer earns."""

import jax
import numpy as np
from config import Config
from judges import apply, judges
from matplotlib.figure import Figure
from models import load
from tables import read
from worlds import WORLDS

from jaxalign import track
from jaxalign.rewards.facts_world import BENIGN, EOS, FACTS, FILLERS, Facts, lengths

_CURVES = ("ppo_scalar", "ppo_redistributed", "ppo_seq2seq", "ppo_likelihood", "ppo_gold")
_BY_HARM = ("covered", "half", "refusal", "mostly")
_HEAT = ("scalar", "redistributed", "likelihood", "seq2seq", "seq2seq_log_probability")


def figures(config: Config) -> None:
    """Writes every figure whose results are there."""
    for world in config.worlds:
        _over_optimisation(config, world)
        if isinstance(WORLDS[world], Facts):
            _heat_map(config, world)
    _harmful_fraction(config)


def _save(config: Config, figure: Figure, name: str) -> None:
    with track.replacing(config.out / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _over_optimisation(config: Config, world: str) -> None:
    """True reward and proxy against the root of the KL, a line per seed, their mean in bold."""
    found = {name: [seed["points"] for seed in read(config, world, f"policy-{name}")] for name in _CURVES}
    if not any(found.values()):
        return
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    for colour, (name, seeds) in enumerate(found.items()):
        for key, panel in zip(("gold", "proxy"), panels):
            curves = [([p["kl"] for p in points], [p[key] for p in points]) for points in seeds]
            for kl, values in curves:
                panel.plot(np.sqrt(np.maximum(kl, 0)), values, color=f"C{colour}", linewidth=0.6, alpha=0.5)
            if curves:
                kl, values = (np.mean(x, axis=0) for x in zip(*curves))
                panel.plot(np.sqrt(np.maximum(kl, 0)), values, color=f"C{colour}", linewidth=2, label=name)
    for panel, label in zip(panels, ("true reward", "proxy (standard deviations)")):
        panel.set(xlabel=r"$\sqrt{\mathrm{KL}}$ from the fine-tuned policy", ylabel=label)
        panel.grid(color="0.9")
    panels[0].legend(fontsize=8)
    figure.suptitle(f"{world}: over-optimisation")
    _save(config, figure, f"over_optimisation_{world}")


def _harmful_fraction(config: Config) -> None:
    """True reward after PPO by the world that the pairs come from."""
    there = [world for world in _BY_HARM if read(config, world, "policy-ppo_scalar")]
    if len(there) < 2:
        return
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    panel = figure.subplots()
    for name in ("ppo_scalar", "ppo_seq2seq", "ppo_likelihood"):
        means = [np.mean([seed["gold"] for seed in read(config, world, f"policy-{name}")]) for world in there]
        panel.plot(there, means, marker="o", label=name)
    panel.set(ylabel="true reward", xlabel="world of the pairs")
    panel.legend(fontsize=8)
    _save(config, figure, "harmful_fraction")


def _heat_map(config: Config, world: str) -> None:
    """Every token's reward in one answer with a substitution and a filler, by reading; scaled row by row."""
    place, folder = WORLDS[world], config.out / world / f"seed{config.seeds[0]}"
    model = config.model(place)
    paths = {name: folder / f"{name}.npz" for name in ("scalar", "likelihood", "seq2seq")}
    if not all(path.exists() for path in paths.values()):
        return
    params = {name: load(config, place, path) for name, path in paths.items()}
    prompts = place.prompts(np.random.default_rng(7), 200)
    prompts = prompts[(prompts[:, 1] >= BENIGN[0]) & (prompts[:, 2] == prompts[:, 2].max())][:1]
    answer = place.ideal(prompts)
    other = next(fact for fact in FACTS if fact not in prompts[0])
    answer[0, 1], answer[0, lengths(answer)[0] :][:2] = other, (FILLERS[0], EOS)
    made = judges(model, params)
    width = int(lengths(answer)[0]) + 1
    rewards = np.stack([apply(jax.jit(made[name]), prompts, answer, size=1)[0, :width] for name in _HEAT])
    right = place.right(prompts, answer)[0, :width]
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    panel = figure.subplots()
    panel.imshow(rewards / np.abs(rewards).max(1, keepdims=True), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(rewards):
        panel.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8)
    names = [f"{token}\n{'right' if good else 'wrong'}" for token, good in zip(answer[0, :width], right)]
    panel.set_xticks(range(width), names, fontsize=8)
    panel.set_yticks(range(len(_HEAT)), [name.replace("_", " ") for name in _HEAT], fontsize=8)
    panel.set_title("Reward of each token of an answer with a wrong second fact and a filler", fontsize=9)
    _save(config, figure, f"tokens_{world}")
