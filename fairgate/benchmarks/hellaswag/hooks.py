"""Dataset hook of HellaSwag."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from lm_eval.tasks.hellaswag.utils import preprocess

from fairgate.benchmarks.families.reading import (
    Rows,
    as_test,
    given,
    identity,
    index_of,
    read_rows,
    require_count,
)
from fairgate.support.archives import read_texts
from fairgate.support.errors import BadRecord


def endings(**metadata: Any) -> dict[str, Dataset]:
    """Beginning, four endings and label.

    Brackets of the hub's rows are cleaned as lm-eval cleans them.
    """
    (path,), hub = given(metadata)
    rows: Rows = []
    if hub:
        for line in read_rows(path):
            begin = preprocess(f"{line['activity_label']}: {line['ctx_a']} {line['ctx_b'].capitalize()}")
            rows.append({"query": begin, "options": [preprocess(end) for end in line["endings"]], "label": int(line["label"])})
    else:
        ((_, text),) = read_texts(path)
        lines = text.removesuffix("\n").split("\n")
        for number in range(0, len(lines), 6):
            begin, label, *listed = lines[number : number + 6]
            rows.append({"query": begin, "options": listed, "label": index_of(label, ["0", "1", "2", "3"], f"{path}:{number + 2}")})
    require_count(rows, metadata, path)
    if wrong := [number for number, row in enumerate(rows) if len(row["options"]) != 4]:
        raise BadRecord(f"question {wrong[0]} has not four endings", where=str(path), remedy="use the original file")
    return as_test([identity(str(number), str(number)) | row for number, row in enumerate(rows)], metadata)
