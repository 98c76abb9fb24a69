"""Mutated parameter files, and whether the readers at the start of a release agree on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml
from dvc.utils.serialize import load_yaml

from benchmarks.fuzz_inputs.mutations import json_text, mutated_bytes, mutated_json, with_value
from benchmarks.fuzz_inputs.outcome import Disagreement, Outcome
from fairgate.support.params import read_params
from flows.preflight import check_params

_FILE = "params.yaml"
_REPOSITORY = Path(__file__).parents[2]
_WORDS: Sequence[str] = (
    "010", "1e-3", "1_000", "0x1F", "0o17", "12:30", "2026-11-30", "yes", "No", "on", "~", "null", "", ".inf", ".nan", "-.INF",
    "1.", ".5", "+1", "9" * 400, "1.0e+999", "!!python/object:os.system x", "!!str 5", "&a 1", "*a", "&b [*b]", "{", "[", "]",
    "{a: 1, a: 2}", "[1, 2", "|", ">-", "'", '"', "@x", "`x`", "%x", "? x", "- x", "a: b", "#", "x #y", '\t1', '\ufeff', '\x85',
    '\u2028', "é", '\x00', '\x1b[31m', "rtn;touch x", "../x", "<<: {a: 1}", "=", '"\\ud800"', "${matrix}", "${x", "base", "none",
    "TRUE", "true", "-1", "0", "1e400", "[[[[[[]]]]]]", "{{{{}}}}", "'unclosed",
)  # fmt: skip
_VALUES: Mapping[str, Sequence[Any]] = {
    "model": ("", " x", "x/y", "x/y@", "/nowhere", "~nobody/x", "a\nb", 3, None, ["x"], "\x00", "é" * 300, "-x", "${x}"),
    "matrix": ([], None, "rtn", ["rtn", "rtn"], ["rtn", "RTN"], ["rtn;touch x"], [3], [None], ["nope"], {"rtn": 1}, ["base"], [["rtn"]]),
    "recipes": (
        {},
        None,
        [],
        "x",
        {"a b": {}},
        {"rtn": None},
        {"rtn": []},
        {"rtn": {"method": "rtn"}},
        {3: {"method": "rtn"}},
        {"base": {"method": "rtn"}},
    ),
    "evaluate": ({}, None, [], "x", 3, {"tasks": None}, {"tasks": []}, {"tasks": {"piqa": 0}}, {"tasks": {"x": 1}}, {"tasks": "piqa"}),
    "gate": ({}, None, [], "x", {"checks": []}, {"checks": [{}]}, {"checks": "x"}, {"checks": [None]}, {"candidate": None, "checks": [1]}),
    "quantize": ({}, None, [], "x", {"device": "cuda"}, {"batch_tokens": 0}),
    "calibrate": ({}, None, [], "x", {"pairs": -1}),
    "register": ({}, None, [], "x", {"experiment": ""}),
    "x": (1, None, {}),
}


def make(folder: Path) -> None:
    """Write the repository's parameter file, with its comments and as a program writes it."""
    shutil.copyfile(_REPOSITORY / _FILE, folder / "written.yaml")
    values = yaml.safe_load((folder / "written.yaml").read_text(encoding="utf-8"))
    (folder / "dumped.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def spoil(sound: Path, given: Path, rng: Random) -> list[str]:
    """Write a mutated parameter file; returns what was done."""
    path = rng.choice(sorted(sound.iterdir()))
    data = path.read_bytes()
    steps = [path.name]
    for _ in range(rng.choices((1, 2, 3), (6, 3, 1))[0]):
        change = rng.choices((_as_bytes, _as_text, _as_values), (2, 5, 4))[0]
        data = change(data, rng)
        steps.append(change.__name__.removeprefix("_as_"))
    (given / _FILE).write_bytes(data)
    return steps


def _as_bytes(data: bytes, rng: Random) -> bytes:
    return mutated_bytes(data, rng)


def _as_text(data: bytes, rng: Random) -> bytes:
    lines = data.decode("utf-8", "replace").split("\n")
    at = rng.randrange(len(lines))
    line, word = lines[at], rng.choice(_WORDS)
    key, colon, _ = line.partition(":")
    lines[at : at + 1] = rng.choice(
        [
            [],
            [line, line],
            [f" {line}"],
            [line[1:]],
            [f"\t{line}"],
            [f"{key}{colon} {word}"],
            [f"{key}{colon} {word}"],
            [f"{key}{colon} {word}"],
            [f"{key}{word}{colon}{line[len(key) + 1 :]}"],
            [line, f"{' ' * (len(line) - len(line.lstrip()))}{word}"],
            [line.replace(":", "")],
            [line, rng.choice(["---", "...", "%YAML 1.1", "<<: *x", "? a"])],
            [line, *rng.sample(lines, min(2, len(lines)))],
        ]
    )
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _as_values(data: bytes, rng: Random) -> bytes:
    try:
        value = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError):
        return data
    value = with_value(value, _VALUES, rng) if rng.random() < 0.4 else mutated_json(value, rng)
    if rng.random() < 0.5:
        return json_text(value)
    try:
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    except (yaml.YAMLError, RecursionError):
        return json_text(value)


def judge(given: Path, work: Path) -> Outcome:
    """Check the parameters as a release does; those that it takes must be those that DVC reads.

    Raises:
        Disagreement: DVC reads other values.
    """
    check_params(given)
    ours = spelled(read_params(given / _FILE))
    try:
        theirs = spelled(load_yaml(given / _FILE))
    except Exception as error:
        raise Disagreement(f"DVC cannot read what is taken here ({error!r})") from error
    if ours != theirs:
        raise Disagreement("DVC reads other values")
    return Outcome("accepted")


def spelled(value: Any) -> str:
    """The value with its types: 1, 1.0 and true are equal to Python."""
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{spelled(name)}: {spelled(inner)}" for name, inner in value.items())) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(spelled(inner) for inner in value) + "]"
    return json.dumps(value) if isinstance(value, str) else repr(value)
