"""Every block of docs/lm.md runs, one after the other, as a reader would run it."""

import json
import re
from pathlib import Path

import pytest
import tiny_lm

pytest.importorskip("transformers")

from jaxalign.lm import save_pretrained
from jaxalign.lm.config import ModelConfig
from jaxalign.lm.tokenizer import demo_tokenizer

GUIDE = Path(__file__).parents[2] / "docs" / "lm.md"
MODEL = ModelConfig(512, 8, 1, 2, 1, 4, 8, max_position=64, tie_embeddings=True)


def test_the_guide_runs(tmp_path, monkeypatch, capsys):
    save_pretrained(tmp_path / "checkpoint", MODEL, tiny_lm.params(MODEL))
    demo_tokenizer().save_pretrained(tmp_path / "checkpoint")
    rows = {
        "demonstrations": [{"prompt": f"Say {n}.", "response": n} for n in ("one", "two")],
        "pairs": [{"prompt": f"Say {n}.", "chosen": n, "rejected": "no"} for n in ("one", "two")],
    }
    for name, lines in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) == 8
    names = {}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{GUIDE.name}, block {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "bytes on each device" in printed
    assert names["state"].step == 3
    assert (tmp_path / "tuned" / "config.json").is_file()
    assert [e.tokens.tolist() for e in names["again"]] == [e.tokens.tolist() for e in names["examples"]]
