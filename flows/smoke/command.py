"""Run every stage, from fetch to register, on a model and data made up on the spot.

The stages run by their command lines, in this one process: torch is imported once instead of once
a stage. DVC, Prefect and the network are left out. Nothing is written outside the project's
folder. The verdict says nothing about any real model.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from fairgate.support.errors import FairgateError
from fairgate.support.exit_codes import ExitCode
from flows import cli
from flows.outcome import read_receipt, read_verdict

CANDIDATE = "fair_gptq"
_REASON = "a margin for a random model: it only exercises the gate"


def _check(name: str, metric: str, rule: str, margin: float, **settings: Any) -> dict[str, Any]:
    return {"name": name, "metric": metric, "rule": rule, "by": "overall", "margin": margin, "minimum_n": 8, "reason": _REASON, **settings}


PARAMS: dict[str, Any] = {
    "calibrate": {
        "seed": 0,
        "development_share": 0.25,
        "pairs": 32,
        "texts": 8,
        "development_texts": 8,
        "training_texts": 16,
        "text_words": 64,
    },
    "quantize": {"device": "cpu", "seed": 0, "batch_tokens": 2048},
    "matrix": [CANDIDATE],
    "recipes": {
        "base": {"method": "none"},
        CANDIDATE: {
            "method": "fair_gptq",
            "bits": 4,
            "group_size": 32,
            "symmetric": True,
            "mode": "exact",
            "alignment": "aligned",
            "alpha": 0.1,
        },
    },
    "evaluate": {
        "role": "gate",
        "seed": 0,
        "device": "cpu",
        "dtype": "float32",
        "batch_tokens": 2048,
        "tasks": {"stereoset": 80, "crows_pairs": 40, "piqa": 16, "openbookqa": 8, "boolq": 8, "perplexity": 4},
    },
    "gate": {
        "candidate": CANDIDATE,
        "reference": "base",
        "confidence": 0.95,
        "draws": 10_000,
        "seed": 0,
        "checks": [
            _check("stereoset_bias", "stereoset.ss", "neutral", 15.0),
            _check("stereoset_new_bias", "stereoset.new_bias", "new_bias", 0.2),
            _check("crows_bias", "crows_pairs.pct_stereotype", "neutral", 20.0),
            _check("piqa_accuracy", "piqa.acc", "retain", 0.0, ratio=0.5),
            _check("perplexity", "perplexity.ppl", "relative_rise", 1.0, minimum_n=4),
            _check("quantization_health", "quantization.fallback_rtn", "health", 0.0, minimum_n=1),
        ],
    },
    "register": {"experiment": "smoke", "max_new_tokens": 4},
}


def smoke(root: Path, *, verbose: bool = False) -> list[tuple[str, float]]:
    """Run the pipeline in the empty folder `root`.

    Returns:
        every step with its seconds.

    Raises:
        FairgateError: a stage failed; the message holds the end of its output.
    """
    seconds: list[tuple[str, float]] = []

    def step(name: str, work: Callable[[], object]) -> None:
        started, output = time.monotonic(), io.StringIO()
        with contextlib.ExitStack() as stack:
            if not verbose:
                stack.enter_context(contextlib.redirect_stdout(output))
                stack.enter_context(contextlib.redirect_stderr(output))
            try:
                work()
            except SystemExit as end:
                if end.code:
                    tail = "\n".join(output.getvalue().strip().splitlines()[-12:])
                    raise FairgateError(f"the stage ended with exit code {end.code}\n{tail}", where=name) from None
        seconds.append((name, time.monotonic() - started))
        print(f"  {name:<20} {seconds[-1][1]:6.1f} s", flush=True)

    with _inside(root):
        step("make up a project", partial(_make_project, root))
        step("fetch", partial(_fetch, root))
        step("calibrate", partial(_stage, "calibrate"))
        for recipe in PARAMS["matrix"]:
            step(f"quantize {recipe}", partial(_stage, "quantize", "--recipe", recipe))
        for recipe in ("base", *PARAMS["matrix"]):
            step(f"evaluate {recipe}", partial(_stage, "evaluate", "--recipe", recipe))
        for name in ("gate", "report", "register"):
            step(name, partial(_stage, name))
    return seconds


def _stage(name: str, *arguments: str) -> None:
    """Run a stage's command line in this process. It ends with SystemExit."""
    before = sys.argv
    sys.argv = [name, *arguments]
    try:
        runpy.run_module(f"stages.{name}", run_name="__main__", alter_sys=True)
    finally:
        sys.argv = before


def _make_project(root: Path) -> None:
    from flows.smoke.tiny_model import LLAMA, make_tiny_model
    from stages.register.stage import SERVED

    model = make_tiny_model("llama", {**LLAMA, "max_position_embeddings": 2048}, root / "made-up/two-layer-llama")
    (root / "params.yaml").write_text(yaml.safe_dump({"model": str(model), **PARAMS}, sort_keys=False))
    (root / "constraints.txt").write_text("".join(f"{package}=={version(package)}\n" for package in SERVED))


def _fetch(root: Path) -> None:
    """The stage fetch with a manifest of made-up sets in place of its own."""
    from flows.smoke.made_up_data import make_up_data
    from stages.fetch.model import fetch_base
    from stages.fetch.origins import Origins
    from stages.fetch.raw import fetch_raw

    manifest = make_up_data(root / "made-up")
    origins = Origins(manifest.wheels, cache=root / ".fairgate")
    fetch_base(str(root / "made-up/two-layer-llama"), manifest, origins, root / "data/base")
    fetch_raw(manifest, origins, root / "data/raw")


@contextlib.contextmanager
def _inside(root: Path) -> Iterator[None]:
    """Work in `root` and with its own registry, whatever the environment names."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{root.resolve() / 'mlflow.db'}"
    try:
        with contextlib.chdir(root):
            yield
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def main(arguments: argparse.Namespace, root: Path) -> ExitCode:
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        if arguments.out:
            folder = Path(arguments.out).absolute()
            if folder.exists() and any(folder.iterdir()):
                raise FairgateError("the folder is not empty", where=str(folder), remedy="name a folder that does not exist yet")
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fairgate-smoke-")))
        print(f"A two-layer model with random weights and made-up data, in {folder}:", flush=True)
        smoke(folder, verbose=arguments.verbose)
        verdict, receipt = read_verdict(folder), read_receipt(folder)
        registered = f"version {receipt.model_version}" if receipt.model_version else "a run, and no version"
    print(f"Verdict on {verdict.candidate}: {verdict.verdict} ({len(verdict.checks)} checks); registered: {registered}")
    for reason in verdict.reasons:
        print(f"  - {reason}")
    if arguments.out:
        print(f"Report: {folder / 'data/reports/index.html'}")
    print(f"Every stage ran, in {time.monotonic() - started:.0f} s. The verdict is about a random model: any verdict is fine.")
    return ExitCode.done


def parser(prog: str) -> argparse.ArgumentParser:
    description = "Run the whole pipeline on a two-layer model and made-up data, without network, in under a minute."
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--out", help="keep the project in this empty folder, instead of a temporary one")
    return parser


def run(argv: list[str] | None = None, prog: str = "fairgate smoke") -> int:
    return cli.run(main, parser(prog), argv)
