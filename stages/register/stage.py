"""Record a verdict as an MLflow run, and an approved candidate as a model version.

Running this twice on the same inputs registers nothing twice.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from fairgate.contracts.records import Registration, Split, Verdict, read_record, write_record
from fairgate.decision.table import markdown
from fairgate.support.digests import sha256_file, sha256_json
from fairgate.support.errors import BadRecord, MissingFile
from fairgate.support.files import read_json, write_json
from fairgate.support.git import head_commit
from fairgate.support.log import log
from fairgate.support.params import PARAMS, Section, load, parse, pick, read_params
from fairgate.support.user import user_name
from stages.register.environment import mlflow_imported, without_credentials
from stages.register.evidence import Evidence, check_binding, read_evidence
from stages.register.naming import BASE, base_name, registered_name
from stages.register.registry import CANDIDATE, EVIDENCE, Registry

with mlflow_imported():
    import mlflow
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.utils.credentials import read_mlflow_creds

CONSTRAINTS = "constraints.txt"
SPLIT = "data/calibration/split.json"
SOURCES = "data/raw/SOURCES.json"
SERVED = ("accelerate", "gptqmodel", "mlflow", "optimum", "safetensors", "torch", "transformers")
EXAMPLE = ["The gardener watered the roses because"]


class Names(Section):
    """What register reads outside its own section."""

    model: str = Field(description="base model: a name of the manifest, a folder or a hub id")
    matrix: list[str] = Field(description="recipes that are quantized and evaluated")


class RegisterParams(Section):
    """Section `register` of params.yaml."""

    experiment: str = Field(min_length=1, description="name of the MLflow experiment")
    max_new_tokens: int = Field(ge=1, description="tokens that the served model writes at most")


def register(root: Path, params: Path) -> Registration:
    """Record the candidate's verdict in MLflow; an approved candidate becomes a model version.

    The version gets the alias `candidate`. The newest run about some weights holds the verdict that
    counts: a verdict that replaces another one is recorded anew, and any verdict but `approve`
    takes the alias away from a version of the same weights.

    Two files are written beside the verdict: `registered.json`, which is deterministic and a DVC
    output, and the receipt `registration.json`, which names the run.

    Raises:
        FairgateError: MLflow does not answer. No weight has been read by then.
        BrokenBinding: the verdict does not belong to the files beside it.
    """
    settings = load(RegisterParams, "register", root / params)
    values, where = read_params(root / params), str(root / params)
    names = parse(Names, {key: pick(values, key, where=where) for key in Names.model_fields}, where=where)
    evidence = read_evidence(root, str(params))
    registry = Registry(root)
    name = registered_name(registry, names.model)
    experiment = registry.experiment(settings.experiment)
    check_binding(root, _checkpoint(root, evidence), evidence)
    key = (evidence.verdict.weight_digest, evidence.verdict_digest)
    version = registry.find_version(name, *key)
    run = registry.find_run(experiment, *key)
    approved = evidence.verdict.verdict is Verdict.approve
    replaces = registry.overruling(evidence.verdict.weight_digest, evidence.verdict.verdict) is not None
    if not replaces and version is not None and version.run_id and registry.run(version.run_id):
        run_id = version.run_id
    elif not replaces and run is not None and not approved and registry.run(run.info.run_id):
        run_id = run.info.run_id
    else:
        with registry.errors():
            run_id, version = _record(root, registry, experiment, name, evidence, settings, names.matrix)
    if version is not None:
        registry.tag_model(name, {BASE: base_name(names.model)})
    number, live = str(version.version) if version else None, registry.aliases(name).get(CANDIDATE)
    if number and live != number:
        registry.move_alias(name, CANDIDATE, number)
    elif not number and live and registry.version(name, live).tags.get("model.sha") == evidence.verdict.weight_digest:
        registry.move_alias(name, CANDIDATE, None)
    return _write_receipt(root, registry, name, evidence, run_id, number)


def requirements(constraints: Path) -> list[str]:
    """Pins of the packages that serving needs, from the constraints file."""
    if not constraints.is_file():
        raise MissingFile("no constraints file", where=str(constraints), remedy="restore it from the repository")
    lines = (line.strip().partition("==") for line in constraints.read_text(encoding="utf-8").splitlines())
    pins = {name.lower().replace("_", "-"): version for name, equals, version in lines if equals}
    missing = [name for name in SERVED if name not in pins]
    if missing:
        raise BadRecord(f"no pin for {', '.join(missing)}", where=str(constraints), remedy="freeze the environment again")
    return [f"{name}=={pins[name]}" for name in SERVED]


def describe(evidence: Evidence) -> str:
    """The verdict as Markdown, for the description of the run and of the version."""
    verdict = evidence.verdict
    head = f"**{verdict.verdict}**: {verdict.candidate} against {verdict.reference}\n"
    return "\n".join(filter(None, [head, markdown(verdict)]))


def _record(
    root: Path, registry: Registry, experiment: str, name: str, evidence: Evidence, settings: RegisterParams, matrix: list[str]
) -> tuple[str, ModelVersion | None]:
    """Record one run with everything that the verdict rests on.

    The version is made last, so that a version that exists is complete.
    """
    verdict = evidence.verdict
    report = root / "data/reports"
    card = _checkpoint(root, evidence) / "README.md"
    for needed in (report / "index.html", card):
        if not needed.is_file():
            raise MissingFile("no such file", where=str(needed), remedy="run `dvc repro report` to write it again")
    # Do not list data/evaluation: a recipe that left the matrix left its table of an earlier run.
    measured = sorted({"base", verdict.candidate, verdict.reference, *matrix})
    files = {recipe: f"data/evaluation/{recipe}/metrics.json" for recipe in measured}
    metrics = _metrics(root, files, verdict.candidate)
    pins = requirements(root / CONSTRAINTS)
    tags = _tags(root, evidence)
    author = {"mlflow.user": read_mlflow_creds().username or user_name()}
    version = None
    with (
        registry.globally(),
        mlflow.start_run(experiment_id=experiment, run_name=verdict.candidate, tags=tags | author, description=describe(evidence)) as run,
    ):
        mlflow.log_params(_parameters(root, evidence))
        registry.client.log_inputs(run.info.run_id, datasets=_datasets(root, evidence))
        context = (CONSTRAINTS, "dvc.lock", SPLIT, SOURCES, *files.values())
        for file in dict.fromkeys((*evidence.files, *context)):
            if (root / file).is_file():
                mlflow.log_artifact(str(root / file), f"{EVIDENCE}/{Path(file).parent}".removesuffix("/."))
        mlflow.log_artifact(str(report / "index.html"), "report")
        mlflow.log_artifact(str(card), "report")
        if verdict.verdict is not Verdict.approve:
            mlflow.log_metrics(metrics)
            return run.info.run_id, None
        with _linked(root, _checkpoint(root, evidence)) as folder:
            model = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("served_model.py")),
                # As a URI: MLflow decodes a plain path, in which `%20` would become a blank.
                artifacts={"checkpoint": folder.resolve().as_uri()},
                model_config={"max_new_tokens": settings.max_new_tokens},
                input_example=EXAMPLE,
                pip_requirements=pins,
                tags=tags,
            )
        mlflow.log_metrics(metrics, model_id=model.model_id)
        version = mlflow.register_model(model.model_uri, name, tags=tags)
        registry.client.update_model_version(name, version.version, describe(evidence))
    return run.info.run_id, version


@contextmanager
def _linked(root: Path, checkpoint: Path) -> Iterator[Path]:
    """The checkpoint as hard links.

    MLflow refuses symbolic links that lead out of the folder it stores, and DVC may make such ones.
    """
    scratch = root / ".fairgate"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as temporary:
        folder = Path(temporary) / "checkpoint"
        folder.mkdir()
        for source in checkpoint.iterdir():
            try:
                (folder / source.name).hardlink_to(source.resolve())
            except OSError:  # another file system
                shutil.copy(source, folder / source.name)
        yield folder


def _checkpoint(root: Path, evidence: Evidence) -> Path:
    """The candidate with its model card, as the report stage wrote it."""
    return root / "data/reports" / evidence.verdict.candidate / "checkpoint"


def _metrics(root: Path, files: dict[str, str], candidate: str) -> dict[str, float]:
    """Flat metrics of every measured recipe. Those of the candidate have no prefix."""
    flat: dict[str, float] = {}
    for recipe, path in files.items():
        prefix = "" if recipe == candidate else f"{recipe}/"
        for key, value in _leaves(read_json(root / path, written_by="evaluate")):
            if isinstance(value, int | float) and not isinstance(value, bool):
                name = prefix + re.sub(r"[^\w\-. /:]", "_", key)
                # Two groups may differ in a character that MLflow does not take.
                flat[f"{name}_{sha256_json(key)[:8]}" if name in flat else name] = float(value)
    return flat


def _leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in _leaves(inner, f"{key}.{name}" if key else str(name))]
    return [] if key == "schema" else [(key, value)]


def _parameters(root: Path, evidence: Evidence) -> dict[str, Any]:
    """The recipe as it ran, and a summary of the policy."""
    record, verdict = evidence.quantization, evidence.verdict
    recipe = {"recipe": record.recipe, "method": record.method, "architecture": record.architecture, "seed": record.seed}
    policy = {f"gate.{key}": value for key, value in evidence.policy.items() if key != "checks"}
    checks = evidence.policy.get("checks", [])
    return {
        **recipe,
        **{f"recipe.{key}": value for key, value in _leaves(record.settings)},
        **policy,
        "gate.checks": len(checks),
        "gate.policy_sha": verdict.policy_digest,
    }


def _tags(root: Path, evidence: Evidence) -> dict[str, str]:
    verdict = evidence.verdict
    lock = root / "dvc.lock"
    tags = {
        "candidate": verdict.candidate,
        "gate.verdict": str(verdict.verdict),
        "gate.policy_sha": verdict.policy_digest,
        "gate.reasons": "; ".join(verdict.reasons),
        "verdict.sha": evidence.verdict_digest,
        "model.sha": verdict.weight_digest,
        "env.sha": sha256_file(root / CONSTRAINTS),
        "dvc.lock_sha": sha256_file(lock) if lock.is_file() else "",
        "git.commit": head_commit(root, PARAMS.name) or "",
    }
    return {key: value for key, value in tags.items() if value}


def _datasets(root: Path, evidence: Evidence) -> list[DatasetInput]:
    """The base model, the calibration texts and every input of the gate, each with its digest.

    MLflow keeps 36 characters of a digest.
    """
    split = read_record(Split, root / SPLIT)
    datasets = [
        ("base", "data/base", evidence.quantization.base_digest, "base"),
        ("pairs", "data/calibration/pairs.jsonl", split.pairs_digest, "calibration"),
        ("text", "data/calibration/text.jsonl", split.text_digest, "calibration"),
        *_sources(root, split),
        *((name.removeprefix("data/"), name, digest, "gate") for name, digest in evidence.verdict.inputs.items()),
    ]
    return [
        DatasetInput(
            Dataset(name=name, digest=digest[:36], source_type="local", source=json.dumps({"uri": path})),
            tags=[InputTag("mlflow.data.context", context)],
        )
        for name, path, digest, context in datasets
    ]


def _sources(root: Path, split: Split) -> list[tuple[str, str, str, str]]:
    """Every fetched data set: name, folder, digest of its files' digests, role."""
    sets = read_json(root / SOURCES, written_by="fetch")["sets"]
    return [
        (
            name,
            f"data/raw/{name}",
            sha256_json({file: pinned["sha256"] for file, pinned in entry["files"].items()}),
            str(split.roles.get(name, "raw")),
        )
        for name, entry in sets.items()
    ]


def _write_receipt(root: Path, registry: Registry, name: str, evidence: Evidence, run_id: str, version: str | None) -> Registration:
    verdict = evidence.verdict
    folder = root / "data/reports" / verdict.candidate
    lock = root / "dvc.lock"
    receipt = Registration(
        candidate=verdict.candidate,
        verdict=verdict.verdict,
        reasons=verdict.reasons,
        run_id=run_id,
        model_name=name,
        model_version=version,
        weight_digest=verdict.weight_digest,
        verdict_digest=evidence.verdict_digest,
        policy_digest=verdict.policy_digest,
        code_commit=head_commit(root, PARAMS.name),
        lock_digest=sha256_file(lock) if lock.is_file() else None,
        tracking_uri=without_credentials(registry.uri),
    )
    write_record(folder / "registration.json", receipt)
    outcome = receipt.model_dump(mode="json", include={"candidate", "verdict", "reasons", "model_name", "weight_digest", "verdict_digest"})
    write_json(folder / "registered.json", {"schema": 1, **outcome, "registered": version is not None})
    if version:
        log.info("register: %s version %s, alias %s", name, version, CANDIDATE)
    else:
        log.info("register: run %s, no version: %s", run_id, "; ".join(verdict.reasons) or verdict.verdict)
    return receipt
