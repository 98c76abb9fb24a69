"""Read the YAML that a person writes, so that every reader of the file sees the same values.

The stages read YAML 1.1 (PyYAML), DVC reads YAML 1.2 (ruamel). Here a document is refused, with
file, line and key, where the two differ: `010` is 8 for the one and 10 for the other. It is refused
too where both accept what nobody means: a key that stands twice, a date, a value inside itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from fairgate.support.errors import FairgateError, MissingFile

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FRACTION = re.compile(r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?|\.[0-9]+(?:[eE][-+][0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# What YAML 1.2 takes for a number, as DVC's reader has it. YAML 1.1 takes some of it for text.
_NUMBER_OF_1_2 = re.compile(
    r"""[-+]?0b[01_]+ | [-+]?0o[0-7_]+ | [-+]?0x[0-9a-fA-F_]+ | [-+0-9][0-9_]*
    | [-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)? | [-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    | [-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?""",
    re.VERBOSE,
)
_BOOLEAN_OF_1_1 = re.compile(r"(?:y|yes|n|no|on|off)", re.IGNORECASE)
_TEXT = yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG
_MERGE = "tag:yaml.org,2002:merge"
# An alias costs one word and may stand for millions of values. The largest file here has thousands.
_MOST_VALUES = 1_000_000
_DEEPEST = 100
# DVC's reader scans with libyaml. PyYAML's own scanner takes a little more (`[a:]`).
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path | str, *, tags: Collection[str] = ()) -> Any:
    """The value of a YAML file: mappings with text keys, lists, texts, numbers, booleans and None.

    Args:
        path: the file, in UTF-8.
        tags: tags that may stand in it, such as `!function`; their values are read as text.

    Raises:
        MissingFile: no such file.
        FairgateError: not valid YAML, or not read alike by every reader.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile("no such file", where=str(path), remedy="restore it from the repository")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FairgateError(f"not valid YAML: {error}", where=str(path), remedy="save it as UTF-8") from None
    return parse_yaml(text, where=str(path), tags=tags)


def parse_yaml(text: str, *, where: str, tags: Collection[str] = ()) -> Any:
    """The value of a YAML document, under the rules of `read_yaml`; `where` names its file."""
    try:
        _check_events(text, where, tags)
        node = yaml.compose(text, Loader=_LOADER)
        return None if node is None else _Builder(where, tags).value(node, ())
    except yaml.YAMLError as error:
        raise FairgateError(f"not valid YAML: {error}", where=where, remedy="correct it, or restore it from the repository") from None


def is_plain_text(value: str) -> bool:
    """Whether every reader takes `value`, written without quotes, for this very text."""
    try:
        return bool(parse_yaml(f"key: {value}\n", where="") == {"key": value})
    except FairgateError:
        return False


def _check_events(text: str, where: str, tags: Collection[str]) -> None:
    """Refuse what a tree of nodes does not show: tags, directives, depth and how it is written."""
    open_flows: list[bool] = []  # of each open list and mapping: is it written in brackets?
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.DocumentStartEvent) and (event.version or event.tags):
            raise _refusal(where, event, (), "a directive (%YAML or %TAG)", "leave it out")
        if (tag := getattr(event, "tag", None)) and tag not in tags:
            raise _refusal(where, event, (), f"a tag ({tag})", "leave it out, and quote the value if it is a text")
        if isinstance(event, yaml.CollectionStartEvent):
            open_flows.append(bool(event.flow_style))
        elif isinstance(event, yaml.CollectionEndEvent):
            open_flows.pop()
        elif isinstance(event, yaml.ScalarEvent) and not event.style and ":" in event.value and any(open_flows):
            raise _refusal(where, event, (), f"a colon inside brackets ({event.value})", "quote it")
        if len(open_flows) > _DEEPEST:
            raise _refusal(where, event, (), f"nested more than {_DEEPEST} levels deep", "make it flatter")


def _refusal(where: str, node: yaml.Node | yaml.Event, key: tuple[str, ...], what: str, remedy: str) -> FairgateError:
    assert node.start_mark is not None  # the loader marks every node
    line = node.start_mark.line + 1
    return FairgateError(f"{'.'.join(key)}: {what}" if key else what, where=f"{where}:{line}", remedy=remedy)


class _Builder:
    """Turns nodes into values. An aliased node is built once, and is the same object everywhere."""

    def __init__(self, where: str, tags: Collection[str]) -> None:
        self.where, self.tags = where, tags
        self.built: dict[yaml.Node, tuple[Any, int]] = {}  # node -> value, and how many values it spells out
        self.open: set[yaml.Node] = set()

    def value(self, node: yaml.Node, key: tuple[str, ...]) -> Any:
        return self._build(node, key)[0]

    def _build(self, node: yaml.Node, key: tuple[str, ...]) -> tuple[Any, int]:
        if node in self.open:
            raise _refusal(self.where, node, key, "a value that holds itself", "write the value out")
        if node not in self.built:
            self.open.add(node)
            self.built[node] = self._collect(node, key)
            self.open.remove(node)
        value, size = self.built[node]
        if size > _MOST_VALUES:
            raise _refusal(self.where, node, key, f"aliases that spell out more than {_MOST_VALUES:,} values", "write the values out")
        return value, size

    def _collect(self, node: yaml.Node, key: tuple[str, ...]) -> tuple[Any, int]:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            parts = [self._build(child, (*key, str(at))) for at, child in enumerate(node.value)]
            return [value for value, _ in parts], 1 + sum(size for _, size in parts)
        assert isinstance(node, yaml.ScalarNode)  # there is no fourth kind
        return self._scalar(node, key), 1

    def _mapping(self, node: yaml.MappingNode, key: tuple[str, ...]) -> tuple[dict[str, Any], int]:
        lines: dict[str, int] = {}
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        total = 1
        for name_node, value_node in node.value:
            name = self._name(name_node, key)
            if name in lines:
                what = f"stands twice (first in line {lines[name]})"
                raise _refusal(self.where, name_node, (*key, name), what, "keep one of the two")
            lines[name] = name_node.start_mark.line + 1
            value, size = self._build(value_node, (*key, name))
            total += size
            if name_node.tag == _MERGE:
                merged = self._merged(value_node, value, key)
            else:
                own[name] = value
        return merged | own, total

    def _name(self, node: yaml.Node, key: tuple[str, ...]) -> str:
        if node.tag == _MERGE:
            return "<<"
        name = self._scalar(node, key, is_key=True) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(name, str):
            spelling = node.value if isinstance(node, yaml.ScalarNode) else "a list or a mapping"
            raise _refusal(self.where, node, key, f"a key that is no text ({spelling})", "quote it, or give it another name")
        return name

    def _merged(self, node: yaml.Node, value: Any, key: tuple[str, ...]) -> dict[str, Any]:
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            raise _refusal(self.where, node, (*key, "<<"), "is no mapping", "give an alias of a mapping")
        merged: dict[str, Any] = {}
        for source in reversed(sources):  # the first source wins
            merged |= source
        return merged

    def _scalar(self, node: yaml.ScalarNode, key: tuple[str, ...], *, is_key: bool = False) -> Any:
        text: str = node.value
        if node.style or node.tag in self.tags:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _WHOLE.fullmatch(text) or _FRACTION.fullmatch(text):
            return self._number(node, key)
        if special := _SPECIAL.fullmatch(text):
            return float(special[0].replace(".", ""))
        if _NUMBER_OF_1_2.fullmatch(text):
            remedy = "write a number as 1000, 0.5 or 1.0e+3; quote a text"
            raise _refusal(self.where, node, key, f"{text} is not read alike by every reader", remedy)
        # As a key, `y` is a text to both readers, and DVC's plots have that key.
        if _BOOLEAN_OF_1_1.fullmatch(text) and not (is_key and text in ("y", "n", "Y", "N")):
            raise _refusal(self.where, node, key, f"{text} is a boolean to some readers", "write true or false, or quote it")
        if node.tag != _TEXT:
            kind = node.tag.rpartition(":")[2]
            raise _refusal(self.where, node, key, f"{text} is not read as a text ({kind})", "quote it")
        return text

    def _number(self, node: yaml.ScalarNode, key: tuple[str, ...]) -> int | float:
        try:
            number = int(node.value) if _WHOLE.fullmatch(node.value) else float(node.value)
            is_infinite = math.isinf(number)
        except (ValueError, OverflowError):  # no float, or more than the 4,300 digits that Python reads
            is_infinite = True
        if is_infinite:
            raise _refusal(self.where, node, key, f"a number that is too large ({node.value[:40]})", "write .inf if it is meant")
        return number
