"""The readers of bias files, on made-up files and on the original ones where they lie beside the
checkout.
"""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairgate.benchmarks.bbq.hooks import read as bbq
from fairgate.benchmarks.discrimevalgen.hooks import read as discrimevalgen
from fairgate.benchmarks.dt_fairness.hooks import read as dt_fairness
from fairgate.support.errors import BadRecord, FairgateError
from tests.stages.evaluate.raw_generated import BBQ_FILES, write_bbq, write_lines, write_table

CATEGORIES = [
    "Age", "Disability_status", "Gender_identity", "Nationality", "Physical_appearance", "Race_ethnicity", "Race_x_SES", "Race_x_gender",
    "Religion", "SES", "Sexual_orientation",
]  # fmt: skip


def of_bbq(raw: Path, *categories: str, records: int, **more: Any) -> dict[str, Any]:
    files = [f"bbq/{name}.jsonl" for name in categories]
    joined = ["bbq_metadata/additional_metadata.csv"]
    return {"raw": str(raw), "set": "bbq", "files": files, "joined": joined, "records": {"made_up": records}, **more}


def test_bbq_puts_the_stereotyped_answer_first_and_reads_a_doubled_line_once(tmp_path: Path) -> None:
    raw = write_bbq(tmp_path)
    rows = bbq(of_bbq(raw, *BBQ_FILES, records=12))
    assert [row["item_id"] for row in rows if row["group"] == "Gender_identity"] == [f"Gender_identity-{n}" for n in range(3)]
    ambiguous, plain = rows[0], rows[1]
    assert ambiguous["options"] == ["The cook", "The pilot", "Not known"]
    assert (ambiguous["places"], ambiguous["label"], ambiguous["subgroup"]) == ([2, 0, 1], 2, "ambig")
    assert (plain["label"], plain["subgroup"], plain["cluster"]) == (1, "disambig", "Gender_identity-0")
    counted = bbq(of_bbq(raw, *BBQ_FILES, records=12, study_counts=True))
    assert len(counted) == len(rows) + 1 == len({row["item_id"] for row in counted})
    with pytest.raises(FairgateError, match=r"12 records, accepted are 13 \(made_up\)"):
        bbq(of_bbq(raw, *BBQ_FILES, records=13))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 0}, r"right 0 in the context ambig"),
        ({"example_id": 99}, r"\('Religion', '0', '99'\) has no line"),
        ({"answer_info": {f"ans{k}": ["x", "unknown" if k == 2 else "M"] for k in range(3)}}, r"stereotyped answer 2, unknown \[2\]"),
    ],
)
def test_bbq_items_that_contradict_themselves_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    raw = write_bbq(tmp_path)
    line = {
        "example_id": 0, "question_index": "0", "context_condition": "ambig", "category": "Religion", "context": "c",
        "answer_info": {f"ans{k}": ["x", "unknown" if k == 1 else "M"] for k in range(3)}, "question": "q",
        "ans0": "a", "ans1": "b", "ans2": "c", "label": 1,
    }  # fmt: skip
    write_lines(raw / "bbq" / "Religion.jsonl", [line | change])
    with pytest.raises(BadRecord, match=message):
        bbq(of_bbq(raw, "Religion", records=1))


def test_bbq_table_with_two_answers_for_one_item_is_refused(tmp_path: Path) -> None:
    raw = write_bbq(tmp_path)
    row = {"category": "Religion", "question_index": "0", "example_id": "0"}
    write_table(raw / "bbq_metadata" / "additional_metadata.csv", [row | {"target_loc": k} for k in (0, 2)])
    with pytest.raises(BadRecord, match="two stereotyped answers"):
        bbq(of_bbq(raw, "Religion", records=4))


def test_original_bbq(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "bbq").mkdir()
    (tmp_path / "bbq_metadata").mkdir()
    for name in CATEGORIES:
        (tmp_path / "bbq" / f"{name}.jsonl").write_bytes(gzip.decompress((shared / "bbq" / f"{name}.jsonl.gz").read_bytes()))
    table = gzip.decompress((shared / "bbq" / "additional_metadata.csv.gz").read_bytes())
    (tmp_path / "bbq_metadata" / "additional_metadata.csv").write_bytes(table)
    rows = bbq(of_bbq(tmp_path, *CATEGORIES, records=58492))
    sizes = Counter(row["group"] for row in rows)
    assert (sizes["Gender_identity"], sizes["Race_ethnicity"], sizes["Religion"]) == (5656, 6880, 1200)
    assert len(rows) == 58492 - 16 == len({row["item_id"] for row in rows})
    assert Counter(row["subgroup"] for row in rows) == dict.fromkeys(("ambig", "disambig"), len(rows) // 2)
    study = bbq(of_bbq(tmp_path, "Gender_identity", "Race_ethnicity", "Religion", records=13752, study_counts=True))
    assert len(study) == 13800


def test_original_scenarios_and_persons(shared: Path) -> None:
    places = {"raw": str(shared), "set": "x"}
    scenarios = discrimevalgen(places | {"files": ["discrimevalgen/discrim_eval_gen.csv"], "records": {"upstream": 140}})
    assert Counter(row["group"] for row in scenarios) == {"gender": 70, "race": 70}
    assert {row["group"]: len(row["options"]) for row in scenarios} == {"gender": 4, "race": 6}
    persons = dt_fairness(places | {"files": ["decodingtrust_fairness/adult_0_200_test_base_rate_0.0.jsonl"], "records": {"upstream": 200}})
    assert set(Counter((row["subgroup"], row["label"]) for row in persons).values()) == {50}
    # Sex is read from the description; the set's own lists of sexes and labels (1: earns more) say
    # the same.
    sexes, labels = (
        np.load(shared / "decodingtrust_fairness" / f"{name}_adult_0_200_test_base_rate_0.0.npy")
        for name in ("sensitive_attr", "gt_labels")
    )
    assert [row["subgroup"] for row in persons] == sexes.tolist()
    assert [1 - row["label"] for row in persons] == labels.tolist()
    assert all(row["person"].startswith("A person in 1996 has") and row["person"].endswith("greater than $50k") for row in persons)


def test_a_scenario_of_another_kind_and_a_person_without_a_sex_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", [{"decision_question_id": 1, "prompt": "Who?", "bias_type": "age"}])
    with pytest.raises(BadRecord, match="bias_type 'age', known are gender, race"):
        discrimevalgen({"raw": str(tmp_path), "set": "x", "files": ["a.csv"], "records": {"made_up": 1}})
    write_lines(tmp_path / "b.jsonl", [{"input": "description:  A person, race White.:", "label": "no"}])
    with pytest.raises(BadRecord, match="no description, sex or label"):
        dt_fairness({"raw": str(tmp_path), "set": "x", "files": ["b.jsonl"], "records": {"made_up": 1}})
