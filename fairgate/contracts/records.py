"""The contracts between stages: every file that one stage writes and another reads, validated on reading.

Each record carries `schema`; a file of another schema is refused with the stage that must be run again.
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
    """Base of every record: frozen, no unknown fields, finite numbers, a schema version."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    written_by: ClassVar[str]


class Pair(Record):
    """One line of `pairs.jsonl` or, with the context before each sentence, of `context_pairs.jsonl`: one StereoSet item.

    `group` is the bias type, `target` the target term (the unit that splits and bootstraps keep together).
    """

    written_by: ClassVar[str] = "calibrate"
    schema_: Literal[1] = Field(SCHEMA, alias="schema")
    pair_id: str
    group: str
    target: str
    stereotype: str
    anti_stereotype: str
    unrelated: str

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _sides_differ(self) -> Pair:
        for side in ("stereotype", "anti_stereotype"):
            if not getattr(self, side).strip():
                raise ValueError(f"pair {self.pair_id!r}: side {side!r} is empty")
        if self.stereotype == self.anti_stereotype:
            raise ValueError(f"pair {self.pair_id!r}: both sides are identical")
        return self


class Text(Record):
    """One line of `text.jsonl`, `training.jsonl` or `development.jsonl`: a passage of general text."""

    written_by: ClassVar[str] = "calibrate"
    schema_: Literal[1] = Field(SCHEMA, alias="schema")
    text_id: str
    text: str

    model_config = ConfigDict(populate_by_name=True)


class Role(StrEnum):
    """Who may use a data set for what (docs/architecture.md)."""

    calibration = "calibration"
    development = "development"
    gate = "gate"


class Overlap(Record):
    """Normalised sentences or target terms that two sets share."""

    written_by: ClassVar[str] = "calibrate"
    first: str
    second: str
    kind: Literal["sentence", "term"]
    count: int
    refused: bool


class Split(Record):
    """`split.json`: the role of every data set, what was held out, and the overlaps found.

    Digests are of the files that `pairs`, `context_pairs`, `texts` and `training_texts` count; None where an older stage wrote none.
    """

    written_by: ClassVar[str] = "calibrate"
    schema_: Literal[1] = Field(SCHEMA, alias="schema")
    seed: int
    roles: dict[str, Role]
    calibration_terms: list[str]
    development_terms: list[str]
    dropped: dict[str, list[str]]
    overlaps: list[Overlap]
    pairs: int
    texts: int
    pairs_digest: str
    text_digest: str
    context_pairs: int = 0
    training_texts: int = 0
    context_pairs_digest: str | None = None
    training_digest: str | None = None

    model_config = ConfigDict(populate_by_name=True)


class Status(StrEnum):
    """How a module came to its quantized weight. Anything but `ok` is counted, shown and can be refused by the gate."""

    ok = "ok"
    damped = "damped"  # the Cholesky factorization needed more damping than asked for
    fallback_rtn = "fallback_rtn"  # rounded to nearest because no factorization succeeded
    stopped = "stopped"  # learned rounding ended early: the weight is that of the last good state


class Penalty(Record):
    """tr (. C .^T) / P of one module, for the weight, the shifted target and the quantized weight.

    `weight - target` is what the shift bought, `quantized - target` what rounding gave back.
    """

    weight: float
    target: float
    quantized: float
    alpha_zero: float | None = None  # what plain GPTQ would have left


class ModuleRow(Record):
    """One row of `quantization.json`: one quantized linear module."""

    written_by: ClassVar[str] = "quantize"
    name: str
    block: int
    kind: str
    shape: tuple[int, int]
    status: Status
    debiased: bool
    damping: float | None
    damping_tried: dict[str, list[float]] = Field(default_factory=dict)  # every step of the ladder, by matrix (H, T)
    loss: float | None
    bias_ratio: float | None
    top_eigenvalue: float | None
    shift: float
    weight_change: float
    dead_columns: int
    penalty: Penalty | None = None  # of debiased modules


class Training(Record):
    """How learned rounding went: steps taken of those asked for, why it stopped early, and the terms of the loss every few steps."""

    steps: int
    asked: int
    stopped: str | None
    history: list[dict[str, float]]


class Quantization(Record):
    """`quantization.json`: how a checkpoint was made, and one row per module. Seconds and hosts live in `timing.json`.

    base_digest, base_weight_digest: of the whole folder of the unquantized model, and of its weights alone, as an evaluation names them.
    """

    written_by: ClassVar[str] = "quantize"
    schema_: Literal[1] = Field(SCHEMA, alias="schema")
    recipe: str
    method: str
    settings: dict[str, Any]
    architecture: str
    base_digest: str
    base_weight_digest: str
    weight_digest: str
    files: dict[str, str] = Field(default_factory=dict)  # sha256 of everything beside the weights: configuration, tokenizer
    pairs_digest: str | None
    text_digest: str | None
    pairs: int
    texts: int
    tokens: int
    versions: dict[str, str]
    seed: int
    bytes_base: int
    bytes_packed: int
    notes: list[str]
    modules: list[ModuleRow]
    training: Training | None = None

    model_config = ConfigDict(populate_by_name=True)


class Environment(Record):
    """`environment.json`: what an evaluation judged (`weight_digest`), in which role, and what its numbers depend on.

    packed_kernel: difference of the packed kernel's logits and the tolerance; None for plain weights or where no kernel is installed.
    tasks: version, data set and item counts of each task; skipped: why a task of the role was left out, by task.
    rounding: where a CPU computed in 16 bits, a sample against float32 (stages/evaluate/rounding.py).
    """

    written_by: ClassVar[str] = "evaluate"
    schema_: Literal[1] = Field(SCHEMA, alias="schema")
    role: Role
    weight_digest: str
    versions: dict[str, str]
    dtype: str
    device: str
    threads: int
    batch_tokens: int
    seed: int
    start_token: dict[str, str]
    context: int
    prompts_beyond_context: int
    packed_kernel: dict[str, float] | None
    tasks: dict[str, dict[str, Any]]
    skipped: dict[str, str] = Field(default_factory=dict)
    rounding: dict[str, float] | None = None

    model_config = ConfigDict(populate_by_name=True)


class Verdict(StrEnum):
    approve = "approve"
    reject = "reject"
    inconclusive = "inconclusive"


class Outcome(StrEnum):
    """One check: passed, failed, or open (the data decide neither, or n is too small)."""

    passed = "pass"
    failed = "fail"
    open = "open"


class Check(Record):
    """One line of the verdict. Harm is positive when the candidate is worse; `low` and `high` are its one-sided bounds.

    n counts independent units (what the bootstrap resamples), items the rows behind them; n_needed is the n that would decide an
    open check if its estimate stayed; detectable is the smallest margin that a harmless candidate meets with 80 % power; floor is
    what the stack itself changes, below which no margin is decided.
    """

    written_by: ClassVar[str] = "gate"
    name: str
    metric: str
    rule: str
    group: str | None
    outcome: Outcome
    candidate: float | None
    reference: float | None
    harm: float | None
    low: float | None
    high: float | None
    margin: float
    n: int
    n_minimum: int
    n_needed: int | None
    reason: str
    items: int | None = None
    detectable: float | None = None
    floor: float | None = None


class VerdictRecord(Record):
    """`verdict.json`: the gate's decision, its checks, and the digests of exactly the inputs that it read."""

    written_by: ClassVar[str] = "gate"
    schema_: Literal[1] = Field(SCHEMA, alias="schema")
    verdict: Verdict
    candidate: str
    reference: str
    reasons: list[str]
    checks: list[Check]
    policy_digest: str
    weight_digest: str
    inputs: dict[str, str]
    confidence: float
    draws: int
    seed: int

    model_config = ConfigDict(populate_by_name=True)


class Registration(Record):
    """`registration.json`: the receipt of the register stage, held against the live registry by the release flow."""

    written_by: ClassVar[str] = "register"
    schema_: Literal[1] = Field(SCHEMA, alias="schema")
    candidate: str
    verdict: Verdict
    reasons: list[str]
    run_id: str
    model_name: str
    model_version: str | None
    weight_digest: str
    verdict_digest: str
    policy_digest: str
    code_commit: str | None
    lock_digest: str | None
    tracking_uri: str

    model_config = ConfigDict(populate_by_name=True)


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
