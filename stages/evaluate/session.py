"""A loaded model, and where its answers are kept until the table is written."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fairgate.model_folder.weights import weight_digest
from stages.evaluate.journal import WHOLE, Journal, Shard, digest, open_journal
from stages.evaluate.model import Model, load
from stages.evaluate.prepare import Prepared, PreparedTasks
from stages.evaluate.progress import ProgressLine
from stages.evaluate.score import likelihoods, scatter
from stages.evaluate.settings import Evaluate
from stages.evaluate.task import Task


@dataclass(frozen=True)
class Workspace:
    """What an evaluation keeps outside its output folder.

    folder: where the journals of finished batches outlive a kill. None means nowhere.
    shard: the batches that this process scores. A part of them makes no table; the run of the
        whole puts the parts together.
    prepared: tasks that earlier evaluations prepared; new ones are added. None means that every
        task is read and tokenized again.
    """

    folder: Path | None = None
    shard: Shard = WHOLE
    prepared: PreparedTasks | None = None


IN_MEMORY = Workspace()


@dataclass(frozen=True)
class Session:
    """A loaded model, the folder it came from, the digest of its weights, and its workspace."""

    model: Model
    folder: Path
    weights: str
    workspace: Workspace

    @property
    def device_name(self) -> str:
        """`cpu`, or the GPU's product name."""
        device = self.model.device
        return device.type if device.type == "cpu" else torch.cuda.get_device_name(device)

    def score(self, prepared: Prepared) -> list[list[float]]:
        """Log-likelihoods [item][option]; 0 in batches of other shards that no journal has."""
        sums = [[0.0] * len(encoded.requests) for encoded in prepared.encoded]
        batches, shard = prepared.batches, self.workspace.shard
        progress = ProgressLine(prepared.task.name, len(prepared.encoded), sum(map(len, sums)))
        with self.journal(prepared.task, lambda: {"requests and batches": digest(batches)}) as journal:
            for number, values in journal.values.items():
                scatter(batches[number], values, sums)
                progress.update(len(values))
            missing = [n for n in range(len(batches)) if shard.owns(n) and n not in journal.values]
            for number, values, pieces in likelihoods(self.model, batches, missing, prepared.encoded, journal.pieces):
                journal.add(number, values, pieces)
                scatter(batches[number], values, sums)
                progress.update(len(values))
        progress.finish()
        return sums

    def journal(self, task: Task, made_from: Callable[[], dict[str, Any]]) -> AbstractContextManager[Journal]:
        """The journal of a task; what it holds is dropped if it was made from something else.

        Args:
            made_from: what the answers depend on besides the model and the task's version. It is
                called only if there is a folder.
        """
        folder = self.workspace.folder
        fingerprint = self._fingerprint(task) | made_from() if folder else {}
        return open_journal(folder, task.name, fingerprint, self.workspace.shard)

    def _fingerprint(self, task: Task) -> dict[str, Any]:
        return {
            "weights": self.weights,
            "dtype": self.model.dtype,
            "device": self.device_name,
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "task version": task.version,
        }


def open_session(folder: Path, settings: Evaluate, workspace: Workspace) -> Session:
    """Load the model in `folder`."""
    with ThreadPoolExecutor(1) as executor:  # hashing a large model takes as long as reading it
        weights = executor.submit(weight_digest, folder)
        model = load(folder, dtype=settings.dtype, device=settings.device)
    return Session(model, folder, weights.result(), workspace)


def versions() -> dict[str, str]:
    """Versions of the packages that log-likelihoods depend on."""
    return {name: version(name) for name in ("torch", "transformers", "lm-eval")}
