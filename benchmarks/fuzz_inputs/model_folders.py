"""Mutated model folders, and whether the check's word on them holds."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.fuzz_inputs.folder_values import (
    CONFIG_VALUES,
    GENERATION_VALUES,
    STRAY_FILES,
    TEMPLATES,
    TOKENIZER_CONFIG_VALUES,
    TOKENIZER_VALUES,
)
from benchmarks.fuzz_inputs.mutations import json_text, mutated_bytes, mutated_json, with_value
from benchmarks.fuzz_inputs.outcome import Disagreement, Outcome, refused
from fairgate.model_folder.architecture import read_config, skeleton
from fairgate.model_folder.check import check_folder
from fairgate.model_folder.names import stored_names, with_ties
from fairgate.model_folder.tokenizer import PROBE
from fairgate.model_folder.weights import read_weights
from fairgate.support.errors import FairgateError
from flows.smoke.tiny_model import make_tiny_model
from stages.evaluate.model import Model, load
from stages.quantize.methods.rtn import Rtn
from stages.quantize.settings import RunSettings
from stages.quantize.stage import quantize

_NUMBERS: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
# Tied and not, with biases, fused and transposed matrices, another name of the output layer, other
# positions, other norms, other windows.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama_tied": ("llama", {**_NUMBERS, "tie_word_embeddings": True}),
    "llama": ("llama", _NUMBERS),
    "qwen2": ("qwen2", {**_NUMBERS, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "gemma3": ("gemma3_text", {**_NUMBERS, "head_dim": 32, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "phi3": ("phi3", {**_NUMBERS, "pad_token_id": 0}),
    "gpt_neox": ("gpt_neox", _NUMBERS),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "opt": ("opt", {**_NUMBERS, "pad_token_id": 0, "ffn_dim": 64, "word_embed_proj_dim": 64}),
}
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_RECIPE = Rtn(method="rtn", bits=4, group_size=32, symmetric=True)
_DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.uint8, torch.float8_e4m3fn, torch.bool)


def make(folder: Path) -> None:
    """Write every family as one file, and as three shards in half precision."""
    for name, (model_type, numbers) in FAMILIES.items():
        whole = make_tiny_model(model_type, numbers, folder / name)
        (whole / "chat_template.jinja").write_text("{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}")
        sharded = Path(shutil.copytree(whole, folder / f"{name}_sharded"))
        state = {key: value.to(torch.bfloat16) for key, value in load_file(sharded / _SINGLE).items()}
        (sharded / _SINGLE).unlink()
        write_shards(sharded, state, 3)


def write_shards(folder: Path, state: Mapping[str, Tensor], count: int) -> None:
    """Write tensors as shards, with their index."""
    names = sorted(state)
    files = {name: f"model-{at % count + 1:05d}-of-{count:05d}.safetensors" for at, name in enumerate(names)}
    for file in set(files.values()):
        _save({name: state[name] for name in names if files[name] == file}, folder / file)
    (folder / _INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": files}))


def spoil(sound: Path, given: Path, rng: Random) -> list[str]:
    """Copy one of the sound folders, mutated once to three times; returns what was done."""
    base = rng.choice(sorted(sound.iterdir()))
    shutil.copytree(base, given, dirs_exist_ok=True)
    steps = [base.name]
    for _ in range(rng.choices((1, 2, 3), (6, 3, 1))[0]):
        change = rng.choices(list(_CHANGES), list(_CHANGES.values()))[0]
        steps.append(f"{change.__name__.strip('_')}: {change(given, rng)}")
    return steps


def judge(given: Path, work: Path) -> Outcome:
    """Check the folder; if it is called fit, let transformers and two stages use it.

    Raises:
        Disagreement: a parameter or a token is another than in transformers' model, or in the
            packed checkpoint.
    """
    report = check_folder(given, values=True)
    for known in report.notes:
        str(known).encode("utf-8")
    try:
        report.require_fit()
    except FairgateError as error:
        return refused(error)
    parameters = _parameters(given)
    _compare(parameters, by_name(given), "fairgate reads")
    _compare_tokens(given, None)
    try:
        base = load(given, dtype="float32", device="cpu")
        _compare(parameters, _values(base.network), "evaluate loads")
        _compare_tokens(given, base)
        run = RunSettings(device="cpu", seed=0, batch_tokens=512)
        record = quantize("rtn", _RECIPE, run, given, work / "none", work / "packed", work / "store")
        packed = load(work / "packed", dtype="float32", device="cpu")
    except FairgateError as error:
        return refused(error, "late")
    rounded = {f"{row.name}.weight" for row in record.modules}
    served = _values(packed.network)
    _compare({name: value for name, value in parameters.items() if name not in rounded}, served, "the packed checkpoint holds")
    _compare_rounded(parameters, served, rounded)
    _compare_tokens(given, packed)
    return Outcome("accepted")


# --- what the folder is


def _parameters(folder: Path) -> dict[str, Tensor]:
    """Every parameter as transformers loads it, in float32, which holds half precision exactly."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return _values(model)


def _values(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters(remove_duplicate=False)}


def by_name(folder: Path) -> dict[str, Tensor]:
    """Every parameter as fairgate reads it."""
    weights, model = read_weights(folder), skeleton(read_config(folder))
    names = with_ties(stored_names(weights, model), model)
    # GPT-NeoX stores its output layer under another name than transformers gives it.
    if "embed_out.weight" in names:
        names["lm_head.weight"] = names["embed_out.weight"]
    with weights.opened() as opened:
        return {name: opened.tensor(names[name]) for name, _ in model.named_parameters(remove_duplicate=False) if name in names}


def _compare(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], who: str) -> None:
    for name, value in theirs.items():
        if name not in ours:
            raise Disagreement(f"{who} no {name}")
        other = ours[name].to(torch.float32).contiguous()
        if other.shape != value.shape or not torch.equal(other.view(torch.int32), value.contiguous().view(torch.int32)):
            raise Disagreement(f"{who} another {name} than transformers")


def _compare_rounded(theirs: Mapping[str, Tensor], served: Mapping[str, Tensor], names: set[str]) -> None:
    for name in names:
        # Half a step of a 4-bit grid is 0.07 of the largest weight of a group, or less; float16
        # scales end at 6e-8.
        limit = 0.2 * float(theirs[name].abs().max()) + 1e-6
        if not float((theirs[name] - served[name]).abs().max()) <= limit:
            raise Disagreement(f"the packed {name} is no rounding of transformers'")


def _compare_tokens(folder: Path, model: Model | None) -> None:
    """Require the tokens of tokenizer.json, of the model or else of what transformers loads."""
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").is_file():
        return
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.no_truncation()
    raw.no_padding()
    tokenizer = AutoTokenizer.from_pretrained(folder) if model is None else model.tokenizer
    for text in (PROBE, " ".join(reversed(PROBE.split()))):
        if list(tokenizer.encode(text, add_special_tokens=False)) != list(raw.encode(text, add_special_tokens=False).ids):
            raise Disagreement(f"other tokens than tokenizer.json gives, of {text[:20]!r}")


# --- mutations: each changes the folder and says what it did


def _json_file(name: str, choices: Mapping[str, Sequence[Any]]) -> Callable[[Path, Random], str]:
    def change(folder: Path, rng: Random) -> str:
        path = folder / name
        if not path.is_file():
            return f"no {name}"
        try:
            value = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return f"{name} is broken already"
        changed = with_value(value, choices, rng) if choices and rng.random() < 0.6 else mutated_json(value, rng)
        path.write_bytes(json_text(changed))
        return _difference(value, changed)

    change.__name__ = name
    return change


def _difference(before: Any, after: Any) -> str:
    """The part of a value that changed, for a person."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after} - {key for key in before if key in after and _same(before[key], after[key])})
        if len(keys) == 1 and keys[0] in before and keys[0] in after:
            return f"{keys[0]}.{_difference(before[keys[0]], after[keys[0]])}"[:300]
        return repr({key: after.get(key, "(removed)") for key in keys})[:300]
    return repr(after)[:300]


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and repr(a)[:100_000] == repr(b)[:100_000]


def _bytes(folder: Path, rng: Random) -> str:
    path = _any_file(folder, rng)
    if path is None:
        return "no file"
    before = path.read_bytes()
    # The middle of a weight is no text: nine times of ten its header is meant.
    head = 2000 if path.suffix == ".safetensors" and rng.random() < 0.9 else len(before)
    path.write_bytes(mutated_bytes(before[:head], rng) + before[head:])
    return path.name


def _any_file(folder: Path, rng: Random) -> Path | None:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return rng.choice(files) if files else None


def _files(folder: Path, rng: Random) -> str:
    path = _any_file(folder, rng)
    if path is None:
        return "no file"
    kind, target = rng.choice(["remove", "rename", "empty", "folder", "link", "dangling link", "copy", "unreadable name"]), folder / "other"
    if kind == "rename":
        path.rename(folder / rng.choice([*_NAMES, path.name.upper(), f"{path.name}.bak"]))
    elif kind == "copy":
        (folder / rng.choice([*_NAMES, "model-00001-of-00002.safetensors", f"copy of {path.name}"])).write_bytes(path.read_bytes())
    elif kind == "unreadable name":
        shutil.copyfile(path, os.path.join(os.fsencode(folder), b"model-\xff.safetensors"))  # noqa: PTH118  (bytes are meant)
    elif kind == "link":
        path.rename(target)
        path.symlink_to(target)
    else:
        path.unlink()
        if kind == "empty":
            path.touch()
        elif kind == "folder":
            path.mkdir()
        elif kind == "dangling link":
            path.symlink_to(folder / "nowhere")
    return f"{kind} {path.name}"


_NAMES = (
    "model.safetensors",
    "pytorch_model.bin",
    "tokenizer.model",
    "model-00001-of-00003.safetensors",
    "consolidated.safetensors",
    "vocab.json",
)


def _stray(folder: Path, rng: Random) -> str:
    name = rng.choice(sorted(STRAY_FILES))
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(rng.choice(STRAY_FILES[name]))
    return name


def _template(folder: Path, rng: Random) -> str:
    template = rng.choice(TEMPLATES)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return template[:80]


def _weights(folder: Path, rng: Random) -> str:
    """Change the tensors of one file."""
    files = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    if not files:
        return "no weights"
    path = rng.choice(files)
    if not (state := _tensors(path)):
        return f"{path.name} has no tensors, or is broken already"
    name = rng.choice(sorted(state))
    tensor = state[name]
    kind = rng.choice([*_TENSOR_KINDS, "header"])
    if kind == "header":
        return _header(path, rng)
    if kind == "dropped":
        del state[name]
    elif kind == "renamed":
        state[_renamed(name, rng)] = state.pop(name)
    elif kind == "all renamed":
        old, new = rng.choice(
            [
                ("model.", ""),
                ("", "model."),
                ("", "module."),
                ("transformer.", ""),
                ("norm.weight", "norm.gamma"),
                ("bias", "beta"),
                ("layers.1", "layers.01"),
            ]
        )
        state = {key.replace(old, new, 1) if old else new + key: value for key, value in state.items()}
    elif kind == "extra":
        state[
            rng.choice(
                ["extra", f"{name}_scale", "lm_head.weight", "lm_head.bias", "model.layers.2.mlp.up_proj.weight", _renamed(name, rng)]
            )
        ] = tensor + 1
    elif kind == "reshaped":
        state[name] = rng.choice([tensor.flatten(), tensor[None], tensor[..., :1], tensor.repeat(2, *[1] * (tensor.ndim - 1)), tensor[:0]])
    elif kind == "transposed":
        state[name] = tensor.T if tensor.ndim == 2 else tensor.flip(0)
    elif kind == "cast":
        state[name] = tensor.to(rng.choice(_DTYPES))
    elif kind == "all cast":
        dtype = rng.choice(_DTYPES[:3])
        state = {key: value.to(dtype) for key, value in state.items()}
    elif kind == "value":
        flat = tensor.flatten().clone()
        flat[rng.randrange(flat.numel())] = rng.choice([torch.nan, torch.inf, -torch.inf, 1e30, -1e6, 7e4, 1e-30, -0.0])
        state[name] = flat.view(tensor.shape)
    elif kind == "constant":
        state[name] = torch.full_like(tensor, rng.choice([0.0, -0.0, 1.0, 1e-30, 1e4]))
    elif kind == "swapped":
        other = rng.choice(sorted(state))
        state[name], state[other] = state[other], state[name]
    elif kind == "in two files":
        other_path = rng.choice([*files, folder / _SINGLE, folder / "model-00009-of-00009.safetensors"])
        held = _tensors(other_path) if other_path != path else {}
        _save({**held, name: tensor + rng.choice([0, 1])}, other_path)
        return f"{kind}: {name} in {path.name} and {other_path.name}"
    elif kind == "untied":
        state["lm_head.weight"] = rng.choice(
            [tensor, next((v for k, v in state.items() if "embed" in k or "wte" in k), tensor)]
        ) + rng.choice([0, 1])
    _save(state, path, rng.choice([{"format": "pt"}, {"format": "pt"}, {"format": "pt"}, {"format": "np"}, {"format": "tf"}, {}, None]))
    if rng.random() < 0.5:  # as a program that writes the folder again would
        _follow(folder, path, state)
    return f"{kind}: {name} in {path.name}"


def _tensors(path: Path) -> dict[str, Tensor]:
    """What the file holds; nothing if it cannot be read."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError):
        return {}


_TENSOR_KINDS = (
    "dropped", "renamed", "all renamed", "extra", "reshaped", "transposed", "cast", "all cast", "value", "constant", "swapped",
    "in two files", "untied", "rewritten",
)  # fmt: skip


def _renamed(name: str, rng: Random) -> str:
    changes = [
        ("weight", "gamma"),
        ("layers.1", "layers.0"),
        ("layers.1", "layers.01"),
        ("q_proj", "k_proj"),
        ("model.", ""),
        ("weight", "weight.weight"),
    ]
    replaced = [name.replace(old, new) for old, new in changes]
    return rng.choice([*replaced, f"model.{name}", name.upper(), f"{name}\x00", "ünï", "", f"base_model.model.{name}", "__metadata__x"])


def _follow(folder: Path, path: Path, state: Mapping[str, Tensor]) -> None:
    """Bring the index up to date with a file."""
    try:
        index = json.loads((folder / _INDEX).read_bytes())
        kept = {name: file for name, file in index["weight_map"].items() if file != path.name}
        (folder / _INDEX).write_text(json.dumps({**index, "weight_map": kept | dict.fromkeys(state, path.name)}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return


def _header(path: Path, rng: Random) -> str:
    """Change the header of a safetensors file as JSON."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    before = json.loads(data[8 : 8 + length])
    after = mutated_json(before, rng)
    text = json_text(after)
    text += b" " * rng.choice([-len(text) % 8, -len(text) % 8, 0, 1])
    path.write_bytes((len(text) + rng.choice([0, 0, 0, 0, 1, -1])).to_bytes(8, "little") + text + data[8 + length :])
    return f"header of {path.name}: {_difference(before, after)}"


def _save(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = {"format": "pt"}) -> None:  # noqa: B006  (never changed)
    save_file({name: value.clone().contiguous() for name, value in state.items()}, path, metadata=metadata)


_CHANGES: dict[Callable[[Path, Random], str], int] = {
    _json_file("config.json", CONFIG_VALUES): 30,
    _json_file("tokenizer.json", TOKENIZER_VALUES): 12,
    _json_file("tokenizer_config.json", TOKENIZER_CONFIG_VALUES): 12,
    _json_file("generation_config.json", GENERATION_VALUES): 5,
    _json_file(_INDEX, {}): 6,
    _template: 2,
    _bytes: 10,
    _files: 8,
    _stray: 8,
    _weights: 25,
}
