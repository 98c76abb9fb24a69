"""Mutations of JSON values, bytes and text. All are pure functions of their random generator."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

ODD_VALUES: Sequence[Any] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 64, 2**31, 2**63, -(2**40), 10**30, 0.0, -0.5, 1.5, 1e-30, 1e308,
    math.nan, math.inf, -math.inf, "", "0", "1", "x", "true", "ünïcödé", "\x00", "\ud800", "a" * 5000,
    [], {}, [0], ["x"], [[]], [None], {"a": 1}, {"": None}, {"type": "default"},
)  # fmt: skip
ODD_KEYS = ("", "ключ", "a.b", "../x", "__class__", "self", "0", " ", "\ud800", "k" * 300)
# The text that marks a key which is to stand twice; no key of a sound file holds it.
_TWICE = "\x00twice"
# And the text that stands for lists inside lists, deeper than a program can follow.
_DEEP, _DEPTH = "\x00deep", 5000


def mutated_json(value: Any, rng: Random) -> Any:
    """A copy of a JSON value with one change somewhere inside it."""
    value = copy.deepcopy(value)
    holder, key = _place(value, rng)
    if holder is None:
        return rng.choice(ODD_VALUES)
    rng.choice(_CHANGES)(holder, key, rng)
    return value


def _place(value: Any, rng: Random) -> tuple[Any, Any]:
    """A container inside the value and one of its keys; (None, None) if it has none."""
    holder, key = None, None
    while isinstance(value, (dict, list)) and value:
        holder, key = value, rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        value = holder[key]
        if rng.random() < 0.4:
            break
    return holder, key


def _delete(holder: Any, key: Any, rng: Random) -> None:
    del holder[key]


def _replace(holder: Any, key: Any, rng: Random) -> None:
    holder[key] = copy.deepcopy(rng.choice(ODD_VALUES))


def _scale(holder: Any, key: Any, rng: Random) -> None:
    value = holder[key]
    if isinstance(value, (int, float)):
        holder[key] = rng.choice([-value, value + 1, value - 1, value * 2, value / 2, float(value), str(value), bool(value)])
    else:
        holder[key] = rng.choice([str(value), [value], {"0": value}, [value, value]])


def _swap(holder: Any, key: Any, rng: Random) -> None:
    other = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    holder[key], holder[other] = holder[other], holder[key]


def _nest(holder: Any, key: Any, rng: Random) -> None:
    for _ in range(rng.choice([1, 2, 50])):
        holder[key] = rng.choice([[holder[key]], {"x": holder[key]}])


def _bury(holder: Any, key: Any, rng: Random) -> None:
    holder[key] = _DEEP


def _add(holder: Any, key: Any, rng: Random) -> None:
    value = copy.deepcopy(rng.choice(ODD_VALUES))
    if isinstance(holder, dict):
        holder[rng.choice(ODD_KEYS)] = value
    else:
        holder.insert(key, value)


def _twice(holder: Any, key: Any, rng: Random) -> None:
    if isinstance(holder, dict):
        holder[f"{key}{_TWICE}"] = copy.deepcopy(rng.choice([*ODD_VALUES, holder[key]]))
    else:
        holder.insert(key, copy.deepcopy(holder[key]))


def _rename(holder: Any, key: Any, rng: Random) -> None:
    if isinstance(holder, dict):
        holder[rng.choice([*ODD_KEYS, str(key).upper(), f"{key} ", f"{key}s"])] = holder.pop(key)
    else:
        holder.reverse()


_CHANGES: Sequence[Callable[[Any, Any, Random], None]] = (_delete, _replace, _replace, _scale, _swap, _nest, _bury, _add, _twice, _rename)


def with_value(value: Any, choices: Mapping[str, Sequence[Any]], rng: Random) -> Any:
    """A copy of a mapping in which one of the keys of `choices` has one of its values."""
    key = rng.choice(sorted(choices))
    return {**value, key: copy.deepcopy(rng.choice(choices[key]))} if isinstance(value, dict) else value


def json_text(value: Any) -> bytes:
    """The value as JSON, with what only a text can hold: keys that stand twice, deep lists."""
    text = json.dumps(value, default=str).replace(json.dumps(_DEEP), "[" * _DEPTH + "]" * _DEPTH)
    return text.replace(json.dumps(_TWICE).strip('"'), "").encode("utf-8", "surrogatepass")


def mutated_bytes(data: bytes, rng: Random) -> bytes:
    """The bytes with one change, of a kind that editors, downloads and disks make."""
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice([1, 2, 8, 64, 4096]))
    flipped = bytes([data[at] ^ (1 << rng.randrange(8))]) if at < len(data) else b""
    return rng.choice(
        [
            lambda: b"",
            lambda: data[:at],
            lambda: data[at:],
            lambda: data[:at] + data[end:],
            lambda: data[:at] + rng.randbytes(rng.choice([1, 4, 100])) + data[at:],
            lambda: data[:at] + flipped + data[at + 1 :],
            lambda: data[:at] + flipped + data[at + 1 :],
            lambda: data[:at] + data[at:end] + data[at:],
            lambda: data[:at] + b"\x00" * (end - at) + data[end:],
            lambda: data + data,
            lambda: b"\xef\xbb\xbf" + data,
            lambda: data.replace(b"\n", b"\r\n"),
            lambda: data.replace(b"\n", b"\r"),
            lambda: data.decode("utf-8", "replace").encode("utf-16"),
            lambda: data.decode("utf-8", "replace").encode("latin-1", "replace"),
            lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            lambda: b"<!DOCTYPE html><html>404</html>",
        ]
    )()
