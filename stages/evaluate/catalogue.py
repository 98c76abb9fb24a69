"""Tasks as lm-eval reads them: a task file alone defines data, prompt and options."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from lm_eval import utils as lm_eval_utils
from lm_eval.tasks import TaskManager

from fairgate.benchmarks.descriptions import FOLDER
from fairgate.benchmarks.families.reading import given, paths
from fairgate.contracts.records import Role, Split, read_record
from fairgate.support.errors import BadRecord, FairgateError, MissingFile, UnknownName
from fairgate.support.files import records_of
from stages.evaluate.task import Form, Generation, Item, Task


@contextmanager
def _quiet_and_fast() -> Iterator[None]:
    """lm-eval without its warnings, and with templates that are compiled once.

    It compiles a template again for every document, which takes most of the time of loading a task.
    Both are settings of the whole process, so they are put back at the end.
    """
    logger, environment = logging.getLogger("lm_eval"), lm_eval_utils.env
    level, compiler = logger.level, environment.from_string
    logger.setLevel(logging.ERROR)
    environment.from_string = lru_cache(maxsize=1024)(compiler)
    try:
        yield
    finally:
        logger.setLevel(level)
        environment.from_string = compiler


class Catalogue:
    """The folder of benchmarks, its task files indexed once."""

    def __init__(self, raw: Path, split: Path, folder: Path = FOLDER) -> None:
        """Index the task files.

        Args:
            raw: folder of the benchmark files.
            split: the split file, which says which data set has which role.
            folder: the task files.
        """
        self._split, self._raw, self._folder = split, raw, folder
        places = {"raw": str(raw), "split": str(split)}
        with _quiet_and_fast():
            self._manager = TaskManager(include_defaults=False, include_path=str(folder), metadata=places)

    def __reduce__(self) -> tuple[Any, ...]:
        return Catalogue, (self._raw, self._split, self._folder)

    @property
    def names(self) -> list[str]:
        """Tasks by name, in the order in which they run."""
        return sorted(self._manager.all_subtasks)

    def metadata(self, name: str) -> dict[str, Any]:
        """The `metadata` of a task file; UnknownName gives the nearest right name."""
        if name not in self.names:
            raise UnknownName.of("task", name, self.names, where="evaluate.tasks")
        return dict((self._manager.task_index[name].cfg or {})["metadata"])

    def is_generated(self, name: str) -> bool:
        """Whether the task generates text, which takes hours: it runs only if asked for."""
        self.metadata(name)
        return bool((self._manager.task_index[name].cfg or {}).get("output_type") == "generate_until")

    def require(self, names: Sequence[str], role: Role) -> None:
        """Refuse a task whose data are missing or do not have the role; nothing is read yet."""
        roles = read_record(Split, self._split).roles
        for name in names:
            metadata = self.metadata(name)
            data, where = metadata["set"], f"task {name}"
            if metadata["role"] != role:
                remedy = f"take it out, or run `--role {metadata['role']}`"
                raise FairgateError(f"is a {metadata['role']} task, asked for as {role}", where=where, remedy=remedy)
            if roles.get(data) != role:
                stands = f"has the role {roles[data]}" if data in roles else "has no role"
                raise FairgateError(
                    f"data set {data!r} {stands} in {self._split}, not {role}: a result on it would not be held out",
                    where=where,
                    remedy="take the task out of evaluate.tasks; docs/architecture.md says who may be used for what",
                )
            self._files(name)

    def absent(self, name: str) -> str | None:
        """The file that a task lacks. None means that all its files are there."""
        try:
            self._files(name)
        except MissingFile as error:
            return f"{error.what} ({Path(error.where).name})"
        return None

    def _files(self, name: str) -> list[Path]:
        metadata = self.metadata(name) | {"raw": self._raw}
        return given(metadata)[0] + paths(metadata, "joined") + paths(metadata, "without")

    def load(self, name: str) -> Task:
        """Read one task with its data; the hooks check record counts."""
        with _quiet_and_fast():
            return self._load(name)

    def _load(self, name: str) -> Task:
        metadata = self.metadata(name)
        with records_of(f"task {name}", ", ".join(map(str, self._files(name)))):
            try:
                definition = self._manager.load([name])["tasks"][name]
            except KeyError as error:
                raise self._without_column(name, str(error.args[0])) from error
            items = tuple(_item(definition, doc, metadata.get("form", "options")) for doc in definition.eval_docs)
        generation = None
        if self.is_generated(name):
            chat, budget = definition.config.gen_prefix is not None, definition.config.generation_kwargs["max_gen_toks"]
            generation = Generation(chat, budget, metadata.get("score"))
        return Task(
            name=name,
            version=str(definition.VERSION),
            data=metadata["set"],
            role=Role(metadata["role"]),
            items=items,
            window=metadata.get("window"),
            upstream=metadata.get("of"),
            generation=generation,
        )

    def _without_column(self, name: str, column: str) -> BadRecord:
        """The error for a record that lacks a column.

        It names the files in which the column occurs nowhere, or else all files of the task.
        """
        files = self._files(name)
        lacking = [path for path in files if column not in path.read_text(encoding="utf-8", errors="replace")]
        where = ", ".join(map(str, lacking or files))
        return BadRecord(f"column {column!r} is missing", where=f"task {name}: {where}", remedy="fetch the file again (`dvc repro fetch`)")


def _item(task: Any, doc: dict[str, Any], form: Form) -> Item:
    requests = task.construct_requests(doc=doc, ctx=task.fewshot_context(doc, 0), metadata=(task.task_name, 0, 1))
    prompts: tuple[tuple[str, str], ...]
    texts: list[str]
    if task.OUTPUT_TYPE == "generate_until":
        prompts, texts, form = ((requests.args[0], task.doc_to_prefix(doc) or ""),), [], "generated"
    elif task.OUTPUT_TYPE == "multiple_choice":
        prompts = tuple((r.args[0], r.args[1]) for r in requests)
        texts = [text.strip() if form == "next_token" else text for text in task.doc_to_choice(doc)]
    elif form == "greedy":
        prompts = (requests.args,) * 2
        texts = [requests.args[1]] * 2
    else:
        prompts = (("", requests.args[0]),)
        texts = [requests.args[0]]
    return Item(
        id=doc["item_id"],
        cluster=doc["cluster"],
        group=doc["group"],
        subgroup=doc["subgroup"],
        # In pairs of sentences lm-eval's target only says which side is counted; it is no gold.
        gold=doc.get("label"),
        prompts=prompts,
        # A text that is measured per word counts words.
        chars=(doc["words"],) if "words" in doc else tuple(len(text) for text in texts),
        covariate=doc.get("covariate"),
        form=form,
        answers=tuple(doc.get("answers", ())),
    )
