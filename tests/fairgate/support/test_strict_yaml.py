"""The reader agrees with DVC's on every document that it takes, and says line and key of others."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import YAMLFileCorruptedError, load_yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairgate.support.errors import FairgateError, MissingFile
from fairgate.support.strict_yaml import is_plain_text, parse_yaml, read_yaml
from tests.project import REPOSITORY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipes:\n  fair:\n    alpha: 0.1\n    alpha: 7.5\n", r"f:4: recipes\.fair\.alpha: stands twice \(first in line 3\)"),
        ("a: {b: 1, 'b': 2}", "f:1: a.b: stands twice"),
        ("x: &x {k: 1}\na: {<<: *x, <<: *x}", "f:2: a.<<: stands twice"),
        ("calibrate:\n  seed: 010", r"f:2: calibrate\.seed: 010 is not read alike"),
        ("a: 1_000", "1_000 is not read alike"),
        ("a: 0o17", "0o17 is not read alike"),
        ("a: 0x1F", "0x1F is not read alike"),
        ("a: 1e-3", "1e-3 is not read alike.*\n.*1.0e.3"),
        ("a: 12:30", "a: 12:30 is not read as a text"),
        ("a: [1, gpt:2]", r"a colon inside brackets \(gpt:2\)"),
        ("a: 2026-11-30", "2026-11-30 is not read as a text"),
        ("matrix: [rtn, no]", r"matrix\.1: no is a boolean to some readers"),
        ("a: On", "On is a boolean"),
        ("a: y", "y is a boolean"),
        ("recipes:\n  no: {}", "f:2: recipes: no is a boolean"),
        ("recipes: {null: {}}", "recipes: a key that is no text \\(null\\)"),
        ("1: a", "a key that is no text"),
        ("? [a]\n: 1", "a key that is no text"),
        ("a: !!str 5", "a tag"),
        ("a: !!python/name:os.system", "a tag"),
        ("%YAML 1.1\n---\na: 1", "a directive"),
        ("a: &x [*x]", r"a\.0: a value that holds itself"),
        ("a: 1.0e+999", "too large"),
        (f"a: {'9' * 5000}", "too large"),
        (f"a: -{'9' * 400}", "too large"),
        ("a: " + "[" * 5000, "nested more than 100 levels deep"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("<<: 3", "<<: is no mapping"),
    ],
)
def test_what_is_ambiguous_is_refused_with_line_and_key(text: str, said: str) -> None:
    with pytest.raises(FairgateError, match=said):
        parse_yaml(text, where="f")


def test_aliases_that_stand_for_millions_of_values_are_refused() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))]
    with pytest.raises(FairgateError, match="more than 1,000,000 values"):
        parse_yaml("\n".join(lines), where="f")


def test_an_ordinary_document_reads_as_it_looks() -> None:
    text = """
    gptq: &gptq {method: gptq, bits: 4, y: null}
    fair: {<<: *gptq, bits: 3, alpha: 0.1, rate: 1.0e-3, small: .5, none: ~, flag: true}
    texts: ["no", '010', 3.8.8, gpt-2, none, "2026-11-30"]
    reason: >-
      two
      lines
    """
    assert parse_yaml(text, where="f") == {
        "gptq": {"method": "gptq", "bits": 4, "y": None},
        "fair": {"method": "gptq", "bits": 3, "y": None, "alpha": 0.1, "rate": 0.001, "small": 0.5, "none": None, "flag": True},
        "texts": ["no", "010", "3.8.8", "gpt-2", "none", "2026-11-30"],
        "reason": "two lines",
    }


def test_a_tag_stays_text_where_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("doc_to_text: !function hooks.text\n")
    assert read_yaml(tmp_path / "task.yaml", tags=("!function",)) == {"doc_to_text": "hooks.text"}
    with pytest.raises(MissingFile, match="no such file"):
        read_yaml(tmp_path / "other.yaml")


def test_every_yaml_file_of_the_repository_passes_with_the_values_of_the_former_reader() -> None:
    listed = subprocess.run(["git", "ls-files", "*.yaml"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    files = [file for file in listed if not file.startswith((".github/", "fairgate/benchmarks/", "examples/"))]  # GitHub's `on`; tags
    assert "params.yaml" in files and "dvc.yaml" in files
    for file in files:
        assert read_yaml(REPOSITORY / file) == yaml.safe_load((REPOSITORY / file).read_text(encoding="utf-8")), file


@pytest.mark.parametrize(
    ("text", "plain"), [("smollm2-135m-instruct", True), ("./model 甲", True), ("no", False), ("a: b", False), ("1e3", False)]
)
def test_a_text_that_needs_quotes_is_told(text: str, plain: bool) -> None:
    assert is_plain_text(text) is plain


NUMBERS = st.text("0123456789_+-.:eExobaf", min_size=1, max_size=8)
WORDS = st.sampled_from(
    [
        "y",
        "No",
        "ON",
        "off",
        "true",
        "Null",
        "~",
        "",
        "=",
        "<<",
        "null",
        "2026-11-30",
        "2026-1-3 1:2:3",
        "0o7",
        ".inf",
        "-.INF",
        ".nan",
        "+.5",
        "'<<'",
    ]
)
SCALARS = NUMBERS | WORDS | st.text("ab'\" \t#:,-", max_size=6)
SHAPES = st.sampled_from(
    ["k: {0}\n", "- {0}\n", "k: [{0}, {1}]\n", "{{{0}: {1}}}\n", "{0}: {1}\n{1}: 1\n", "k: &x {0}\nl: *x\n",
     "k: &x {{a: {0}}}\nl: {{<<: *x, b: {1}}}\n", "{0}\n"]
)  # fmt: skip
DOCUMENTS = st.builds(lambda shape, first, second: shape.format(first, second), SHAPES, SCALARS, SCALARS)
NOISE = st.text("ab01_.~<=y \n\n:-?[]{}&*!|>'\"#%@`,\t\r\ufeff\x85\u2028é", max_size=24)


@settings(max_examples=500, deadline=None)
@given(DOCUMENTS | NOISE)
@example("a: 0b1_0")
@example("\ufeffa: 1")
@example("k: &x {a: 1}\nl: {'<<': *x}\n")
@example("k: &x 1\nl: &x 2\nm: *x\n")
def test_whatever_is_taken_has_the_value_that_dvc_reads(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "generated.yaml"
    path.write_bytes(text.encode())
    try:
        ours = read_yaml(path)
    except FairgateError:
        return
    assert spelled(ours or {}) == spelled(load_yaml(path))  # DVC takes an empty document for an empty mapping


def spelled(value: Any) -> str:
    """The value with its types: 1, 1.0 and true are equal to Python."""
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{spelled(name)}: {spelled(inner)}" for name, inner in value.items())) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(spelled(inner) for inner in value) + "]"
    return repr(value)


def test_dvc_does_refuse_or_differ_where_this_reader_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\na: 2\n")
    with pytest.raises(YAMLFileCorruptedError):
        load_yaml(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("a: 010\nb: no\n")
    assert load_yaml(tmp_path / "a.yaml") == {"a": 10, "b": "no"}
    assert yaml.safe_load("a: 010\nb: no\n") == {"a": 8, "b": False}
