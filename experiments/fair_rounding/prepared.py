"""Tasks read and tokenised once for all processes of an experiment: one file a task, in a folder
named by what it was made from.
"""

from __future__ import annotations

import gc
import pickle
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import stages.evaluate
from fairgate.support.digests import sha256_file, sha256_folder, sha256_json
from fairgate.support.errors import FairgateError
from fairgate.support.files import atomic_path
from fairgate.support.log import log
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.model import load
from stages.evaluate.prefetch import prefetch
from stages.evaluate.prepare import Preparation, Prepared, PreparedTasks
from stages.evaluate.settings import Evaluate
from stages.evaluate.tokens import Encoder

Job = tuple[Preparation, str, Path]


class StoredTasks(PreparedTasks):
    """Prepared tasks in memory, and behind them those that `prepare` wrote to `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def has(self, key: str) -> bool:
        return super().has(key) or self._path(key).is_file()

    def get(self, key: str) -> Prepared:
        if not super().has(key) and self._path(key).is_file():
            self.put(key, _read(self._path(key)))
        return super().get(key)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.pickle"


def _read(path: Path) -> Prepared:
    collects = gc.isenabled()
    gc.disable()  # it would look through a million tuples again and again
    try:
        task: Prepared = pickle.loads(path.read_bytes())  # noqa: S301 (our own file)
    finally:
        if collects:
            gc.enable()
    return task


def made_from(raw: Path, split: Path, tasks: Path) -> str:
    """Digest of what prepared tasks are made from besides what their keys say: data, split, task
    files and code.
    """
    code = Path(stages.evaluate.__file__).parent
    sources = [path for folder in (code, tasks) for path in sorted(folder.rglob("*")) if path.suffix in (".py", ".yaml")]
    versions = [version(name) for name in ("lm-eval", "tokenizers", "transformers")]
    return sha256_json([[sha256_file(path) for path in sources], sha256_folder(raw), sha256_file(split), versions])


def prepare(base: Path, catalogue: Catalogue, evaluations: Sequence[Evaluate], folder: Path, *, batch_tokens: int, workers: int) -> None:
    """Write the tasks of the evaluations that are not in `folder` yet, for models with the
    tokenizer of `base`, in `workers` processes.

    Tasks without data and those with generated text are left out. One that cannot be read is left
    to the cells, which say so.
    """
    model = load(base, dtype="float32", device="cpu")
    encoder = Encoder(model.tokenizer, model.context)
    jobs: dict[Path, Job] = {}
    for settings in evaluations:
        preparation = Preparation(catalogue, encoder, settings, model.packing, batch_tokens)
        for name in settings.tasks:
            if not catalogue.absent(name) and not catalogue.is_generated(name):
                path = folder / f"{preparation.key(name)}.pickle"
                jobs[path] = (preparation, name, path)
    missing = [job for path, job in jobs.items() if not path.is_file()]
    for _ in prefetch(_store, missing, min(workers, len(missing))):
        pass


def _store(job: Job) -> None:
    preparation, name, path = job
    try:
        prepared = preparation(name)
    except FairgateError as error:
        log.warning("%s", error)
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(pickle.dumps(prepared, pickle.HIGHEST_PROTOCOL))
