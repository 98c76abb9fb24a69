"""How far float32 log-likelihoods are from lm-eval's, from those of other batches, and each from
float64.

    python -m benchmarks.agreement --base data/base --raw data/raw \\
        --split data/calibration/split.json

The same requests, model and device in one run. The reference is the same model in float64 (but for
norms and rotary angles, which transformers computes in float32: up to 3e-5), whole rows through its
own head, without fairgate's or lm-eval's code: what a side is from it is that side's rounding.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.evaluate_gpu import Key, ours, theirs
from benchmarks.records import Records
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.model import load
from stages.evaluate.tokens import Encoder, Request

TOLERANCE = 1e-4  # nats
_ROWS = 16


@torch.inference_mode()
def exact(arguments: argparse.Namespace, catalogue: Catalogue) -> dict[Key, float]:
    """Log-likelihoods in float64, one row a request, padded on the right."""
    model = load(arguments.base, dtype="float32", device="auto")
    network, encoder = model.network.double(), Encoder(model.tokenizer, model.context)
    requests: list[tuple[Key, Request]] = []
    for name in arguments.peer_tasks:
        encoded = encoder.encode(catalogue.load(name).items[: arguments.limit], name)
        requests += [((name, e.item.id, k), request) for e in encoded for k, request in enumerate(e.requests)]
    requests.sort(key=lambda pair: len(pair[1].context) + len(pair[1].option))
    log_likelihoods: dict[Key, float] = {}
    for start in range(0, len(requests), _ROWS):
        part = requests[start : start + _ROWS]
        rows = [torch.tensor(request.context + request.option) for _, request in part]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)
        logprobs = network(input_ids=ids[:, :-1], use_cache=False).logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        for (key, request), row in zip(part, logprobs, strict=True):
            first = len(request.context) - 1
            log_likelihoods[key] = row[first : first + len(request.option)].sum().item()
    return log_likelihoods


def apart(first: dict[Key, float], second: dict[Key, float]) -> dict[str, Any]:
    """Differences in nats over all requests; `where` is the worst."""
    if first.keys() != second.keys():
        raise RuntimeError(f"{len(first.keys() ^ second.keys())} requests of one side alone, such as {min(first.keys() ^ second.keys())}")
    differences = {key: abs(first[key] - second[key]) for key in first}
    worst = max(differences, key=differences.__getitem__)
    return {
        "max": differences[worst],
        "median": median(differences.values()),
        "share_above_1e-4": sum(value > TOLERANCE for value in differences.values()) / len(differences),
        "where": list(worst),
        "log_likelihood": second[worst],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=Path("data/base"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"))
    parser.add_argument("--split", type=Path, default=Path("data/calibration/split.json"))
    parser.add_argument("--peer-tasks", nargs="*", default=["crows_pairs", "piqa"], metavar="TASK")
    parser.add_argument("--batch", type=int, default=64, help="lm-eval's batch size")
    parser.add_argument("--limit", type=int, default=256, help="items of each task")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/evaluate_gpu.json"))
    arguments = parser.parse_args()
    records = Records(arguments.out, "agreement", ("transformers", "lm-eval"))
    catalogue, limit = Catalogue(arguments.raw, arguments.split), arguments.limit
    sides = {
        "float64": exact(arguments, catalogue),
        "fairgate": ours(arguments, catalogue, limit),
        "fairgate, rows alone": ours(arguments, catalogue, limit, batch_tokens=1),
        "lm-eval": theirs(arguments, "float32", arguments.batch, limit)[0],
        "lm-eval, rows alone": theirs(arguments, "float32", 1, limit)[0],
        "lm-eval, softmax in float64": theirs(arguments, "float32", arguments.batch, limit, softmax_dtype="float64")[0],
    }
    pairs = {f"{first} / {second}": apart(sides[first], sides[second]) for first, second in combinations(sides, 2)}
    for name, differences in pairs.items():
        print(f"{name}: {differences}", flush=True)
    more = {"peer": f"lm-eval, HFLM, batches of {arguments.batch}", "dtype": "float32", "tasks": arguments.peer_tasks}
    worst = pairs["fairgate / lm-eval"]["max"] / TOLERANCE
    records.add("log_likelihood_difference", [worst], "1e-4 nats", target=1, requests=len(sides["float64"]), pairs=pairs, **more)


if __name__ == "__main__":
    main()
