"""Tiny models of every supported family: two layers, random weights, a real tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.smoke.tiny_model import LLAMA, SENTENCES, make_tiny_model, make_tokenizer

__all__ = ["FAMILIES", "OTHERS", "SENTENCES", "make_tiny", "make_tiny_llama", "make_tiny_opt", "make_tokenizer"]

_NUMBERS: dict[str, Any] = {name: value for name, value in LLAMA.items() if name != "tie_word_embeddings"}
_GEMMA = {**_NUMBERS, "head_dim": 16}
_FALCON = {**_NUMBERS, "ffn_hidden_size": 128, "multi_query": True}
# Every supported family: its `model_type` and numbers. There are variants for configurations that
# change the block or what enters it.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", LLAMA),
    "mistral": ("mistral", {**_NUMBERS, "sliding_window": 8}),
    "qwen2": ("qwen2", {**_NUMBERS, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "qwen3": ("qwen3", {**_NUMBERS, "head_dim": 32, "tie_word_embeddings": True}),
    "smollm3": ("smollm3", {**_NUMBERS, "pad_token_id": 0, "no_rope_layers": [1, 0]}),
    "gemma": ("gemma", _GEMMA),
    "gemma2": ("gemma2", {**_GEMMA, "sliding_window": 8}),
    "gemma3": ("gemma3_text", {**_GEMMA, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "phi": ("phi", _NUMBERS),
    "phi3": ("phi3", {**_NUMBERS, "pad_token_id": 0}),
    "opt": ("opt", {**_NUMBERS, "pad_token_id": 0, "ffn_dim": 128, "word_embed_proj_dim": 64}),
    "gpt_neox": ("gpt_neox", _NUMBERS),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "falcon": ("falcon", _FALCON),
    "falcon_two_norms": ("falcon", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_sequential": ("falcon", {**_FALCON, "parallel_attn": False, "alibi": True, "bias": True, "multi_query": False}),
    "stablelm": ("stablelm", {**_NUMBERS, "use_qkv_bias": True}),
    "stablelm_parallel": ("stablelm", {**_NUMBERS, "use_parallel_residual": True}),
}
# Models that are not in the table of architectures: traced, or refused.
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "mpt": ("mpt", {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 256}),
    "bert": ("bert", _NUMBERS),
    "lfm2": ("lfm2", {**_NUMBERS, "layer_types": ["conv", "full_attention"]}),
    "mamba": ("mamba", _NUMBERS),
}


def make_tiny(family: str, folder: Path | str, seed: int = 0, **changes: Any) -> Path:
    """A random model of one of FAMILIES or OTHERS; `changes` go to its configuration."""
    model_type, numbers = (FAMILIES | OTHERS)[family]
    return make_tiny_model(model_type, {**numbers, **changes}, folder, seed)


def make_tiny_llama(folder: Path | str, seed: int = 0, *, layers: int = 2, width: int = 64, context: int = 256) -> Path:
    """A random Llama with grouped heads and tied embeddings."""
    numbers = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 2 * width, "max_position_embeddings": context}
    return make_tiny("llama", folder, seed, **numbers)


def make_tiny_opt(folder: Path | str, seed: int = 0) -> Path:
    """A random OPT."""
    return make_tiny("opt", folder, seed)
