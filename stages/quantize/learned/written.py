"""Text that the unquantized model writes itself: of the kinds that it was trained on, beyond those that the passages are of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CACHE = {"cuda": 8 * 2**30, "cpu": 2**30}  # bytes of keys and values


def kept(config: Any, width: int, item: int) -> int:
    """Bytes of the keys and values of a row."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * item * width)


def at_once(config: Any, width: int, item: int, device: torch.device) -> int:
    """Rows whose keys and values fit into the memory that is set aside for them."""
    return max(1, _CACHE[device.type] // kept(config, width, item))


@torch.no_grad()
def written(model: Any, openings: Tensor, width: int, seed: int) -> list[list[int]]:
    """Rows of `width` tokens sampled from what the model predicts, nothing of it cut away: what ends one text begins another.

    LLM-QAT (arXiv 2305.17888) distils on such text.

    Args:
        openings: [rows, k] ids that they begin with, on the model's device.
    """
    generator = torch.Generator(openings.device).manual_seed(seed)
    rows: list[list[int]] = []
    for ids in openings.split(at_once(model.config, width, model.dtype.itemsize, openings.device)):
        step, cache = ids, None
        while ids.shape[1] < width:
            out = model(input_ids=step, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            step = torch.multinomial(out.logits[:, -1].float().softmax(-1), 1, generator=generator)
            ids = torch.cat([ids, step], 1)
        rows += ids.tolist()
    return rows
