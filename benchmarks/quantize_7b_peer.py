"""Plain GPTQ of a 7B-shaped Llama by GPTQModel and by us, in one run, on models of two depths.

    python -m benchmarks.quantize_7b_peer --folder /dev/shm --batches 8 32 128 --runs 3

What a block more costs is the figure, so set-up and compilation are not in it; storing finished
blocks and hidden states is, for us. GPTQModel runs in a process of its own for each batch size.
Both are warmed up on the smaller model.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.gptqmodel_peer import alone
from benchmarks.quantize_7b import PAIRS, PLAIN, SIDE, calibration, compute_here, quantize, recipe, timed, tokens
from benchmarks.random_llama import make_model
from benchmarks.records import Records

HIDDEN, MLP = 4096, 11008
# Sentences a batch: what the aim of 20 times was stated against; others have their number in the
# record's name
AIMED = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the models")
    parser.add_argument("--depths", type=int, nargs=2, default=[2, 6])
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quantize_7b.json"))
    arguments = parser.parse_args()
    few, many = arguments.depths
    compute = compute_here()
    shape = f"Llama, {few} and {many} blocks, hidden {HIDDEN}, MLP {MLP}, 4 bits, groups of 128"
    records = Records(arguments.out, "quantize_7b_peer", shape=shape)
    pairs, _ = tokens()
    sides = [side for pair in pairs for side in (pair.a, pair.b)]
    models = {depth: make_model(arguments.folder / f"depth{depth}", depth, HIDDEN, MLP) for depth in (few, many)}
    torch.cuda.empty_cache()
    order = [few, *(few, many) * arguments.runs]  # the first one compiles
    plain, data = recipe(PLAIN, calibration="pairs"), calibration()
    own = _by_depth(order[1:], [timed(partial(quantize, models[depth], plain, data, compute))[2] for depth in order][1:])
    torch.cuda.empty_cache()
    for batch in arguments.batches:
        options = ("--group-size", "128", "--batch", str(batch), "--device", compute.device.type)
        done = alone([models[depth] for depth in order], sides, arguments.folder, *options, timeout_s=1200)[1:]
        theirs = _by_depth(order[1:], [seconds["quantize_s"] for seconds in done])
        _record(records, few, many, own, batch, theirs)
    for model in models.values():
        shutil.rmtree(model)


def _record(records: Records, few: int, many: int, own: dict[int, list[float]], batch: int, theirs: dict[int, list[float]]) -> None:
    ours, peer = ([(b - a) / (many - few) for a, b in zip(seconds[few], seconds[many], strict=True)] for seconds in (own, theirs))
    block = statistics.median(ours)
    records.add(
        "speedup_vs_gptqmodel" + ("" if batch == AIMED else f"_batches_{batch}"),
        [seconds / block for seconds in peer],
        "x",
        target=20,
        peer=f"GPTQModel {version('gptqmodel')}, plain GPTQ, batches of {batch}, same tokens, model and GPU",
        tokens=PAIRS * 2 * SIDE,
        per_block_s={"ours": round(block, 4), "gptqmodel": [round(seconds, 3) for seconds in peer]},
        whole_s={"ours": own, "gptqmodel": theirs},
    )


def _by_depth(order: Sequence[int], seconds: Sequence[float]) -> dict[int, list[float]]:
    return {depth: [s for d, s in zip(order, seconds, strict=True) if d == depth] for depth in sorted(set(order))}


if __name__ == "__main__":
    main()
