"""The documentation is true where that can be checked: examples run, links lead somewhere, figures
are those of the records.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fairgate.__main__ import COMMANDS
from fairgate.support.files import read_json
from tests.project import REPOSITORY

DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *DOCS,
    *sorted((REPOSITORY / "docs/decisions").glob("*.md")),
]
COLUMNS = 100  # of prose
EXAMPLES = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in DOCS
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
    if "assert" in block
]
TERMS = ["stereotype pair", "SS", "LMS", "ICAT", "RTN", "GPTQ", "Fair-GPTQ", "alpha", "unit", "cluster", "harm", "margin", "cap"]
TERMS += ["floor", "open", "inconclusive", "recipe", "reference", "candidate", "role", "gate set", "development set"]
name_of = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _words(name: str) -> str:
    """A page as one line."""
    return " ".join(_text(REPOSITORY / name).split())


def _records(name: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in read_json(REPOSITORY / f"benchmarks/results/{name}.json")}


def test_there_are_pages_and_an_example() -> None:
    assert {page.stem for page in DOCS} >= {"architecture", "footguns", "glossary", "methods", "operations"}
    assert EXAMPLES


@pytest.mark.parametrize("block", EXAMPLES)
def test_example(block: str) -> None:
    exec(compile(block, "example", "exec"), {})


@name_of
def test_links_and_paths_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", _text(page), flags=re.M | re.S)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), f"{target}#{anchor}"
    for path in re.findall(r"`((?:fairgate|stages|flows|experiments|examples|tests|benchmarks|docs)/[\w./-]*)`", text):
        assert (REPOSITORY / path).exists(), path


def _anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", _text(page), re.M)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


@name_of
def test_commands_exist(page: Path) -> None:
    text = _text(page)
    targets = set(re.findall(r"^([a-z-]+):", _text(REPOSITORY / "Makefile"), re.M))
    assert set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text, re.M)) <= targets
    assert set(re.findall(r"`(?:python -m )?fairgate ([a-z]+)", text)) <= set(COMMANDS)
    for module in re.findall(r"python -m ((?:fairgate|stages|flows|experiments|benchmarks|examples)(?:\.\w+)+)", text):
        path = REPOSITORY / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


@name_of
def test_prose_is_wrapped(page: Path) -> None:
    """Tables, code, pictures and the sections that a script writes may have longer lines."""
    prose = re.sub(r"^<!-- ([\w-]+) -->\n.*?^<!-- /\1 -->\n|^ *```.*?^ *```", "", _text(page), flags=re.M | re.S)
    long = [line for line in prose.splitlines() if len(line) > COLUMNS and not re.match(r" *\||!\[|<!--|    \S", line)]
    assert long == []


def test_the_readme_is_short_and_is_the_door() -> None:
    text = _text(REPOSITORY / "README.md")
    assert text.count("\n") <= 100
    for answer in ("`round_columns`", "stages/quantize/core/columns.py", "| `inconclusive` |", "(examples/add_a_benchmark)"):
        assert answer in text


def test_the_glossary_explains_the_terms() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (?!---|meaning)", _text(REPOSITORY / "docs/glossary.md"), re.M)
    assert set(TERMS) <= {term.strip() for row in rows for term in row.split(",")}


def test_the_three_numbers_of_the_readme_are_those_of_the_records() -> None:
    text, learned, speed = _words("README.md"), _records("fair_rounding"), _records("quantize_7b")
    ss = learned["ss"]
    assert f"{ss['value']:.1f} [{ss['low']:.1f}, {ss['high']:.1f}] at {learned['ppl_ratio']['value']:.2f}× perplexity" in text
    met = [row["details"]["met"] for row in learned.values() if "met" in row["details"]]
    assert (met.count(False), len(met)) == (6, 8)
    assert "six of eight targets missed" in text
    assert f"{speed['quantize_7b_pairs_term_alone_s']['value']:.1f} s; plain GPTQ {speed['quantize_7b_plain_s']['value']:.1f} s" in text
    factors = [speed[f"speedup_vs_gptqmodel{batches}"]["value"] for batches in ("_batches_128", "_batches_32", "")]
    told = f"{factors[2]:.0f} times as fast as GPTQModel in its batches of 8, {factors[0]:.0f} times in batches of 128"
    assert told in text
    assert [factor >= 20 for factor in factors] == [False, False, True]


@pytest.mark.slow
def test_api_pages_are_built_from_the_docstrings(tmp_path: Path) -> None:
    recipe = subprocess.run(
        ["make", "--dry-run", "--assume-old=.venv/installed-dev", "docs"], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE
    )
    words = recipe.stdout.decode().splitlines()[-1].split()[1:]
    words[words.index("build/docs")] = str(tmp_path)
    subprocess.run([sys.executable, *words], cwd=REPOSITORY, check=True, timeout=500)
    page = _text(tmp_path / "stages/quantize/core/columns.html")
    assert "round_columns" in page
    assert "Algorithm 1" in page
    for folder in ("fairgate", "stages/quantize/core", "stages/quantize/methods"):
        modules = [path for path in (REPOSITORY / folder).rglob("*.py") if not path.name.startswith("__")]
        missing = [path for path in modules if not (tmp_path / path.relative_to(REPOSITORY).with_suffix(".html")).is_file()]
        assert missing == []


def test_the_suite_is_told_as_it_was_measured() -> None:
    """Items and seconds, and SoFa-style as missing for as long as it is."""
    suite, text = _records("evaluate_gpu")["likelihood_suite_smollm2_s"], _words("docs/performance.md")
    assert f"{suite['details']['items']:,} items" in text
    assert f"{suite['value']:.1f} s" in text
    assert ("SoFa-style" in text) == ("sofa_style" in suite["details"]["skipped"])
