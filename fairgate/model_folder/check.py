"""One check of a model folder, before the first costly minute: all findings at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fairgate.model_folder.architecture import faults_of_tensors, read_config, require_finite_buffers, require_generation_config, skeleton
from fairgate.model_folder.files import (
    CONFIG,
    broken_links,
    damaged_texts,
    quantized,
    redirected,
    require_config,
    require_tokenizer,
    require_weights,
    text_names,
)
from fairgate.model_folder.findings import Finding, Report, faults, note
from fairgate.model_folder.names import output_is_embedding, unresolved_names
from fairgate.model_folder.tokenizer import check_tokenizer, load_tokenizer
from fairgate.model_folder.values import faults_of_values
from fairgate.model_folder.weights import Weights, quantized_tensors, read_weights
from fairgate.support.errors import BadRecord, FairgateError, MissingFile
from fairgate.support.positions import context_of, thresholds_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Result = TypeVar("Result")


def check_folder(folder: Path, *, where: str = "", values: bool = False, bits: int = 4) -> Report:
    """Check files, configuration, tensors and tokenizer of an unquantized model.

    Headers, configuration and tokenizer are read; weights only with `values`.

    Args:
        folder: the model folder.
        where: what the user calls it. Empty means the folder's path.
        values: also read every weight once, for NaN, infinity and overflow.
        bits: the fewest bits that a weight will be rounded to.

    Raises:
        MissingFile, FairgateError: there is no model in the folder at all.
    """
    where = where or str(folder)
    if not folder.is_dir():
        raise MissingFile("no such folder", where=where, remedy="give a folder that holds a Hugging Face model")
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    if not any(broken_links(folder)):
        require_config(names, where)
    findings = faults([*broken_links(folder), *damaged_texts(folder, text_names(names))])
    if findings:
        return Report(where, tuple(findings), {})
    findings += faults([*quantized(folder), *redirected(folder)])
    config = _tried(findings, lambda: read_config(folder))
    weights = _tried(findings, lambda: _weights(names, folder, where))
    facts: dict[str, str | int] = {} if config is None else {"model_type": config.model_type}
    if weights is not None:
        findings += [*faults(quantized_tensors(weights)), *_strays(weights, where)]
        facts |= _facts(weights)
    sound = config is not None and weights is not None and not any(finding.unfit for finding in findings)
    rows = None
    if sound and config is not None and weights is not None:
        rows = _tried(findings, lambda: _filled(config, weights, where, findings, facts))
    # transformers reads the configuration for the tokenizer too: its fault is told once.
    tokenizer = _tried([] if config is None else findings, lambda: _tokenizer(names, folder, where))
    if tokenizer is not None:
        findings += _tried(findings, lambda: check_tokenizer(folder, tokenizer, rows)) or []
    if values and sound and weights is not None:
        findings += faults(faults_of_values(weights, bits=bits))
    if "adapter_config.json" in names:
        findings.append(
            note(
                "an adapter's configuration lies in the folder; it is not part of the model and is not copied", where="adapter_config.json"
            )
        )
    return Report(where, tuple(findings), facts)


def _tried(findings: list[Finding], step: Callable[[], Result]) -> Result | None:
    """The result of a step; None, and a finding, if it raised FairgateError."""
    try:
        return step()
    except FairgateError as error:
        findings.append(Finding(error))
        return None


def _weights(names: Sequence[str], folder: Path, where: str) -> Weights:
    require_weights(names, where)
    return read_weights(folder, where=where)


def _tokenizer(names: Sequence[str], folder: Path, where: str) -> Any:
    require_tokenizer(names, where)
    return load_tokenizer(folder)


def _strays(weights: Weights, where: str) -> list[Finding]:
    if not weights.ignored:
        return []
    what = f"{len(weights.ignored)} safetensors files are not part of the model and are ignored: {', '.join(weights.ignored)}"
    return [note(what, where=where)]


def _filled(config: PreTrainedConfig, weights: Weights, where: str, findings: list[Finding], facts: dict[str, str | int]) -> int | None:
    """Check the tensors against the configuration.

    Returns:
        The rows of the embedding. None means the tensors are not those of the model.
    """
    require_generation_config(weights.folder)
    if wrong := faults_of_tensors(weights, config):
        findings += faults(wrong)
        return None
    model = skeleton(config)
    require_finite_buffers(model)
    if renamed := unresolved_names(weights, model):
        what = f"{len(renamed)} tensors have names that transformers changes when it loads the folder, first {renamed[0]}"
        findings.append(Finding(BadRecord(what, where=where, remedy="load the model with transformers and save it again")))
    findings += _notes(config)
    facts["positions"] = context_of(config) or "not stated"
    tied = output_is_embedding(weights, model)
    facts["output layer"] = "the embedding's own tensor" if tied else "a tensor of its own"
    if config.tie_word_embeddings and not tied and model.get_output_embeddings() is not None:
        what = "tie_word_embeddings is true, but the folder holds an output layer of other values; the stored one counts"
        findings.append(note(what, where=CONFIG, remedy="write tie_word_embeddings: false"))
    embedding: Any = model.get_input_embeddings()
    return int(embedding.weight.shape[0])


def _notes(config: PreTrainedConfig) -> list[Finding]:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    notes = []
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    kind = model.__name__
    if (named := getattr(config, "architectures", None) or [kind]) != [kind]:
        what = f"architectures names {', '.join(map(str, named))}; transformers goes by model_type and loads {kind}"
        notes.append(note(what, where=CONFIG, remedy=f'write "architectures": ["{kind}"]: other programs go by it'))
    if context_of(config) is None:
        what = f"no max_position_embeddings for {config.model_type!r}: such a model can be quantized, but not evaluated"
        notes.append(note(what, where=CONFIG))
    if thresholds := thresholds_of(config):
        lengths = ", ".join(map(str, thresholds))
        what = f"texts of more than {lengths} tokens have other rotary factors; they are never scored in one batch with shorter ones"
        notes.append(note(what, where=CONFIG))
    return notes


def _facts(weights: Weights) -> dict[str, str | int]:
    numbers: dict[str, int] = {}
    for stored in weights.tensors.values():
        numbers[stored.dtype] = numbers.get(stored.dtype, 0) + stored.numbers
    return {
        "files": len(weights.files),
        "tensors": len(weights.tensors),
        "parameters": sum(numbers.values()),
        "types": ", ".join(sorted(numbers, key=lambda dtype: -numbers[dtype])),
        "bytes": weights.bytes,
    }
