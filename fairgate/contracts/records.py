"""The contracts between stages: files that one stage writes and another reads.

Each file is validated on reading and carries `schema`. A file of another schema is refused, and the
message names the stage to run again.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fairgate.support.errors import BadRecord
from fairgate.support.files import read_json, read_jsonl, write_json, write_jsonl

SCHEMA: Literal[1] = 1


class Record(BaseModel):
    """Base of every record: frozen, no unknown fields, finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    written_by: ClassVar[str]


class Versioned(Record):
    """Base of a record that is a file, or a line of one: it carries the version of its schema."""

    model_config = ConfigDict(populate_by_name=True)
    schema_: Literal[1] = Field(SCHEMA, alias="schema", description="version of this file's schema")


class Pair(Versioned):
    """One StereoSet item: a line of `pairs.jsonl`, or of `context_pairs.jsonl`.

    In the second file each sentence stands behind its context.
    """

    written_by: ClassVar[str] = "calibrate"
    pair_id: str = Field(description="StereoSet's id of the item")
    group: str = Field(description="bias type, such as profession or religion")
    target: str = Field(description="target term, the unit that splits and bootstraps keep together")
    stereotype: str = Field(description="the sentence with the stereotype")
    anti_stereotype: str = Field(description="the same sentence with its opposite")
    unrelated: str = Field(description="the same sentence with a word that makes no sense")

    @model_validator(mode="after")
    def _sides_differ(self) -> Pair:
        for side in ("stereotype", "anti_stereotype"):
            if not getattr(self, side).strip():
                raise ValueError(f"pair {self.pair_id!r}: side {side!r} is empty")
        if self.stereotype == self.anti_stereotype:
            raise ValueError(f"pair {self.pair_id!r}: both sides are identical")
        return self


class Text(Versioned):
    """A passage of general text.

    It is a line of `text.jsonl`, `training.jsonl` or `development.jsonl`.
    """

    written_by: ClassVar[str] = "calibrate"
    text_id: str = Field(description="where the passage comes from")
    text: str = Field(description="the passage")


class Role(StrEnum):
    """Who may use a data set for what (docs/architecture.md)."""

    calibration = "calibration"
    development = "development"
    gate = "gate"


class Overlap(Record):
    """Normalized sentences or target terms that two sets share."""

    written_by: ClassVar[str] = "calibrate"
    first: str = Field(description="the set that calibration uses")
    second: str = Field(description="the set that it is compared with")
    kind: Literal["sentence", "term"] = Field(description="what is shared")
    count: int = Field(description="how many are shared")
    refused: bool = Field(description="whether sharing any is an error")


class Split(Versioned):
    """`split.json`: the role of every data set, what was held out, and the overlaps found."""

    written_by: ClassVar[str] = "calibrate"
    seed: int = Field(description="seed of the split")
    roles: dict[str, Role] = Field(description="role of each data set")
    calibration_terms: list[str] = Field(description="target terms of the calibration pairs")
    development_terms: list[str] = Field(description="target terms held out for development")
    dropped: dict[str, list[str]] = Field(description="ids that were left out, by data set")
    overlaps: list[Overlap] = Field(description="what data sets share")
    pairs: int = Field(description="lines of pairs.jsonl")
    texts: int = Field(description="lines of text.jsonl")
    pairs_digest: str = Field(description="sha256 of pairs.jsonl")
    text_digest: str = Field(description="sha256 of text.jsonl")
    context_pairs: int = Field(0, description="lines of context_pairs.jsonl")
    training_texts: int = Field(0, description="lines of training.jsonl")
    context_pairs_digest: str | None = Field(None, description="sha256 of context_pairs.jsonl; None where an older stage wrote none")
    training_digest: str | None = Field(None, description="sha256 of training.jsonl; None where an older stage wrote none")


class Status(StrEnum):
    """How a module came to its quantized weight.

    Anything but `ok` is counted, shown, and can be refused by the gate.
    """

    ok = "ok"
    damped = "damped"  # the Cholesky factorization needed more damping than asked for
    fallback_rtn = "fallback_rtn"  # rounded to nearest because no factorization succeeded
    stopped = "stopped"  # learned rounding ended early: the weight is from the last good state


class Penalty(Record):
    """The pair penalty tr(W C W^T) / P of one module, in three states.

    `weight - target` is what the shift bought, `quantized - target` what rounding gave back.
    """

    weight: float = Field(description="of the unquantized weight")
    target: float = Field(description="of the shifted target")
    quantized: float = Field(description="of the quantized weight")
    alpha_zero: float | None = Field(None, description="what plain GPTQ would have left")


class ModuleRow(Record):
    """One row of `quantization.json`: one quantized linear module.

    A value that was not measured keeps its default.
    """

    written_by: ClassVar[str] = "quantize"
    name: str = Field(description="full name of the module in the model")
    block: int = Field(description="index of its block")
    kind: str = Field(description="type of matrix, such as q_proj")
    shape: tuple[int, int] = Field(description="outputs, inputs")
    status: Status = Field(description="how it came to its quantized weight")
    debiased: bool = Field(False, description="whether a fairness term took part")
    damping: float | None = Field(None, description="damping that succeeded; None without factorization")
    damping_tried: dict[str, list[float]] = Field(default_factory=dict, description="every step of the ladder, by matrix (H, T)")
    loss: float | None = Field(None, description="tr((Q - target) A (Q - target)^T)")
    bias_ratio: float | None = Field(None, description="trB/trH, the weight of the fairness term")
    top_eigenvalue: float | None = Field(None, description="largest generalized eigenvalue of (B, damped H)")
    shift: float = Field(description="|target - weight| / |weight|")
    weight_change: float = Field(description="|quantized - weight| / |weight|")
    dead_columns: int = Field(0, description="inputs that calibration never activated")
    penalty: Penalty | None = Field(None, description="None for modules without fairness term")


class Training(Record):
    """How learned rounding went."""

    steps: int = Field(description="steps taken")
    asked: int = Field(description="steps asked for")
    stopped: str | None = Field(description="why it ended early; None if it did not")
    history: list[dict[str, float]] = Field(description="terms of the loss every few steps")


class Quantization(Versioned):
    """`quantization.json`: how a checkpoint was made, and one row per module.

    Seconds and hosts live in `timing.json`.
    """

    written_by: ClassVar[str] = "quantize"
    recipe: str = Field(description="name of the recipe")
    method: str = Field(description="its method")
    settings: dict[str, Any] = Field(description="its settings, defaults included")
    architecture: str = Field(description="family of the model")
    base_digest: str = Field(description="sha256 of the whole folder of the unquantized model")
    base_weight_digest: str = Field(description="sha256 of the unquantized weights alone, as an evaluation names them")
    weight_digest: str = Field(description="sha256 of the quantized weights")
    files: dict[str, str] = Field(
        default_factory=dict,
        description="sha256 of everything beside the weights: configuration, tokenizer",
    )
    pairs_digest: str | None = Field(description="sha256 of the pairs; None if none were used")
    text_digest: str | None = Field(description="sha256 of the text; None if none was used")
    pairs: int = Field(description="calibration pairs used")
    texts: int = Field(description="passages of general text used")
    tokens: int = Field(description="tokens of the calibration")
    versions: dict[str, str] = Field(description="versions of the libraries")
    seed: int = Field(description="seed of the run")
    bytes_base: int = Field(description="size of the unquantized weights")
    bytes_packed: int = Field(description="size of the packed weights")
    notes: list[str] = Field(description="what a reader of the results should know")
    modules: list[ModuleRow] = Field(description="one row per quantized module")
    training: Training | None = Field(None, description="of learned rounding; else None")


class Environment(Versioned):
    """`environment.json`: what an evaluation judged, and what its numbers depend on."""

    written_by: ClassVar[str] = "evaluate"
    role: Role = Field(description="what the evaluation was for")
    weight_digest: str = Field(description="sha256 of the weights that were judged")
    versions: dict[str, str] = Field(description="versions of the libraries")
    dtype: str = Field(description="precision of the arithmetic")
    device: str = Field(description="where it ran")
    threads: int = Field(description="CPU threads")
    batch_tokens: int = Field(description="tokens in a batch")
    seed: int = Field(description="seed of subsets and sampling")
    start_token: dict[str, str] = Field(description="what stands before a sentence")
    context: int = Field(description="longest row in tokens")
    prompts_beyond_context: int = Field(description="prompts that did not fit")
    packed_kernel: dict[str, float] | None = Field(
        description="difference of the packed kernel's logits, and the tolerance; None for plain weights or where no kernel is installed"
    )
    tasks: dict[str, dict[str, Any]] = Field(description="version, data set and item counts of each task")
    skipped: dict[str, str] = Field(default_factory=dict, description="why a task of the role was left out, by task")
    rounding: dict[str, float] | None = Field(
        None,
        description="a sample against float32, where a CPU computed in 16 bits (stages/evaluate/rounding.py)",
    )


class Verdict(StrEnum):
    """What the gate decided about a candidate."""

    approve = "approve"
    reject = "reject"
    inconclusive = "inconclusive"


class Outcome(StrEnum):
    """How one line of the verdict ended.

    Open means that the data decide neither, or that n is too small.
    """

    passed = "pass"
    failed = "fail"
    open = "open"


class Line(Record):
    """One line of the verdict: a check overall or in one group, or the cap beside it."""

    written_by: ClassVar[str] = "gate"
    name: str = Field(description="name of the check; `<name>.cap` for its cap")
    metric: str = Field(description="what was measured")
    rule: str = Field(description="how harm is defined (docs/methods.md)")
    group: str | None = Field(description="group of the items; None means all of them")
    outcome: Outcome = Field(description="passed, failed or open")
    candidate: float | None = Field(description="value of the candidate")
    reference: float | None = Field(description="value of the reference; None if it has none")
    harm: float | None = Field(description="positive when the candidate is worse")
    low: float | None = Field(description="one-sided lower bound of the harm; None without bounds")
    high: float | None = Field(description="one-sided upper bound of the harm; None without bounds")
    margin: float = Field(description="harm that the policy still tolerates")
    n: int = Field(description="independent units, which the bootstrap resamples")
    n_minimum: int = Field(description="units below which the line stays open")
    n_needed: int | None = Field(description="units that would decide an open line if its estimate stayed")
    reason: str = Field(description="the policy's reason for the margin")
    items: int | None = Field(None, description="items behind the units")
    detectable: float | None = Field(None, description="smallest margin that a harmless candidate meets with 80 % power")
    floor: float | None = Field(None, description="what the stack itself changes; a margin below it decides nothing")


class VerdictRecord(Versioned):
    """`verdict.json`: the gate's decision, its lines, and the digests of exactly what it read."""

    written_by: ClassVar[str] = "gate"
    verdict: Verdict = Field(description="approve, reject or inconclusive")
    candidate: str = Field(description="recipe that was judged")
    reference: str = Field(description="recipe that it was compared with")
    reasons: list[str] = Field(description="the verdict in sentences")
    checks: list[Line] = Field(description="the lines of every check, in the policy's order")
    policy_digest: str = Field(description="sha256 of the policy")
    weight_digest: str = Field(description="sha256 of the weights that were judged")
    inputs: dict[str, str] = Field(description="sha256 of each file that the gate read")
    confidence: float = Field(description="confidence of each one-sided bound")
    draws: int = Field(description="resamples of the bootstrap")
    seed: int = Field(description="seed of the bootstrap")


class Registration(Versioned):
    """`registration.json`: the register stage's receipt.

    The release flow compares it with the live registry.
    """

    written_by: ClassVar[str] = "register"
    candidate: str = Field(description="recipe that was registered")
    verdict: Verdict = Field(description="what the gate had decided")
    reasons: list[str] = Field(description="the verdict in sentences")
    run_id: str = Field(description="MLflow run")
    model_name: str = Field(description="name of the registered model")
    model_version: str | None = Field(description="its version; None unless the gate approved")
    weight_digest: str = Field(description="sha256 of the weights")
    verdict_digest: str = Field(description="sha256 of verdict.json")
    policy_digest: str = Field(description="sha256 of the policy")
    code_commit: str | None = Field(description="commit of the code; None outside a repository")
    lock_digest: str | None = Field(description="sha256 of dvc.lock; None where there is none")
    tracking_uri: str = Field(description="the registry's address")


Kind = TypeVar("Kind", bound=Record)


def write_record(path: Path | str, record: Record) -> None:
    """Write one record as JSON."""
    write_json(path, record.model_dump(mode="json", by_alias=True))


def read_record(kind: type[Kind], path: Path | str) -> Kind:
    """Read one record; BadRecord names file, field and the stage to run."""
    return _validate(kind, read_json(path, written_by=kind.written_by), str(path))


def write_records(path: Path | str, records: list[Any]) -> None:
    """Write records as JSON lines."""
    write_jsonl(path, (record.model_dump(mode="json", by_alias=True) for record in records))


def read_records(kind: type[Kind], path: Path | str) -> list[Kind]:
    """Read records from JSON lines; BadRecord names file, line and field."""
    rows = read_jsonl(path, written_by=kind.written_by)
    return [_validate(kind, row, f"{path}:{number}") for number, row in enumerate(rows, 1)]


def _validate(kind: type[Kind], data: Any, where: str) -> Kind:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "record"
        remedy = f"run `dvc repro {kind.written_by}` to write it again"
        raise BadRecord(f"field {field!r}: {first['msg']}", where=where, remedy=remedy) from None
