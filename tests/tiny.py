"""Tiny models with a real tokenizer, for tests: two layers, random weights, a byte-level vocabulary trained on made-up sentences."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

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


def make_tiny_llama(folder: Path | str, seed: int = 0, *, layers: int = 2, width: int = 64, context: int = 256) -> Path:
    """A random Llama with grouped heads and tied embeddings, saved with its tokenizer as a Hugging Face folder (float32)."""
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _save(LlamaForCausalLM, config, tokenizer, folder, seed)


def make_tiny_opt(folder: Path | str, seed: int = 0, *, layers: int = 2, width: int = 64, context: int = 256) -> Path:
    """A random OPT, saved with its tokenizer as a Hugging Face folder (float32)."""
    tokenizer = make_tokenizer()
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        ffn_dim=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=context,
        word_embed_proj_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _save(OPTForCausalLM, config, tokenizer, folder, seed)


def _save(
    kind: type[PreTrainedModel], config: LlamaConfig | OPTConfig, tokenizer: PreTrainedTokenizerFast, folder: Path | str, seed: int
) -> Path:
    """Weights larger than the usual initialization, so that predictions differ between tokens by more than rounding."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                torch.nn.init.normal_(weight, std=0.15)
    model.eval().float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)
