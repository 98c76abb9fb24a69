"""One evaluation in one line, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fairgate.contracts.records import Role
from stages.evaluate import repeat, stage
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.journal import WHOLE, Shard
from stages.evaluate.prepare import PreparedTasks
from stages.evaluate.selection import Selection
from stages.evaluate.session import Workspace
from stages.evaluate.settings import Evaluate
from stages.evaluate.stage import Subject


def evaluate(
    recipe: str,
    folder: Path,
    out: Path,
    settings: Evaluate,
    catalogue: Catalogue,
    *,
    role: Role,
    tasks: Sequence[str] = (),
    smoke: bool = False,
    work: Path | None = None,
    shard: Shard = WHOLE,
    prepared: PreparedTasks | None = None,
    twice: bool = False,
) -> dict[str, float]:
    """Evaluate the model in `folder` as a recipe; `twice` measures the noise floor."""
    run = repeat.evaluate_twice if twice else stage.evaluate
    return run(Subject(recipe, folder), Selection(catalogue, role, tasks, smoke), settings, out, Workspace(work, shard, prepared))
