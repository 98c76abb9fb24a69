"""The example, copied into a copy of the project and run through the stage's front door.

It is not imported here: it would register itself for the tests after this one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fairgate.contracts.gptq_format import NAMES, unpack
from fairgate.support.files import read_json
from stages.quantize.core.grid import Grid
from tests.project import REPOSITORY
from tests.tiny import make_tiny_llama

RECIPE = {"method": "toward_zero", "bits": 4, "group_size": 32, "symmetric": True}
RUN = {"device": "cpu", "seed": 0, "batch_tokens": 256}
MODULE = "model.layers.1.mlp.down_proj"


def quantize(project: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.quantize", "--recipe", "toward_zero"]
    environment = os.environ | {"PYTHONPATH": str(project), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=500)


def test_one_new_file_is_a_new_method(tmp_path: Path) -> None:
    for package in ("fairgate", "stages"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"recipes": {"toward_zero": RECIPE}, "quantize": RUN}))
    base = make_tiny_llama(tmp_path / "data" / "base")
    refused = quantize(tmp_path)
    assert refused.returncode == 2
    assert "unknown method 'toward_zero'" in refused.stderr

    shutil.copy(REPOSITORY / "examples/add_a_method/toward_zero.py", tmp_path / "stages/quantize/methods")
    done = quantize(tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]

    out = tmp_path / "data" / "models" / "toward_zero"
    record = read_json(out / "quantization.json")
    assert record["settings"]["up_to"] == 1.0
    assert len(record["modules"]) == 14
    tensors = load_file(out / "model.safetensors")
    Q = unpack({part: tensors[f"{MODULE}.{part}"] for part in NAMES}, 4)
    W = load_file(base / "model.safetensors")[f"{MODULE}.weight"]
    scale = Grid(4, 32, True).fit_groups(W)[0][..., None]
    steps = (W.view(*scale.shape[:2], 32) / scale).trunc().clamp(-8, 7)
    assert torch.equal(Q, (scale * steps).view_as(W))
    logits = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)(torch.arange(2, 20)[None]).logits
    assert torch.isfinite(logits).all()
