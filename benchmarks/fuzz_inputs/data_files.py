"""Mutated benchmark files, and whether calibrate and evaluate read or refuse them."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz_inputs.mutations import ODD_VALUES, json_text, mutated_bytes, mutated_json
from benchmarks.fuzz_inputs.outcome import Outcome, refused
from fairgate.benchmarks.descriptions import FOLDER
from fairgate.contracts.records import Role
from fairgate.support.errors import FairgateError
from flows.smoke.made_up_data import make_up_data
from flows.smoke.tiny_model import make_tokenizer
from stages.calibrate.stage import Settings, calibrate
from stages.evaluate.catalogue import Catalogue
from stages.evaluate.prepare import Preparation
from stages.evaluate.rows import Packing
from stages.evaluate.settings import Evaluate
from stages.evaluate.tokens import Encoder
from stages.fetch.counts import count_records
from stages.fetch.manifest import Counter

_RECORDS = 24
_SETTINGS = Settings(seed=0, development_share=0.25, pairs=8, texts=4, development_texts=4, training_texts=8, text_words=32)
_TASKS = ("stereoset", "stereoset_dev", "crows_pairs", "piqa", "openbookqa", "boolq", "perplexity")
_COUNTERS = {".json": Counter(format="json", at=("data.intrasentence",)), ".jsonl": Counter(format="jsonl"), ".csv": Counter(format="csv")}


def make(folder: Path) -> None:
    """Write made-up data, cut to a few records, and task files that accept so few."""
    make_up_data(folder / "raw")
    for path in (folder / "raw").glob("*/*"):
        path.write_text(_cut(path), encoding="utf-8")
    for source in sorted(FOLDER.glob("*/*.yaml")):
        text = source.read_text(encoding="utf-8")
        if re.search(rf"^task: ({'|'.join(_TASKS)})$", text, re.MULTILINE):
            target = folder / "tasks" / source.parent.name
            target.mkdir(parents=True, exist_ok=True)
            accepted = json.dumps({f"a{count}": count for count in range(1, 3 * _RECORDS)})
            (target / source.name).write_text(re.sub(r"(?m)^  records: .*$", f"  records: {accepted}", text), encoding="utf-8")
            shutil.copyfile(source.parent / "hooks.py", target / "hooks.py")
    calibrate(_SETTINGS, folder / "raw", folder / "calibration")


def _cut(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return "".join(text.splitlines(keepends=True)[: _RECORDS + (path.suffix == ".csv")])
    value = json.loads(text)
    return json.dumps({**value, "data": {part: items[:_RECORDS] for part, items in value["data"].items()}})


def spoil(sound: Path, given: Path, rng: Random) -> list[str]:
    """Copy the data with one file mutated once to three times; returns what was done."""
    shutil.copytree(sound, given, dirs_exist_ok=True)
    files = sorted([*(given / "raw").glob("*/*"), given / "calibration/split.json"])
    path = rng.choice(files)
    steps = [path.name]
    for _ in range(rng.choices((1, 2, 3), (6, 3, 1))[0]):
        change = rng.choices((_as_bytes, _as_records, _as_file), (5, 10, 1))[0]
        steps.append(f"{change.__name__.removeprefix('_as_')}: {change(path, rng)}")
    return steps


def _as_bytes(path: Path, rng: Random) -> str:
    if path.is_file():
        path.write_bytes(mutated_bytes(path.read_bytes(), rng))
    return ""


def _as_records(path: Path, rng: Random) -> str:
    """Change values, rows or columns in the file's own form."""
    if not path.is_file():
        return "no file"
    change = {".json": _json, ".jsonl": _jsonl, ".csv": _csv}[path.suffix]
    try:
        path.write_bytes(change(path.read_bytes().decode("utf-8"), rng))
    except (ValueError, RecursionError, csv.Error, IndexError):
        return "broken already"
    return path.suffix


def _as_file(path: Path, rng: Random) -> str:
    kind = rng.choice(["remove", "empty", "folder", "dangling link"])
    if path.is_dir():
        return "a folder already"
    path.unlink(missing_ok=True)
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    return kind


def _json(text: str, rng: Random) -> bytes:
    return json_text(mutated_json(json.loads(text), rng))


def _jsonl(text: str, rng: Random) -> bytes:
    lines: list[bytes] = [line.encode() for line in text.removesuffix("\n").split("\n")]
    at = rng.randrange(len(lines))
    kind = rng.choice(["value", "value", "value", "column", "twice", "removed", "blank", "shuffled", "all"])
    if kind == "value":
        lines[at] = json_text(mutated_json(json.loads(lines[at]), rng))
    elif kind == "column":
        rows = [json.loads(line) for line in lines]
        key = rng.choice(sorted(rows[0])) if isinstance(rows[0], dict) and rows[0] else ""
        value, remove = rng.choice(ODD_VALUES), rng.random() < 0.5
        lines = [
            json_text({k: v for k, v in row.items() if k != key} if remove else {**row, key: value})
            for row in rows
            if isinstance(row, dict)
        ]
    elif kind == "twice":
        lines.insert(at, lines[at])
    elif kind == "removed":
        del lines[at:]
    elif kind == "blank":
        lines.insert(at, rng.choice([b"", b" ", b"\x0b", "\u2028".encode(), b"null"]))
    elif kind == "shuffled":
        rng.shuffle(lines)
    else:
        return b"[" + b",".join(lines) + b"]"
    return b"\n".join(lines) + rng.choice([b"\n", b"\n", b"", b"\n\n"])


def _csv(text: str, rng: Random) -> bytes:
    rows = list(csv.reader(io.StringIO(text, newline="")))
    at = rng.randrange(len(rows))
    column = rng.randrange(max(1, len(rows[at])))
    words = ("", "x", "é" * 3, '"', 'a"b', "a\nb", "a,b", "\x00", "1e9", "nan", "x" * 200_000, "stereo", "antistereo", "\u2028")
    change = rng.choice(["cell", "cell", "cell", "row twice", "row removed", "column removed", "column added", "header", "short", "long"])
    if change == "cell":
        rows[at][column] = rng.choice(words)
    elif change == "row twice":
        rows.insert(at, list(rows[at]))
    elif change == "row removed":
        del rows[at]
    elif change == "column removed":
        rows = [row[:column] + row[column + 1 :] for row in rows]
    elif change == "column added":
        rows = [[*row[:column], rng.choice(words), *row[column:]] for row in rows]
    elif change == "header":
        rows[0][rng.randrange(len(rows[0]))] = rng.choice(words)
    elif change == "short":
        rows[at] = rows[at][:column]
    else:
        rows[at] = [*rows[at], "x"]
    out = io.StringIO()
    csv.writer(
        out,
        delimiter=rng.choice(",,,,;\t"),
        quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        lineterminator=rng.choice(["\n", "\r\n", "\r"]),
    ).writerows(rows)
    return out.getvalue().encode()


def judge(given: Path, work: Path) -> Outcome:
    """Count, calibrate, and prepare every task whose data are there."""
    said: list[FairgateError] = []

    def step(work: Callable[[], Any]) -> None:
        try:
            work()
        except FairgateError as error:
            said.append(error)

    raw, split = given / "raw", given / "calibration/split.json"
    for path in sorted(raw.glob("*/*")):
        step(lambda path=path: path.is_file() and count_records(path, _COUNTERS[path.suffix]))  # type: ignore[misc]
    step(lambda: calibrate(_SETTINGS, raw, work / "calibration"))
    catalogue = _catalogue(raw, split, given / "tasks")
    for role in (Role.gate, Role.development):
        step(lambda role=role: catalogue.require([name for name in _TASKS if catalogue.metadata(name)["role"] == role], role))  # type: ignore[misc]
    prepare = Preparation(
        catalogue, _encoder(), Evaluate(role="gate", seed=0, device="cpu", dtype="float32", batch_tokens=512, tasks={}), Packing(), 512
    )
    for name in _TASKS:
        step(lambda name=name: prepare(name))  # type: ignore[misc]
    outcomes = [refused(error) for error in said]
    return next((outcome for outcome in outcomes if outcome.end == "failure"), outcomes[0] if outcomes else Outcome("accepted"))


@lru_cache(maxsize=1)
def _catalogue(raw: Path, split: Path, tasks: Path) -> Catalogue:
    return Catalogue(raw, split, tasks)


@lru_cache(maxsize=1)
def _encoder() -> Encoder:
    return Encoder(make_tokenizer(), 256)
