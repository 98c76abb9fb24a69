"""Convert a GGUF file to a Hugging Face folder, for models of the Llama family.

Weights are dequantized to float16; tokenizer and configuration are rebuilt.

GGUF stores the rows of attn_q and attn_k of each head as interleaved rotary pairs: 0, h, 1, h+1,
and so on, where h is half the head size. Hugging Face's rotary embedding pairs row i with row
i + h. `unpermute` undoes the difference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from fairgate.support.errors import FairgateError, UnknownName
from fairgate.support.files import write_json

# GGUF name of a part of a block -> Hugging Face name
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_CONTROL = 3  # GGUF token type of special tokens


def convert(path: Path, out: Path) -> dict[str, int]:
    """Write configuration, weights (float16), tokenizer and chat template into the folder `out`.

    Returns:
        Number of weights per GGUF storage type, for the record.

    Raises:
        FairgateError: the architecture, the pre-tokenizer or a tensor is not known here.
    """
    reader = GGUFReader(path)
    _one_of(reader, "general.architecture", ["llama"])
    _one_of(reader, "tokenizer.ggml.model", ["gpt2"])
    _one_of(reader, "tokenizer.ggml.pre", ["smollm"])
    state, stored = _weights(reader)
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # save_file makes it private to the user
    config = _config(reader, tied="lm_head.weight" not in state, vocabulary=len(state["model.embed_tokens.weight"]))
    write_json(out / "config.json", config)
    write_json(out / "generation_config.json", {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")})
    _tokenizer(reader).save(str(out / "tokenizer.json"))
    write_json(out / "tokenizer_config.json", _tokenizer_config(reader))
    template = _optional(reader, "tokenizer.chat_template")
    if template is not None:
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    return stored


def unpermute(W: np.ndarray, heads: int) -> np.ndarray:
    """Reorder each head's rows from 0, h, 1, h+1, ... to 0, 1, ..., 2h-1.

    Args:
        W: [heads * 2h, d].
        heads: number of heads.
    """
    rows, columns = W.shape
    return W.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _weights(reader: GGUFReader) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Every tensor as float16 by its Hugging Face name; only one at a time is held as float32."""
    heads = {"attn_q": _heads(reader), "attn_k": _key_heads(reader)}
    state: dict[str, np.ndarray] = {}
    stored: dict[str, int] = {}
    for tensor in reader.tensors:
        # GGUF states shapes innermost first
        W = dequantize(tensor.data, tensor.tensor_type).reshape([int(n) for n in reversed(tensor.shape)])
        stem = tensor.name.removesuffix(".weight")
        part = stem.rsplit(".", 1)[-1]
        if stem in _TOP:
            name = _TOP[stem]
        elif stem.startswith("blk.") and part in _BLOCK:
            name = f"model.layers.{stem.split('.')[1]}.{_BLOCK[part]}"
        else:
            raise FairgateError(f"unknown tensor {tensor.name!r}", where=_where(reader), remedy="use a hub or path origin for this model")
        if part in heads:
            W = unpermute(W, heads[part])
        state[f"{name}.weight"] = np.ascontiguousarray(W, dtype=np.float16)
        stored[tensor.tensor_type.name] = stored.get(tensor.tensor_type.name, 0) + W.size
    return state, stored


def _config(reader: GGUFReader, *, tied: bool, vocabulary: int) -> dict[str, Any]:
    hidden, heads = int(_field(reader, "llama.embedding_length")), _heads(reader)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float16",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": int(_field(reader, "llama.feed_forward_length")),
        "num_hidden_layers": int(_field(reader, "llama.block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": _key_heads(reader),
        "head_dim": int(_optional(reader, "llama.attention.key_length") or hidden // heads),
        "vocab_size": vocabulary,
        "max_position_embeddings": int(_field(reader, "llama.context_length")),
        # float32 in the file: nine digits give back the decimal number that was meant
        "rms_norm_eps": round(float(_field(reader, "llama.attention.layer_norm_rms_epsilon")), 9),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(_optional(reader, "llama.rope.freq_base") or 10000.0)},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "bos_token_id": _token_id(reader, "bos"),
        "eos_token_id": _token_id(reader, "eos"),
        "pad_token_id": _token_id(reader, "padding"),
    }


def _tokenizer(reader: GGUFReader) -> Tokenizer:
    """Byte-level BPE. The pre-tokenizer `smollm` splits off each digit, then splits as GPT-2."""
    tokens = _field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in _field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = _field(reader, "tokenizer.ggml.token_type")
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return tokenizer


def _tokenizer_config(reader: GGUFReader) -> dict[str, Any]:
    tokens = _field(reader, "tokenizer.ggml.tokens")
    config = {f"{ours}_token": tokens[_token_id(reader, theirs)] for ours, theirs in _SPECIAL.items()}
    return config | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(_field(reader, "llama.context_length")),
    }


_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def _heads(reader: GGUFReader) -> int:
    return int(_field(reader, "llama.attention.head_count"))


def _key_heads(reader: GGUFReader) -> int:
    return int(_optional(reader, "llama.attention.head_count_kv") or _heads(reader))


def _token_id(reader: GGUFReader, role: str) -> int:
    return int(_field(reader, f"tokenizer.ggml.{role}_token_id"))


def _optional(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _field(reader: GGUFReader, key: str) -> Any:
    value = _optional(reader, key)
    if value is None:
        raise FairgateError(f"no field {key!r}", where=_where(reader), remedy="use a hub or path origin for this model")
    return value


def _one_of(reader: GGUFReader, key: str, known: list[str]) -> None:
    value = _field(reader, key)
    if value not in known:
        raise UnknownName.of(key, str(value), known, where=_where(reader))


def _where(reader: GGUFReader) -> str:
    return Path(reader.data.filename).name if reader.data.filename else "GGUF file"
