from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.evaluate.catalogue import Catalogue
from stages.evaluate.model import load
from stages.evaluate.prepare import Preparation, PreparedTasks, prepare_all
from stages.evaluate.rows import Packing
from stages.evaluate.tokens import Encoder


def test_a_task_that_another_process_stores_meanwhile_does_not_shift_the_others(work: Path, catalogue: Catalogue, settings: Any) -> None:
    class Shared(PreparedTasks):
        """Says of a task that it has none, and at the next question that it has it."""

        def has(self, key: str) -> bool:
            asked.append(key)
            return asked.count(key) > 1

    asked: list[str] = []
    names = ["piqa", "boolq", "openbookqa"]
    model = load(work / "llama", dtype="float32", device="cpu")
    prepare = Preparation(catalogue, Encoder(model.tokenizer, model.context), settings(), Packing(), 512)
    assert [prepared.task.name for prepared in prepare_all(prepare, names, 0, Shared())] == names
