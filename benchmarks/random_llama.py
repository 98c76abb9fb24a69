"""A Llama of any shape, made on the spot: speed does not ask what a model has learned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fairgate.support.devices import pick_device

VOCABULARY = 32000


def make_model(folder: Path, layers: int, hidden: int, mlp: int, tokenizer: PreTrainedTokenizerBase | None = None) -> Path:
    """A random Llama in bfloat16, one file a block, that speaks the tokens of `tokenizer`, or else
    numbered words.

    Random weights with heavy-tailed rows and a few large columns, so that rounding them is as hard
    as it is for weights that were learned.
    """
    tokenizer = tokenizer or words(VOCABULARY)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    device = pick_device("auto", parameter="device")
    generator = torch.Generator(device).manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 128),
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )
    config.save_pretrained(folder)

    def matrix(r: int, d: int) -> torch.Tensor:
        W = torch.randn(r, d, device=device, generator=generator) * 0.02
        W *= torch.empty(r, 1, device=device).normal_(0, 0.3, generator=generator).exp()
        W[:, torch.randperm(d, device=device, generator=generator)[: max(1, d // 1000)]] *= 4
        return W.bfloat16().cpu()

    ones = torch.ones(hidden, dtype=torch.bfloat16)
    tensors = {name: matrix(len(tokenizer), hidden) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    tensors["model.norm.weight"] = ones.clone()
    shapes = {f"self_attn.{name}_proj": (hidden, hidden) for name in "qkvo"}
    shapes |= {"mlp.gate_proj": (mlp, hidden), "mlp.up_proj": (mlp, hidden), "mlp.down_proj": (hidden, mlp)}
    places: dict[str, str] = {}
    for number in range(-1, layers):
        if number >= 0:
            prefix = f"model.layers.{number}"
            tensors = {f"{prefix}.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
            tensors |= {f"{prefix}.{name}.weight": ones.clone() for name in ("input_layernorm", "post_attention_layernorm")}
        name = f"model-{number + 2:05d}-of-{layers + 1:05d}.safetensors"
        save_file(tensors, folder / name, {"format": "pt"})
        places |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    tokenizer.save_pretrained(folder)
    return folder


def words(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer of the words t0, t1, ..., the first of them special."""
    inner = Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocabulary)}, "t0"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="t1", eos_token="t2", pad_token="t2")  # noqa: S106
