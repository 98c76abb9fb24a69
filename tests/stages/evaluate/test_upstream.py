"""The project's tasks against lm-eval's own tasks of the same prompt and rule, on made-up documents
in the columns of the hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
from datasets import Dataset
from lm_eval import simple_evaluate
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from fairgate.contracts.item_table import read_items
from fairgate.contracts.records import Role
from stages.evaluate.catalogue import Catalogue
from tests.stages.evaluate.capability import PAGES, hub_rows, write_capability_tasks, write_files, write_hub
from tests.stages.evaluate.evaluation import evaluate
from tests.stages.evaluate.raw import split, write_split

THEIRS = Path(lm_eval.tasks.__file__).parent
CROWS = [{"sent_more": f"The pilot number {n} sells bread.", "sent_less": f"The cook number {n} sells bread."} for n in range(12)]
ROWS = hub_rows()
# Our task: file of lm-eval's task, its documents, and the splits that they stand in.
TASKS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "arc_easy": ("arc/arc_easy.yaml", ROWS["arc_easy/test"]),
    "arc_challenge": ("arc/arc_challenge.yaml", ROWS["arc_challenge/test"]),
    "hellaswag": ("hellaswag/hellaswag.yaml", ROWS["hellaswag/validation"]),
    "piqa_full": ("piqa/piqa.yaml", ROWS["piqa_full/validation"]),
    "winogrande": ("winogrande/default.yaml", ROWS["winogrande/validation"]),
    "lambada": ("lambada/lambada_openai.yaml", ROWS["lambada/test"]),
    "crows_pairs": ("crows_pairs/crows_pairs_english.yaml", CROWS),
    "wikitext_lmeval": ("wikitext/wikitext.yaml", [{"page": page} for page in PAGES]),
}


@pytest.fixture(scope="module")
def made(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    folder = tmp_path_factory.mktemp("upstream")
    write_hub(write_files(folder / "raw"))
    (folder / "raw" / "crows_pairs").symlink_to(work / "raw" / "crows_pairs")
    tasks = write_capability_tasks(folder / "tasks")
    sets = ("arc_easy", "arc_challenge", "hellaswag", "piqa_full", "winogrande", "lambada", "wikitext2")
    write_split(folder / "split.json", roles=split().roles | dict.fromkeys(sets, Role.gate))
    return Catalogue(folder / "raw", folder / "split.json", tasks)


def theirs(name: str) -> ConfigurableTask:
    """lm-eval's own task, with made-up documents instead of a download."""
    file, rows = TASKS[name]
    config = load_yaml(THEIRS / file)
    splits = [config[key] for key in ("training_split", "validation_split", "test_split") if config.get(key)]
    given = {part: Dataset.from_list(rows) for part in splits}
    return ConfigurableTask(config=config | {"custom_dataset": lambda **_: given, "tag": None})


@pytest.mark.parametrize("name", [name for name in TASKS if name != "wikitext_lmeval"])
def test_prompts_options_and_labels_are_those_of_lm_eval(made: Catalogue, name: str) -> None:
    task, ours = theirs(name), made.load(name)
    docs = list(task.eval_docs)
    assert len(docs) == len(ours.items) > 0
    for item, doc in zip(ours.items, docs, strict=True):
        requests = task.construct_requests(doc=doc, ctx=task.fewshot_context(doc, 0), metadata=(name, 0, 1))
        listed = requests if isinstance(requests, list) else [requests] * 2
        assert item.prompts == tuple((request.args[0], request.args[1]) for request in listed)
        if name not in ("crows_pairs", "lambada"):
            target = task.doc_to_text(doc) if name == "winogrande" else task.doc_to_target(doc)
            assert item.gold == int(target)


def test_pages_are_those_of_lm_eval(made: Catalogue) -> None:
    task = theirs("wikitext_lmeval")
    for item, doc in zip(made.load("wikitext_lmeval").items, task.eval_docs, strict=True):
        assert item.prompts == (("", task.doc_to_target(doc)),)
        assert item.chars == (task.process_results(doc, (-1.0,))["word_perplexity"][1],)


@pytest.mark.parametrize(("model", "batch_tokens"), [("llama", 1), ("opt", 4096)])
def test_log_likelihoods_and_metrics_are_those_of_lm_eval(
    made: Catalogue, work: Path, settings: Any, tmp_path: Path, model: str, batch_tokens: int
) -> None:
    metrics = evaluate("x", work / model, tmp_path / "x", settings(batch_tokens=batch_tokens), made, role=Role.gate, tasks=list(TASKS))
    table = read_items(tmp_path / "x" / "items.parquet").to_pylist()
    arguments = {"pretrained": str(work / model), "dtype": "float32", "max_length": 256}
    tasks = {name: theirs(name) for name in TASKS}
    done = simple_evaluate("hf", arguments, list(tasks.values()), batch_size=3, device="cpu", bootstrap_iters=0)
    assert done is not None
    for name, task in tasks.items():
        found = done["results"][task.config.task]
        rows = [row for row in table if row["benchmark"] == name]
        if name == "wikitext_lmeval":
            assert len(rows) > len(PAGES)  # the last page takes several windows
            assert metrics[f"{name}.word_ppl"] == pytest.approx(found["word_perplexity,none"], rel=1e-5)
            continue
        for row, sample in zip(rows, sorted(done["samples"][task.config.task], key=lambda s: s["doc_id"]), strict=True):
            likelihoods = [response[0][0] for response in sample["resps"]]
            assert row["option_loglik"][: len(likelihoods)] == pytest.approx(likelihoods, abs=1e-4), name
            if name == "lambada":
                assert row["correct"] == sample["resps"][0][0][1]
        for ours, key in {"acc": "acc", "acc_norm": "acc_norm", "ppl": "perplexity"}.items():
            if f"{name}.{ours}" in metrics:
                assert metrics[f"{name}.{ours}"] == pytest.approx(found[f"{key},none"], rel=1e-4), (name, ours)
