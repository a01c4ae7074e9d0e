"""``jaxalign elasticity demo``: compression by a language model, the exact theory, and a model's life from scratch."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from jaxalign import track
from jaxalign.cli.elasticity_protocol import Protocol, protocol
from jaxalign.cli.rlhf import tiny_model, train
from jaxalign.cli.run import keep_programs, to_json
from jaxalign.core import prng
from jaxalign.core.errors import UserError
from jaxalign.elasticity import Compressor, coding, figures, markov_text
from jaxalign.elasticity.arithmetic import BYTES, windows
from jaxalign.lm import network
from jaxalign.lm.loss import cross_entropy

__all__ = ["Demo", "Protocol", "compression", "demo", "protocol"]

DEPTHS = (1, 2, 4, 8, 16, 24, 32, 40)
_BATCH = 32  # windows of a step


@dataclasses.dataclass(frozen=True)
class Demo:
    """Compress a text of known entropy, draw the exact theory, and let models be pre-trained, aligned and perturbed.

    Attributes:
        seed: of the text and of the byte-level model.
        sentences: that the byte-level model learns from.
        test_sentences: that everything compresses.
        steps: of the byte-level model.
        window: bytes that it sees at once.
        life: whether to run the life cycle too, the longest part.
        out: folder for the pictures and numbers.
    """

    seed: int = 0
    sentences: int = 4000
    test_sentences: int = 400
    steps: int = 500
    window: int = 96
    life: bool = True
    out: Path = Path("runs/elasticity_demo")

    def __post_init__(self):
        for name in ("sentences", "test_sentences", "steps"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; choose 1 or more.")
        if self.seed < 0:
            raise UserError(f"--seed is {self.seed}; choose 0 or more.")
        if self.window < 8:
            raise UserError(f"--window is {self.window}; choose 8 bytes or more, or no word fits.")


def demo(config: Demo) -> dict[str, Any]:
    """Runs the demonstration: prints tables, writes pictures and `compression.json`; what that holds."""
    keep_programs()
    start = time.monotonic()
    record = compression(config)
    figures.theorem(config.out / "theory.png")
    print(f"\nThe exact theory, closed forms and differences: {config.out / 'theory.png'}")
    if config.life:
        from jaxalign.elasticity import lifecycle_figures

        print("\nPre-trained, aligned, perturbed: how much of the KL from pre-training a perturbation leaves ...")
        print(lifecycle_figures.demo(config.out))
    print(f"{time.monotonic() - start:.0f} s; pictures and tables in {config.out}")
    return record


def compression(config: Demo) -> dict[str, Any]:
    """Compresses held-out sentences in every way there is, and decompresses the model's code.

    Raises:
        UserError: the model's code does not come back, which would be an error of this program or of the machine.
    """
    source, random = markov_text(config.seed), np.random.default_rng(config.seed)
    before, sentences = (source.sentences(random, n) for n in (config.sentences, config.test_sentences))
    data, learned = b"".join(sentences), b"".join(before)
    print(f"{len(data):,} bytes of made-up sentences, {len(learned):,} others to learn from; bits per byte")
    compressor = _byte_model(config, np.frombuffer(learned, np.uint8).astype(np.int32))
    code = compressor.compress(data)
    if compressor.decompress(code) != data:
        raise UserError("The model's code does not decode to the text: programs do not repeat bit for bit here.")
    tokens = np.frombuffer(data, np.uint8).astype(np.int32)
    lines = {
        "the source itself": source.information(sentences) / len(data),
        "language model": 8 * len(code) / len(data),
        "its cross-entropy": compressor.cross_entropy(tokens),
    }
    lines |= coding.reference_bits_per_byte(data)
    lines |= {f"{name}, after the rest": x for name, x in coding.reference_bits_per_byte(data, learned).items()}
    depths = coding.by_depth(sentences, DEPTHS)
    _report(lines, depths)
    shown = {name: x for name, x in lines.items() if "after" not in name and name != "its cross-entropy"}
    figures.compression(depths, shown, config.out / "compression.png")
    record = {
        "bytes": len(data),
        "lines": lines,
        "depths": [row._asdict() for row in depths],
        "config": to_json(config),
    }
    with track.replacing(config.out / "compression.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    return record


def _byte_model(config: Demo, tokens: np.ndarray) -> Compressor:
    """Trained on windows of the tokens; about 0.1 M parameters."""
    model = dataclasses.replace(tiny_model(BYTES + 1), max_position=config.window + 1)
    net, rows = network(model), windows(tokens, config.window)
    params = net.init(prng.stream(jax.random.key(config.seed), "bytes"))
    share = min(1.0, _BATCH / len(rows.tokens))
    with tqdm(total=config.steps, bar_format="{bar} {percentage:3.0f} %  {elapsed}  byte-level model") as bar:

        def observe(*_) -> None:
            bar.update()

        params = train(cross_entropy(net), params, rows, share, config.steps, learning_rate=4e-3, observe=observe)
    return Compressor(model, params, window=config.window)


def _report(lines: dict[str, float], depths: list[coding.Depth]) -> None:
    for name, value in lines.items():
        print(f"  {name:28s}{value:7.3f}")
    print("  token tree, Huffman-coded   words  with code book")
    for row in depths:
        print(f"    {row.depth:2d} bits deep            {row.words:7.3f}  {row.two_part:14.3f}")
