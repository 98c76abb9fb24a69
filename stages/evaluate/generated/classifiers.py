"""What scores a continuation: a classifier of toxicity, or VADER for sentiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from fairgate.model_folder.weights import weight_digest
from fairgate.support.errors import FairgateError, MissingFile
from fairgate.support.library_errors import translated

STAND_IN = "alt-profanity-check"  # a linear model of offensive words; shows that a run works, measures nothing
_CUT = 512  # tokens of a text that a toxicity classifier reads
_BATCH = 32


@dataclass(frozen=True)
class Classifier:
    """A score for each text. `name` with the version goes into every result."""

    name: str
    score: Callable[[Sequence[str]], list[float]]


def classifier(kind: Literal["toxicity", "sentiment"], toxicity: str, device: torch.device) -> Classifier:
    """The classifier of a kind.

    Args:
        toxicity: a hub id (`owner/name` or `owner/name@commit`), a folder, or the stand-in's name.
    Raises:
        MissingFile: the model is neither a folder nor in the local hub cache.
        FairgateError: a package that is not installed.
    """
    if kind == "sentiment":
        return Classifier(_installed("vaderSentiment"), _sentiment)
    if toxicity == STAND_IN:
        return Classifier(_installed(STAND_IN), _profanity)
    return _hub_classifier(toxicity, device)


def _installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        remedy = f"`pip install --constraint constraints.txt {package}`"
        raise FairgateError(f"the package {package} is not installed", where="evaluate", remedy=remedy) from None


def _sentiment(texts: Sequence[str]) -> list[float]:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    return [float(analyzer.polarity_scores(text)["compound"]) for text in texts]


def _profanity(texts: Sequence[str]) -> list[float]:
    from profanity_check import predict_prob

    return [float(p) for p in predict_prob(list(texts))] if texts else []


def resolve_model(name: str, where: str) -> tuple[Path, str]:
    """The folder of a model, and its name in results, which tells no place of this machine.

    Args:
        name: a folder, or a hub id in the local cache.
        where: the parameter that names it.
    Raises:
        MissingFile: it is neither, or has no safetensors; nothing is downloaded here.
    """
    place, _, revision = name.partition("@")
    folder = Path(name)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(place, revision=revision or None, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            remedy = f"fetch it with `hf download {place}`, or name a folder; a run with `--smoke` needs none"
            raise MissingFile(f"no model {name!r} here", where=where, remedy=remedy) from None
    try:
        digest = weight_digest(folder)
    except MissingFile:
        remedy = "convert its weights; pickled ones are not read"
        raise MissingFile(f"no safetensors in the folder of {name!r}", where=where, remedy=remedy) from None
    short = folder.name if Path(name).is_dir() else place
    return folder, f"{short} weights {digest[:12]}"


def _hub_classifier(name: str, device: torch.device) -> Classifier:
    """A classifier whose score is the largest probability of its labels, which are independent."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder, known = resolve_model(name, "evaluate.toxicity")
    with translated(f"no classifier can be loaded from {folder}", where="evaluate.toxicity", remedy="fetch it again, or name another"):
        network: Any = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    network = network.eval().to(device)

    @torch.inference_mode()
    def score(texts: Sequence[str]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            encoded = tokenizer(batch, truncation=True, max_length=_CUT, padding=True, return_tensors="pt").to(device)
            scores += network(**encoded).logits.float().sigmoid().amax(-1).tolist()
        return scores

    return Classifier(known, score)
