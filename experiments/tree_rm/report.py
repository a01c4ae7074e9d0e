"""Tables over seeds with 95 % bootstrap intervals, and figures, from whatever cells there are."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from config import Config, Data
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from jaxalign import track

MODELS = ("linear", "scalar", "seq2seq")
_COLOURS = {"chain": "C0", "pool": "C1", "tree": "C2"}
_RESAMPLES = 2000

Cells = dict[Data, list[dict[str, Any]]]


def report(config: Config) -> None:
    """Writes `tables.md`, `accuracy.png` and `policies.png`."""
    cells = {data: _read(config, data) for data in config.data}
    parts = [_models(cells, config), _policies(cells, config), _wins(cells, config)]
    with track.replacing(config.out / "tables.md") as temporary:
        temporary.write_text("\n\n".join(part for part in parts if part) + "\n")
    _accuracy(config, cells)
    _gold(config, cells)


def _read(config: Config, data: Data) -> list[dict[str, Any]]:
    paths = [config.out / f"seed{seed}" / f"{data.name}.json" for seed in config.seeds]
    return [json.loads(path.read_text()) | {"seed": s} for s, path in zip(config.seeds, paths) if path.exists()]


def interval(values: Iterable[float]) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % percentile bootstrap interval (of one seed: NaN)."""
    found = np.asarray(list(values), float)
    if found.size < 2:
        return (float(found.mean()) if found.size else float("nan")), float("nan"), float("nan")
    drawn = np.random.default_rng(0).choice(found, size=(_RESAMPLES, found.size)).mean(1)
    return (float(found.mean()), *(float(x) for x in np.quantile(drawn, [0.025, 0.975])))


def wins(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """P(a > b) + P(a = b) / 2 of true rewards ``[seeds, texts]`` to the same prompts; seeds and texts are resampled."""
    won = (a > b + 1e-9) + 0.5 * (np.abs(a - b) <= 1e-9)
    random, (seeds, texts) = np.random.default_rng(0), won.shape
    means = [
        won[random.integers(seeds, size=seeds)][:, random.integers(texts, size=texts)].mean() for _ in range(_RESAMPLES)
    ]
    return (float(won.mean()), *(float(x) for x in np.quantile(means, [0.025, 0.975])))


def _cell(estimate: tuple[float, float, float], digits: int = 3) -> str:
    mean, low, high = (f"{x:.{digits}f}" for x in estimate)
    return "-" if mean == "nan" else mean if low == "nan" else f"{mean} [{low}, {high}]"


def _table(title: str, columns: list[str], rows: list[list[str]]) -> str:
    lines = [f"### {title}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def _models(cells: Cells, config: Config) -> str:
    columns = ["data", "pairs", "tokens generated", "labels right"]
    columns += [
        f"{model}, {what}" for model in MODELS[:2] for what in ("independent", "shared", f"best of {config.best_of}")
    ]
    rows = []
    for data, seeds in cells.items():
        if seeds:
            mean = lambda key, seeds=seeds: np.mean([cell[key] for cell in seeds])
            row = [data.name, f"{mean('pairs'):,.0f}", f"{mean('tokens'):,.0f}", f"{mean('agreement'):.3f}"]
            for model in MODELS[:2]:
                row += [
                    _cell(interval(c["models"][model][k] for c in seeds)) for k in ("independent", "shared", "best_of")
                ]
            rows.append(row)
    if not rows:
        return ""
    oracle = interval(c["start"]["oracle"] for c in next(filter(None, cells.values())))
    text = f"Best of {config.best_of} by the true reward: {_cell(oracle)}."
    return _table(f"Reward models, {max(map(len, cells.values()))} seeds", columns, rows) + "\n\n" + text


def _each(seeds: list[dict[str, Any]], model: str, decoder: str) -> np.ndarray:
    return np.array([cell["models"][model][decoder] for cell in seeds])


def _policies(cells: Cells, config: Config) -> str:
    rows = []
    for data, seeds in cells.items():
        if seeds and config.makes_policies(data):
            start = np.array([cell["start"]["policy"] for cell in seeds])
            for model in MODELS[1:]:
                row = [data.name, model]
                for decoder in ("rft", "ppo"):
                    rewards = _each(seeds, model, decoder)
                    row += [_cell(interval(rewards.mean(1))), _cell(wins(rewards, start))]
                rows.append(row)
    columns = [
        "data",
        "reward model",
        "RFT, true reward",
        "RFT, wins against SFT",
        "PPO, true reward",
        "PPO, wins against SFT",
    ]
    if not rows:
        return ""
    start = interval(np.mean(c["start"]["policy"]) for c in next(filter(None, cells.values())))
    return _table("Policies, by the true reward on held-out prompts", columns, rows) + f"\n\nSFT: {_cell(start)}."


def _wins(cells: Cells, config: Config) -> str:
    """Tree against chain, and tree against pool, at equal pairs and at equal tokens."""
    named = {data.name: data for data, seeds in cells.items() if seeds and config.makes_policies(data)}
    k = f"{config.tokens // 1000}k-tokens"
    contests = [
        (f"tree-{size}{q}", f"{other}-{size}")
        for size in (config.middle, k)
        for other in ("chain", "pool")
        for q in ("", "-q1")
    ]
    rows = []
    for ours, theirs in contests:
        if ours in named and theirs in named:
            row = [ours, theirs]
            both = cells[named[ours]], cells[named[theirs]]
            rows.append(row + [_cell(_contest(*both, model, how)) for model in MODELS[1:] for how in ("rft", "ppo")])
    columns = [
        "this",
        "against",
        *(f"{model}, {decoder.upper()}" for model in MODELS[1:] for decoder in ("rft", "ppo")),
    ]
    return (
        _table("Win rates of policies by the true reward (the paper: tree against chain 0.65)", columns, rows)
        if rows
        else ""
    )


def _contest(ours: list, theirs: list, model: str, decoder: str) -> tuple[float, float, float]:
    both = sorted({cell["seed"] for cell in ours} & {cell["seed"] for cell in theirs})
    pick = lambda cells: [cell for cell in cells if cell["seed"] in both]
    return wins(_each(pick(ours), model, decoder), _each(pick(theirs), model, decoder))


def _save(config: Config, figure: Figure, name: str) -> None:
    with track.replacing(config.out / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _accuracy(config: Config, cells: Cells) -> None:
    """Accuracy on independent held-out pairs, against pairs and against generated tokens."""
    figure = Figure(figsize=(9.0, 6.4), layout="constrained")
    for line, model in zip(figure.subplots(2, 2, sharey=True), MODELS[:2]):
        for panel, key in zip(line, ("pairs", "tokens")):
            for topology, colour in _COLOURS.items():
                plain = [(d, s) for d, s in cells.items() if s and d.topology == topology and _is_plain(d)]
                points = sorted(_point(seeds, model, key) for _, seeds in plain)
                _draw(panel, points, colour, topology)
            expert = [(d, s) for d, s in cells.items() if s and d.expertise == 1.0]
            _draw(panel, sorted(_point(seeds, model, key) for _, seeds in expert), "C3", "tree, expert annotator")
            panel.set(xscale="log", xlabel={"pairs": "pairs labelled", "tokens": "tokens generated"}[key])
            panel.grid(color="0.9")
            panel.xaxis.set_minor_formatter(NullFormatter())
        line[0].set_xticks(config.pairs, [f"{n:,}" for n in config.pairs])
        line[0].set(ylabel=f"{model}: accuracy, independent pairs")
        line[0].legend(fontsize=8)
    _save(config, figure, "accuracy")


def _is_plain(data: Data) -> bool:
    return data.mixture == "complete" and not data.paper and data.expertise == 0


def _point(seeds: list, model: str, key: str) -> tuple[float, float, float, float]:
    return (float(np.mean([c[key] for c in seeds])), *interval(c["models"][model]["independent"] for c in seeds))


def _draw(panel: Any, points: list[tuple[float, float, float, float]], colour: str, label: str) -> None:
    if points:
        x, y, low, high = np.array(points).T
        panel.plot(x, y, marker="o", color=colour, label=label)
        panel.fill_between(x, low, high, color=colour, alpha=0.2)


def _gold(config: Config, cells: Cells) -> None:
    """The true reward of every policy: one bar per data set, by reward model and decoder."""
    there = {data: seeds for data, seeds in cells.items() if seeds and config.makes_policies(data)}
    if not there:
        return
    figure = Figure(figsize=(9.0, 5.6), layout="constrained")
    value: Callable[..., Any] = lambda seeds, model, decoder: interval(_each(seeds, model, decoder).mean(1))
    for line, model in zip(figure.subplots(2, 2), MODELS[1:]):
        for panel, decoder in zip(line, ("rft", "ppo")):
            found = np.array([value(seeds, model, decoder) for seeds in there.values()])
            gaps = np.nan_to_num(np.abs(found[:, 1:] - found[:, :1]).T)
            colours = [_COLOURS[data.topology] for data in there]
            panel.barh(range(len(there)), found[:, 0], xerr=gaps, color=colours)
            start = np.mean([c["start"]["policy"] for seeds in there.values() for c in seeds])
            panel.axvline(start, color="0.4", linestyle=":", label="SFT")
            panel.set_yticks(range(len(there)), [data.name for data in there], fontsize=8)
            panel.set(title=f"{model}, {decoder.upper()}", xlabel="true reward, held-out prompts")
            panel.invert_yaxis()
    _save(config, figure, "policies")
