"""What the commands of the GNSS twin show: a progress bar, and the tables and pictures of an evaluation."""

import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jaxalign.gnss import evaluation, figures, outcome
from jaxalign.gnss.outcome import Outcome


def report(outcomes: list[Outcome], out: Path) -> list[dict]:
    """Prints and writes the tables of one or several cities: tables.txt, results.json, errors.png, ageing.png."""
    errors, walks, ageing = outcome.pool(outcomes)
    lines = [
        f"{len(outcomes)} cities, availability of a fix {100 * errors.available:.0f} %; 95 % bootstrap intervals over "
        "receivers",
        evaluation.table(errors.method, errors.receiver),
        "",
        "truth inside the reported 68 % and 95 % ellipses, share of fixes corrected",
        *(f"{name:20s} {' '.join(f'{100 * value:4.0f} %' for value in evaluation.coverage(square))}"
          for name, square in errors.covered.items()),
        "",
        "age of the database, median error of twin+height",
        *(f"{age / 60:5.0f} min {np.median(values):6.1f} m" for age, values in ageing.items()),
        "",
        "walks; intervals over walks",
        evaluation.table(walks.method, walks.track),
    ]  # fmt: skip
    text = "\n".join(lines)
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    (out / "tables.txt").write_text(text + "\n")
    rows = evaluation.rows(errors.method, errors.receiver)
    results = {
        "single": rows,
        "walks": evaluation.rows(walks.method, walks.track),
        "ageing_median_m": {str(age): float(np.median(values)) for age, values in ageing.items()},
        "availability": errors.available,
    }
    (out / "results.json").write_text(json.dumps(results, indent=1))
    shown = ("none", "street", "naive", "twin", "twin+height", "ranging")
    single = {name: errors.method[name] for name in shown if name in errors.method}
    figures.distributions(single, out / "errors.png", "Held-out receivers, single fixes")
    figures.distributions(walks.method, out / "walks_errors.png", "Held-out walks")
    if len(ageing) > 1:
        controls = {name: float(np.median(errors.method[name])) for name in ("none", "street")}
        figures.ageing(ageing, controls, out / "ageing.png")
    return rows


class Bar:
    """A progress bar over shares of the whole."""

    def __init__(self, title: str = ""):
        self._title = title
        self._bar = tqdm(total=100, bar_format="{bar} {n:.0f} %  {elapsed}  {desc}", dynamic_ncols=True)

    def __enter__(self):
        return self

    def __call__(self, what: str, share: float) -> None:
        """Says what is being done, and which share of the whole is finished."""
        self._bar.set_description_str(self._title + what, refresh=False)
        self._bar.n = 100 * share
        self._bar.refresh()

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self("done", 1.0)
        self._bar.close()
