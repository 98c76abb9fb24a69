"""One check names every fault of a folder at once, and what a user should know of a fit one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fairgate.__main__ import main
from fairgate.model_folder.check import check_folder
from fairgate.model_folder.findings import Report
from fairgate.support.errors import FairgateError, MissingFile
from stages.evaluate.model import load
from tests.fairgate.model_folder.conftest import edit, put, shard, tensors
from tests.tiny import FAMILIES, SENTENCES, make_tiny

LENGTH, EPS = "max_position_embeddings", "rms_norm_eps"


def words(report: Report) -> str:
    return "\n".join(str(fault) for fault in report.faults)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_supported_family_is_fit(family: str, tmp_path: Path) -> None:
    report = check_folder(make_tiny(family, tmp_path / "model"), values=True)
    assert report.faults == []
    assert report.facts["model_type"] == FAMILIES[family][0]


def _extra_block(folder: Path) -> None:
    state = tensors(folder)
    put(folder, state | {name.replace("layers.1", "layers.2"): value for name, value in state.items() if "layers.1" in name})


def _drop(folder: Path) -> None:
    put(folder, {name: value for name, value in tensors(folder).items() if "layers.1.mlp.down" not in name})


def _reshape(folder: Path) -> None:
    put(folder, tensors(folder) | {"model.layers.1.mlp.down_proj.weight": torch.zeros(3, 4)})


def _fp8(folder: Path) -> None:
    state = {}
    for name, value in tensors(folder).items():
        if "proj" in name:
            scale = value.abs().max() / 448
            state[name], state[f"{name}_scale"] = (value / scale).to(torch.float8_e4m3fn), scale.float()
        else:
            state[name] = value.bfloat16()
    put(folder, state)
    (folder / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')


def _old_gptq(folder: Path) -> None:
    state = tensors(folder)
    state["model.layers.0.mlp.up_proj.qweight"] = state.pop("model.layers.0.mlp.up_proj.weight").int()
    put(folder, state)
    (folder / "quantize_config.json").write_text('{"bits": 4}')


def _other_weights(folder: Path) -> None:
    """transformers would load these, and every other reader model.safetensors."""
    put(folder, {name: value + 1 for name, value in tensors(folder).items()}, "other.safetensors")
    edit(folder / "config.json", transformers_weights="other.safetensors")


def _dropout(folder: Path) -> None:
    """So little that the probe text may well have its usual tokens."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    edit(folder / "tokenizer.json", model={**tokenizer["model"], "dropout": 0.001})


def _far_start(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.BertProcessing(("</s>", 1), ("<s>", 99999))
    tokenizer.save(str(folder / "tokenizer.json"))


def _grow_vocabulary(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<|im_start|>"])
    tokenizer.save_pretrained(folder)


def _scaled(folder: Path, factor: float) -> None:
    put(folder, {name: value * factor if "layers.0.self_attn.q_proj" in name else value for name, value in tensors(folder).items()})


def _renamed(folder: Path, prefix: str) -> None:
    put(folder, {f"{prefix}{name}": value for name, value in tensors(folder).items()})


def _added_token(folder: Path, content: str) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(content, special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))


UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "eight bits with scales": (_fp8, "already quantized"),
    "four bits of old": (_old_gptq, "already quantized"),
    "settings of a quantizer": (lambda f: edit(f / "config.json", quantization={"bits": 4}), "already quantized"),
    "compressed tensors": (lambda f: edit(f / "config.json", compression_config={"format": "x"}), "already quantized"),
    "an embedding model": (lambda f: edit(f / "config.json", is_causal=False), "is_causal is False: a token of this model sees later ones"),
    "both directions": (lambda f: edit(f / "config.json", use_bidirectional_attention=True), "sees later ones"),
    "an attention of its own": (lambda f: edit(f / "config.json", attn_implementation="flex_attention"), "remove attn_implementation"),
    "no positions": (lambda f: edit(f / "config.json", max_position_embeddings=-1), "max_position_embeddings is -1"),
    "a negative epsilon": (lambda f: edit(f / "config.json", rms_norm_eps=-1.0), "rms_norm_eps is -1.0"),
    "rotary values that are not finite": (
        lambda f: edit(f / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 0.0}),
        "values that are not finite",
    ),
    "a wrapper's prefix": (lambda f: _renamed(f, "_orig_mod."), "every tensor has '_orig_mod.' before its name"),
    "half an adapter": (
        lambda f: put(f, tensors(f) | {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 64)}),
        "an adapter that is not merged",
    ),
    "a generation config that transformers refuses": (
        lambda f: (f / "generation_config.json").write_text('{"max_new_tokens": -5}'),
        r"generation_config\.json: transformers cannot read it",
    ),
    "a special token that texts hold": (lambda f: _added_token(f, " the"), "1 tokens lie beyond the 384 rows"),
    "a link to nothing": (
        lambda f: (f / "model.safetensors").unlink() or (f / "model.safetensors").symlink_to("gone"),
        "model.safetensors: a link to a file that is gone",
    ),
    "HQQ": (
        lambda f: put(f, tensors(f) | {"model.layers.0.mlp.up_proj.W_q": torch.ones(4, dtype=torch.uint8)}),
        "already quantized",
    ),
    "no output layer": (lambda f: edit(f / "config.json", tie_word_embeddings=False), "1 tensors are missing: lm_head.weight"),
    "a block too many": (_extra_block, "9 tensors are unknown to the architecture 'llama': model.layers.2"),
    "a tensor too few": (_drop, "1 tensors are missing: model.layers.1.mlp.down_proj.weight"),
    "another shape": (_reshape, r"1 tensors have another shape .*down_proj.weight is \[3, 4\], not \[64, 128\]"),
    "a number as text": (lambda f: edit(f / "config.json", **{EPS: "1e-05"}), "rms_norm_eps.*expected float, got str"),
    "a list as number": (lambda f: edit(f / "config.json", num_attention_heads=[4]), "num_attention_heads"),
    "legacy rope": (
        lambda f: edit(f / "config.json", rope_scaling={"type": "su", "short_factor": [1.0], "long_factor": [1.0]}, rope_parameters=...),
        "unknown rope_type 'su'(?s:.*)longrope",
    ),
    "rope settings that cannot be computed": (
        lambda f: edit(f / "config.json", rope_parameters={"rope_type": "default", "rope_theta": "x"}),
        "transformers cannot",
    ),
    "heads that do not divide": (lambda f: edit(f / "config.json", num_attention_heads=0), "transformers cannot .*ZeroDivisionError"),
    "a number of blocks that takes long to build": (lambda f: edit(f / "config.json", num_hidden_layers=900), "num_hidden_layers is 900"),
    "hidden states as text": (
        lambda f: edit(f / "config.json", output_hidden_states="true"),
        "output_hidden_states is 'true'",
    ),
    "attentions as a list": (lambda f: edit(f / "config.json", output_attentions=[1]), r"output_attentions is \[1\]"),
    "tuples instead of outputs": (lambda f: edit(f / "config.json", return_dict=False), "return_dict is False"),
    "a number instead of a flag": (lambda f: edit(f / "config.json", return_dict=1), "return_dict is 1"),
    "a billion blocks": (lambda f: edit(f / "config.json", num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "an unknown family": (lambda f: edit(f / "config.json", model_type="brand_new"), "brand_new"),
    "no family": (lambda f: edit(f / "config.json", model_type=..., architectures=...), "model_type None"),
    "a configuration inside": (lambda f: edit(f / "config.json", text_config={}), "another configuration inside, 'text_config'"),
    "a decoder inside": (lambda f: edit(f / "config.json", decoder={"num_hidden_layers": 2}), "another configuration inside, 'decoder'"),
    "weights of another name": (_other_weights, "transformers_weights sends transformers to another file"),
    "a configuration for each version": (
        lambda f: edit(f / "config.json", configuration_files=["config.4.0.0.json"]),
        "config.json: configuration_files sends transformers to another file",
    ),
    "a tokenizer for each version": (
        lambda f: edit(f / "tokenizer_config.json", fast_tokenizer_files=["tokenizer.4.0.0.json"]),
        "tokenizer_config.json: fast_tokenizer_files sends transformers to another file",
    ),
    "a list for the tokenizer's settings": (
        lambda f: (f / "tokenizer_config.json").write_text("[]"),
        "tokenizer_config.json is not a mapping",
    ),
    "a start token beyond the embedding": (_far_start, r"adds the token number 99999 to every text, beyond the 384 rows"),
    "a post-processor that drops the text": (
        lambda f: edit(f / "tokenizer.json", post_processor={"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}),
        "gives a probe text no tokens",
    ),
    "a normalizer that drops the text": (
        lambda f: edit(f / "tokenizer.json", normalizer={"type": "Replace", "pattern": {"Regex": "[\\s\\S]"}, "content": ""}),
        "gives a probe text no tokens",
    ),
    "tokens at random": (_dropout, r"merges at random \(dropout 0.001"),
    "no tokenizer.json but a pointer": (
        lambda f: (f / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "tokenizer.json: a Git LFS pointer",
    ),
    "broken tokenizer.json": (lambda f: (f / "tokenizer.json").write_text('{"version": '), "tokenizer.json: "),
    "tokenizer.json of another program": (lambda f: (f / "tokenizer.json").write_text('{"a": 1}'), "tokenizer"),
    "only a SentencePiece model": (
        lambda f: (f / "tokenizer.json").rename(f / "tokenizer.model"),
        "cannot read the tokenizer(?s:.*)save it as tokenizer.json",
    ),
    "a vocabulary beyond the embedding": (_grow_vocabulary, r"1 tokens lie beyond the 384 rows of the embedding, first '<\|im_start\|>'"),
    "latin-1 in a text": (lambda f: (f / "chat_template.jinja").write_bytes(b"caf\xe9"), "chat_template.jinja: no UTF-8 text"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_unfit_model_is_refused_with_the_reason(name: str, model: Path) -> None:
    spoil, pattern = UNFIT[name]
    spoil(model)
    report = check_folder(model)
    with pytest.raises(FairgateError, match=f"(?s){pattern}"):
        report.require_fit()
    assert all(fault.remedy for fault in report.faults)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_buffers_of_old_checkpoints_are_no_faults(family: str, tmp_path: Path) -> None:
    folder = make_tiny(family, tmp_path / "model")
    prefix = {"llama": "model.layers.0.self_attn", "gpt2": "transformer.h.0.attn", "gpt_neox": "gpt_neox.layers.0.attention"}[family]
    buffers = {"rotary_emb.inv_freq": torch.ones(8), "masked_bias": torch.tensor(-1e4)}
    mask = {"bias": torch.ones(1, 1, 4, 4, dtype=torch.bool)} if family != "llama" else {}
    put(folder, tensors(folder) | {f"{prefix}.{name}": value for name, value in (buffers | mask).items()})
    assert check_folder(folder, values=True).faults == []
    assert load(folder, dtype="float32", device="cpu").context


def test_all_faults_are_told_at_once(model: Path) -> None:
    state = tensors(model)
    state["model.norm.weight"][0] = torch.inf
    put(model, state)
    edit(model / "tokenizer_config.json", bos_token=..., eos_token=...)
    _grow_vocabulary(model)
    with pytest.raises(FairgateError) as caught:
        check_folder(model, where="mine", values=True).require_fit()
    assert "1. mine/tokenizer.json: 1 tokens lie beyond" in str(caught.value)
    assert "neither a start nor an end token" in str(caught.value)
    assert "mine/model.safetensors, model.norm.weight: 1 of 64 values are NaN or infinite" in str(caught.value)


def test_a_model_without_positions_is_told(tmp_path: Path) -> None:
    report = check_folder(make_tiny("mpt", tmp_path / "model"))
    assert ["can be quantized, but not evaluated" in note.what for note in report.notes] == [True]


def test_scaling_regimes_are_told(tmp_path: Path) -> None:
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 32, **factors}
    report = check_folder(make_tiny("phi3", tmp_path / "model", rope_parameters=rope, original_max_position_embeddings=32))
    assert report.faults == []
    assert ["texts of more than 32 tokens have other rotary factors" in note.what for note in report.notes] == [True]


def test_names_that_transformers_changes_are_refused(model: Path) -> None:
    """It would load `gamma` as `weight`; other readers of the folder would not."""
    put(model, {name.replace("norm.weight", "norm.gamma"): value for name, value in tensors(model).items()})
    assert check_folder(model).faults


def test_a_fault_of_the_configuration_is_told_once(model: Path) -> None:
    edit(model / "config.json", **{EPS: "1e-05"})
    assert len(check_folder(model).faults) == 1


@pytest.mark.parametrize(("key", "value"), [("num_hidden_layers", "2"), ("max_position_embeddings", "many"), ("hidden_size", [64])])
def test_a_key_under_its_other_name_has_a_type_too(key: str, value: object, tmp_path: Path) -> None:
    edit(make_tiny("gpt2", tmp_path / "model") / "config.json", **{key: value})
    assert "transformers cannot read it" in words(check_folder(tmp_path / "model"))


def test_no_model_at_all_is_wrong_use(tmp_path: Path, model: Path) -> None:
    with pytest.raises(MissingFile, match="no such folder"):
        check_folder(tmp_path / "nowhere")
    (model / "config.json").unlink()
    with pytest.raises(MissingFile, match=r"no config\.json"):
        check_folder(model)


def test_a_name_that_is_no_text_can_be_printed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model / os.fsdecode(b"old-\xff.safetensors")).write_bytes(b"")
    assert main(["check", str(model)]) == 0
    assert "ignored: old-\\udcff.safetensors" in capsys.readouterr().out
    assert main(["check", str(model), "--json"]) == 0
    assert main(["check", os.fsdecode(b"nowhere-\xff")]) == 2


def test_weights_that_vanish_in_float16_are_told(model: Path) -> None:
    _scaled(model, 1e-8)
    (fault,) = check_folder(model, values=True).faults
    assert "every scale in 4 bits is zero in float16" in fault.what


def test_files_that_nothing_reads_are_no_faults(model: Path) -> None:
    (model / "train_log.json").write_text('{"a": 1}\n{"a": 2}\n')
    (model / "vocab.txt").write_bytes(b"caf\xe9")
    (model / "generation_config.json").write_text("{")
    assert check_folder(model).faults == []


def test_a_class_that_other_programs_would_load_is_told(model: Path) -> None:
    edit(model / "config.json", architectures=["GemmaForCausalLM"])
    (note,) = check_folder(model).notes
    assert note.what == "architectures names GemmaForCausalLM; transformers goes by model_type and loads LlamaForCausalLM"


def test_stray_shards_are_named(model: Path) -> None:
    shard(model)
    put(model, {"a": torch.ones(1)}, "model-00001-of-00003.safetensors")
    (note,) = check_folder(model).notes
    assert "1 safetensors files are not part of the model and are ignored: model-00001-of-00003" in note.what


def test_an_output_layer_of_its_own_is_told(model: Path) -> None:
    state = tensors(model)
    put(model, state | {"lm_head.weight": state["model.embed_tokens.weight"] + 1})
    report = check_folder(model)
    assert report.facts["output layer"] == "a tensor of its own"
    assert ["the stored one counts" in note.what for note in report.notes] == [True]
    assert report.faults == []


def test_values_are_read_on_request(model: Path) -> None:
    state = tensors(model)
    state["model.layers.0.mlp.up_proj.weight"][3, 5] = torch.nan
    state["model.layers.1.mlp.up_proj.weight"][3, 5] = 1e6
    put(model, state)
    assert check_folder(model).faults == []
    first, second = check_folder(model, values=True).faults
    assert "layers.0.mlp.up_proj.weight: 1 of 8192 values are NaN or infinite" in str(first)
    assert "layers.1.mlp.up_proj.weight: a value of magnitude 1e+06" in str(second)
    assert len(check_folder(model, values=True, bits=8).faults) == 1  # 1e6 / 255 fits float16


def test_a_value_that_float32_cannot_hold_counts_as_infinite(model: Path) -> None:
    state = tensors(model)
    norm = "model.norm.weight"
    put(model, state | {norm: state[norm].double() * 1e300})
    assert "model.norm.weight: 64 of 64 values are NaN or infinite in float32" in words(check_folder(model, values=True))
    put(model, state | {norm: state[norm] * 3e38})
    assert check_folder(model, values=True).faults == []


# --- tokenizers


def _byte_level(folder: Path, **settings: object) -> Tokenizer:
    """A byte-level tokenizer with a pre-tokenizer that no class of transformers has."""
    tokenizer = Tokenizer(models.BPE())
    pattern = Regex(r"\p{N}{1,3}|[^\s\p{N}]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=384, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    for name, value in settings.items():
        setattr(tokenizer, name, value)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<s>").save_pretrained(folder)
    return tokenizer


@pytest.mark.parametrize("kind", ["GPT2TokenizerFast", "Qwen2TokenizerFast"])
def test_a_class_that_replaces_the_pre_tokenizer_is_refused(kind: str, model: Path) -> None:
    _byte_level(model)
    edit(model / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert check_folder(model).faults == []
    edit(model / "tokenizer_config.json", tokenizer_class=kind)
    with pytest.raises(FairgateError, match=r"tokenizes otherwise than tokenizer\.json(?s:.*)PreTrainedTokenizerFast"):
        check_folder(model).require_fit()


def test_a_class_that_drops_the_normalizer_is_refused(model: Path) -> None:
    _byte_level(model, normalizer=normalizers.Lowercase())
    edit(model / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert check_folder(model).faults == []
    edit(model / "tokenizer_config.json", tokenizer_class="GPT2TokenizerFast")
    assert "tokenizes otherwise" in words(check_folder(model))


def test_a_pad_token_beyond_the_embedding_is_a_note(model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(model)
    report = check_folder(model)
    assert report.faults == []
    assert ["beyond the 384 rows of the embedding: '[PAD]', number 384" in note.what for note in report.notes] == [True]


def test_an_appended_end_token_is_a_note(model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer.save(str(model / "tokenizer.json"))
    report = check_folder(model)
    assert report.faults == []
    assert ["ends every text with '</s>'" in note.what for note in report.notes] == [True]


@pytest.mark.parametrize("template", ["{{ raise_exception('only system') }}", "{% for %}", "{{ messages[0].nothing.more }}"])
def test_a_chat_template_that_does_not_render_is_a_note(template: str, model: Path) -> None:
    (model / "chat_template.jinja").write_text(template)
    report = check_folder(model)
    assert report.faults == []
    assert ["the chat template does not render" in note.what for note in report.notes] == [True]


# --- the command


def test_command_prints_and_its_exit_code_says_whether_the_model_is_fit(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(model)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{model}: fit"
    _drop(model)
    assert main(["check", str(model)]) == 1
    out = capsys.readouterr().out
    assert "FAULT: 1 tensors are missing: model.layers.1.mlp.down_proj.weight\n       Remedy: " in out
    assert out.splitlines()[-1] == f"{model}: unfit: 1 fault"
    assert main(["check", str(model / "nowhere")]) == 2


def test_command_prints_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _drop(model)
    assert main(["check", str(model), "--json", "--values"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["fit"] is False
    assert [sorted(fault) for fault in told["faults"]] == [["remedy", "what", "where"]]
    assert told["facts"]["tensors"] == 19
