"""Tiny models with a real tokenizer: random weights, and a vocabulary of made-up sentences."""

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
# A Llama of two layers, with grouped heads and tied embeddings.
LLAMA: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}


def make_tokenizer(vocabulary: int = 384) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; `<s>` is BOS and pad, `</s>` EOS; no token is added to a text."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    inner.train_from_iterator(SENTENCES, trainer)
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def make_tiny_model(model_type: str, numbers: dict[str, Any], folder: Path | str, seed: int = 0) -> Path:
    """A random model, saved with its tokenizer as a Hugging Face folder (float32).

    Weights are larger than the usual initialization, so that predictions differ between tokens by
    more than rounding.

    Args:
        model_type: an architecture of Transformers, e.g. "llama".
        numbers: its sizes, by the names of its configuration.
        folder: where it is saved.
        seed: of the weights.
    """
    tokenizer = make_tokenizer()
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos")}
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **{**ids, **numbers})
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
