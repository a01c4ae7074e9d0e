"""Every notebook runs from its first cell to its last at small size, and is the twin of the script beside it."""

import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
SECONDS_PER_CELL = 240


def test_there_is_one_for_every_room():
    assert NAMES == [
        "elasticity",
        "gnss_twin",
        "own_constraint",
        "own_environment",
        "quick_start",
        "seq2seq_reward_model",
        "topology",
    ]
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_notebook_and_script_are_the_same_and_hold_no_output(name):
    """`jupytext --to ipynb notebooks/*.py` writes the notebooks."""
    script, notebook = (jupytext.read(FOLDER / f"{name}{suffix}") for suffix in (".py", ".ipynb"))
    assert [(c.cell_type, c.source) for c in notebook.cells] == [(c.cell_type, c.source) for c in script.cells]
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert not cell.get("execution_count")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SMOKE", "1")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiling is most of it
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=SECONDS_PER_CELL, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "SMOKE" in code[0].outputs[0].text
    shown = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown), "no picture"
    assert not [output for output in shown if output.output_type == "error"]
    assert not [output.text for output in shown if re.search(r"warning", output.get("text", ""), re.IGNORECASE)]
