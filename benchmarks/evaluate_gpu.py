"""How fast benchmarks are scored on one GPU, and against lm-eval's own backend in the same run.

    python -m benchmarks.evaluate_gpu --parts suite,bias7b,peer --base data/base --raw data/raw \\
        --split data/calibration/split.json

Parts: `suite`, every likelihood task of the gate whose data are there, all items, of every model;
`bias7b`, CrowS-Pairs, StereoSet and all of BBQ on a random Llama of 7B shape with the base's
tokenizer; `peer`, the same tasks and model through lm-eval's HFLM and through fairgate, and how far
the log-likelihoods are apart in float32. The timer runs from the folder to the written tables:
reading the model and the data, tokenising, scoring, metrics. Imports are not in it.
"""

from __future__ import annotations

import argparse
import gc
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from benchmarks.random_llama import make_model
from benchmarks.records import Records, peak_gib, timed
from fairgate.benchmarks.descriptions import FOLDER
from fairgate.contracts.records import Role
from fairgate.support.devices import out_of_memory, pick_device
from fairgate.support.files import read_json
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.model import load
from stages.evaluate.score import score
from stages.evaluate.selection import Selection
from stages.evaluate.settings import Evaluate
from stages.evaluate.stage import Subject, evaluate
from stages.evaluate.tokens import Encoder

Key = tuple[str, str, int]


class Recorded(HFLM):
    """lm-eval's backend, which keeps what it answered: task, item and option -> log-likelihood."""

    answers: dict[Key, float]

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        answers = super().loglikelihood(requests, disable_tqdm=True)
        self.answers = {(r.task_name, r.doc["item_id"], r.idx): value for r, (value, _) in zip(requests, answers, strict=True)}
        return answers


def settings(dtype: str, batch_tokens: int | None) -> Evaluate:
    return Evaluate(role="gate", seed=0, device="auto", dtype=dtype, batch_tokens=batch_tokens or "auto", tasks={})  # type: ignore[arg-type]


def counts(out: Path) -> dict[str, Any]:
    environment = read_json(out / "environment.json")
    items = {name: task["items"] for name, task in environment["tasks"].items()}
    return {"items": sum(items.values()), "tasks": items, "skipped": sorted(environment["skipped"])}


def suite(arguments: argparse.Namespace, catalogue: Catalogue) -> None:
    models = dict(pair.split("=", 1) for pair in arguments.models) or {"base": arguments.base}
    seconds: dict[str, float] = {}
    for name, folder in models.items():
        out = arguments.tables / name
        selection = Selection(catalogue, Role.gate, arguments.tasks)
        seconds[name], _ = timed(partial(evaluate, Subject(name, Path(folder)), selection, arguments.settings, out))
        print(f"{name}: {seconds[name]:.1f} s", flush=True)
        more = {"models": {n: round(s, 1) for n, s in seconds.items()}, "dtype": arguments.dtype, "peak_gib": peak_gib(), **counts(out)}
        arguments.records.add("likelihood_suite_smollm2_s", list(seconds.values()), "s", target=120, **more)


def bias7b(arguments: argparse.Namespace, catalogue: Catalogue) -> None:
    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    model = make_model(arguments.scratch / "bias7b", arguments.layers, arguments.hidden, arguments.mlp, tokenizer)
    out = arguments.tables / "bias7b"
    selection = Selection(catalogue, Role.gate, arguments.bias_tasks)
    peak_gib()
    runs = [timed(lambda: evaluate(Subject("random", model), selection, arguments.settings, out))[0] for _ in range(arguments.runs)]
    shutil.rmtree(model)
    shape = f"Llama, {arguments.layers} blocks, hidden {arguments.hidden}, MLP {arguments.mlp}, vocabulary and tokens of the base"
    more = {"shape": shape, "dtype": arguments.dtype, "peak_gib": peak_gib(), **counts(out)}
    arguments.records.add("bias_suite_7b_s", runs, "s", target=360, **more)


def theirs(
    arguments: argparse.Namespace, dtype: str, batch: int, limit: int | None = None, **options: Any
) -> tuple[dict[Key, float], dict[str, Any]]:
    """lm-eval's answers on the peer's tasks, and its metrics; `options` are its backend's."""
    manager = TaskManager(
        include_defaults=False,
        include_path=str(FOLDER),
        metadata={"raw": str(arguments.raw), "split": str(arguments.split)},
    )
    device = pick_device("auto", parameter="device")
    model = Recorded(str(arguments.base), dtype=dtype, batch_size=batch, device=str(device), **options)
    done = simple_evaluate(model, tasks=arguments.peer_tasks, task_manager=manager, bootstrap_iters=0, log_samples=False, limit=limit)
    assert done is not None
    return model.answers, done["results"]


def ours(arguments: argparse.Namespace, catalogue: Catalogue, limit: int, batch_tokens: int = 16384) -> dict[Key, float]:
    """fairgate's log-likelihoods in float32 of the first items of each of the peer's tasks."""
    model = load(arguments.base, dtype="float32", device="auto")
    encoder = Encoder(model.tokenizer, model.context)
    log_likelihoods: dict[Key, float] = {}
    for name in arguments.peer_tasks:
        encoded = encoder.encode(catalogue.load(name).items[:limit], name)
        for e, values in zip(encoded, score(model, encoded, batch_tokens=batch_tokens), strict=True):
            log_likelihoods |= {(name, e.item.id, k): value for k, value in enumerate(values)}
    return log_likelihoods


def best(answers: dict[Key, float]) -> dict[tuple[str, str], int]:
    """The likeliest option of each item."""
    options: dict[tuple[str, str], list[float]] = {}
    for (task, item, _), value in sorted(answers.items()):
        options.setdefault((task, item), []).append(value)
    return {key: max(range(len(values)), key=values.__getitem__) for key, values in options.items()}


def peer(arguments: argparse.Namespace, catalogue: Catalogue) -> None:
    out = arguments.tables / "peer"

    def run() -> None:
        evaluate(Subject("base", arguments.base), Selection(catalogue, Role.gate, arguments.peer_tasks), arguments.settings, out)

    exact, _ = theirs(arguments, "float32", min(arguments.peer_batches), arguments.limit)
    mine = ours(arguments, catalogue, arguments.limit)
    if exact.keys() != mine.keys():
        raise RuntimeError(f"{len(exact.keys() ^ mine.keys())} requests of one side alone, such as {min(exact.keys() ^ mine.keys())}")
    apart = {key: abs(exact[key] - mine[key]) for key in mine}
    worst = max(apart, key=apart.__getitem__)
    exact_best, mine_best = best(exact), best(mine)
    float32 = {
        "items": len(exact_best),
        "max_difference": apart[worst],
        "where": list(worst),
        "log_likelihood": exact[worst],
        "share_within_1e-4": sum(value <= 1e-4 for value in apart.values()) / len(apart),
        "equal_answers": sum(exact_best[key] == mine_best[key] for key in exact_best) / len(exact_best),
    }
    print(f"float32: {float32}", flush=True)
    timed(run)  # both sides warm: the first run of a process builds what later ones find
    own = [timed(run)[0] for _ in range(arguments.runs)]
    print(f"fairgate: {own}", flush=True)
    lm_eval: dict[str, float] = {}
    for batch in arguments.peer_batches:
        peak_gib()
        try:
            lm_eval[str(batch)] = timed(lambda: theirs(arguments, arguments.dtype, batch))[0]  # noqa: B023
        except Exception as error:
            if not out_of_memory(error):
                raise
            print(f"lm-eval runs out of memory with batches of {batch}", flush=True)
            continue
        more = {
            "peer": "lm-eval, HFLM, the best of its batch sizes",
            "dtype": arguments.dtype,
            "fairgate_s": [round(seconds, 2) for seconds in own],
            "lm_eval_s": {batch: round(seconds, 2) for batch, seconds in lm_eval.items()},
            **counts(out),
            "float32": float32,
        }
        arguments.records.add("speedup_vs_lm_eval", [min(lm_eval.values()) / seconds for seconds in own], "x", target=3, **more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="suite,bias7b,peer")
    parser.add_argument("--base", type=Path, default=Path("data/base"))
    parser.add_argument("--models", nargs="*", default=[], metavar="NAME=FOLDER", help="of `suite`; none: the base")
    parser.add_argument("--raw", type=Path, default=Path("data/raw"))
    parser.add_argument("--split", type=Path, default=Path("data/calibration/split.json"))
    parser.add_argument("--scratch", type=Path, default=Path("/tmp"), help="where the 7B model lies while it is scored")  # noqa: S108
    parser.add_argument("--tables", type=Path, default=Path("data/suite"), help="where the tables go, a folder a model")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--tasks", nargs="*", default=[], help="of `suite`; none: all of the gate whose data are there")
    parser.add_argument("--bias-tasks", nargs="*", default=["crows_pairs", "stereoset", "bbq_ll", "bbq_ll_other"])
    parser.add_argument("--peer-tasks", nargs="*", default=["crows_pairs", "stereoset", "piqa", "openbookqa", "boolq", "bbq_ll"])
    parser.add_argument("--peer-batches", type=int, nargs="*", default=[64, 256])
    parser.add_argument("--limit", type=int, default=256, help="items of each task that are compared in float32")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--mlp", type=int, default=11008)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/evaluate_gpu.json"))
    arguments = parser.parse_args()
    gc.set_threshold(50_000, 20, 100)  # as the command line of the stage has it
    arguments.records = Records(arguments.out, "evaluate_gpu", ("transformers", "lm-eval"))
    arguments.settings = settings(arguments.dtype, arguments.batch_tokens)
    catalogue = Catalogue(arguments.raw, arguments.split)
    parts = {"suite": suite, "bias7b": bias7b, "peer": peer}
    for part in arguments.parts.split(","):
        parts[part](arguments, catalogue)


if __name__ == "__main__":
    main()
