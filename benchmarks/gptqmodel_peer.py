"""The peer of the speed figures: GPTQModel's own GPTQ on the same model, tokens, bits and groups.

    python -m benchmarks.gptqmodel_peer TOKENS.json BASE... [--out OUT] [--batch 8] [--device cpu]

TOKENS.json: a list of token id lists, one a sentence. Several bases are quantized one after the
other: the first one also pays for the compilation of kernels. Prints one JSON line: for each base,
seconds by part.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any


def quantize(
    base: str, tokens: list[list[int]], out: Path | None, *, bits: int, group_size: int, batch: int, device: str
) -> dict[str, float]:
    """Seconds that GPTQModel needs to load, quantize (calibration included) and, where `out` is
    given, save.
    """
    # Its pool of threads refuses to start on two cores, where its own default is one worker.
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, (os.cpu_count() or 1) // 2)))
    from gptqmodel import GPTQModel, QuantizeConfig

    started = time.perf_counter()
    config = QuantizeConfig(bits=bits, group_size=group_size, sym=True, desc_act=False, act_group_aware=False)
    model = GPTQModel.load(base, config, device=device)
    loaded = time.perf_counter()
    rows: Any = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in tokens]
    # Sentences of a pair have a dozen tokens; it drops those of ten and fewer, and its quantize()
    # does not pass the limit on.
    model.prepare_dataset = partial(model.prepare_dataset, calibration_data_min_length=1)
    model.quantize(rows, batch_size=batch)
    quantized = time.perf_counter()
    if out is not None:
        model.save(str(out))
    return {"load_s": loaded - started, "quantize_s": quantized - loaded, "save_s": time.perf_counter() - quantized}


def alone(bases: Sequence[Path], tokens: list[list[int]], folder: Path, *options: str, timeout_s: float = 3600) -> list[dict[str, float]]:
    """The same in a process of its own, in the scratch folder `folder`: it writes logs where it
    runs. `options`: of the command line.
    """
    (folder / "tokens.json").write_text(json.dumps(tokens))
    command = [sys.executable, __file__, "tokens.json", *(str(base.resolve()) for base in bases), *options]
    own = str(Path(__file__).resolve().parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (own, os.environ.get("PYTHONPATH"))))}
    env.pop("PYTORCH_ALLOC_CONF", None)  # it has settings of its own
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-4000:])
    seconds: list[dict[str, float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("bases", nargs="+")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    tokens = json.loads(arguments.tokens.read_text(encoding="utf-8"))
    how = {name: getattr(arguments, name) for name in ("bits", "group_size", "batch", "device")}
    print(json.dumps([quantize(base, tokens, arguments.out, **how) for base in arguments.bases]))


if __name__ == "__main__":
    main()
