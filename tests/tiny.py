"""Tiny models with a real tokenizer, for tests: two layers, random weights, a byte-level vocabulary trained on made-up sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SENTENCES = [
    "The gardener watered the roses because the morning was dry.",
    "Her neighbour from the old harbour sells bread and salt.",
    "A pilot reads the map before the plane leaves the ground.",
    "Question: how do you open a window?\nAnswer: turn the handle and push.",
    "The engineer argued with the cook because she wanted more time, yes or no.",
]


def make_tokenizer(vocabulary: int = 384) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; `<s>` is BOS and pad, `</s>` EOS; no token is added to a text."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    inner.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<s>")


_NUMBERS: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_GEMMA = {**_NUMBERS, "head_dim": 16}
_FALCON = {**_NUMBERS, "ffn_hidden_size": 128, "multi_query": True}
# Every supported family: its `model_type` and numbers; variants where a configuration changes the block or what enters it.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {**_NUMBERS, "tie_word_embeddings": True}),
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
    """A random model of one of FAMILIES or OTHERS, saved with its tokenizer as a Hugging Face folder (float32).

    Weights are larger than the usual initialization, so that predictions differ between tokens by more than rounding.
    """
    tokenizer = make_tokenizer()
    model_type, numbers = (FAMILIES | OTHERS)[family]
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos")}
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **{**ids, **numbers, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                torch.nn.init.normal_(weight, std=0.15)
            elif name.endswith("bias"):
                torch.nn.init.normal_(weight, std=0.05)
    model.eval().float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def make_tiny_llama(folder: Path | str, seed: int = 0, *, layers: int = 2, width: int = 64, context: int = 256) -> Path:
    """A random Llama with grouped heads and tied embeddings."""
    numbers = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 2 * width, "max_position_embeddings": context}
    return make_tiny("llama", folder, seed, **numbers)


def make_tiny_opt(folder: Path | str, seed: int = 0) -> Path:
    """A random OPT."""
    return make_tiny("opt", folder, seed)
