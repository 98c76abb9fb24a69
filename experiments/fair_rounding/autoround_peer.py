"""The external control of learned rounding: Intel's AutoRound by its own package, on the project's
texts and grid.

    pip install --constraint constraints.txt auto-round==0.16.1
    python -m experiments.fair_rounding.autoround_peer BASE TEXTS.jsonl OUT \\
        [--steps 200] [--seqlen 256] [--nsamples 64] [--seed 0] [--device cpu]

TEXTS.jsonl: Text records, as in data/calibration/text.jsonl. Prints one JSON line: the seconds it
took.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from fairgate.contracts.records import Text, read_records
from fairgate.support.errors import FairgateError
from fairgate.support.files import atomic_folder
from fairgate.support.tokens import Tokenizer, encode
from stages.evaluate.model import load

BATCH = 8  # rows of a step, AutoRound's own default


def quantize(
    base: Path,
    texts: list[str],
    out: Path,
    *,
    bits: int,
    group_size: int,
    symmetric: bool,
    steps: int,
    seqlen: int,
    nsamples: int,
    seed: int,
    device: str,
) -> None:
    """Round the model in `base` by AutoRound, with its defaults for all that is not named here,
    into a plain Hugging Face folder.

    AutoRound tunes in bfloat16 and packs codes and float16 scales. `out` holds their products in
    float32, which is exact, and the base's own tensors for all that is not quantized, which
    AutoRound would have rounded to bfloat16.

    Args:
        steps: of its optimizer, for each block.
        seqlen: tokens of a row, made by `rows`.
        nsamples: number of rows.
    Raises:
        FairgateError: the package is missing, or the texts are too short for the rows.
    """
    try:
        from auto_round import AutoRound
    except ImportError as error:
        remedy = "run `pip install --constraint constraints.txt auto-round==0.16.1`"
        raise FairgateError(
            f"auto-round cannot be imported ({error})", where="experiments.fair_rounding.autoround_peer", remedy=remedy
        ) from None
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    samples = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows(texts, tokenizer, seqlen, nsamples)]
    with TemporaryDirectory() as scratch, atomic_folder(out) as folder:
        rounding = AutoRound(
            str(base.resolve()),
            tokenizer,
            bits=bits,
            group_size=group_size,
            sym=symmetric,
            iters=steps,
            dataset=samples,
            seqlen=seqlen,
            nsamples=nsamples,
            batch_size=min(BATCH, nsamples),
            seed=seed,
            device_map=device,
            enable_torch_compile=False,
            trust_remote_code=False,
        )
        packed = Path(rounding.quantize_and_save(scratch, format="auto_gptq")[1])
        rounded = load(packed, dtype="float32", device="cpu").network.state_dict()
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
        model.load_state_dict({name: rounded[name] for name in _quantized(packed)}, strict=False)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def rows(texts: list[str], tokenizer: Tokenizer, seqlen: int, nsamples: int) -> list[Tensor]:
    """The first `nsamples` rows [1, seqlen] of the texts, joined, each behind its start token.

    AutoRound leaves out shorter ones.

    Raises:
        FairgateError: there are fewer.
    """
    joined = [token for ids in encode(tokenizer, texts, start=True) for token in ids]
    if len(joined) < seqlen * nsamples:
        what = f"{len(joined)} tokens of text, {nsamples} rows of {seqlen} were asked for"
        raise FairgateError(
            what, where="experiments.fair_rounding.autoround_peer", remedy=f"ask for at most {len(joined) // seqlen} or give more texts"
        )
    return list(torch.tensor(joined[: seqlen * nsamples]).view(nsamples, 1, seqlen))


def _quantized(packed: Path) -> list[str]:
    """Names of the weights that a packed checkpoint holds packed."""
    names = []
    for path in sorted(packed.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names += [name.removesuffix(".qweight") + ".weight" for name in file.keys() if name.endswith(".qweight")]  # noqa: SIM118
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--asymmetric", dest="symmetric", action="store_false")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seqlen", type=int, default=256)
    parser.add_argument("--nsamples", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    how = vars(parser.parse_args())
    base, texts, out = (how.pop(name) for name in ("base", "texts", "out"))
    started = time.perf_counter()
    quantize(base, [record.text for record in read_records(Text, texts)], out, **how)
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
