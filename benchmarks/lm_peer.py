"""The torch + transformers side of `lm_throughput.py`: the same model, batch and work, as one writes it there.

Training is a Llama of `transformers` with its own loss, gradient clipping and fused AdamW, attention by
`scaled_dot_product_attention`; generation is `generate` with its KV cache.
"""

import time
from typing import Any

import numpy as np


class Torch:
    """Blocks of work; see `lm_throughput.Ours`."""

    def __init__(self, hf_config: dict[str, Any], work: Any, compiled: bool):
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        torch.manual_seed(0)
        self.torch, self.work = torch, work
        config = transformers.LlamaConfig(**{k: v for k, v in hf_config.items() if k != "torch_dtype"})
        self.model = transformers.LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), 1e-4, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        random = np.random.default_rng(0)
        self.rows = torch.tensor(random.integers(1, config.vocab_size, (work.batch, work.length)))
        self.prompts = torch.tensor(random.integers(1, config.vocab_size, (work.prompts, work.prompt)))
        self.forward = torch.compile(self.model) if compiled else self.model
        self.first = {name: self.seconds(name, 1) for name in ("train", "generate")}

    def seconds(self, name: str, times: int) -> float:
        """Wall seconds of so many training steps, or batches of responses."""
        start = time.perf_counter()
        for _ in range(times):
            getattr(self, name)()
        return (time.perf_counter() - start) / times

    def train(self) -> float:
        """One optimiser step."""
        self.model.train()
        loss = self.forward(input_ids=self.rows, labels=self.rows, use_cache=False).loss
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return loss.item()

    def generate(self) -> int:
        """One batch of sampled responses of full length."""
        self.model.eval()
        new = self.work.new
        with self.torch.inference_mode():
            settings: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": new, "min_new_tokens": new}
            mask = self.torch.ones_like(self.prompts)
            out = self.model.generate(self.prompts, attention_mask=mask, pad_token_id=0, eos_token_id=None, **settings)
        if out.shape[1] != self.work.prompt + new:
            raise RuntimeError(f"transformers wrote {out.shape[1] - self.work.prompt} tokens, not {new}")
        return out.shape[1]

    def matmul(self) -> float:
        """FLOP/s of a large float32 product: what the machine can give."""
        a = self.torch.ones(2048, 2048)
        a @ a
        start = time.perf_counter()
        a @ a
        return 2 * 2048**3 / (time.perf_counter() - start)
