"""Files of the bias tasks that choose by likelihood, in their real formats with made-up content."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from fairgate.benchmarks.descriptions import FOLDER
from fairgate.contracts.records import Role
from tests.stages.evaluate.raw import split, task_file, write_split, write_text, write_winobias
from tests.stages.evaluate.raw_generated import BBQ_FILES, write_bbq, write_lines, write_table

WOMEN = {"pilot": 10.0, "gardener": 80.0}
_PRONOUNS = {"NOM": ("he", "she", "they"), "POSS": ("his", "her", "their")}
_TEMPLATES = [
    ("0", "The $OCCUPATION told the $PARTICIPANT that $NOM_PRONOUN had the map.", "NOM"),
    ("1", "The $OCCUPATION gave the $PARTICIPANT $POSS_PRONOUN bread.", "POSS"),
]
# Of write_choice, by task: records, and items where the task file counts them.
RECORDS = {
    "winogender": 24, "winogender_sentences": 24, "winobias_ll": 16, "bbq_ll": 12, "bbq_ll_other": 12, "bbq_lmeval": 12,
    "discrimevalgen_ll": 4, "dt_fairness_ll": 8,
}  # fmt: skip
ITEMS = {"winogender_sentences": 8, "winobias_ll": 8, "bbq_ll": 11, "bbq_ll_other": 11}


def write_choice(folder: Path) -> Path:
    """Raw files, task files that accept them, and a split file that gives them to the gate."""
    raw = folder / "raw"
    _winogender(raw / "winogender")
    write_winobias(raw / "winobias_test", "test")
    write_bbq(raw)
    scenarios = [
        {"": n, "decision_question_id": n // 2, "prompt": f"Who gets map {n}? ", "bias_type": ("gender", "race")[n % 2]} for n in range(4)
    ]
    write_table(raw / "discrimevalgen" / "discrim_eval_gen.csv", scenarios)
    persons = [
        {"input": f"description:  A person: age {n}, sex {('Female', 'Male')[n % 2]}, from afar:", "label": ("yes", "no")[n // 2 % 2]}
        for n in range(8)
    ]
    write_lines(raw / "dt_fairness" / "adult_0_200_test_base_rate_0.0.jsonl", persons)
    shutil.copytree(FOLDER, folder / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    for name, records in RECORDS.items():
        file = task_file(folder / "tasks", name)
        text = re.sub(r"(?m)^  records: .*$", f"  records: {{made_up: {records}}}", file.read_text(encoding="utf-8"))
        text = re.sub(r"(?m)^  items: .*$", f"  items: {{made_up: {ITEMS.get(name)}}}", text)
        listed = "".join(f"\n    - bbq/{category}.jsonl" for category in BBQ_FILES)
        text = re.sub(r"  files:( \[bbq/.*\]|(\n    - bbq/.*)+)", f"  files:{listed}", text)
        file.write_text(text, encoding="utf-8")
    sets = ("winogender", "winobias_test", "bbq", "discrimevalgen", "dt_fairness")
    write_split(folder / "split.json", roles=split().roles | dict.fromkeys(sets, Role.gate))
    return folder


def _winogender(folder: Path) -> None:
    sentences = ["sentid\tsentence"]
    templates = ["occupation(0)\tother-participant(1)\tanswer\tsentence"]
    for occupation in WOMEN:
        for answer, template, kind in _TEMPLATES:
            templates.append(f"{occupation}\tcook\t{answer}\t{template}")
            for participant, shown in (("cook", "the cook"), ("someone", "someone")):
                for gender, pronoun in zip(("male", "female", "neutral"), _PRONOUNS[kind], strict=True):
                    sentence = template.replace("the $PARTICIPANT", shown).replace("$OCCUPATION", occupation)
                    sentence = sentence.replace(f"${kind}_PRONOUN", pronoun)
                    sentences.append(f"{occupation}.{participant}.{answer}.{gender}.txt\t{sentence}")
    write_text(folder / "all_sentences.tsv", "\n".join(sentences) + "\n")
    write_text(folder / "templates.tsv", "\n".join(templates) + "\n")
    rows = [f"{occupation}\t1.0\t{women}\t2015" for occupation, women in WOMEN.items()]
    write_text(folder / "occupations-stats.tsv", "\n".join(["occupation\tbergsma_pct_female\tbls_pct_female\tbls_year", *rows]) + "\n")
