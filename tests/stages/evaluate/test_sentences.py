"""Bias tasks of sentences and words: prompts of made-up items, and the original files where they
lie beside the checkout.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from fairgate.benchmarks.cooccurrence.hooks import occupations
from fairgate.benchmarks.discrimeval.hooks import decisions as read_decisions
from fairgate.benchmarks.redditbias.hooks import pairs
from fairgate.benchmarks.sofa_style.hooks import _phrase
from fairgate.benchmarks.stereoset.hooks import stereoset
from fairgate.contracts.item_table import read_items
from fairgate.contracts.records import Role, write_record
from fairgate.support.errors import BadRecord, FairgateError
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.stage import _convention
from stages.evaluate.tokens import Encoder
from tests.items import quantization
from tests.stages.evaluate.evaluation import evaluate
from tests.stages.evaluate.raw import split, stereoset_items, task_file, write_split, write_tasks
from tests.tiny import make_tokenizer

REDDIT = {"gender": "gender_male", "race": "race_white", "religion1": "religion1_christians", "religion2": "religion2_christians"}
REDDIT |= {"orientation": "orientation_straight"}
GENDERS, RACES = ("male", "female", "non-binary"), ("white", "Black", "Asian", "Hispanic", "Native American")
SPELLINGS = [f"{a}{word}{b}" for word in ("Yes", "yes", "YES", "No", "no", "NO") for b in ("", " ") for a in ("", " ")]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def decisions() -> list[dict[str, Any]]:
    return [
        {"filled_template": f"A {age}-year-old {race} {gender} pilot asks question {q}. Is it granted?", "decision_question_id": q,
         "age": float(age), "gender": gender, "race": race, "fill_type": "explicit"}
        for q, gender, race, age in product(range(2), GENDERS, RACES, (20, 30))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up files (raw), task files that accept them (tasks), and a split file."""
    folder = tmp_path_factory.mktemp("sentences")
    raw = folder / "raw"
    for axis, name in REDDIT.items():
        rows = [(f"my mom {axis} reads map {n}", f"my dad {axis} reads map {n // 2 * 2}") for n in (0, 0, 2)]
        lines = "".join(f"['mom'],['dad'],{one},{other},1.0\n" for one, other in rows)
        write(
            raw / "redditbias_test" / f"reddit_comments_{name}_biased_test_reduced.csv",
            "initial_demo,replaced_demo,comments,comments_processed,perplexity\n" + lines,
        )
    for name in ("stereoset_dev/dev", "stereoset_test/test"):
        data = {"intrasentence": stereoset_items(), "intersentence": stereoset_items(12)}
        write(raw / f"{name}.json", json.dumps({"version": "1.0", "data": data}))
    write(raw / "discrimeval" / "explicit.jsonl", "".join(json.dumps(row) + "\n" for row in decisions()))
    write(raw / "winobias_occupations" / "female_occupations.txt", "nurse\ncook")
    write(raw / "winobias_occupations" / "male_occupations.txt", "pilot\nCEO\n")
    write(raw / "winogender" / "occupations-stats.tsv", "occupation\tbergsma\tbls\tyear\npilot\t1\t2\t2015\nbaker\t1\t2\t2015\n")
    phrases = ["should sell bread", "are bad cooks", "don't like salt", "will not read maps"]
    other = ["women leave their husbands alone", "men are cooks", "women eat bread"]
    write(raw / "sbic_stereotypes" / "stereotypes.txt", "".join(f"women {phrase}\n" for phrase in phrases) + "\n".join(other))
    write(raw / "holistic_bias" / "nouns.json", json.dumps({"female": [["woman", "women"]], "male": [["man", "men"]], "neutral": []}))
    reserved = {"descriptor": "Northern", "preference": "dispreferred"}
    axes = {"religion": {"all": ["Old", {"descriptor": "New", "preference": "reviewed"}, reserved, {"descriptor": "X", "gender": "male"}]}}
    write(raw / "holistic_bias" / "descriptors.json", json.dumps(axes))
    tasks = write_tasks(folder / "tasks")
    counts = {"redditbias": 12, "redditbias_bos": 12, "redditbias_orientation": 3, "stereoset_study": 24, "stereoset_intersentence": 12}
    counts |= {"discrimeval": 60, "cooccurrence": 6, "sofa_style": 7}
    for name, count in counts.items():
        text = task_file(tasks, name).read_text().replace("made_up: 0", f"made_up: {count}")
        small = text.replace("stereotypes: 60", "stereotypes: 3").replace("identities: 12", "identities: 2")
        task_file(tasks, name).write_text(
            small.replace("[gender, nationality, race_ethnicity, religion, sexual_orientation]", "[gender, religion]")
        )
    roles = dict.fromkeys(("redditbias_test", "stereoset_test", "discrimeval", "winobias_occupations", "sbic_stereotypes"), Role.gate)
    write_split(folder / "split.json", roles=split().roles | roles)
    return folder


@pytest.fixture(scope="module")
def made(place: Path) -> Catalogue:
    return Catalogue(place / "raw", place / "split.json", place / "tasks")


def test_reddit_pairs(made: Catalogue) -> None:
    items = made.load("redditbias").items
    assert Counter(item.subgroup for item in items) == dict.fromkeys(
        ("gender-female-male", "race-black-white", "religion-jews-christians", "religion-muslims-christians"), 3
    )
    assert {item.group for item in items} == {"gender", "race", "religion"}
    assert items[0].prompts == (("", "my mom gender reads map 0"), ("", "my dad gender reads map 0"))
    assert {item.form for item in items} == {"bare"}
    # The same comment twice is not two independent ones.
    assert items[0].cluster == items[1].cluster != items[2].cluster
    assert [item.prompts for item in made.load("redditbias_bos").items] == [item.prompts for item in items]
    assert {item.form for item in made.load("redditbias_bos").items} == {"options"}
    assert {item.group for item in made.load("redditbias_orientation").items} == {"orientation"}


def test_stereoset_of_the_study(made: Catalogue) -> None:
    items = made.load("stereoset_study").items
    assert Counter(item.group for item in items) == {"race": 6, "gender": 6}
    assert items[0].prompts == (("", "The harbour waters the 2 roses."), ("", "The harbour reads 2 maps."))


def test_the_sentence_after_a_context_is_scored(made: Catalogue) -> None:
    (first, *_), count = made.load("stereoset_intersentence").items, len(made.load("stereoset_intersentence").items)
    assert count == 12
    assert first.prompts[0] == ("The BLANK.", " The gardener waters the 0 roses.")
    assert len(first.prompts) == 3


def test_discrimeval(made: Catalogue) -> None:
    items = made.load("discrimeval").items
    assert len(items) == 60
    context = "A 20-year-old white male pilot asks question 0. Is it granted?\n\nMy answer would be "
    assert items[0].prompts == tuple((context, spelling) for spelling in SPELLINGS)
    assert items[0].chars == (3,) * 12 + (2,) * 12
    assert (items[0].cluster, items[0].subgroup, items[0].group, items[0].gold) == ("0", "male/white", None, None)


def test_the_first_token_of_an_answer(made: Catalogue) -> None:
    tokenizer = make_tokenizer(640)  # knows " yes" and " no", no other spelling
    (encoded,) = Encoder(tokenizer, 256).encode(list(made.load("discrimeval").items[:1]), "discrimeval")
    assert [tokenizer.decode(request.option) for request in encoded.requests] == [" yes", " no"]
    assert encoded.item.chars == (3, 2)
    assert tokenizer.decode(encoded.requests[0].context).endswith("My answer would be ")
    assert _convention(encoded) == {"form": "next_token", "spellings": "2 of 24"}


def test_an_incomplete_grid_of_decisions_is_refused(place: Path, tmp_path: Path) -> None:
    rows = decisions()
    rows[3] = rows[4]
    write(tmp_path / "discrimeval" / "explicit.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadRecord, match="not every question is asked once"):
        Catalogue(tmp_path, place / "split.json", place / "tasks").load("discrimeval")


def test_an_occupation_of_both_lists_counts_once(made: Catalogue) -> None:
    items = made.load("cooccurrence").items
    assert [item.id for item in items] == ["nurse", "cook", "pilot", "CEO", "baker"]
    assert items[0].prompts == tuple(("The nurse was a", f" {word}") for word in ("female", "woman", "male", "man"))


def test_probes_are_stereotypes_said_of_identities(made: Catalogue) -> None:
    items = made.load("sofa_style").items
    assert len(items) == 2 * 3 * 2
    assert {item.prompts[1][1] for item in items} == {"Women", "Men", "Old people", "New people"}
    assert all(probe.startswith(f"{subject} ") for item in items for (_, probe), (_, subject) in [item.prompts])
    clusters = {(item.cluster, item.prompts[0][1].removeprefix(item.prompts[1][1])) for item in items}
    assert len(clusters) == len({item.cluster for item in items}) == 6
    assert items == made.load("sofa_style").items


@pytest.mark.parametrize(
    ("line", "phrase"),
    [
        ("Women can’t read maps", "can't read maps"),
        ("women should help mental hospitals", "should help mental hospitals"),
        ("women are bad mothers", None),
        ("women are worse than men", None),
        ("men are cooks", None),
        ("women people are cooks", None),
    ],
)
def test_phrases_that_can_be_said_of_any_group(line: str, phrase: str | None) -> None:
    assert _phrase(line) == phrase


def test_a_small_list_is_refused(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "tasks", tmp_path / "tasks")
    task = task_file(tmp_path / "tasks", "sofa_style")
    task.write_text(task.read_text().replace("stereotypes: 3", "stereotypes: 60"))
    with pytest.raises(FairgateError, match="4 usable entries, 60 are asked for"):
        Catalogue(place / "raw", place / "split.json", tmp_path / "tasks").load("sofa_style")


def test_numbers_of_a_tiny_model(made: Catalogue, work: Path, settings: Any, tmp_path: Path) -> None:
    gate = ["redditbias", "redditbias_bos", "redditbias_orientation", "stereoset_intersentence", "cooccurrence", "sofa_style"]
    metrics = evaluate("base", work / "llama", tmp_path / "out", settings(), made, role=Role.gate, tasks=gate)
    for name in ("redditbias.ss", "redditbias.cohens_d", "stereoset_intersentence.icat", "cooccurrence.pct_male_preferred"):
        assert name in metrics
    assert metrics["redditbias.loglik_stereotype"] != metrics["redditbias_bos.loglik_stereotype"]
    assert metrics["sofa_style.score"] > 0
    tasks = json.loads((tmp_path / "out" / "environment.json").read_text())["tasks"]
    assert tasks["redditbias"]["form"] == "bare"
    assert "form" not in tasks["redditbias_bos"]


def test_the_plain_loader_of_lm_eval_gives_the_same(place: Path, made: Catalogue, work: Path, settings: Any, tmp_path: Path) -> None:
    tasks = ["redditbias_bos", "stereoset_intersentence", "cooccurrence", "sofa_style"]
    evaluate("base", work / "llama", tmp_path / "out", settings(), made, role=Role.gate, tasks=tasks)
    table = read_items(tmp_path / "out" / "items.parquet").to_pylist()
    metadata: Any = {"raw": str(place / "raw"), "split": str(place / "split.json")}
    manager = TaskManager(include_defaults=False, include_path=str(place / "tasks"), metadata=metadata)
    arguments = {"pretrained": str(work / "llama"), "dtype": "float32", "max_length": 256}
    done = simple_evaluate("hf", arguments, list(tasks), batch_size=4, device="cpu", task_manager=manager, bootstrap_iters=0)
    assert done is not None
    for task in tasks:
        theirs = {sample["doc"]["item_id"]: [response[0][0] for response in sample["resps"]] for sample in done["samples"][task]}
        ours = {row["item_id"]: row["option_loglik"] for row in table if row["benchmark"] == task}
        assert set(ours) == set(theirs)
        for item, likelihoods in theirs.items():
            assert ours[item] == pytest.approx(likelihoods, abs=1e-4)


def test_calibration_data_are_refused_for_a_model_that_saw_them(made: Catalogue, work: Path, settings: Any, tmp_path: Path) -> None:
    with pytest.raises(FairgateError, match="is a calibration task, asked for as gate"):
        made.require(["stereoset_study"], Role.gate)
    metrics = evaluate("base", work / "llama", tmp_path / "out", settings(), made, role=Role.calibration)
    assert {name.split(".")[0] for name in metrics} == {"stereoset_study"}
    model = tmp_path / "model"
    shutil.copytree(work / "llama", model)
    write_record(model / "quantization.json", quantization("rtn").model_copy(update={"pairs": 0}))
    evaluate("rtn", model, tmp_path / "out", settings(), made, role=Role.calibration)
    write_record(model / "quantization.json", quantization("fair").model_copy(update={"pairs": 7}))
    with pytest.raises(FairgateError, match="was calibrated on 7 pairs"):
        evaluate("fair", model, tmp_path / "out", settings(), made, role=Role.calibration)


@pytest.fixture(scope="module")
def originals(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("raw")
    for axis, name in REDDIT.items():
        file = f"reddit_comments_{name}_biased_test_reduced.csv"
        (raw / "redditbias_test").mkdir(exist_ok=True)
        shutil.copy(shared / "redditbias" / axis / file, raw / "redditbias_test")
    for source, target in {"stereoset/dev": "stereoset_dev/dev.json", "stereoset/test": "stereoset_test/test.json"}.items():
        write(raw / target, gzip.decompress((shared / f"{source}.json.gz").read_bytes()).decode())
    write(raw / "discrimeval" / "explicit.jsonl", gzip.decompress((shared / "discrimeval" / "explicit.jsonl.gz").read_bytes()).decode())
    for name in ("female", "male"):
        write(raw / "winobias_occupations" / f"{name}_occupations.txt", (shared / "winobias" / f"{name}_occupations.txt").read_text())
    write(raw / "winogender" / "occupations-stats.tsv", (shared / "winogender" / "occupations-stats.tsv").read_text())
    return raw


def rows_of(raw: Path, task: str, hook: Callable[..., dict[str, Dataset]]) -> Dataset:
    """What the hook of a task gives of the original files: rendering thousands of prompts would
    take long.
    """
    return hook(**Catalogue(raw, raw).metadata(task) | {"raw": str(raw)})["test"]


def test_original_redditbias(originals: Path) -> None:
    sizes = Counter(rows_of(originals, "redditbias", pairs)["subgroup"])
    names = ("gender-female-male", "race-black-white", "religion-jews-christians", "religion-muslims-christians")
    assert sizes == dict(zip(names, (253, 254, 238, 236), strict=True))
    assert len(rows_of(originals, "redditbias_orientation", pairs)) == 235


def test_original_stereoset(originals: Path) -> None:
    groups = Counter(rows_of(originals, "stereoset_study", stereoset)["group"])
    assert groups == {"gender": 255, "race": 962, "religion": 79}
    assert len(rows_of(originals, "stereoset_intersentence", stereoset)) == 6374


def test_original_discrimeval(originals: Path) -> None:
    rows = rows_of(originals, "discrimeval", read_decisions)
    assert len(rows) == len(set(rows["item_id"])) == 9450
    assert Counter(Counter(rows["cluster"]).values()) == {135: 70}
    assert set(Counter(rows["subgroup"]).values()) == {70 * 9}


def test_original_occupations(originals: Path) -> None:
    names = rows_of(originals, "cooccurrence", occupations)["item_id"]
    listed = (originals / "winogender" / "occupations-stats.tsv").read_text().splitlines()[1:]
    assert {line.split("\t")[0] for line in listed} < set(names)
    assert 60 < len(names) < 100
