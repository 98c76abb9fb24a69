"""Capability tasks: prompts of made-up items in both forms of a file, and the original files where
they lie beside the checkout.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from fairgate.benchmarks.arc import hooks as arc
from fairgate.benchmarks.hellaswag import hooks as hellaswag
from fairgate.benchmarks.lambada import hooks as lambada
from fairgate.benchmarks.mmlu import hooks as mmlu
from fairgate.benchmarks.piqa import hooks as piqa
from fairgate.benchmarks.wikitext import hooks as wikitext
from fairgate.benchmarks.winogrande import hooks as winogrande
from fairgate.contracts.records import Role
from fairgate.support.errors import BadRecord, FairgateError, MissingFile
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.task import Task
from tests.stages.evaluate.capability import COUNTS, LAMBADA, PAGES, write_capability_tasks, write_files, write_hub
from tests.stages.evaluate.evaluation import evaluate
from tests.stages.evaluate.raw import split, task_file, write_split

SETS = ("arc_easy", "arc_challenge", "hellaswag", "piqa_full", "winogrande", "lambada", "mmlu", "wikitext2")
CHOICE = ("arc_easy", "arc_challenge", "hellaswag", "piqa_full", "winogrande", "mmlu_ll", "mmlu_ll_5shot")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("capability")
    write_files(folder / "raw")
    write_hub(folder / "hub")
    write_capability_tasks(folder / "tasks")
    write_split(folder / "split.json", roles=split().roles | dict.fromkeys(SETS, Role.gate))
    return folder


@pytest.fixture(scope="module")
def made(place: Path) -> Catalogue:
    return Catalogue(place / "raw", place / "split.json", place / "tasks")


@pytest.fixture(scope="module")
def loaded(made: Catalogue) -> dict[str, Task]:
    return {name: made.load(name) for name in COUNTS}


def test_the_form_of_the_hub_gives_the_same_items(place: Path, loaded: dict[str, Task]) -> None:
    hub = Catalogue(place / "hub", place / "split.json", place / "tasks")
    for name in (*CHOICE, "lambada"):
        ours = [item.prompts for item in loaded[name].items]
        if name == "hellaswag":  # the text file keeps the small letter that the hub's rows lose
            ours = [tuple((context.replace(" he", " He"), option) for context, option in prompts) for prompts in ours]
        assert [item.prompts for item in hub.load(name).items] == ours, name
        assert [(item.id, item.gold) for item in hub.load(name).items] == [(item.id, item.gold) for item in loaded[name].items]


def test_prompts(loaded: dict[str, Task]) -> None:
    arc = loaded["arc_easy"].items
    context = "Question: Which plane leaves first?\nAnswer:"
    assert arc[0].prompts == ((context, " the old one"), (context, " the dry one"), (context, " the pilot's"), (context, " none"))
    assert [len(item.prompts) for item in arc] == [4, 3, 5]
    assert [item.gold for item in arc] == [2, 0, 4]
    assert arc[1].prompts[1] == ("Question: A pilot reads\n\nthe map. Why?\nAnswer:", " to sell: bread")
    assert loaded["hellaswag"].items[1].prompts[0] == ("Baking: A cook opens the window 1. he", " sells 1 maps.")
    assert loaded["piqa_full"].items[1].prompts[0] == ("Question: how do you open window 1?\nAnswer:", " turn the handle and push ")
    assert [item.gold for item in loaded["piqa_full"].items] == [0, 1, 0]


def test_the_text_after_the_blank_is_scored_behind_either_option(loaded: dict[str, Task]) -> None:
    first, second, third = loaded["winogrande"].items
    assert first.prompts == (
        ("The pilot met the cook because the pilot", " wanted bread."),
        ("The pilot met the cook because the cook", " wanted bread."),
    )
    assert third.prompts == (("The morning", " was dry."), ("The harbour", " was dry."))
    assert [first.gold, second.gold, third.gold] == [0, 1, 0]


def test_the_last_word_of_a_passage(loaded: dict[str, Task]) -> None:
    items = loaded["lambada"].items
    assert items[0].prompts == (("The pilot reads the old", " map"),) * 2
    assert items[1].prompts[0] == ("She sells", ' bread.\n\n"Salt,')
    assert {item.form for item in items} == {"greedy"}
    assert len({item.cluster for item in items}) == len(set(LAMBADA)) == 3


def test_questions_by_subject_with_and_without_examples(loaded: dict[str, Task]) -> None:
    asked = 'Which maps test 1?\nSay\nA. 1\nB. b, c\nC. the "d"\nD. e\nAnswer:'
    item = loaded["mmlu_ll"].items[3]
    assert item.prompts == tuple((asked, f" {letter}") for letter in "ABCD")
    assert (item.group, item.gold) == ("maps", 1)
    shots = "".join(f'Which maps dev {n}?\nSay\nA. {n}\nB. b, c\nC. the "d"\nD. e\nAnswer: {"ABCDA"[n]}\n\n' for n in range(5))
    assert loaded["mmlu_ll_5shot"].items[3].prompts[0][0] == shots + asked


def test_pages_are_detokenised_and_count_the_words_of_the_raw_page(loaded: dict[str, Task]) -> None:
    first, second, third = loaded["wikitext_lmeval"].items
    assert first.prompts == (
        ("", ' = Old harbour =\n\nThe harbour, which is-old, sells 1,200 maps.\n== Bread ==\n"Salt" is sold (too).\n'),
    )
    # Two more than the words: the space at either end of a page splits off an empty one, as in lm-
    # eval.
    assert first.chars == (len(PAGES[0].split()) + 2,)
    assert (second.chars, third.chars) == ((13 + 2,), (3 + 40 * 6 + 2,))


@pytest.mark.parametrize("task", sorted(COUNTS))
def test_another_count_and_an_absent_file_are_refused(place: Path, tmp_path: Path, task: str) -> None:
    shutil.copytree(place / "tasks", tmp_path / "tasks")
    file = task_file(tmp_path / "tasks", task)
    file.write_text(file.read_text().replace(f"made_up: {COUNTS[task]}", "made_up: 77"))
    with pytest.raises(FairgateError, match=rf"{COUNTS[task]} records, accepted are 77 \(made_up\)"):
        Catalogue(place / "raw", place / "split.json", tmp_path / "tasks").load(task)
    with pytest.raises(MissingFile, match="no data for"):
        Catalogue(tmp_path / "raw", place / "split.json", place / "tasks").load(task)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": "answer4"}, "answer 'answer4', one of answer1, answer2, answer3 is needed"),
        ({"instruction": "What has salt?"}, "no options in the instruction"),
        (
            {"instruction": "Please choose the correct answer to the question: Q\n\nAnswer1: a\n\nAnswer format: answer1/answer2"},
            "1 options, 2",
        ),
    ],
)
def test_a_broken_record_is_refused(place: Path, tmp_path: Path, change: dict[str, str], words: str) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(place / "raw" / "arc_easy", raw / "arc_easy")
    file = raw / "arc_easy" / "llm_adapters_ARC-Easy_test.json"
    lines = json.loads(file.read_text())
    lines[1] |= change
    file.write_text(json.dumps(lines))
    with pytest.raises(BadRecord, match=words) as error:
        Catalogue(raw, place / "split.json", place / "tasks").load("arc_easy")
    assert ":2" in str(error.value)


def test_numbers_of_a_tiny_model(made: Catalogue, work: Path, settings: Any, tmp_path: Path) -> None:
    tasks = [name for name in COUNTS if name != "mmlu_ll_5shot"]
    metrics = evaluate("base", work / "llama", tmp_path / "out", settings(), made, role=Role.gate, tasks=tasks)
    assert 0 <= metrics["lambada.acc"] <= 1 < metrics["lambada.ppl"]
    assert metrics["mmlu_ll.acc"] == pytest.approx((metrics["mmlu_ll.acc.maps"] + metrics["mmlu_ll.acc.bread_science"]) / 2)
    assert {"arc_easy.acc", "arc_challenge.acc_norm", "hellaswag.acc_norm", "piqa_full.acc_norm", "winogrande.acc"} <= set(metrics)
    assert {"wikitext2_2048.ppl", "wikitext_lmeval.word_ppl"} <= set(metrics)


def test_the_plain_loader_of_lm_eval_gives_the_same(place: Path, made: Catalogue, work: Path, settings: Any, tmp_path: Path) -> None:
    tasks = ["winogrande", "lambada", "mmlu_ll", "wikitext_lmeval"]
    metrics = evaluate("base", work / "llama", tmp_path / "out", settings(), made, role=Role.gate, tasks=tasks)
    metadata: Any = {"raw": str(place / "raw"), "split": str(place / "split.json")}
    manager = TaskManager(include_defaults=False, include_path=str(place / "tasks"), metadata=metadata)
    arguments = {"pretrained": str(work / "llama"), "dtype": "float32", "max_length": 256}
    done = simple_evaluate("hf", arguments, list(tasks), batch_size=4, device="cpu", task_manager=manager, bootstrap_iters=0)
    assert done is not None
    found = done["results"]
    assert metrics["winogrande.acc"] == pytest.approx(found["winogrande"]["acc,none"])
    assert metrics["mmlu_ll.acc"] == pytest.approx(found["mmlu_ll"]["acc,none"])  # subjects are of one size here
    assert metrics["lambada.ppl"] == pytest.approx(found["lambada"]["perplexity,none"], rel=1e-5)
    assert metrics["wikitext_lmeval.word_ppl"] == pytest.approx(found["wikitext_lmeval"]["word_perplexity,none"], rel=1e-5)


# The original files.


def rows_of(shared: Path, tmp_path: Path, task: str, source: str, hook: Callable[..., dict[str, Dataset]]) -> Dataset:
    metadata = Catalogue(Path("raw"), Path("split.json")).metadata(task)
    for name in metadata["files"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(shared / source / Path(name).name, tmp_path / name)
    return hook(**metadata | {"raw": str(tmp_path)})["test"]


@pytest.mark.parametrize(("task", "count", "options"), [("arc_easy", 2376, {3: 7, 5: 4}), ("arc_challenge", 1172, {3: 4, 5: 3})])
def test_original_arc(shared: Path, tmp_path: Path, task: str, count: int, options: dict[int, int]) -> None:
    rows = rows_of(shared, tmp_path, task, "arc", arc.questions)
    assert Counter(len(row) for row in rows["options"]) == {4: count - sum(options.values()), **options}
    assert all(option.strip() for row in rows["options"] for option in row)


def test_original_winogrande(shared: Path, tmp_path: Path) -> None:
    rows = rows_of(shared, tmp_path, "winogrande", "winogrande", winogrande.blanks)
    assert Counter(rows["label"]) == {0: 628, 1: 639}
    assert all(ending for ending in rows["ending"])


def test_original_hellaswag(shared: Path, tmp_path: Path) -> None:
    rows = rows_of(shared, tmp_path, "hellaswag", "hellaswag", hellaswag.endings)
    assert len(rows) == 10042
    assert all(": " in begin for begin in rows["query"])


def test_original_piqa(shared: Path, tmp_path: Path) -> None:
    assert set(rows_of(shared, tmp_path, "piqa_full", "piqa", piqa.solutions)["label"]) == {0, 1}


def test_original_lambada(shared: Path, tmp_path: Path) -> None:
    rows = rows_of(shared, tmp_path, "lambada", "lambada", lambada.passages)
    assert len(rows) == 5153
    assert all(word.startswith(" ") and len(word) > 1 for word in rows["word"])


def test_original_mmlu(shared: Path, tmp_path: Path) -> None:
    rows = rows_of(shared, tmp_path, "mmlu_ll_5shot", "mmlu", mmlu.questions)
    assert len(set(rows["group"])) == 57
    assert all(prompt.count("\nAnswer:") >= 6 for prompt in rows["prompt"])


def test_original_wikitext(shared: Path, tmp_path: Path) -> None:
    rows = rows_of(shared, tmp_path, "wikitext_lmeval", "wikitext2", wikitext.pages)
    assert sum(rows["words"]) - 2 * 62 == 241_211
