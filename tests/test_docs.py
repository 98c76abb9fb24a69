"""The documentation is true where that can be checked: examples run, links and paths lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fairgate.support.files import read_json
from tests.project import REPOSITORY

DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
EXAMPLES = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in DOCS
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
    if "assert" in block
]


def test_there_are_pages_and_an_example() -> None:
    assert {page.stem for page in DOCS} >= {"architecture", "footguns", "methods", "operations"}
    assert EXAMPLES


@pytest.mark.parametrize("block", EXAMPLES)
def test_example(block: str) -> None:
    exec(compile(block, "example", "exec"), {})


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), f"{target}#{anchor}"
    for path in re.findall(r"`((?:stages|flows|tests|benchmarks|docs)/[\w./-]*)`", text):
        assert (REPOSITORY / path).exists(), path


def _anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", ["README.md", "docs/performance.md"])
def test_the_suite_is_told_as_it_was_measured(page: str) -> None:
    """Items and seconds, and SoFa-style as missing for as long as it is."""
    records = {row["name"]: row for row in read_json(REPOSITORY / "benchmarks/results/evaluate_gpu.json")}
    suite, text = records["likelihood_suite_smollm2_s"], " ".join((REPOSITORY / page).read_text(encoding="utf-8").split())
    assert f"{suite['details']['items']:,} items" in text
    assert f"{suite['value']:.1f} s" in text
    assert ("SoFa-style" in text) == ("sofa_style" in suite["details"]["skipped"])
