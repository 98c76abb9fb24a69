from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, dequantize, quantize
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from fairgate.support.errors import FairgateError, UnknownName
from stages.fetch import gguf_model

TOKENS = ["<end>", "<start>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "Ġth", "12"]
MERGES = ["t h", "Ġ th", "1 2"]
NAMES = {ours: theirs for theirs, ours in gguf_model._BLOCK.items()}


def permute(W: np.ndarray, heads: int) -> np.ndarray:
    """Row by row as the format describes it: each head's rows in the order 0, h, 1, h + 1, ..."""
    size = len(W) // heads
    order = [head * size + row for head in range(heads) for i in range(size // 2) for row in (i, i + size // 2)]
    return W[order]


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.3,
        rms_norm_eps=1e-5,
    )
    model = LlamaForCausalLM(config).eval()
    for W in model.parameters():  # not model.half(): that would round the rotary frequencies too
        W.data = W.data.half().float()
    return model


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    *,
    down: GGMLQuantizationType = GGMLQuantizationType.F32,
    architecture: str = "llama",
    splitter: str = "smollm",
    odd: bool = False,
) -> Path:
    config = model.config
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitter)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3] + [1] * (len(TOKENS) - 2))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_chat_template("{% for m in messages %}<start>{{ m['content'] }}<end>{% endfor %}")
    for name, tensor in model.state_dict().items():
        W = tensor.numpy()
        stem = name.removesuffix(".weight")
        if name == "lm_head.weight":
            continue
        if stem in gguf_model._TOP.values():
            target = next(theirs for theirs, ours in gguf_model._TOP.items() if ours == stem)
        else:
            _, _, layer, part = stem.split(".", 3)
            target = f"blk.{layer}.{NAMES[part]}"
        if target.endswith("attn_q"):
            W = permute(W, config.num_attention_heads)
        if target.endswith("attn_k"):
            W = permute(W, config.num_key_value_heads)
        kind = down if target.endswith("ffn_down") else GGMLQuantizationType.F32
        writer.add_tensor(f"{target}.weight", quantize(W, kind), raw_dtype=kind)
    if odd:
        writer.add_tensor("blk.0.ffn_gate_inp.weight", np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(("heads", "half", "columns"), [(1, 2, 3), (3, 4, 5), (2, 1, 1)])
def test_unpermute_gives_back_the_known_layout(heads: int, half: int, columns: int) -> None:
    W = np.arange(heads * 2 * half * columns, dtype=np.float32).reshape(-1, columns)
    np.testing.assert_array_equal(gguf_model.unpermute(permute(W, heads), heads), W)


def test_converted_model_computes_what_the_original_does(tmp_path: Path) -> None:
    original = llama()
    out = tmp_path / "model"
    out.mkdir()
    stored = gguf_model.convert(write_gguf(tmp_path / "m.gguf", original), out)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    for name, W in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], W), name
    tokens = torch.arange(2, 40)[None]
    with torch.no_grad():
        # The weights were rounded to float16, so it holds them exactly; the arithmetic is the same.
        torch.testing.assert_close(model(tokens).logits, original(tokens).logits, rtol=0, atol=1e-5)
    assert stored == {"F32": sum(W.size for W in map(np.asarray, original.model.state_dict().values()))}


def test_converted_tokenizer(tmp_path: Path) -> None:
    gguf_model.convert(write_gguf(tmp_path / "m.gguf", llama()), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "that 12 naïve thing\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("that th 12") == ["th", "a", "t", "Ġth", "Ġ", "1", "2"]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<start>", "<end>")
    assert tokenizer.apply_chat_template([{"content": "hi"}], tokenize=False) == "<start>hi<end>"
    assert tokenizer.convert_ids_to_tokens(tokenizer("<start>a")["input_ids"]) == ["<start>", "a"]


def test_quantized_tensors_are_dequantized_and_counted(tmp_path: Path) -> None:
    original, kind = llama(), GGMLQuantizationType.Q4_1
    stored = gguf_model.convert(write_gguf(tmp_path / "m.gguf", original, down=kind), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float16)
    W = original.model.layers[0].mlp.down_proj.weight.detach().numpy()
    expected = dequantize(quantize(W, kind), kind).astype(np.float16)
    np.testing.assert_array_equal(model.model.layers[0].mlp.down_proj.weight.detach().numpy(), expected)
    assert stored["Q4_1"] == 2 * W.size


def test_conversion_is_deterministic(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "m.gguf", llama())
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        gguf_model.convert(source, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_unknown_kinds_are_named(tmp_path: Path) -> None:
    model = llama()
    with pytest.raises(UnknownName, match=r"unknown tokenizer\.ggml\.pre 'qwen2'"):
        gguf_model.convert(write_gguf(tmp_path / "a.gguf", model, splitter="qwen2"), tmp_path)
    with pytest.raises(UnknownName, match=r"a\.gguf|b\.gguf: unknown general\.architecture 'gemma'"):
        gguf_model.convert(write_gguf(tmp_path / "b.gguf", model, architecture="gemma"), tmp_path)
    with pytest.raises(FairgateError, match=r"unknown tensor 'blk\.0\.ffn_gate_inp\.weight'"):
        gguf_model.convert(write_gguf(tmp_path / "c.gguf", model, odd=True), tmp_path)
