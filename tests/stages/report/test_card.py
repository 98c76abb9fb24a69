from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from fairgate.support.files import read_json, write_json
from stages.report.stage import report as write_report
from tests.fake_run import make_run
from tests.stages.report.conftest import LEARNED, stop


def test_front_matter_holds_the_numbers_of_metrics_json(run: Path) -> None:
    text = (run / "data/reports/fair_gptq/checkpoint/README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    metrics = read_json(run / "data/evaluation/fair_gptq/metrics.json")
    assert front["base_model"] == "example/Tiny-1M" and front["license"] == "apache-2.0" and front["library_name"] == "transformers"
    assert front["quantization"] == {
        "quant_method": "gptq", "recipe": "fair_gptq", "bits": 4, "group_size": 64, "symmetric": True, "mode": "exact",
        "alignment": "aligned", "alpha": 0.5,
    }  # fmt: skip
    results = {
        f"{result['dataset']['type']}.{metric['type']}": metric["value"]
        for result in front["model-index"][0]["results"]
        for metric in result["metrics"]
    }
    assert results == {name: metrics[name] for name in results} and {"stereoset.ss", "piqa.acc", "perplexity.ppl"} <= set(results)


def test_the_hub_reads_the_card_back(run: Path) -> None:
    card = ModelCard((run / "data/reports/fair_gptq/checkpoint/README.md").read_text(encoding="utf-8"))
    assert card.data.model_name == "Tiny-1M-fair_gptq" and len(card.data.eval_results) == 8


@pytest.mark.parametrize(("verdict", "word"), [("approve", "Approved"), ("reject", "Rejected")])
def test_card_states_the_verdict_and_its_limits(tmp_path: Path, verdict: str, word: str) -> None:
    folder = make_run(tmp_path, verdict, items=8)
    write_report(folder, folder / "params.yaml")
    text = (folder / "data/reports/fair_gptq/checkpoint/README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert f"**Verdict: {word}.**" in text and f"fairgate-{verdict}" in front["tags"]
    for heading in ("How it was made", "Bias, accuracy, size", "Intended use", "Limits", "Attribution"):
        assert f"\n## {heading}\n" in text
    assert "not proof of none" in text and "1,500 of 1,838" in text


def test_card_of_learned_rounding_says_how_it_was_made_and_ended(learned_run: Path, tmp_path: Path) -> None:
    text = (learned_run / "data/reports/fair_round/checkpoint/README.md").read_text(encoding="utf-8")
    made = " ".join(text.split("## How it was made")[1].split("| Setting")[0].split())
    assert made.startswith("Learned rounding") and "as often as not" in made and "GPTQ" not in made
    assert "40 pairs of StereoSet" in made and made.endswith("60 of 60 steps were taken.")
    assert yaml.safe_load(text.split("---")[1])["quantization"]["parity"] == 2.0
    assert "did not end as asked" not in text

    folder = make_run(tmp_path, items=8, recipes=LEARNED)
    stop(folder, "fair_round")
    write_report(folder, folder / "params.yaml")
    text = (folder / "data/reports/fair_round/checkpoint/README.md").read_text(encoding="utf-8")
    assert "- Learned rounding did not end as asked. Stopped early, step 57: divergence is not finite." in text
    assert "42 stopped" in text


@pytest.mark.parametrize(
    ("settings", "architecture", "library"),
    [({}, "llama", "transformers"), ({"bits_by_module": {"down_proj": 8}}, "llama", "gptqmodel"), ({}, "falcon_two_norms", "gptqmodel")],
)
def test_card_loads_by_the_library_that_can(tmp_path: Path, settings: dict[str, Any], architecture: str, library: str) -> None:
    folder = make_run(tmp_path, "approve", items=8)
    path = folder / "data/models/fair_gptq/quantization.json"
    record = read_json(path)
    write_json(path, {**record, "settings": {**record["settings"], **settings}, "architecture": architecture})
    write_report(folder, folder / "params.yaml")
    text = (folder / "data/reports/fair_gptq/checkpoint/README.md").read_text(encoding="utf-8")
    assert text.split("## How to load")[1].split("```python\n")[1].startswith(f"from {library} import")
