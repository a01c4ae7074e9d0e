"""``jaxalign elasticity protocol``: rebound and resistance of a Hugging Face checkpoint, with real text."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from jaxalign import dist, track
from jaxalign.cli.config import keep_config
from jaxalign.cli.run import keep_programs
from jaxalign.core.errors import UserError
from jaxalign.elasticity.measures import rebound
from jaxalign.elasticity.protocol import PAIRS, PRESETS, Settings, Tuner
from jaxalign.lm import ModelConfig, load_pretrained, save_pretrained
from jaxalign.lm import sharding as places
from jaxalign.lm.data import Demonstration, load, schema
from jaxalign.lm.packing import Example
from jaxalign.lm.tokenizer import check_vocabulary, load_tokenizer
from jaxalign.lm.transformer import parameter_shapes

Task = Literal["imdb", "safe", "truthful", "instruction"]
Experiment = Literal["rebound", "resistance"]

_KINDS = {
    "imdb": ("imdb-positive", "imdb-negative"),
    "safe": ("beavertails-safe", "beavertails-unsafe"),
    "truthful": ("truthfulqa-true", "truthfulqa-false"),
    "instruction": ("demonstration", ""),
}
"""Schemas of aligned and opposite text by task."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Does this checkpoint return to where it was before alignment? The paper's two experiments, with its settings.

    Every aligned model and every result is a file under --out; a run that was stopped goes on where it was. Settings
    that are not given are those of the paper's scripts for the task.

    Attributes:
        checkpoint: folder of a Llama, Qwen or Gemma model in the Hugging Face layout, with its tokenizer.
        task: "imdb" (positive against negative reviews), "safe" (BeaverTails), "truthful" (TruthfulQA), or
            "instruction" (Alpaca; has no opposite, so resistance only).
        data: file, folder or hub name of the task's data set.
        neutral: the same of demonstrations that have nothing to do with it, for the control; "": none.
        split: of the data sets.
        experiments: "rebound", "resistance" or both.
        aligned: examples of alignment at which a model is kept.
        perturbation: examples of a perturbation at which it is measured.
        probe: held-out examples of either kind that all models are measured on.
        batch: examples in a step.
        length: tokens of an example at most.
        learning_rate: constant.
        answer: tokens of an answer at most, for resistance.
        fsdp: devices over which parameters are spread; 0: all there are.
        out: folder for models, results, tables and figures.
    """

    checkpoint: Path
    task: Task
    data: str
    neutral: str = ""
    split: str = "train"
    experiments: tuple[Experiment, ...] = ("rebound", "resistance")
    aligned: tuple[int, ...] = (1000, 2000, 5000, 10000)
    perturbation: tuple[int, ...] = (100, 200, 500, 1000, 2000)
    probe: int = 200
    batch: int | None = None
    length: int | None = None
    learning_rate: float | None = None
    answer: int | None = None
    fsdp: int = 0
    out: Path = Path("runs/elasticity_protocol")

    def __post_init__(self):
        for name in ("aligned", "perturbation", "experiments"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise UserError(f"--{name} is {values}; give at least one value, none twice.")
        if min(self.aligned + self.perturbation) < 1 or self.probe < 1:
            raise UserError("--aligned, --perturbation and --probe count examples; choose 1 or more.")
        if "rebound" in self.experiments and not _KINDS[self.task][1]:
            raise UserError(f"The task {self.task!r} has no opposite text; choose --experiments resistance.")

    @property
    def settings(self) -> Settings:
        """The task's, with what is given here; counts are rounded to whole batches."""
        given = {name: getattr(self, name) for name in ("batch", "length", "learning_rate", "answer")}
        return dataclasses.replace(PRESETS[self.task], **{k: v for k, v in given.items() if v is not None})

    @property
    def starts(self) -> tuple[int, ...]:
        """Examples of alignment, in whole batches; 0: the base."""
        return (0, *sorted({_whole(n, self.settings.batch) for n in self.aligned}))

    @property
    def points(self) -> tuple[int, ...]:
        """Examples of a perturbation, in whole batches, from 0."""
        return (0, *sorted({_whole(n, self.settings.batch) for n in self.perturbation}))


def _whole(count: int, batch: int) -> int:
    if count < batch:
        raise UserError(f"{count} examples are fewer than a batch of {batch}; choose more, or a smaller --batch.")
    return count - count % batch


class _Run:
    """A checkpoint, its data, and what is under the folder."""

    def __init__(self, config: Protocol):
        self.config, self.settings = config, config.settings
        self.mesh = dist.make_mesh(1, fsdp=config.fsdp or jax.device_count())
        shapes = ModelConfig.from_hf(_config_json(config.checkpoint))
        self.where = places.shardings(parameter_shapes(shapes), self.mesh)
        self.model, self.base = load_pretrained(config.checkpoint, self.where)
        self.tokenizer = load_tokenizer(config.checkpoint)
        check_vocabulary(self.tokenizer, self.model)
        length = min(self.settings.length, self.model.max_position)
        self.settings = dataclasses.replace(self.settings, length=length)
        self.tuner = Tuner(self.model, self.tokenizer, self.settings, self.mesh)
        self._load()
        keep_config(config, config.out, free=("experiments", "fsdp", "out"))  # a mistake leaves nothing behind

    def _load(self) -> None:
        """Reads all data; the last `probe` examples of either kind are held out."""
        config, aligned, opposite = self.config, *_KINDS[self.config.task]
        most = config.starts[-1]
        read = lambda name, source: list(load(schema(name), source, split=config.split).records)
        self.demonstrations = _enough(read(aligned, config.data), most, config.probe, "aligned")
        self.aligned = self.tuner.examples(self.demonstrations[: -config.probe])
        self.probes = {"aligned": self.tuner.examples(self.demonstrations[-config.probe :])}
        self.perturbations: dict[str, list[Example]] = {}
        if "rebound" not in config.experiments:
            return
        against = _enough(read(opposite, config.data), config.points[-1], config.probe, "opposite")
        self.probes["opposite"] = self.tuner.examples(against[-config.probe :])
        self.perturbations["opposite"] = self.tuner.examples(against[: -config.probe])
        if config.neutral:
            neutral = _enough(read("demonstration", config.neutral), config.points[-1], 0, "neutral")
            self.perturbations["neutral"] = self.tuner.examples(neutral)

    @property
    def third(self) -> int:
        """Examples of a slice of the alignment run."""
        return _whole(self.config.starts[-1] // 3, self.settings.batch)

    def align(self) -> None:
        """One alignment run; writes the models that any experiment needs and that are not there."""
        stops = set(self.config.starts[1:]) if "rebound" in self.config.experiments else set()
        if "resistance" in self.config.experiments:
            stops |= {self.third, 2 * self.third, 3 * self.third}
        missing = sorted(stop for stop in stops if not (self._folder(stop) / "done").exists())
        if not missing:
            return
        with _bar(missing[-1], "alignment") as bar:
            for stop, params, _ in self.tuner.tune(self.base, self.aligned, missing):
                save_pretrained(self._folder(stop), self.model, jax.device_get(params), tokenizer=self.tokenizer)
                (self._folder(stop) / "done").touch()
                bar.update(stop - bar.n)

    def params(self, stop: int) -> Any:
        """Of the model after so many aligned examples; 0: the base."""
        return load_pretrained(self._folder(stop), self.where)[1] if stop else self.base

    def _folder(self, stop: int) -> Path:
        return self.config.out / "models" / f"aligned-{stop}"

    def cell(self, name: str, make: Any) -> Any:
        """A result from its file, or made and written."""
        path = self.config.out / "results" / f"{name}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(make())
            with track.replacing(path) as temporary:
                temporary.write_text(text + "\n")
        return json.loads(path.read_text())


def protocol(config: Protocol) -> dict[str, Any]:
    """Runs what is missing, prints tables and draws figures; all results."""
    keep_programs()
    start = time.monotonic()
    run, found = _Run(config), {}
    print(f"{config.checkpoint}: {run.model.family}, {config.task}, {len(run.aligned)} aligned examples to learn from")
    run.align()
    if "rebound" in config.experiments:
        found["rebound"] = _rebound(run)
    if "resistance" in config.experiments:
        found["resistance"] = _resistance(run)
    print(f"{time.monotonic() - start:.0f} s; models, results and figures in {config.out}")
    return found


def _rebound(run: _Run) -> list[dict[str, Any]]:
    """Every model under every perturbation; the base too, as the floor."""
    curves = []
    for stop in run.config.starts:
        for kind, examples in run.perturbations.items():

            def measure(examples=examples, stop=stop, kind=kind) -> dict[str, Any]:
                points, params = [], run.params(stop)
                with _bar(run.config.points[-1], f"{stop} aligned, {kind}") as bar:
                    for seen, now, _ in run.tuner.tune(params, examples, run.config.points):
                        points.append(run.tuner.observe(now, run.base, run.probes)._asdict() | {"examples": seen})
                        bar.update(seen - bar.n)
                return {"aligned": stop, "perturbation": kind, "points": points}

            curves.append(run.cell(f"rebound-{stop}-{kind}", measure))
    _print_rebound(run, curves)
    _draw_rebound(run, curves)
    return curves


def _print_rebound(run: _Run, curves: list[dict[str, Any]]) -> None:
    value = lambda curve, name: np.array([point[name] for point in curve["points"]], float)
    columns = (
        "perturbation",
        "aligned",
        "KL before",
        "lowest, of that",
        "the base's there",
        "n_half",
        "score, from, to",
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for curve in curves:
        if curve["aligned"]:
            base = next(c for c in curves if not c["aligned"] and c["perturbation"] == curve["perturbation"])
            r = rebound(value(curve, "examples"), value(curve, "kl"), value(base, "kl"))
            score = value(curve, "score")
            lines.append(
                f"| {curve['perturbation']} | {curve['aligned']} | {r.start:.4f} | {r.lowest:.3f} | {r.floor:.3f} | "
                f"{'never' if np.isinf(r.n_half) else round(r.n_half)} | {score[0]:.3f}, {score[-1]:.3f} |"
            )
    _write(run, "rebound", lines)


def _draw_rebound(run: _Run, curves: list[dict[str, Any]]) -> None:
    """KL to the base and the score against examples of the perturbation, a line for every amount of alignment."""
    kinds = list(run.perturbations)
    figure = Figure(figsize=(9.0, 3.2 * len(kinds)), layout="constrained")
    for line, kind in zip(figure.subplots(len(kinds), 2, squeeze=False), kinds):
        for i, curve in enumerate(curve for curve in curves if curve["perturbation"] == kind):
            x = [point["examples"] for point in curve["points"]]
            for panel, name in zip(line, ("kl", "score")):
                style = ":" if not curve["aligned"] else "-"
                label = f"{curve['aligned']} aligned" if curve["aligned"] else "the base"
                panel.plot(x, [point[name] for point in curve["points"]], style, color=f"C{i}", marker=".", label=label)
        line[0].set(ylabel="KL(model || base), nats per token", xlabel=f"{kind} examples")
        line[1].set(ylabel="score, nats per token", xlabel=f"{kind} examples")
        line[0].legend(fontsize=8)
        for panel in line:
            panel.grid(color="0.9")
    figure.suptitle(f"{run.config.checkpoint.name}, {run.config.task}")
    with track.replacing(run.config.out / "rebound.png") as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _resistance(run: _Run) -> list[dict[str, Any]]:
    """Between every two of three slices of the alignment run, in both directions."""
    third, found = run.third, []
    asked = run.demonstrations[:third]
    for k, l in PAIRS:
        for direction, learner, teacher in (("forward", k, l), ("inverse", l, k)):

            def measure(learner=learner, teacher=teacher) -> dict[str, Any]:
                answers, entropy = run.tuner.answers(run.params(teacher * third), asked)
                count = _whole(len(answers), run.settings.batch)
                *_, (_, _, losses) = run.tuner.tune(run.params(learner * third), answers, (count,))
                return {"loss": float(losses.mean()), "entropy": entropy, "examples": count}

            row = run.cell(f"resistance-{k}-{l}-{direction}", measure)
            found.append({"k": k, "l": l, "direction": direction} | row)
    lines = ["| slices | forward: loss | inverse: loss | forward: loss - entropy | inverse: loss - entropy |"]
    lines.append("|---" * 5 + "|")
    for k, l in PAIRS:
        rows = {row["direction"]: row for row in found if (row["k"], row["l"]) == (k, l)}
        loss = [rows[d]["loss"] for d in ("forward", "inverse")]
        rest = [rows[d]["loss"] - rows[d]["entropy"] for d in ("forward", "inverse")]
        lines.append(f"| {k}, {l} | {loss[0]:.4f} | {loss[1]:.4f} | {rest[0]:.4f} | {rest[1]:.4f} |")
    _write(run, "resistance", lines)
    _draw_resistance(run, found)
    return found


def _draw_resistance(run: _Run, found: list[dict[str, Any]]) -> None:
    """Bars of both directions, by pair of slices, as loss and with the answers' entropy taken off."""
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    for panel, corrected in zip(figure.subplots(1, 2), (False, True)):
        for i, direction in enumerate(("forward", "inverse")):
            rows = [row for row in found if row["direction"] == direction]
            heights = [row["loss"] - corrected * row["entropy"] for row in rows]
            panel.bar([j + 0.4 * i for j in range(len(rows))], heights, width=0.4, label=direction)
        panel.set_xticks([j + 0.2 for j in range(len(PAIRS))], [f"{k}, {l}" for k, l in PAIRS])
        panel.set(xlabel="slices", ylabel="loss - entropy, nats" if corrected else "training loss, nats per token")
        panel.legend(fontsize=8)
    figure.suptitle(f"{run.config.checkpoint.name}, {run.config.task}: inverse below forward is resistance")
    with track.replacing(run.config.out / "resistance.png") as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _write(run: _Run, name: str, lines: list[str]) -> None:
    print("\n" + "\n".join(lines) + "\n")
    with track.replacing(run.config.out / f"{name}.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _bar(total: int, what: str) -> tqdm:
    return tqdm(total=total, desc=what, bar_format="{desc:<28}{bar} {n}/{total} examples  {elapsed} < {remaining}")


def _enough(records: list[Demonstration], least: int, probe: int, kind: str) -> list[Demonstration]:
    if len(records) < least + probe:
        raise UserError(
            f"The data have {len(records)} {kind} examples, fewer than the {least} to learn from and {probe} held out; "
            f"choose fewer, or another data set."
        )
    return records


def _config_json(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"There is no {path}; give the folder of a checkpoint in the Hugging Face layout.")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); download it again.") from None
